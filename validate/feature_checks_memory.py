"""Feature checks of memory: addresses, limits, permissions, and sharing between processes."""

import _thread
import contextlib
import errno
import mmap
import os
import resource
import struct
import time

from feature_check import (
    TICK,
    Inconclusive,
    Unsupported,
    buffer,
    call,
    check,
    ctypes,
    error_name,
    fork,
    how,
    require,
    run,
    succeed,
)


def aslr():
    """Processes are loaded to different addresses.

    No test needs it; without it, a failure that depends on addresses shows in every run, or in none.
    """
    seen = set()
    for _ in range(3):
        status, maps = run("cat", "/proc/self/maps")
        require(status == 0, f"`cat /proc/self/maps` is {how(status)}")
        seen.add(tuple(line.split("-")[0] for line in maps.splitlines() if "libc.so" in line or "[stack]" in line))
    require(len(seen) > 1, "three processes have their C library and their stack at the same addresses")
    return "processes have their C library and their stack at different addresses"


RETURN = {"x86_64": b"\xc3", "aarch64": b"\xc0\x03\x5f\xd6"}  # machine code of a function that returns


def executable_memory():
    """Memory can be written, then made executable, and run, as the JIT does.

    Needed by: every test of the JIT, test_ctypes (callbacks), test_perf_profiler.
    """
    code = RETURN.get(os.uname().machine)
    if code is None:
        raise Inconclusive(f"there is no machine code of {os.uname().machine} to try it with")
    size = ctypes.c_size_t(mmap.PAGESIZE)
    address = call("mmap", None, size, 3, 0x22, -1, ctypes.c_long(0), result="c_void_p")
    ctypes.memmove(address, code, len(code))
    call("mprotect", ctypes.c_void_p(address), size, 5)
    ctypes.CFUNCTYPE(None)(address)()
    return "memory that was written can be made executable, and runs"


def memory():
    """The container may use 2 GiB of memory.

    No test needs it alone; several modules at a time do.
    """
    limits = {}
    for name, path in (
        ("the container's", "/sys/fs/cgroup/memory.max"),
        ("the container's", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
            limits[name] = int(file.read())
    with open("/proc/meminfo", encoding="utf-8") as file:
        limits["the machine's"] = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemTotal"))
    said = ", ".join(f"{name} memory is {size / 2**30:.1f} GiB" for name, size in limits.items() if size < 1 << 50)
    require(min(limits.values()) >= 2 << 30, said)
    return said


def memory_limits():
    """A process can limit its own memory, and then cannot allocate more (RLIMIT_AS).

    Needed by: test_resource.
    """
    limit = 4 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    require(resource.getrlimit(resource.RLIMIT_AS)[0] == limit, "the limit that was set is not the one that is told")
    try:
        call("mmap", None, ctypes.c_size_t(2 * limit), 0, 0x4022, -1, ctypes.c_long(0), result="c_ssize_t")
    except OSError as error:
        require(error.errno == errno.ENOMEM, f"more than the limit gives {error_name(error.errno)}")
        return "more than the limit is refused"
    raise Unsupported("more than the limit is given all the same")


def stack_of_this_thread():
    """Return the lowest address and the size of the running thread's stack."""
    _, attributes = keep = buffer(256)
    check("pthread_getattr_np", ctypes.c_ulong(_thread.get_ident()), attributes)
    address, size = ctypes.c_size_t(), ctypes.c_size_t()
    check("pthread_attr_getstack", attributes, ctypes.byref(address), ctypes.byref(size))
    check("pthread_attr_destroy", attributes)
    del keep
    return address.value, size.value


def main_stack():
    """The main thread's stack is where the C library reports it, and at least 1 MiB large.

    From it 3.14 and later know how deep C code may recurse (`hardware_stack_limits` in Python/ceval.c).
    Needed by: the tests of deep recursion in test_call, test_ast, test_exceptions, test_json, test_pickle.
    """
    address, size = stack_of_this_thread()
    random_bytes = call("getauxval", ctypes.c_ulong(25), result="c_ulong")  # the kernel puts them on the stack
    require(address <= random_bytes < address + size, f"it is said to be elsewhere: {random_bytes:#x} is not in it")
    require(size >= 1 << 20, f"it is {size >> 10} KiB large")
    return f"it is {size >> 20} MiB large"


def thread_stack():
    """A thread can have a stack of 64 MiB, and use it.

    Needed by: test_threading and test_thread (stack_size), and tests that recurse deeply in a thread.
    """
    wanted, found = 64 << 20, []
    lock = _thread.allocate_lock()
    lock.acquire()

    def body():
        try:
            address, size = stack_of_this_thread()
            ctypes.memset(address + (1 << 16), 1, size * 3 // 4)  # from the lower end, which is unused
            found.append(size)
        finally:
            lock.release()

    _thread.stack_size(wanted)
    _thread.start_new_thread(body, ())
    lock.acquire()
    require(found and found[0] >= wanted - (1 << 20), f"the stack of a thread that asked for {wanted} bytes: {found}")
    return f"the stack of a thread is {found[0] >> 20} MiB large, and can be written"


def semaphores():
    """Processes can share a named semaphore.

    Needed by: multiprocessing and all that tests it, test_concurrent_futures, test_logging where it uses queues.
    """
    name = f"/check-{os.getpid()}".encode()
    semaphore = call("sem_open", name, os.O_CREAT | os.O_EXCL, 0o600, 0, result="c_void_p")
    require(semaphore, "sem_open gives none")
    semaphore = ctypes.c_void_p(semaphore)
    call("sem_unlink", name)
    pid = fork(lambda: call("sem_wait", semaphore))
    time.sleep(TICK)
    require(os.waitpid(pid, os.WNOHANG) == (0, 0), "a child does not wait for it")
    call("sem_post", semaphore)
    succeed(pid, "a child that waits for a semaphore")
    return "a child waits for it, and goes on when it may"


def shared_memory():
    """Processes can share named memory.

    Needed by: multiprocessing.shared_memory and all that tests it.
    """
    name = f"/check-{os.getpid()}".encode()
    descriptor = call("shm_open", name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    call("shm_unlink", name)
    os.ftruncate(descriptor, mmap.PAGESIZE)

    def body():
        with mmap.mmap(descriptor, mmap.PAGESIZE) as memory:
            memory[:5] = b"child"

    succeed(fork(body), "a child that writes to it")
    with mmap.mmap(descriptor, mmap.PAGESIZE) as memory:
        require(memory[:5] == b"child", f"what a child wrote is {memory[:5]!r} here")
    return "what a child writes is seen"


def robust_mutexes():
    """A mutex whose owner died can be locked by another process, which is notified.

    No test needs it; programs that share memory do.
    """
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    mutex = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    _, attributes = keep = buffer(64)
    check("pthread_mutexattr_init", attributes)
    check("pthread_mutexattr_setpshared", attributes, 1)
    check("pthread_mutexattr_setrobust", attributes, 1)
    check("pthread_mutex_init", mutex, attributes)
    del keep
    succeed(fork(lambda: check("pthread_mutex_lock", mutex)), "a child that takes it and dies")
    deadline = ctypes.create_string_buffer(struct.pack("qq", int(time.time()) + 1, 0))
    number = call("pthread_mutex_timedlock", mutex, deadline)
    require(number == errno.EOWNERDEAD, f"a mutex whose owner died gives {error_name(number)}")
    return "a mutex whose owner died gives EOWNERDEAD"


FEATURE_CHECKS = (
    aslr,
    executable_memory,
    memory,
    memory_limits,
    main_stack,
    thread_stack,
    semaphores,
    shared_memory,
    robust_mutexes,
)
