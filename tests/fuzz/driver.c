/* Fuzzes a target that has libFuzzer's entry point, with no more than gcc: changes inputs at random, and goes on with
 * those that reach code which none has reached before (the target is compiled with -fsanitize-coverage=trace-pc).
 *
 *     driver SECONDS SEED CURRENT WORD…
 *
 * WORDs are where it begins, and are put into inputs. The input that is tried stands in the file CURRENT, which has it
 * after a crash: a size in 4 bytes, and the bytes. Prints how many were tried and how many are gone on with. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LARGEST 4096
#define MOST 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    uint32_t size;
    uint8_t bytes[LARGEST];
} *tried, *kept[MOST];
static size_t count;
static uint8_t reached[1 << 16], seen[1 << 16];
static uint16_t places[1 << 16]; /* that this input reached: so many */
static size_t reaches;
static uint64_t state;

void __sanitizer_cov_trace_pc(void)
{
    static uint64_t before;
    uint64_t here = (uintptr_t)__builtin_return_address(0) * 0x9e3779b97f4a7c15 >> 48;
    uint16_t place = here ^ before;
    if (!reached[place]) {
        reached[place] = 1;
        places[reaches++] = place;
    }
    before = here >> 1;
}

static uint32_t random_below(uint32_t bound)
{
    state = state * 6364136223846793005 + 1442695040888963407;
    return bound ? (state >> 33) % bound : 0;
}

static void put(size_t at, const void *bytes, size_t size)
{
    if (tried->size + size > LARGEST)
        return;
    memmove(tried->bytes + at + size, tried->bytes + at, tried->size - at);
    memcpy(tried->bytes + at, bytes, size);
    tried->size += size;
}

static void change(char **words, int number)
{
    static const uint8_t edges[] = {0, 1, 9, 10, 32, 34, 45, 47, 57, 64, 127, 128, 255};
    size_t at = random_below(tried->size + 1), more = tried->size - at;
    uint8_t *byte = tried->bytes + at;
    switch (random_below(7)) {
    case 0:
        if (more)
            *byte ^= 1 << random_below(8);
        break;
    case 1:
        if (more)
            *byte = random_below(2) ? edges[random_below(sizeof edges)] : random_below(256);
        break;
    case 2: {
        size_t size = random_below(more + 1);
        memmove(byte, byte + size, more - size);
        tried->size -= size;
        break;
    }
    case 3: {
        uint8_t copy[64];
        size_t size = random_below(more < sizeof copy ? more + 1 : sizeof copy);
        memcpy(copy, byte, size);
        put(random_below(tried->size + 1), copy, size);
        break;
    }
    case 4: {
        const char *word = words[random_below(number)];
        put(at, word, strlen(word) + random_below(2)); /* with its zero, or without */
        break;
    }
    case 5:
        if (more >= 8)
            memcpy(byte, (uint64_t[]){random_below(3) ? random_below(64) : -(uint64_t)random_below(64)}, 8);
        break;
    default: {
        size_t other = random_below(count), from = random_below(kept[other]->size + 1);
        size_t size = kept[other]->size - from;
        memcpy(byte, kept[other]->bytes + from, size > LARGEST - at ? size = LARGEST - at : size);
        tried->size = at + size;
    }
    }
}

static void try(void)
{
    size_t new = 0;
    uint8_t *exact = malloc(tried->size ? tried->size : 1); /* so that whoever reads behind it is seen */
    memcpy(exact, tried->bytes, tried->size);
    LLVMFuzzerTestOneInput(exact, tried->size);
    free(exact);
    while (reaches) {
        uint16_t place = places[--reaches];
        reached[place] = 0;
        new |= !seen[place];
        seen[place] = 1;
    }
    if ((new || !count) && count < MOST) {
        kept[count] = malloc(sizeof **kept);
        memcpy(kept[count++], tried, sizeof **kept);
    }
}

int main(int argc, char **argv)
{
    unsigned long number = 0;
    if (argc < 5)
        return 2;
    int file = open(argv[3], O_RDWR | O_CREAT, 0666);
    if (file < 0 || ftruncate(file, sizeof *tried))
        return 2;
    tried = mmap(NULL, sizeof *tried, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (tried == MAP_FAILED)
        return 2;
    state = strtoull(argv[2], NULL, 10);
    time_t end = time(NULL) + atol(argv[1]);
    for (int each = 4; each < argc; each++) {
        tried->size = 0;
        put(0, argv[each], strlen(argv[each]));
        try();
    }
    for (; time(NULL) < end; number++) {
        memcpy(tried, kept[random_below(count)], sizeof *tried);
        for (uint32_t times = 1 + random_below(8); times; times--)
            change(argv + 4, argc - 4);
        try();
    }
    fprintf(stderr, "%lu %zu\n", number, count);
    return 0;
}
