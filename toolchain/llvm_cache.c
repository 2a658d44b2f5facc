/* A caching wrapper for clang and LLVM's object readers, for the JIT's stencils: some 3,700 calls of the same four
 * programs, with the same output for the same input. It is installed under the name of each program, and runs the real
 * one in CROSSJIT_LLVM unless CROSSJIT_CACHE has an entry with its output.
 *
 * A cache key has all inputs: the real program with its arguments, its working directory, the toolchain
 * (CROSSJIT_TOOLCHAIN), the input file and, for C, all headers of the source (a digest written by build_cache.py).
 * CPython works in a folder with a random name, which MARK replaces in keys and entries. An entry has its whole key, so
 * that a collision of file names is harmless. It ends with a checksum, which reveals damage.
 *
 * CROSSJIT_CACHE_BELOW is a second cache, which is only read.
 *
 * Calls that fail, warn or write a file with the folder's name are not cached. If a lookup or storing an entry is not
 * possible, the real program runs as usual.
 *
 * If a fork server of the program listens in CROSSJIT_LLVM_SERVERS (llvm_forkserver.c), it runs the uncached calls. It
 * never decides an outcome: a call that fails there runs again without it. If the folder CROSSJIT_PREAMBLES exists,
 * clang reads the common beginning of the inputs from a precompiled header there. */
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
#define MARK "\1" /* one byte, so that it cannot arise from a part of itself and adjacent bytes */
#define OPCODE "-D_JIT_OPCODE=" /* the macro that names a stencil's uop */

/* A growing buffer of bytes. */
struct text {
    char *bytes;
    size_t size, capacity;
};

/* The end of an entry, after the key, the printed text, and the written file. If the sizes do not match the entry's, it
 * belongs to a longer key with the same beginning. */
struct trailer {
    uint64_t printed, written, sum; /* two sizes, and the checksum of everything before it */
};

static bool exhausted; /* out of memory: some text is incomplete, so none can be used */

static void add(struct text *text, const void *bytes, size_t size)
{
    if (text->capacity - text->size < size) {
        size_t capacity = 2 * text->capacity + size + 4096;
        char *larger = realloc(text->bytes, capacity);
        if (!larger) {
            exhausted = true;
            return;
        }
        text->bytes = larger;
        text->capacity = capacity;
    }
    if (size)
        memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

/* Add bytes with every `old` replaced; an empty `old` is never found. */
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
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* does not wait for a pipe's writer */
    if (file < 0)
        return false;
    if (!fstat(file, &about) && S_ISREG(about.st_mode))
        while ((size = read(file, bytes, sizeof bytes)) > 0)
            add(text, bytes, size);
    close(file);
    return size == 0 && !exhausted;
}

static bool contains(const struct text *text, const char *what)
{
    return *what && text->size && memmem(text->bytes, text->size, what, strlen(what));
}

/* Return a checksum; any change of a single word changes it. */
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

static bool write_all(int file, const char *bytes, size_t size)
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

/* Print the real program's output; exit if that fails, as the program itself would. */
static void forward(int file, const char *bytes, size_t size)
{
    if (!write_all(file, bytes, size))
        exit(EXIT_FAILURE);
}

static _Noreturn void run_instead(char **argv)
{
    execv(argv[0], argv);
    int status = errno == ENOENT ? 127 : 126; /* as in a shell */
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

/* Find the input, the output, and the folder that MARK replaces; false if the call cannot be cached. */
static bool parse_call(char **argv, const char **input, const char **output, const char **folder)
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
                return false; /* CPython gives one, and only one is part of the key */
            *input = *each;
        }
    }
    /* without -o, clang chooses the output's name itself */
    return *input && (*output || !ends_with(argv[0], "/clang"));
}

/* Make the cache key, and read the input for it; false if a part is unavailable. Keys are unambiguous: their end says
 * where each file begins, and the texts before the files end with a zero. */
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

/* Look up a key in an entry's file, and print and write its output; false if the entry is invalid or of another key. */
static bool lookup(const char *path, const struct text *key, const char *output, const char *folder)
{
    struct text entry = {0}, printed = {0};
    struct trailer end;
    if (!add_file(&entry, path) || entry.size < key->size + sizeof end ||
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
        bool done = file >= 0 && write_all(file, from + end.printed, end.written);
        if (file < 0 || close(file) || !done)
            return false;
    }
    utimensat(AT_FDCWD, path, NULL, 0); /* the least recently used entries are removed first */
    forward(STDOUT_FILENO, printed.bytes, printed.size);
    return true;
}

/* Send the call to the program's server; return the connection for its reply, or -1 if there is no server. Once the
 * server has the whole request, it may run it even if the client fails. */
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

/* Read two pipes to their ends, and print their text unless `quiet`. */
static void drain(int out, int err, bool quiet, struct text *printed, struct text *diagnostics)
{
    struct pollfd from[] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
    char bytes[1 << 16];
    while (from[0].fd >= 0 || from[1].fd >= 0) {
        if (poll(from, 2, -1) < 0)
            continue; /* interrupted by a debugger or Ctrl-Z */
        for (int each = 0; each < 2; each++) {
            if (!from[each].revents)
                continue;
            ssize_t size = read(from[each].fd, bytes, sizeof bytes);
            if (size > 0) {
                add(each ? diagnostics : printed, bytes, size);
                if (!quiet)
                    forward(each ? STDERR_FILENO : STDOUT_FILENO, bytes, size);
            } else if (!size || errno != EINTR) {
                from[each].fd = -1;
            }
        }
    }
    close(out);
    close(err);
}

/* Run the call on the server without printing; false if there is no server, or the call failed. */
static bool run_served(char **argv, struct text *printed, struct text *diagnostics)
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
    drain(out[0], err[0], true, printed, diagnostics);
    bool answered = server >= 0 && read(server, &status, sizeof status) == sizeof status;
    if (server >= 0)
        close(server);
    return answered && !status && !exhausted;
}

/* Run the real program, print its output unless `quiet`, and return its exit status as in a shell; a negative one if it
 * could not be started. */
static int run(char **argv, bool quiet, struct text *printed, bool *has_diagnostics)
{
    int out[2], err[2], status;
    pid_t child;
    struct text diagnostics = {0};
    posix_spawn_file_actions_t actions;
    if (run_served(argv, printed, &diagnostics)) {
        *has_diagnostics = diagnostics.size;
        if (!quiet) {
            forward(STDOUT_FILENO, printed->bytes, printed->size);
            forward(STDERR_FILENO, diagnostics.bytes, diagnostics.size);
        }
        return 0;
    }
    printed->size = diagnostics.size = 0;
    signal(SIGCHLD, SIG_DFL); /* the parent may have ignored it, and then waitpid fails */
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) || posix_spawn_file_actions_init(&actions) ||
        posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO) ||
        posix_spawn_file_actions_adddup2(&actions, err[1], STDERR_FILENO) ||
        posix_spawn(&child, argv[0], &actions, NULL, argv, environ))
        return -1;
    close(out[1]);
    close(err[1]);
    drain(out[0], err[0], quiet, printed, &diagnostics);
    *has_diagnostics = diagnostics.size;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Return the size of a C text's preamble: its first lines, as long as they only include files. */
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

/* The common beginning of the stencils' inputs, some thirty headers, which takes nine tenths of clang's time. The calls
 * differ in the uop, which a macro and the rest of the input name, and in their files. */
struct preamble {
    char header[PATH_MAX], new[PATH_MAX], precompiled[PATH_MAX], check[PATH_MAX];
    size_t size;       /* of the preamble in the input */
    char **precompile; /* the arguments for precompiling it, which all calls for stencils share */
    char bytes[64];
};

/* Find the files in CROSSJIT_PREAMBLES for this call's preamble; false if the call is not for a stencil in CPython's
 * temporary folder. The shim's input is in the source, and so is that of all stencils of 3.13. build_cache.py makes
 * CROSSJIT_PREAMBLES only if no header uses the macro, so that the preamble is the same for each uop. */
static bool find_preamble(struct preamble *preamble, char **argv, const char *input, const struct text *text,
                          const char *output, const char *folder)
{
    const char *preambles = getenv("CROSSJIT_PREAMBLES");
    struct text key = {0};
    char here[PATH_MAX];
    size_t words = 0, shared = 0;
    bool stencil = false;
    if (!preambles || strlen(preambles) + 64 > sizeof preamble->header || access(preambles, W_OK) || !output ||
        !ends_with(input, ".c") || !*folder || strncmp(input, folder, strlen(folder)) || !getcwd(here, sizeof here) ||
        !(preamble->size = preamble_of(text)))
        return false;
    while (argv[words])
        words++;
    preamble->precompile = calloc(words + 6, sizeof *argv); /* for `more` and a null */
    if (!preamble->precompile)
        return false;
    add(&key, here, strlen(here) + 1);
    for (char **each = argv; *each; each++) {
        if (!strncmp(*each, OPCODE, strlen(OPCODE))) {
            stencil = true;
        } else if (*each != input && *each != output && strcmp(*each, "-o") && strcmp(*each, "-S") &&
                   strcmp(*each, "-c")) {
            preamble->precompile[shared++] = *each;
            add(&key, *each, strlen(*each) + 1);
        }
    }
    add(&key, text->bytes, preamble->size);
    if (!stencil || exhausted)
        return false;
    uint64_t first = sum(key.bytes, key.size, 1), second = sum(key.bytes, key.size, 2);
    int length = sprintf(preamble->header, "%s/%016" PRIx64 "%016" PRIx64 ".h", preambles, first, second) - 2;
    sprintf(preamble->new, "%.*s.new", length, preamble->header);
    sprintf(preamble->precompiled, "%.*s.pch", length, preamble->header);
    sprintf(preamble->check, "%.*s.out", length, preamble->header);
    char *more[] = {"-x", "c-header", "-o", preamble->new, preamble->header};
    memcpy(preamble->precompile + shared, more, sizeof more);
    sprintf(preamble->bytes, "-preamble-bytes=%zu,1", preamble->size);
    return true;
}

/* Run a call with a precompiled preamble without printing, and write to `other_output` if it is not null; false if it
 * fails or warns. */
static bool run_with(struct preamble *preamble, char *precompiled, char **argv, const char *output, char *other_output,
                     struct text *printed)
{
    char *more[] = {"-include-pch", precompiled, "-Xclang", preamble->bytes, NULL}, **call;
    bool has_diagnostics = false;
    size_t words = 0;
    while (argv[words])
        words++;
    if (!(call = malloc(words * sizeof *call + sizeof more)))
        return false;
    for (size_t each = 0; each < words; each++)
        call[each] = argv[each] == output && other_output ? other_output : argv[each];
    memcpy(call + words, more, sizeof more);
    return !run(call, true, printed, &has_diagnostics) && !has_diagnostics;
}

/* Precompile the preamble of a call that has just run without it. It is published only if the same call writes the same
 * bytes with it, without any diagnostics. */
static void precompile(struct preamble *preamble, char **argv, const char *output)
{
    struct text printed = {0}, plain = {0}, checked = {0};
    bool has_diagnostics = false;
    if (!run(preamble->precompile, true, &printed, &has_diagnostics) && !has_diagnostics &&
        run_with(preamble, preamble->new, argv, output, preamble->check, &printed) && !printed.size &&
        add_file(&plain, output) && add_file(&checked, preamble->check) && plain.size == checked.size &&
        !memcmp(plain.bytes, checked.bytes, checked.size))
        rename(preamble->new, preamble->precompiled);
    unlink(preamble->new);
    unlink(preamble->check);
}

/* Run the real program as `run` does, with a stencil's precompiled preamble, or precompile it for later calls. */
static int run_fast(char **argv, const char *input, const struct text *text, const char *output, const char *folder,
                    struct text *printed, bool *has_diagnostics)
{
    static struct preamble preamble;
    int header = -1;
    if (find_preamble(&preamble, argv, input, text, output, folder)) {
        if (!access(preamble.precompiled, R_OK)) {
            if (run_with(&preamble, preamble.precompiled, argv, output, NULL, printed)) {
                forward(STDOUT_FILENO, printed->bytes, printed->size);
                return 0;
            }
            printed->size = 0; /* run again, for the program's own diagnostics */
        } else {
            header = open(preamble.header, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); /* only once */
        }
    }
    int status = run(argv, false, printed, has_diagnostics);
    if (header >= 0 && write_all(header, text->bytes, preamble.size) && !close(header) && !status && !*has_diagnostics)
        precompile(&preamble, argv, output);
    return status;
}

/* Make the path of an entry in a cache; false if there is no cache, or the path is too long. */
static bool entry_path(char *path, const char *cache, const char *name)
{
    return cache && (size_t)snprintf(path, PATH_MAX, "%s/%s", cache, name) < PATH_MAX;
}

/* Store an entry atomically; errors are ignored. */
static void store(char *path, const struct text *entry)
{
    char new[PATH_MAX + 8];
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(path, 0777);
        *slash = '/';
    }
    sprintf(new, "%s.XXXXXX", path);
    int file = mkostemp(new, O_CLOEXEC);
    if (file < 0)
        return;
    bool done = write_all(file, entry->bytes, entry->size);
    if (close(file) || !done || rename(new, path))
        unlink(new);
}

/* Log a hit or a miss, for build_cache.py's report. */
static void log_line(const char *line)
{
    const char *log = getenv("CROSSJIT_CACHE_LOG");
    int file = log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (file >= 0)
        write_all(file, line, strlen(line));
}

int main(int argc, char **argv)
{
    const char *llvm = getenv("CROSSJIT_LLVM"), *cache = getenv("CROSSJIT_CACHE");
    const char *input = NULL, *output = NULL, *folder = "";
    char real[PATH_MAX], path[PATH_MAX];
    struct text content = {0}, entry = {0}, printed = {0}, written = {0};
    bool has_diagnostics = false;
    if (!argc || !llvm) {
        fputs("CROSSJIT_LLVM does not say where LLVM is\n", stderr);
        return 127;
    }
    const char *tool = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
    const char *version = strrchr(tool, '-'); /* clang-21 is clang */
    int length = version && strchr("0123456789", version[1]) ? version - tool : (int)strlen(tool);
    snprintf(real, sizeof real, "%s/bin/%.*s", llvm, length, tool);
    argv[0] = real;
    if (!cache || !*cache || !parse_call(argv, &input, &output, &folder) ||
        !make_key(&entry, argv, input, folder, &content))
        run_instead(argv);

    size_t key_size = entry.size;
    uint64_t first = sum(entry.bytes, key_size, 1), second = sum(entry.bytes, key_size, 2);
    char name[64];
    sprintf(name, "llvm/%02" PRIx64 "/%014" PRIx64 "%016" PRIx64, first >> 56, first << 8 >> 8, second);
    if ((entry_path(path, cache, name) && lookup(path, &entry, output, folder)) ||
        (entry_path(path, getenv("CROSSJIT_CACHE_BELOW"), name) && lookup(path, &entry, output, folder))) {
        log_line("llvm hit\n");
        return 0;
    }
    if (!entry_path(path, cache, name))
        run_instead(argv);
    int status = run_fast(argv, input, &content, output, folder, &printed, &has_diagnostics);
    if (status < 0)
        run_instead(argv);
    if (status)
        return status;
    log_line("llvm miss\n");
    if (has_diagnostics || contains(&printed, MARK) || (output && !add_file(&written, output)) ||
        contains(&written, folder))
        return 0;
    add_replaced(&entry, printed.bytes, printed.size, folder, MARK);
    struct trailer end = {entry.size - key_size, written.size, 0};
    add(&entry, written.bytes, written.size);
    add(&entry, &end, sizeof end - sizeof end.sum);
    end.sum = sum(entry.bytes, entry.size, 0);
    add(&entry, &end.sum, sizeof end.sum);
    if (!exhausted)
        store(path, &entry);
    return 0;
}
