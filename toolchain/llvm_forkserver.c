/* Turns clang, or another of LLVM's programs, into a fork server: preloaded (LD_PRELOAD), it waits before main, and
 * each request continues from there in a fork. The programs are linked to a library of a hundred megabytes. Loading it
 * takes twenty of the thirty milliseconds of a call for a stencil.
 *
 * It listens at CROSSJIT_LLVM_SOCKET for llvm_cache.c. A request has three descriptors, for stdin, stdout and stderr,
 * and texts that end with a zero, up to the end of the stream: the working directory, the numbers of arguments and
 * variables, the arguments, the variables. The reply is the program's status as wait returns it. Without a reply, or if
 * the program failed, llvm_cache.c runs it itself. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MOST
#define MOST 256 /* requests at a time; more have to wait */
#endif

typedef int program_main(int, char **, char **);

static program_main *program;
static struct {
    pid_t process;
    int connection;
} running[MOST];
static int busy; /* the number of entries in use */

/* Receive the descriptors and all texts; false if the request is invalid. */
static bool receive(int connection, int files[3], char **texts, size_t *size)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control;
    char *bytes = NULL;
    size_t capacity = 0;
    ssize_t more;
    for (*size = 0;; *size += more) {
        if (capacity - *size < 1 << 12 && !(bytes = realloc(bytes, capacity += 1 << 16)))
            return false;
        struct iovec into = {bytes + *size, capacity - *size - 1};
        struct msghdr message = {.msg_iov = &into, .msg_iovlen = 1, .msg_control = &control,
                                 .msg_controllen = sizeof control};
        more = recvmsg(connection, &message, 0);
        if (more < 0)
            return false;
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(3 * sizeof(int)))
            memcpy(files, CMSG_DATA(header), 3 * sizeof(int));
        if (!more)
            break;
    }
    bytes[*size] = 0;
    *texts = bytes;
    return *size && files[0] >= 0;
}

/* The texts of a request; arguments and variables end with a null. */
struct request {
    char *folder, **arguments, **variables;
    size_t count; /* of arguments */
};

/* Parse a request of `size` bytes, followed by a zero; false if it is invalid. */
static bool parse(char *texts, size_t size, struct request *request)
{
    size_t number = 0, arguments, variables;
    for (size_t at = 0; at < size; at++)
        number += !texts[at];
    if (number < 3 || texts[size - 1])
        return false;
    char **words = calloc(number, sizeof *words), *text = texts + strlen(texts) + 1;
    if (!words || sscanf(text, "%zu %zu", &arguments, &variables) != 2 || !arguments || arguments > number ||
        variables > number || number != 2 + arguments + variables) {
        free(words);
        return false;
    }
    for (size_t each = 0; each < arguments + variables; each++) {
        text += strlen(text) + 1;
        words[each < arguments ? each : each + 1] = text;
    }
    *request = (struct request){texts, words, words + arguments + 1, arguments};
    return true;
}

/* Run the requested program in this process. */
static _Noreturn void be_program(int connection)
{
    int files[3] = {-1, -1, -1};
    struct request request;
    char *texts;
    size_t size;
    if (!receive(connection, files, &texts, &size))
        _exit(126);
    close(connection);
    for (int each = 0; each < 3; each++) /* they are above 2, since 0 to 2 are open here */
        if (dup2(files[each], each) < 0 || close(files[each]))
            _exit(126);
    if (!parse(texts, size, &request) || chdir(request.folder))
        _exit(126);
    environ = request.variables;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    exit(program(request.count, request.arguments, environ));
}

/* Send the statuses of ended programs to their clients. */
static void reap(void)
{
    int status;
    for (pid_t process; (process = waitpid(-1, &status, WNOHANG)) > 0;)
        for (int each = 0; each < MOST; each++)
            if (running[each].process == process) {
                send(running[each].connection, &status, sizeof status, MSG_NOSIGNAL);
                close(running[each].connection);
                running[each].process = 0;
                busy--;
            }
}

static void begin(int connection, int listener, int signals)
{
    int free = 0;
    while (running[free].process)
        free++;
    pid_t process = fork();
    if (!process) {
        close(listener);
        close(signals);
        for (int each = 0; each < MOST; each++)
            if (running[each].process)
                close(running[each].connection);
        be_program(connection);
    }
    if (process < 0) {
        close(connection);
        return;
    }
    running[free].process = process;
    running[free].connection = connection;
    busy++;
}

static int serve(int argc, char **argv, char **variables)
{
    const char *path = getenv("CROSSJIT_LLVM_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof address.sun_path)
        return program(argc, argv, variables);
    strcpy(address.sun_path, path);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    int signals = signalfd(-1, &mask, 0), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    if (signals < 0 || listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) ||
        listen(listener, MOST))
        return 126;
    struct pollfd from[] = {{listener, POLLIN, 0}, {signals, POLLIN, 0}};
    for (;;) {
        from[0].fd = busy < MOST ? listener : -1;
        if (poll(from, 2, -1) < 0 && errno != EINTR)
            return 126;
        struct signalfd_siginfo which;
        if (from[1].revents && read(signals, &which, sizeof which) > 0)
            reap();
        int connection = from[0].revents ? accept(listener, NULL, NULL) : -1;
        if (connection >= 0)
            begin(connection, listener, signals);
    }
}

int __libc_start_main(program_main *main, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*unload)(void), void *stack)
{
    int (*start)(program_main *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    program = main;
    return start(serve, argc, argv, init, fini, unload, stack);
}
