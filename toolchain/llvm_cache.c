/* Stands for clang and LLVM's readers while CPython makes the JIT's stencils: some 3,700 calls of the same four
 * programs, whose output is the same for the same input. Under every name it runs the real program of that name, from
 * CROSSJIT_LLVM, unless CROSSJIT_CACHE has what that would print and write.
 *
 * A cache key is all that the output depends on: the real program with its arguments, the folder that it runs in, the
 * toolchain (CROSSJIT_TOOLCHAIN), the input file and, for C, all headers of the source (a digest that build_cache.py has
 * written). CPython works in a folder with a random name: MARK stands for it in what is kept. An entry of the cache
 * holds its key whole and is used for no other, so that its file's name need only be an unlikely one. It ends with a
 * sum, so that a damaged entry is not used.
 *
 * What CROSSJIT_CACHE does not have CROSSJIT_CACHE_BELOW may, which is only read.
 *
 * What fails, warns or writes a file that names the folder is not kept. Where anything is in the way of a lookup or of
 * keeping an entry, the real program does it all.
 *
 * What is not kept the real program's server does, where one listens in CROSSJIT_LLVM_SERVERS (llvm_forkserver.c). It
 * decides nothing: what does not end well there is run once more without it. What the inputs begin with clang reads
 * once, precompiled in CROSSJIT_PREAMBLES, where there is such a folder. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORMAT "crossjit llvm 2\n"
#define MARK "\1" /* of one byte: nothing beside it can make another one with it */
#define OPCODE "-D_JIT_OPCODE=" /* what a stencil's uop is named by */

/* Bytes, of which there may be any number. */
struct text {
    char *bytes;
    size_t size, room;
};

/* What an entry ends with, after the key, what was printed, and the file that was written. If they do not fill the
 * entry by these sizes, it is that of a longer key, which begins the same. */
struct end {
    uint64_t printed, written, sum; /* two sizes, and the sum of all before it */
};

static bool exhausted; /* memory is: some text lacks something, and none is to be relied on */

static void add(struct text *text, const void *bytes, size_t size)
{
    if (text->room - text->size < size) {
        size_t room = 2 * text->room + size + 4096;
        char *larger = realloc(text->bytes, room);
        if (!larger) {
            exhausted = true;
            return;
        }
        text->bytes = larger;
        text->room = room;
    }
    if (size)
        memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

/* Add bytes with every `old` replaced; an empty one is nowhere. */
static void add_replaced(struct text *text, const char *bytes, size_t size, const char *old, const char *new)
{
    const char *end = bytes + size, *found;
    while (*old && size && (found = memmem(bytes, end - bytes, old, strlen(old)))) {
        add(text, bytes, found - bytes);
        add(text, new, strlen(new));
        bytes = found + strlen(old);
    }
    add(text, bytes, end - bytes);
}

static bool add_file(struct text *text, const char *path)
{
    char bytes[1 << 16];
    struct stat about;
    ssize_t size = -1;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for, and no file */
    if (file < 0)
        return false;
    if (!fstat(file, &about) && S_ISREG(about.st_mode))
        while ((size = read(file, bytes, sizeof bytes)) > 0)
            add(text, bytes, size);
    close(file);
    return size == 0 && !exhausted;
}

static bool names(const struct text *text, const char *what)
{
    return *what && text->size && memmem(text->bytes, text->size, what, strlen(what));
}

/* Sum bytes up; no change of one word leaves it the same. */
static uint64_t sum(const char *bytes, size_t size, uint64_t seed)
{
    uint64_t result = seed + size, word;
    for (size_t at = 0; at < size; at += sizeof word) {
        word = 0;
        memcpy(&word, bytes + at, size - at < sizeof word ? size - at : sizeof word);
        result = (result ^ word) * 0x9e3779b97f4a7c15;
        result ^= result >> 32;
    }
    return result;
}

static bool put(int file, const char *bytes, size_t size)
{
    while (size) {
        ssize_t done = write(file, bytes, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return false;
        bytes += done;
        size -= done;
    }
    return true;
}

/* Pass on what the real program prints; where that cannot be, it would have failed itself. */
static void say(int file, const char *bytes, size_t size)
{
    if (!put(file, bytes, size))
        exit(EXIT_FAILURE);
}

static _Noreturn void run_instead(char **argv)
{
    execv(argv[0], argv);
    int status = errno == ENOENT ? 127 : 126; /* as a shell has it */
    perror(argv[0]);
    exit(status);
}

static bool ends_with(const char *name, const char *end)
{
    size_t size = strlen(name), length = strlen(end);
    return size >= length && !strcmp(name + size - length, end);
}

static bool is_input(const char *argument)
{
    return *argument != '-' && (ends_with(argument, ".c") || ends_with(argument, ".s") || ends_with(argument, ".ll") ||
                                ends_with(argument, ".o"));
}

/* Find the input, what is written, and the folder that MARK is to stand for; false if this is no call to be kept. */
static bool look(char **argv, const char **input, const char **output, const char **folder)
{
    for (char **each = argv + 1; *each; each++) {
        const char *found = strstr(*each, "/tmp/tmp");
        if (found && !**folder)
            *folder = strndup(found, 8 + strspn(found + 8, "abcdefghijklmnopqrstuvwxyz0123456789_"));
        if (!*folder || strstr(*each, MARK))
            return false;
        if (!strcmp(each[-1], "-o")) {
            *output = *each;
        } else if (is_input(*each)) {
            if (*input)
                return false; /* CPython gives one, and no more are read here */
            *input = *each;
        }
    }
    /* a compiler that is not told where to write finds a place by itself */
    return *input && (*output || !ends_with(argv[0], "/clang"));
}

/* Put the cache key together, and read the input for it; false if something of it cannot be told. No two keys come to
 * the same bytes: from their end it is known where each file begins, and before that are texts that end with a zero. */
static bool make_key(struct text *key, char **argv, const char *input, const char *folder, struct text *content)
{
    const char *toolchain = getenv("CROSSJIT_TOOLCHAIN"), *headers = getenv("CROSSJIT_HEADERS");
    char here[PATH_MAX];
    uint64_t begins[2];
    if (!toolchain || !getcwd(here, sizeof here))
        return false;
    add(key, FORMAT, strlen(FORMAT));
    add(key, toolchain, strlen(toolchain) + 1);
    add(key, here, strlen(here) + 1);
    for (char **each = argv; *each; each++)
        add_replaced(key, *each, strlen(*each) + 1, folder, MARK);
    begins[0] = key->size;
    if (ends_with(input, ".c") && !(headers && add_file(key, headers)))
        return false;
    begins[1] = key->size;
    if (!add_file(content, input))
        return false;
    add(key, content->bytes, content->size);
    add(key, begins, sizeof begins);
    return !exhausted;
}

/* Look a key up in an entry's file, and print and write what the entry has; false if it is not that key's. */
static bool lookup(const char *kept, const struct text *key, const char *output, const char *folder)
{
    struct text entry = {0}, printed = {0};
    struct end end;
    if (!add_file(&entry, kept) || entry.size < key->size + sizeof end ||
        memcmp(entry.bytes, key->bytes, key->size))
        return false;
    const char *from = entry.bytes + key->size;
    size_t size = entry.size - key->size - sizeof end;
    memcpy(&end, from + size, sizeof end);
    if (end.sum != sum(entry.bytes, entry.size - sizeof end.sum, 0) || end.printed > size ||
        end.written != size - end.printed)
        return false;
    add_replaced(&printed, from, end.printed, *folder ? MARK : "", folder);
    if (exhausted)
        return false;
    if (output) {
        int file = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        bool done = file >= 0 && put(file, from + end.printed, end.written);
        if (file < 0 || close(file) || !done)
            return false;
    }
    utimensat(AT_FDCWD, kept, NULL, 0); /* build_cache.py removes what was used longest ago */
    say(STDOUT_FILENO, printed.bytes, printed.size);
    return true;
}

/* Have the program's server run it; return a connection that tells how it ends, or -1 if there is no such server. Once
 * it has the whole request it may run it, whatever comes after. */
static int request_server(char **argv, int out, int err)
{
    const char *servers = getenv("CROSSJIT_LLVM_SERVERS"), *name = strrchr(argv[0], '/');
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char here[PATH_MAX], numbers[64];
    struct text request = {0};
    size_t words = 0, variables = 0;
    int connection;
    if (!servers || strlen(servers) + strlen(name) >= sizeof address.sun_path || !getcwd(here, sizeof here))
        return -1;
    sprintf(address.sun_path, "%s%s", servers, name);
    while (argv[words])
        words++;
    while (environ[variables])
        variables++;
    add(&request, here, strlen(here) + 1);
    add(&request, numbers, sprintf(numbers, "%zu %zu", words, variables) + 1);
    for (char **each = argv; *each; each++)
        add(&request, *each, strlen(*each) + 1);
    for (char **each = environ; *each; each++)
        add(&request, *each, strlen(*each) + 1);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(3 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), (int[]){STDIN_FILENO, out, err}, 3 * sizeof(int));
    struct iovec from = {request.bytes, request.size};
    struct msghdr message = {.msg_iov = &from, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = sizeof control};
    if (exhausted || (connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
        return -1;
    if (connect(connection, (struct sockaddr *)&address, sizeof address) ||
        sendmsg(connection, &message, MSG_NOSIGNAL) != (ssize_t)request.size) {
        close(connection);
        return -1;
    }
    shutdown(connection, SHUT_WR);
    return connection;
}

/* Take what is printed to two pipes to their ends, and pass it on unless it is to be quiet. */
static void take(int out, int err, bool quiet, struct text *printed, struct text *complaints)
{
    struct pollfd from[] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    char bytes[1 << 16];
    while (from[0].fd >= 0 || from[1].fd >= 0) {
        if (poll(from, 2, -1) < 0)
            continue; /* a debugger, or Ctrl-Z */
        for (int each = 0; each < 2; each++) {
            if (!from[each].revents)
                continue;
            ssize_t size = read(from[each].fd, bytes, sizeof bytes);
            if (size > 0) {
                add(each ? complaints : printed, bytes, size);
                if (!quiet)
                    say(each ? STDERR_FILENO : STDOUT_FILENO, bytes, size);
            } else if (!size || errno != EINTR) {
                from[each].fd = -1;
            }
        }
    }
    close(out);
    close(err);
}

/* Have the server run it, quietly; false if there is none, or if it ended in any way but well. */
static bool run_served(char **argv, struct text *printed, struct text *complaints)
{
    int out[2], err[2], server, status = -1;
    if (!getenv("CROSSJIT_LLVM_SERVERS") || pipe2(out, O_CLOEXEC))
        return false;
    if (pipe2(err, O_CLOEXEC)) {
        close(out[0]);
        close(out[1]);
        return false;
    }
    server = request_server(argv, out[1], err[1]);
    close(out[1]);
    close(err[1]);
    take(out[0], err[0], true, printed, complaints);
    bool told = server >= 0 && read(server, &status, sizeof status) == sizeof status;
    if (server >= 0)
        close(server);
    return told && !status && !exhausted;
}

/* Run the real program, pass on what it prints unless it is to be quiet, and return its exit status, as a shell has it;
 * a negative one if it cannot be started like that. */
static int run(char **argv, bool quiet, struct text *printed, bool *complained)
{
    int out[2], err[2], status;
    pid_t child;
    struct text complaints = {0};
    posix_spawn_file_actions_t actions;
    if (run_served(argv, printed, &complaints)) {
        *complained = complaints.size;
        if (!quiet) {
            say(STDOUT_FILENO, printed->bytes, printed->size);
            say(STDERR_FILENO, complaints.bytes, complaints.size);
        }
        return 0;
    }
    printed->size = complaints.size = 0;
    signal(SIGCHLD, SIG_DFL); /* who started this may not have cared how it ends */
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO) ||
        posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO) ||
        posix_spawn(&child, argv[0], &actions, NULL, argv, environ))
        return -1;
    close(out[1]);
    close(err[1]);
    take(out[0], err[0], quiet, printed, &complaints);
    *complained = complaints.size;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Return the size of a C text's preamble: the lines before all others that include a file, and no more. */
static size_t preamble_of(const struct text *text)
{
    const size_t prefix = strlen("#include ");
    const char *at = text->bytes, *end = at + text->size, *line_end;
    size_t size = 0;
    for (; at < end && (line_end = memchr(at, '\n', end - at)); at = line_end + 1) {
        size_t length = line_end - at;
        if (!length)
            continue;
        if (length < prefix + 2 || memcmp(at, "#include ", prefix))
            break;
        char opens = at[prefix], closes = opens == '<' ? '>' : '"';
        if ((opens != '<' && opens != '"') || memchr(at + prefix + 1, closes, length - prefix - 1) != line_end - 1)
            break;
        size = line_end + 1 - text->bytes;
    }
    return size;
}

/* What clang does again and again for the stencils: nine tenths of its time is for their preamble, some thirty headers.
 * The calls differ in the uop, which a macro and the rest of the input name, and in their files. */
struct preamble {
    char header[PATH_MAX], new[PATH_MAX], precompiled[PATH_MAX], other[PATH_MAX];
    size_t size;       /* of the preamble in the input */
    char **precompile; /* the arguments of that, which all calls for stencils share */
    char bytes[64];
};

/* Find the place in CROSSJIT_PREAMBLES for this call's preamble; false if this is no such call: CPython writes the
 * input of a stencil into its folder, while the shim's is of the source, as is that of all stencils of 3.13. build_cache.py
 * makes CROSSJIT_PREAMBLES if no header asks for the macro, so that a preamble is the same whichever the uop is. */
static bool find_preamble(struct preamble *found, char **argv, const char *input, const struct text *text,
                          const char *output, const char *folder)
{
    const char *preambles = getenv("CROSSJIT_PREAMBLES");
    struct text key = {0};
    char here[PATH_MAX];
    size_t words = 0, shared = 0;
    bool stencil = false;
    if (!preambles || strlen(preambles) + 64 > sizeof found->header || access(preambles, W_OK) || !output ||
        !ends_with(input, ".c") || !*folder || strncmp(input, folder, strlen(folder)) || !getcwd(here, sizeof here) ||
        !(found->size = preamble_of(text)))
        return false;
    while (argv[words])
        words++;
    found->precompile = calloc(words + 6, sizeof *argv); /* a few words more, and a null */
    if (!found->precompile)
        return false;
    add(&key, here, strlen(here) + 1);
    for (char **each = argv; *each; each++) {
        if (!strncmp(*each, OPCODE, strlen(OPCODE))) {
            stencil = true;
        } else if (*each != input && *each != output && strcmp(*each, "-o") && strcmp(*each, "-S") &&
                   strcmp(*each, "-c")) {
            found->precompile[shared++] = *each;
            add(&key, *each, strlen(*each) + 1);
        }
    }
    add(&key, text->bytes, found->size);
    if (!stencil || exhausted)
        return false;
    uint64_t one = sum(key.bytes, key.size, 1), other = sum(key.bytes, key.size, 2);
    int length = sprintf(found->header, "%s/%016" PRIx64 "%016" PRIx64 ".h", preambles, one, other) - 2;
    sprintf(found->new, "%.*s.new", length, found->header);
    sprintf(found->precompiled, "%.*s.pch", length, found->header);
    sprintf(found->other, "%.*s.out", length, found->header);
    char *more[] = {"-x", "c-header", "-o", found->new, found->header};
    memcpy(found->precompile + shared, more, sizeof more);
    sprintf(found->bytes, "-preamble-bytes=%zu,1", found->size);
    return true;
}

/* Run a call with its preamble precompiled, quietly, and have it write elsewhere, if not null; false if it has any
 * trouble. */
static bool run_with(struct preamble *preamble, char *precompiled, char **argv, const char *output, char *elsewhere,
                     struct text *printed)
{
    char *more[] = {"-include-pch", precompiled, "-Xclang", preamble->bytes, NULL}, **call;
    bool complained = false;
    size_t words = 0;
    while (argv[words])
        words++;
    if (!(call = malloc(words * sizeof *call + sizeof more)))
        return false;
    for (size_t each = 0; each < words; each++)
        call[each] = argv[each] == output && elsewhere ? elsewhere : argv[each];
    memcpy(call + words, more, sizeof more);
    return !run(call, true, printed, &complained) && !complained;
}

/* Precompile the preamble of a call that has just run without. It is there for others once the same call came to the
 * same bytes with it, and nothing was said. */
static void precompile(struct preamble *preamble, char **argv, const char *output)
{
    struct text printed = {0}, plain = {0}, same = {0};
    bool complained = false;
    if (!run(preamble->precompile, true, &printed, &complained) && !complained &&
        run_with(preamble, preamble->new, argv, output, preamble->other, &printed) && !printed.size &&
        add_file(&plain, output) && add_file(&same, preamble->other) && plain.size == same.size &&
        !memcmp(plain.bytes, same.bytes, same.size))
        rename(preamble->new, preamble->precompiled);
    unlink(preamble->new);
    unlink(preamble->other);
}

/* Run the real program as `run` does, with the preamble of a stencil precompiled, or precompile it for the others. */
static int run_fast(char **argv, const char *input, const struct text *text, const char *output, const char *folder,
                    struct text *printed, bool *complained)
{
    static struct preamble preamble;
    int header = -1;
    if (find_preamble(&preamble, argv, input, text, output, folder)) {
        if (!access(preamble.precompiled, R_OK)) {
            if (run_with(&preamble, preamble.precompiled, argv, output, NULL, printed)) {
                say(STDOUT_FILENO, printed->bytes, printed->size);
                return 0;
            }
            printed->size = 0; /* it has its trouble, if it has, in its own words */
        } else {
            header = open(preamble.header, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); /* one makes it */
        }
    }
    int status = run(argv, false, printed, complained);
    if (header >= 0 && put(header, text->bytes, preamble.size) && !close(header) && !status && !*complained)
        precompile(&preamble, argv, output);
    return status;
}

/* Say where a cache has an entry; false if there is no such cache, or no such path. */
static bool place(char *path, const char *cache, const char *name)
{
    return cache && (size_t)snprintf(path, PATH_MAX, "%s/%s", cache, name) < PATH_MAX;
}

/* Keep an entry, under another name first, so that nobody finds half of it. What cannot be kept is not. */
static void keep(char *kept, const struct text *entry)
{
    char new[PATH_MAX + 8];
    for (char *slash = strchr(kept + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(kept, 0777);
        *slash = '/';
    }
    sprintf(new, "%s.XXXXXX", kept);
    int file = mkostemp(new, O_CLOEXEC);
    if (file < 0)
        return;
    bool done = put(file, entry->bytes, entry->size);
    if (close(file) || !done || rename(new, kept))
        unlink(new);
}

/* Write down a hit or a miss, for build_cache.py's report. */
static void note(const char *line)
{
    const char *log = getenv("CROSSJIT_CACHE_LOG");
    int file = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (file >= 0)
        put(file, line, strlen(line));
}

int main(int argc, char **argv)
{
    const char *llvm = getenv("CROSSJIT_LLVM"), *cache = getenv("CROSSJIT_CACHE");
    const char *input = NULL, *output = NULL, *folder = "";
    char real[PATH_MAX], kept[PATH_MAX];
    struct text content = {0}, entry = {0}, printed = {0}, written = {0};
    bool complained = false;
    if (!argc || !llvm) {
        fputs("CROSSJIT_LLVM does not say where LLVM is\n", stderr);
        return 127;
    }
    const char *tool = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    const char *version = strrchr(tool, '-'); /* clang-21 is clang */
    int length = version && strchr("0123456789", version[1]) ? version - tool : (int)strlen(tool);
    snprintf(real, sizeof real, "%s/bin/%.*s", llvm, length, tool);
    argv[0] = real;
    if (!cache || !*cache || !look(argv, &input, &output, &folder) || !make_key(&entry, argv, input, folder, &content))
        run_instead(argv);

    size_t key_size = entry.size;
    uint64_t one = sum(entry.bytes, key_size, 1), other = sum(entry.bytes, key_size, 2);
    char name[64];
    sprintf(name, "llvm/%02" PRIx64 "/%014" PRIx64 "%016" PRIx64, one >> 56, one << 8 >> 8, other);
    if ((place(kept, cache, name) && lookup(kept, &entry, output, folder)) ||
        (place(kept, getenv("CROSSJIT_CACHE_BELOW"), name) && lookup(kept, &entry, output, folder))) {
        note("llvm hit\n");
        return 0;
    }
    if (!place(kept, cache, name))
        run_instead(argv);
    int status = run_fast(argv, input, &content, output, folder, &printed, &complained);
    if (status < 0)
        run_instead(argv);
    if (status)
        return status;
    note("llvm miss\n");
    if (complained || names(&printed, MARK) || (output && !add_file(&written, output)) || names(&written, folder))
        return 0;
    add_replaced(&entry, printed.bytes, printed.size, folder, MARK);
    struct end end = {entry.size - key_size, written.size, 0};
    add(&entry, written.bytes, written.size);
    add(&entry, &end, sizeof end - sizeof end.sum);
    end.sum = sum(entry.bytes, entry.size, 0);
    add(&entry, &end.sum, sizeof end.sum);
    if (!exhausted)
        keep(kept, &entry);
    return 0;
}
