/*
 * SPDX-License-Identifier: MIT
 *
 * A QEMU plugin that counts the instructions of a linux-user process, apart by whose code it is, and writes the sums at
 * markers. README.md describes its arguments, its output, and what a marker is.
 *
 * Counters always run: each translated block adds its instructions to the counters of the classes of its code, by code
 * that QEMU inlines. Which class an address has is decided at translation, from what the process mapped until then. A
 * reader takes differences between markers.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <glib.h>
#include <qemu-plugin.h>

QEMU_PLUGIN_EXPORT int qemu_plugin_version = QEMU_PLUGIN_VERSION;

enum { MARKER = 0x4a495400, OPS = 4 };
enum { PAGE = 4096 };           /* of the guest; both archs' JIT memory is a multiple */
enum { CHUNK = 512 };           /* counters of one scoreboard */
enum { SECOND = 1000000 };      /* in ticks of the clock that is held still: microseconds */
enum { EPOCH = 1790000000 };    /* its first second */

static const char *const op_names[OPS] = { "mark", "begin", "end", "last" };

typedef struct {
    qemu_plugin_u64 count, loads, stores;
    const char *name;
} Counted;                      /* a class of code, or a function */

typedef struct {
    uint64_t begin, end;        /* from where the object is */
    Counted *class, *function;
} Symbol;

typedef struct {
    const char *name;           /* its file's, or "main" */
    GArray *symbols;            /* sorted, disjoint */
} Object;

typedef struct {
    uint64_t begin, end, base;  /* base: where the object's symbols start */
    uint64_t mapping;           /* of JIT code: its number, which no other has */
    Counted *class;
    const Object *object;       /* NULL if it has no symbols */
} Range;

typedef struct {
    uint64_t pc, mapping;
    const char *sizes;          /* of its instructions: a hexadecimal digit for each */
    qemu_plugin_u64 executions;
    uint64_t written;           /* those that an earlier line has */
} Block;

/* A system call under way: each virtual CPU has one. */
typedef struct {
    uint64_t arguments[4];
    uint64_t wait;              /* ticks that it waits if nothing happens */
    uint64_t place;             /* of the deadline that was replaced; 0 if none was */
    int64_t deadline[2];
} Call;

static struct {
    int64_t mmap, munmap, mprotect, close_range, clone, fork, vfork, execve, execveat;
    int64_t clock_gettime, gettimeofday, getrandom, nanosleep, clock_nanosleep, futex;
    int64_t epoll_wait, epoll_pwait, epoll_pwait2, poll, ppoll, select, pselect6;
    int64_t stat, lstat, fstat, newfstatat, statx;
} nr;

/*
 * Of all that follows, up to mappings. It is not held while the guest's memory is read or written: QEMU then takes a
 * lock that it also holds while it translates.
 */
static GMutex lock;
static GPtrArray *classes, *functions, *objects;
static GHashTable *class_table, *function_table;
static GArray *ranges, *blocks; /* ranges: sorted, disjoint */
static GPtrArray *boards;
static size_t counters;
static Counted *other, *jit, *python;
static bool is_placed;          /* whether the main program is among the ranges */
static uint64_t jit_maps, jit_bytes, jit_frees, mappings;

static struct qemu_plugin_scoreboard *calls;
static uint64_t ticks, random_state; /* only by atomic operations */

static pid_t process;
static uint64_t *execs;         /* shared with the processes that are forked */
static const char *out;
static gboolean wants_threads, wants_accesses, wants_functions, wants_blocks, is_still;

/* -- counters: classes, functions, blocks of JIT code */

static qemu_plugin_u64 new_counter(void)
{
    size_t place = counters++ % CHUNK;
    if (place == 0) {
        g_ptr_array_add(boards, qemu_plugin_scoreboard_new(CHUNK * sizeof(uint64_t)));
    }
    return (qemu_plugin_u64){ g_ptr_array_index(boards, boards->len - 1), place * sizeof(uint64_t) };
}

static Counted *counted(GHashTable *table, GPtrArray *all, const char *name)
{
    Counted *found = g_hash_table_lookup(table, name);
    if (found) {
        return found;
    }
    found = g_new0(Counted, 1);
    found->name = g_strdup(name);
    for (char *at = (char *)found->name; *at; at++) {
        if (*at < ' ' || *at > '~' || *at == '"' || *at == '\\') {
            *at = '?';
        }
    }
    found->count = new_counter();
    if (wants_accesses && all == classes) {
        found->loads = new_counter();
        found->stores = new_counter();
    }
    g_hash_table_insert(table, g_strdup(name), found);
    g_ptr_array_add(all, found);
    return found;
}

static Counted *class_named(const char *name)
{
    return counted(class_table, classes, name);
}

static Counted *function_named(const char *name)
{
    return wants_functions ? counted(function_table, functions, name) : NULL;
}

/* -- whose code an address is */

static const Range *range_at(uint64_t pc)
{
    guint low = 0, high = ranges->len;
    while (low < high) {
        guint middle = (low + high) / 2;
        const Range *range = &g_array_index(ranges, Range, middle);
        if (pc < range->begin) {
            high = middle;
        } else if (pc >= range->end) {
            low = middle + 1;
        } else {
            return range;
        }
    }
    return NULL;
}

static const Symbol *symbol_at(const Object *object, uint64_t distance)
{
    guint low = 0, high = object->symbols->len;
    while (low < high) {
        guint middle = (low + high) / 2;
        const Symbol *symbol = &g_array_index(object->symbols, Symbol, middle);
        if (distance < symbol->begin) {
            high = middle;
        } else if (distance >= symbol->end) {
            low = middle + 1;
        } else {
            return symbol;
        }
    }
    return NULL;
}

static void forget(uint64_t begin, uint64_t end)
{
    for (guint i = 0; i < ranges->len; i++) {
        Range *range = &g_array_index(ranges, Range, i), rest = *range;
        if (range->end <= begin || range->begin >= end) {
            continue;
        }
        jit_frees += range->class == jit;
        if (range->begin < begin && range->end > end) {
            range->end = begin;
            rest.begin = end;
            g_array_insert_val(ranges, i + 1, rest);
        } else if (range->begin < begin) {
            range->end = begin;
        } else if (range->end > end) {
            range->begin = end;
        } else {
            g_array_remove_index(ranges, i--);
        }
    }
}

static void add_range(Range range)
{
    guint i = 0;
    forget(range.begin, range.end);
    while (i < ranges->len && g_array_index(ranges, Range, i).begin < range.begin) {
        i++;
    }
    g_array_insert_val(ranges, i, range);
}

static void add_jit_code(uint64_t begin, uint64_t end)
{
    add_range((Range){ begin, end, 0, ++mappings, jit, NULL });
    jit_maps++;
    jit_bytes += end - begin;
}

static const Object *object_named(const char *name)
{
    for (guint i = 0; i < objects->len; i++) {
        const Object *object = g_ptr_array_index(objects, i);
        if (!strcmp(object->name, name)) {
            return object;
        }
    }
    return NULL;
}

/* QEMU loads the program itself, at an address that is not known before its first instruction. */
static void place_main(void)
{
    uint64_t begin = qemu_plugin_start_code();
    add_range((Range){ begin, qemu_plugin_end_code(), begin, 0, python, object_named("main") });
    is_placed = true;
}

/* The class of a file by its name: lib:libc for libc.so.6, ext:_json for _json.cpython-315-x86_64-linux-gnu.so. */
static Counted *class_of_file(const char *path, const char *file)
{
    bool is_extension = strstr(path, "/lib-dynload/") || strstr(file, ".cpython-") || strstr(file, ".abi3.so");
    const char *end = is_extension ? strchr(file, '.') : strstr(file, ".so");
    g_autofree char *stem = end ? g_strndup(file, end - file) : g_strdup(file);
    g_autofree char *name = g_strconcat(is_extension ? "ext:" : "lib:", stem, NULL);
    return class_named(name);
}

static void add_file(uint64_t begin, uint64_t end, int descriptor, uint64_t offset)
{
    char path[4096] = "/unknown";
    g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
    }
    const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
    const Object *object = object_named(file);
    add_range((Range){ begin, end, begin - offset, 0, object ? python : class_of_file(path, file), object });
}

/* -- translation */

static void count_run(struct qemu_plugin_tb *tb, const Counted *counter, size_t instructions)
{
    if (counter && instructions) {
        qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, counter->count, instructions);
    }
}

static void count_accesses(struct qemu_plugin_insn *insn, const Counted *class)
{
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_R, QEMU_PLUGIN_INLINE_ADD_U64, class->loads, 1);
    qemu_plugin_register_vcpu_mem_inline_per_vcpu(insn, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_INLINE_ADD_U64, class->stores,
                                                  1);
}

static void count_block(struct qemu_plugin_tb *tb, size_t instructions, uint64_t mapping)
{
    char *sizes = g_new0(char, instructions + 1);
    for (size_t i = 0; i < instructions; i++) {
        sizes[i] = "0123456789abcdef"[qemu_plugin_insn_size(qemu_plugin_tb_get_insn(tb, i)) & 15];
    }
    Block block = { qemu_plugin_tb_vaddr(tb), mapping, sizes, new_counter(), 0 };
    g_array_append_val(blocks, block);
    qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(tb, QEMU_PLUGIN_INLINE_ADD_U64, block.executions, 1);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t length = qemu_plugin_tb_n_insns(tb), of_class = 0, of_function = 0;
    const Counted *class = NULL, *function = NULL;
    uint64_t mapping = 0;
    g_mutex_lock(&lock);
    if (!is_placed) {
        place_main();
    }
    for (size_t i = 0; i < length; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint64_t pc = qemu_plugin_insn_vaddr(insn);
        const Range *range = range_at(pc);
        const Symbol *symbol = range && range->object ? symbol_at(range->object, pc - range->base) : NULL;
        const Counted *its_class = symbol ? symbol->class : range ? range->class : other;
        const Counted *its_function = symbol ? symbol->function : function_named(its_class->name);
        if (its_class != class) {
            count_run(tb, class, of_class);
            of_class = 0;
        }
        if (its_function != function) {
            count_run(tb, function, of_function);
            of_function = 0;
        }
        class = its_class, function = its_function, of_class++, of_function++;
        mapping = range ? range->mapping : 0;
        if (wants_accesses) {
            count_accesses(insn, class);
        }
    }
    count_run(tb, class, of_class);
    count_run(tb, function, of_function);
    if (wants_blocks && class == jit) {
        count_block(tb, length, mapping);
    }
    g_mutex_unlock(&lock);
}

/* -- output */

static void write_counts(GString *line, const char *key, GPtrArray *all, size_t which, bool with_zeros)
{
    const char *comma = "";
    g_string_append_printf(line, ",\"%s\":{", key);
    for (guint i = 0; i < all->len; i++) {
        Counted *each = g_ptr_array_index(all, i);
        uint64_t sum = qemu_plugin_u64_sum(*(qemu_plugin_u64 *)((char *)each + which));
        if (sum || with_zeros) {
            g_string_append_printf(line, "%s\"%s\":%" PRIu64, comma, each->name, sum);
            comma = ",";
        }
    }
    g_string_append_c(line, '}');
}

static void write_threads(GString *line)
{
    g_string_append(line, ",\"threads\":[");
    for (int cpu = 0; cpu < qemu_plugin_num_vcpus(); cpu++) {
        const char *comma = "";
        g_string_append(line, cpu ? ",{" : "{");
        for (guint i = 0; i < classes->len; i++) {
            Counted *class = g_ptr_array_index(classes, i);
            uint64_t count = qemu_plugin_u64_get(class->count, cpu);
            if (count) {
                g_string_append_printf(line, "%s\"%s\":%" PRIu64, comma, class->name, count);
                comma = ",";
            }
        }
        g_string_append_c(line, '}');
    }
    g_string_append_c(line, ']');
}

static void write_blocks(GString *line)
{
    const char *comma = "";
    g_string_append(line, ",\"blocks\":[");
    for (guint i = 0; i < blocks->len; i++) {
        Block *block = &g_array_index(blocks, Block, i);
        uint64_t executions = qemu_plugin_u64_sum(block->executions);
        if (executions != block->written) {
            g_string_append_printf(line, "%s[%" PRIu64 ",\"%s\",%" PRIu64 ",%" PRIu64 "]", comma, block->pc,
                                   block->sizes, block->mapping, executions - block->written);
            block->written = executions;
            comma = ",";
        }
    }
    g_string_append(line, "],\"mappings\":[");
    comma = "";
    for (guint i = 0; i < ranges->len; i++) {
        const Range *range = &g_array_index(ranges, Range, i);
        if (range->mapping) {
            g_string_append_printf(line, "%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", comma, range->begin, range->end,
                                   range->mapping);
            comma = ",";
        }
    }
    g_string_append_c(line, ']');
}

/* The file is opened each time: a descriptor that stays open would be the guest's as well. */
static void append(const GString *line)
{
    int file = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    gsize done = 0;
    while (file >= 0 && done < line->len) {
        ssize_t more = write(file, line->str + done, line->len - done);
        if (more < 0) {
            break;
        }
        done += more;
    }
    if (done < line->len) {
        fprintf(stderr, "count: cannot write %s: %s\n", out, strerror(errno));
    }
    if (file >= 0) {
        close(file);
    }
}

static void write_mark(unsigned cpu, const char *op, uint64_t label)
{
    GString *line = g_string_new(NULL);
    g_mutex_lock(&lock);
    g_string_append_printf(line, "{\"pid\":%d,\"thread\":%u,\"op\":\"%s\",\"label\":%" PRIu64 ",\"jit\":{\"maps\":%"
                           PRIu64 ",\"bytes\":%" PRIu64 ",\"frees\":%" PRIu64 "},\"execs\":%" PRIu64, getpid(), cpu, op,
                           label, jit_maps, jit_bytes, jit_frees, __atomic_load_n(execs, __ATOMIC_SEQ_CST));
    write_counts(line, "counts", classes, offsetof(Counted, count), true);
    if (wants_accesses) {
        write_counts(line, "loads", classes, offsetof(Counted, loads), true);
        write_counts(line, "stores", classes, offsetof(Counted, stores), true);
    }
    if (wants_threads) {
        write_threads(line);
    }
    if (wants_functions) {
        write_counts(line, "functions", functions, offsetof(Counted, count), false);
    }
    if (wants_blocks) {
        write_blocks(line);
    }
    g_string_append(line, "}\n");
    g_mutex_unlock(&lock);
    append(line);
    g_string_free(line, TRUE);
}

static void on_exit_(qemu_plugin_id_t id, void *nothing)
{
    write_mark(0, "exit", 0);
}

/* -- the guest's memory */

static bool read_pair(uint64_t place, int64_t pair[2])
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    if (!place || !qemu_plugin_read_memory_vaddr(place, bytes, 2 * sizeof *pair)) {
        return false;
    }
    memcpy(pair, bytes->data, 2 * sizeof *pair);
    return true;
}

static void write_bytes(uint64_t place, const void *data, guint size)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_byte_array_append(bytes, data, size);
    if (place && size) {
        qemu_plugin_write_memory_vaddr(place, bytes);
    }
}

/* -- a clock, random bytes, and times of access that are the same in each run */

static uint64_t in_ticks(const int64_t time[2], int parts_of_second)
{
    if (time[0] < 0 || time[0] > INT64_MAX / SECOND / 2) {
        return 0;
    }
    return (uint64_t)time[0] * SECOND + time[1] / (parts_of_second / SECOND);
}

static uint64_t wait_of(uint64_t place, int parts_of_second)
{
    int64_t time[2];
    return read_pair(place, time) ? in_ticks(time, parts_of_second) : 0;
}

static uint64_t wait_of_milliseconds(uint64_t argument)
{
    int milliseconds = (int)argument;
    return milliseconds > 0 ? milliseconds * (SECOND / 1000ULL) : 0;
}

/* A deadline is of the clock that is held still, and the kernel's clock is another: replace it until the call ends. */
static void replace_deadline(Call *call, uint64_t place, clockid_t clock)
{
    struct timespec now;
    uint64_t still_now = (uint64_t)EPOCH * SECOND + __atomic_load_n(&ticks, __ATOMIC_SEQ_CST), deadline;
    if (!read_pair(place, call->deadline) || clock_gettime(clock, &now)) {
        return;
    }
    deadline = in_ticks(call->deadline, 1000 * SECOND);
    call->wait = deadline > still_now ? deadline - still_now : 0;
    call->place = place;
    uint64_t nanoseconds = now.tv_nsec + call->wait % SECOND * 1000;
    int64_t replaced[2] = { now.tv_sec + call->wait / SECOND + nanoseconds / 1000000000, nanoseconds % 1000000000 };
    write_bytes(place, replaced, sizeof replaced);
}

static void note_wait(Call *call, int64_t num, const uint64_t a[6])
{
    enum { ABSOLUTE = 1, FUTEX_WAIT = 0, FUTEX_WAIT_BITSET = 9, FUTEX_COMMAND = 127, FUTEX_REALTIME = 256 };
    const int nanoseconds = 1000 * SECOND;
    call->wait = call->place = 0;
    if (num == nr.clock_nanosleep && a[1] & ABSOLUTE) {
        replace_deadline(call, a[2], a[0]);
    } else if (num == nr.clock_nanosleep) {
        call->wait = wait_of(a[2], nanoseconds);
    } else if (num == nr.nanosleep) {
        call->wait = wait_of(a[0], nanoseconds);
    } else if (num == nr.futex && (a[1] & FUTEX_COMMAND) == FUTEX_WAIT_BITSET) {
        replace_deadline(call, a[3], a[1] & FUTEX_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC);
    } else if (num == nr.futex && (a[1] & FUTEX_COMMAND) == FUTEX_WAIT) {
        call->wait = wait_of(a[3], nanoseconds);
    } else if (num == nr.epoll_wait || num == nr.epoll_pwait) {
        call->wait = wait_of_milliseconds(a[3]);
    } else if (num == nr.poll) {
        call->wait = wait_of_milliseconds(a[2]);
    } else if (num == nr.epoll_pwait2) {
        call->wait = wait_of(a[3], nanoseconds);
    } else if (num == nr.ppoll) {
        call->wait = wait_of(a[2], nanoseconds);
    } else if (num == nr.pselect6) {
        call->wait = wait_of(a[4], nanoseconds);
    } else if (num == nr.select) {
        call->wait = wait_of(a[4], SECOND);
    }
}

static bool may_wait(int64_t num)
{
    return num == nr.clock_nanosleep || num == nr.nanosleep || num == nr.futex || num == nr.epoll_wait ||
           num == nr.epoll_pwait || num == nr.epoll_pwait2 || num == nr.poll || num == nr.ppoll || num == nr.select ||
           num == nr.pselect6;
}

static void end_wait(Call *call, int64_t num, int64_t result)
{
    if (call->place) {
        write_bytes(call->place, call->deadline, sizeof call->deadline);
    }
    if (result == (num == nr.futex ? -ETIMEDOUT : 0)) {
        __atomic_fetch_add(&ticks, call->wait, __ATOMIC_SEQ_CST);
    }
    call->wait = call->place = 0;
}

static void give_time(uint64_t place, int parts_of_second)
{
    uint64_t now = __atomic_add_fetch(&ticks, 1, __ATOMIC_SEQ_CST);
    int64_t time[2] = { EPOCH + now / SECOND, now % SECOND * (parts_of_second / SECOND) };
    write_bytes(place, time, sizeof time);
}

static void give_random_bytes(uint64_t place, size_t size)
{
    g_autofree uint64_t *words = g_new(uint64_t, size / sizeof(uint64_t) + 1);
    for (size_t i = 0; i <= size / sizeof(uint64_t); i++) { /* splitmix64 */
        uint64_t word = __atomic_add_fetch(&random_state, 0x9e3779b97f4a7c15, __ATOMIC_SEQ_CST);
        word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
        word = (word ^ word >> 27) * 0x94d049bb133111eb;
        words[i] = word ^ word >> 31;
    }
    write_bytes(place, words, size);
}

/* A file's first reading may change its time of access, and with it the size of a number: make it that of its change. */
static void hold_access_time(const Call *call, int64_t num)
{
    enum { ACCESS = 72, CHANGE = 88, X_ACCESS = 64, X_CHANGE = 112 }; /* offsets, on both archs */
    bool is_statx = num == nr.statx;
    uint64_t place = call->arguments[is_statx ? 3 : num == nr.newfstatat ? 2 : 1];
    int64_t time[2];
    if (place && read_pair(place + (is_statx ? X_CHANGE : CHANGE), time)) {
        write_bytes(place + (is_statx ? X_ACCESS : ACCESS), time, sizeof time);
    }
}

static bool is_stat(int64_t num)
{
    return num == nr.stat || num == nr.lstat || num == nr.fstat || num == nr.newfstatat || num == nr.statx;
}

/* -- system calls */

static void on_syscall(qemu_plugin_id_t id, unsigned cpu, int64_t num, uint64_t a1, uint64_t a2, uint64_t a3,
                       uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    uint32_t op = (uint32_t)a1 - MARKER;
    if (num == nr.close_range && op < OPS && (uint32_t)a2 < MARKER) {
        write_mark(cpu, op_names[op], (uint32_t)a2);
        return;
    }
    if (num == nr.execve || num == nr.execveat) {
        __atomic_fetch_add(execs, 1, __ATOMIC_SEQ_CST);
        return;
    }
    Call *call = qemu_plugin_scoreboard_find(calls, cpu);
    if (num == nr.mmap) {
        memcpy(call->arguments, (uint64_t[]){ a2, a3, a4, a5 }, sizeof call->arguments);
        call->wait = a6; /* the offset */
    } else if (num == nr.munmap || num == nr.mprotect) {
        g_mutex_lock(&lock);
        if (num == nr.munmap) {
            forget(a1, a1 + a2);
        } else if (a3 & PROT_EXEC && !range_at(a1)) {
            add_jit_code(a1, a1 + a2);
        }
        g_mutex_unlock(&lock);
    } else if (is_still && may_wait(num)) {
        note_wait(call, num, (uint64_t[]){ a1, a2, a3, a4, a5, a6 });
    } else if (is_still) {
        memcpy(call->arguments, (uint64_t[]){ a1, a2, a3, a5 }, sizeof call->arguments);
    }
}

static void mapped(const Call *call, uint64_t begin)
{
    uint64_t end = begin + (call->arguments[0] + PAGE - 1) / PAGE * PAGE;
    g_mutex_lock(&lock);
    if (!(call->arguments[1] & PROT_EXEC)) {
        forget(begin, end);
    } else if (call->arguments[2] & MAP_ANONYMOUS) {
        add_jit_code(begin, end);
    } else {
        add_file(begin, end, call->arguments[3], call->wait);
    }
    g_mutex_unlock(&lock);
}

/* In a process that was just forked: it counts from its own beginning, and nobody else can hold the lock. */
static void begin_as_child(void)
{
    process = getpid();
    g_mutex_init(&lock);
    for (guint i = 0; i < boards->len; i++) {
        for (int cpu = 0; cpu < qemu_plugin_num_vcpus(); cpu++) {
            memset(qemu_plugin_scoreboard_find(g_ptr_array_index(boards, i), cpu), 0, CHUNK * sizeof(uint64_t));
        }
    }
    jit_maps = jit_bytes = jit_frees = 0;
}

static void on_syscall_return(qemu_plugin_id_t id, unsigned cpu, int64_t num, int64_t result)
{
    if (num == nr.execve || num == nr.execveat) { /* it failed */
        __atomic_fetch_sub(execs, 1, __ATOMIC_SEQ_CST);
        return;
    }
    if (result == 0 && (num == nr.clone || num == nr.fork || num == nr.vfork) && getpid() != process) {
        begin_as_child();
        return;
    }
    Call *call = qemu_plugin_scoreboard_find(calls, cpu);
    if (num == nr.mmap && (result >= 0 || result <= -PAGE)) {
        mapped(call, result);
    } else if (is_still && may_wait(num)) {
        end_wait(call, num, result);
    } else if (is_still && num == nr.clock_gettime && result == 0) {
        give_time(call->arguments[1], 1000 * SECOND);
    } else if (is_still && num == nr.gettimeofday && result == 0) {
        give_time(call->arguments[0], SECOND);
    } else if (is_still && num == nr.getrandom && result > 0) {
        give_random_bytes(call->arguments[0], result);
    } else if (is_still && is_stat(num) && result == 0) {
        hold_access_time(call, num);
    }
}

/* -- start */

static bool read_symbols(const char *path)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) error = NULL;
    Object *object = NULL;
    if (!g_file_get_contents(path, &text, NULL, &error)) {
        fprintf(stderr, "count: %s\n", error->message);
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        uint64_t begin, end;
        char first[256], second[256];
        if (sscanf(*line, "object %255s", first) == 1) {
            object = g_new0(Object, 1);
            object->name = g_strdup(first);
            object->symbols = g_array_new(FALSE, FALSE, sizeof(Symbol));
            g_ptr_array_add(objects, object);
        } else if (object && sscanf(*line, "%" SCNx64 " %" SCNx64 " %255s %255s", &begin, &end, first, second) == 4) {
            Symbol symbol = { begin, end, class_named(first), function_named(second) };
            g_array_append_val(object->symbols, symbol);
        } else if (**line) {
            fprintf(stderr, "count: %s: line %td is invalid: %s\n", path, line - lines + 1, *line);
            return false;
        }
    }
    return true;
}

static bool set_numbers(const char *arch)
{
    if (!strcmp(arch, "aarch64")) { /* the calls that it lacks have the number -1 */
        nr = (typeof(nr)){
            .mmap = 222, .munmap = 215, .mprotect = 226, .close_range = 436,
            .clone = 220, .fork = -1, .vfork = -1, .execve = 221, .execveat = 281,
            .clock_gettime = 113, .gettimeofday = 169, .getrandom = 278, .nanosleep = 101, .clock_nanosleep = 115,
            .futex = 98, .epoll_wait = -1, .epoll_pwait = 22, .epoll_pwait2 = 441, .poll = -1, .ppoll = 73,
            .select = -1, .pselect6 = 72, .stat = -1, .lstat = -1, .fstat = 80, .newfstatat = 79, .statx = 291,
        };
    } else if (!strcmp(arch, "x86_64")) {
        nr = (typeof(nr)){
            .mmap = 9, .munmap = 11, .mprotect = 10, .close_range = 436,
            .clone = 56, .fork = 57, .vfork = 58, .execve = 59, .execveat = 322,
            .clock_gettime = 228, .gettimeofday = 96, .getrandom = 318, .nanosleep = 35, .clock_nanosleep = 230,
            .futex = 202, .epoll_wait = 232, .epoll_pwait = 281, .epoll_pwait2 = 441, .poll = 7, .ppoll = 271,
            .select = 23, .pselect6 = 270, .stat = 4, .lstat = 6, .fstat = 5, .newfstatat = 262, .statx = 332,
        };
    } else {
        fprintf(stderr, "count: unknown architecture %s\n", arch);
        return false;
    }
    return true;
}

static bool read_arguments(int argc, char **argv, const char **symbols)
{
    struct { const char *name; gboolean *value; } switches[] = {
        { "threads", &wants_threads }, { "accesses", &wants_accesses }, { "functions", &wants_functions },
        { "blocks", &wants_blocks },   { "still", &is_still },
    };
    for (int i = 0; i < argc; i++) {
        g_auto(GStrv) parts = g_strsplit(argv[i], "=", 2);
        bool is_known = parts[0] && parts[1];
        if (is_known && !strcmp(parts[0], "out")) {
            out = g_strdup(parts[1]);
        } else if (is_known && !strcmp(parts[0], "symbols")) {
            *symbols = g_strdup(parts[1]);
        } else if (is_known) {
            is_known = false;
            for (size_t each = 0; each < G_N_ELEMENTS(switches); each++) {
                bool value;
                if (!strcmp(parts[0], switches[each].name) && qemu_plugin_bool_parse(parts[0], parts[1], &value)) {
                    *switches[each].value = value;
                    is_known = true;
                }
            }
        }
        if (!is_known) {
            fprintf(stderr, "count: invalid argument %s\n", argv[i]);
            return false;
        }
    }
    if (!out) {
        fprintf(stderr, "count: out=FILE is missing\n");
    }
    return out != NULL;
}

QEMU_PLUGIN_EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    const char *symbols = NULL;
    if (!set_numbers(info->target_name) || !read_arguments(argc, argv, &symbols)) {
        return -1;
    }
    process = getpid();
    execs = mmap(NULL, sizeof *execs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (execs == MAP_FAILED) {
        perror("count: mmap");
        return -1;
    }
    classes = g_ptr_array_new();
    functions = g_ptr_array_new();
    objects = g_ptr_array_new();
    boards = g_ptr_array_new();
    class_table = g_hash_table_new(g_str_hash, g_str_equal);
    function_table = g_hash_table_new(g_str_hash, g_str_equal);
    ranges = g_array_new(FALSE, FALSE, sizeof(Range));
    blocks = g_array_new(FALSE, FALSE, sizeof(Block));
    calls = qemu_plugin_scoreboard_new(sizeof(Call));
    jit = class_named("jit"), python = class_named("python"), other = class_named("other");
    if (symbols && !read_symbols(symbols)) {
        return -1;
    }
    write_mark(0, "start", 0);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_syscall_return);
    qemu_plugin_register_atexit_cb(id, on_exit_, NULL);
    return 0;
}
