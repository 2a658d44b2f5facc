/* What llvm_cache.c makes of its arguments, of an entry of the cache, and of an input's beginning. The first byte says which. */
#define main program_main
#include "llvm_cache.c"
#undef main
#include <sys/mman.h>

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* An argument is what a zero ends. */
static void arguments(char *texts, size_t size, const struct text *content)
{
    static struct preamble preamble;
    const char *input = NULL, *output = NULL, *folder = "";
    char *words[64], **word = words;
    *word++ = "/llvm/bin/clang";
    for (size_t at = 0; at < size && word < words + 63; at += strlen(texts + at) + 1)
        *word++ = texts + at;
    *word = NULL;
    if (!parse_call(words, &input, &output, &folder))
        return;
    require(input && is_input(input) && output);
    if (find_preamble(&preamble, words, input, content, output, folder))
        require(preamble.size && preamble.size <= content->size && content->bytes[preamble.size - 1] == '\n');
    free(preamble.precompile);
    preamble.precompile = NULL;
}

static void beginning(const struct text *text)
{
    size_t size = preamble_of(text);
    require(size <= text->size && (!size || text->bytes[size - 1] == '\n'));
    for (size_t at = 0; at < size; at = (char *)memchr(text->bytes + at, '\n', size - at) + 1 - text->bytes)
        require(text->bytes[at] == '\n' || !memcmp(text->bytes + at, "#include ", 9));
}

static void replaced(const struct text *text)
{
    struct text there = {0}, back = {0};
    if (contains(text, MARK))
        return;
    add_replaced(&there, text->bytes, text->size, "/tmp/tmp1", MARK);
    require(!contains(&there, "/tmp/tmp1"));
    add_replaced(&back, there.bytes, there.size, MARK, "/tmp/tmp1");
    require(back.size == text->size && (!back.size || !memcmp(back.bytes, text->bytes, back.size)));
    free(there.bytes);
    free(back.bytes);
}

/* An entry that is of no key, and one that ends as an entry does, of sizes that are the input's. */
static void entry(const struct text *text, uint64_t printed, uint64_t written, bool sealed)
{
    static const char bytes[] = "some key";
    struct text key = {(char *)bytes, 8, 8}, kept = {0};
    struct trailer end = {printed, written, 0};
    static int file = -1;
    char path[64];
    if (file < 0)
        file = memfd_create("entry", 0);
    if (sealed) {
        add(&kept, bytes, 8);
        add(&kept, text->bytes, text->size);
        add(&kept, &end, sizeof end - sizeof end.sum);
        end.sum = sum(kept.bytes, kept.size, 0);
        add(&kept, &end.sum, sizeof end.sum);
    } else {
        add(&kept, text->bytes, text->size);
    }
    require(!ftruncate(file, 0) && pwrite(file, kept.bytes, kept.size, 0) == (ssize_t)kept.size);
    sprintf(path, "/proc/self/fd/%d", file);
    bool hit = lookup(path, &key, "/dev/null", "/tmp/tmp1");
    require(!hit || kept.size >= 8 + sizeof end);
    if (sealed)
        require(hit == (printed <= text->size && written == text->size - printed));
    free(kept.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool begun;
    if (!begun) {
        begun = true;
        setenv("CROSSJIT_PREAMBLES", "/tmp", 1);
        require(freopen("/dev/null", "w", stdout) != NULL);
    }
    if (size < 18)
        return 0;
    uint64_t sizes[2];
    memcpy(sizes, data + 1, sizeof sizes);
    char *bytes = malloc(size - 16);
    memcpy(bytes, data + 17, size - 17);
    bytes[size - 17] = 0; /* after a path, a zero; after the rest, nothing is read */
    struct text text = {bytes, size - 17, size - 16};
    switch (data[0] % 5) {
    case 0:
        arguments(bytes, text.size, &(struct text){"#include <a.h>\nx", 16, 16});
        break;
    case 1:
        beginning(&text);
        break;
    case 2:
        replaced(&text);
        break;
    default:
        entry(&text, sizes[0], sizes[1], data[0] % 5 == 3);
    }
    free(bytes);
    require(!exhausted);
    return 0;
}
