"""Feature checks of processes: starting, crashing, tracing, and sharing a machine."""

import _thread
import contextlib
import mmap
import os
import resource
import select
import signal
import struct
import sys
import time

from feature_check import (
    PATIENCE,
    Inconclusive,
    Unsupported,
    buffer,
    call,
    ctypes,
    error_name,
    error_of,
    fork,
    how,
    program,
    require,
    run,
    strings,
    succeed,
    wait,
)


def unstartable(start):
    """Try to start a missing file, and one that is not a program; describe both results."""
    os.close(os.open("plain", os.O_CREAT, 0o600))
    return f"a missing file gives {start('/nowhere/at/all')}, a file that is no program {start('./plain')}"


UNSTARTABLE = "a missing file gives ENOENT, a file that is no program EACCES"


def posix_spawn_errno():
    """posix_spawn returns the error of a program that it cannot start.

    Under QEMU, where vfork is a fork, only the child fails, and posix_spawn returns 0 (gh-131398).
    Needed by: test_posix (TestPosixSpawn, TestPosixSpawnP), and test_subprocess where it uses posix_spawn.
    """

    def start(path):
        pid = ctypes.c_int()
        number = call("posix_spawn", ctypes.byref(pid), os.fsencode(path), None, None, strings(path), strings())
        return error_name(number) if number else f"no error and a child with {how(wait(pid.value))}"

    result = unstartable(start)
    require(result == UNSTARTABLE, result)
    return result


def vfork_errno():
    """A child of vfork can report why it could not start a program; with fork, the control, it can.

    Some QEMUs lost the errors, or let every such child exit with 127 (gh-129204).
    Needed by: test_subprocess (test_exception_bad_executable, test_file_not_found_includes_filename and similar ones).
    """
    import subprocess

    def starter(**options):
        def start(path):
            try:
                child = subprocess.Popen([path], **options)
            except OSError as error:
                return error_name(error.errno)
            return f"no error and a child with exit status {child.wait()}"

        return start

    with_fork = unstartable(starter(preexec_fn=lambda: None))  # which forces fork
    if with_fork != UNSTARTABLE:
        raise Inconclusive(f"with fork, too, {with_fork}")
    result = unstartable(starter())
    require(result == UNSTARTABLE, result)
    return result


def fexecve():
    """A program can be started by its descriptor.

    Needed by: test_posix.PosixTester.test_fexecve.
    """
    descriptor = os.open(program("true"), os.O_RDONLY)
    succeed(
        fork(lambda: error_of(lambda: call("fexecve", descriptor, strings("true"), strings()))), "`true` by descriptor"
    )
    return "`true`, started by its descriptor, ends with 0"


def closed_descriptors():
    """A program started without stdin, stdout and stderr has none of them, and not an emulator's files instead.

    Needed by: test_cmd_line.CmdLineTest.test_no_std_streams and the like, test_posix.TestPosixSpawn.test_close_file.
    """
    script = "n=0; true 3<&0 && n=1; true 3<&1 && n=$((n + 2)); true 3<&2 && n=$((n + 4)); exit $n"
    status, _ = run("sh", "-c", script, closed=(0, 1, 2))
    require(os.WIFEXITED(status) and os.WEXITSTATUS(status) < 8, f"a shell without them: {how(status)}")
    there = [str(number) for number in range(3) if os.WEXITSTATUS(status) & 1 << number]
    require(not there, f"descriptor {' and '.join(there)} is open in a program that was started without")
    return "a program that is started without descriptors 0, 1 and 2 has none of them"


def quiet_crash():
    """A program killed by a signal writes nothing, and its parent gets the signal.

    QEMU writes `uncaught target signal 11` to the program's stderr.
    Needed by: test_faulthandler (test_enable_file, test_enable_fd), and others that compare a crash's whole stderr.
    """
    status, said = run("sh", "-c", "kill -SEGV $$")
    require(os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV, f"`kill -SEGV $$` is {how(status)}")
    require(not said, f"a program killed by SIGSEGV says: {said.strip()}")
    return "a program killed by SIGSEGV says nothing"


def fault_handlers():
    """A memory fault can be handled, writing to a file, in a process without stdin, stdout and stderr.

    The control is the same in a process that has them.
    Needed by: test_faulthandler.
    """
    import faulthandler

    def fault(close):
        with open("fault", "wb") as file:
            faulthandler.enable(file, all_threads=False)
            if close:
                os.closerange(0, 3)
            ctypes.string_at(16)

    said = []
    for close in (False, True):
        status = wait(fork(lambda close=close: fault(close)))
        with open("fault", "rb") as file:
            written = b"Segmentation fault" in file.read()
        said.append(f"{how(status)}, {'told' if written else 'not told'} to a file")
    if said[0] != "killed by SIGSEGV, told to a file":
        raise Inconclusive(f"with stdin, stdout and stderr, too, a memory fault is {said[0]}")
    require(said[1] == said[0], f"a memory fault without stdin, stdout and stderr is {said[1]}")
    return f"a memory fault is {said[1]}"


def core_dumps():
    """A process that crashes may leave a core, at the place of the kernel's core_pattern.

    No test needs it, the evidence of a crash does.
    """
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    require(hard != 0, "the limit of a core's size is 0")
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    before = set(os.listdir())
    status, _ = run("sh", "-c", "kill -ABRT $$")
    left = sorted(set(os.listdir()) - before)
    with contextlib.suppress(OSError), open("/proc/sys/kernel/core_pattern", encoding="utf-8") as file:
        pattern = file.read().strip()
        require(left or os.WCOREDUMP(status), f"no core is dumped; core_pattern is {pattern}")
        return f"a core is dumped{' to ' + left[0] if left else ''}; core_pattern is {pattern}"
    raise Inconclusive("core_pattern cannot be read")


TRACE_ME, TRACE_CONTINUE, TRACE_ATTACH, TRACE_DETACH = 0, 7, 16, 17


def trace(request, pid=0):
    """Call ptrace."""
    call("ptrace", ctypes.c_long(request), ctypes.c_long(pid), None, None, result="c_long")


def ptrace():
    """A process can trace its children: one that requests it, and one that it attaches to.

    Needed by: test_gdb, and all that needs a debugger or strace inside the target.
    """

    def traced():
        number = error_of(lambda: trace(TRACE_ME))
        if not number:
            os.kill(os.getpid(), signal.SIGSTOP)
        return number

    pid = fork(traced)
    status = os.waitpid(pid, os.WUNTRACED)[1]
    if os.WIFEXITED(status):
        raise Unsupported(f"PTRACE_TRACEME gives {error_name(os.WEXITSTATUS(status))}")
    trace(TRACE_CONTINUE, pid)
    succeed(pid, "a traced child that goes on")
    pid = fork(lambda: time.sleep(60))
    trace(TRACE_ATTACH, pid)
    require(os.WIFSTOPPED(os.waitpid(pid, 0)[1]), "a child that is attached to does not stop")
    trace(TRACE_DETACH, pid)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    return "a child that asks to be traced is, and one can be attached to"


def process_memory():
    """A process can read and write the memory of its children (process_vm_readv, process_vm_writev).

    Needed by: test_external_inspection, test_remote_pdb, test_sys (remote_exec), test_profiling.
    """
    shared, address = buffer(16)
    shared.value = b"of the child"
    pid = fork(lambda: time.sleep(60))
    shared.value = b"of the parent"
    copy, copy_address = buffer(16)
    here, there = (ctypes.create_string_buffer(struct.pack("PN", each.value, 16)) for each in (copy_address, address))

    def transfer(name):
        call(name, pid, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0), result="c_ssize_t")

    transfer("process_vm_readv")
    require(copy.value == b"of the child", f"what is read of the child's memory is {copy.value!r}")
    copy.value = b"changed"
    transfer("process_vm_writev")
    copy.value = b""
    transfer("process_vm_readv")
    require(copy.value == b"changed", f"after a write the child's memory is {copy.value!r}")
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    return "a child's memory can be read and written"


def proc_self_stat():
    """/proc/self/stat counts the process's threads.

    Needed by: test_os.ForkTests.test_fork_warns_when_non_python_thread_exists, and the warning that it is about.
    """
    lock = _thread.allocate_lock()
    lock.acquire()
    _thread.start_new_thread(lock.acquire, ())
    with open("/proc/self/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()  # from the third field of proc(5)
        number = int(fields[20 - 3])
    lock.release()
    require(number == 2, f"it counts {number} threads of two")
    return "it counts two threads of two"


def proc_self_maps():
    """/proc/self/maps has the process's own mappings, with addresses, permissions, and the executable's file.

    Needed by: test_sys, and checks that look for machine code in a process's memory.
    """
    size = 4 * mmap.PAGESIZE
    address = call("mmap", None, ctypes.c_size_t(size), 1, 0x22, -1, ctypes.c_long(0), result="c_void_p")

    def permissions():
        with open("/proc/self/maps", encoding="utf-8") as file:
            for line in file:
                start, _, end = line.split()[0].partition("-")
                if int(start, 16) <= address and address + size <= int(end, 16):
                    return line.split()[1]
        return "nowhere"

    require(permissions() == "r--p", f"a mapping that can only be read is {permissions()}")
    call("mprotect", ctypes.c_void_p(address), ctypes.c_size_t(size), 3)
    require(permissions() == "rw-p", f"a mapping that was made writable is {permissions()}")
    with open("/proc/self/maps", encoding="utf-8") as file:
        require(os.path.realpath(sys.executable) in file.read(), "the executable is not in it")
    return "it shows what is mapped, and how"


def proc_self_exe():
    """/proc/self/exe is the running program, not its emulator.

    No test needs it; tools that find the symbols of a running program do.
    """
    path, expected = os.readlink("/proc/self/exe"), os.path.realpath(sys.executable)
    require(path == expected, f"it is {path}, not {expected}")
    return f"it is {path}"


def fork_with_threads():
    """A process with threads can fork, and its child can run, start its own threads, and exit.

    Needed by: test_multiprocessing_fork, test_concurrent_futures with fork, test_os.ForkTests, test_threading.
    """
    lock = _thread.allocate_lock()
    lock.acquire()
    for _ in range(3):
        _thread.start_new_thread(lock.acquire, ())

    def body():
        done = _thread.allocate_lock()
        done.acquire()
        _thread.start_new_thread(done.release, ())
        return 0 if done.acquire(timeout=PATIENCE) else 1

    for _ in range(5):
        succeed(fork(body), "a child of a process with threads")
    return "five children of a process with threads ran a thread and ended"


def cpu_affinity():
    """A process can choose the cores that it runs on.

    Needed by: test_posix (test_sched_getaffinity, test_sched_setaffinity).
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    require(os.sched_getaffinity(0) == {min(cores)}, f"after the choice of one core it has {os.sched_getaffinity(0)}")
    return f"it can choose of {len(cores)}"


def pidfd():
    """A process can be waited for through a descriptor.

    Needed by: test_asyncio.test_subprocess, test_posix.PosixTester.test_pidfd_open, test_signal, test_subprocess.
    """
    pid = fork(lambda: 7)
    descriptor = os.pidfd_open(pid)
    require(select.select([descriptor], [], [], PATIENCE / 2)[0], "its descriptor does not tell that it ended")
    ended = os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
    require(ended.si_status == 7, f"what it ended with is {ended.si_status}, not 7")
    return "a child can be waited for by its descriptor"


FEATURE_CHECKS = (
    posix_spawn_errno,
    vfork_errno,
    fexecve,
    closed_descriptors,
    quiet_crash,
    fault_handlers,
    core_dumps,
    ptrace,
    process_memory,
    proc_self_stat,
    proc_self_maps,
    proc_self_exe,
    fork_with_threads,
    cpu_affinity,
    pidfd,
)
