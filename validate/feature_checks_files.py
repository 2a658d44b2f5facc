"""Feature checks of files, terminals and installed programs."""

import os
import re
import select
import shutil
import subprocess

from feature_check import PATIENCE, Unsupported, buffer, call, ctypes, error_name, require


def mount_points():
    """Mount points can be recognized by stat and by /proc/self/mountinfo, which agree.

    Needed by: test_posixpath.PosixPathTest.test_ismount, test_pathlib (test_is_mount and its like), test_shutil.
    """
    require(os.path.samestat(os.stat("/"), os.stat("/..")), "/.. is another folder than /")
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = {fields[4]: fields[2] for fields in map(str.split, file)}
    for path in ("/", "/proc"):
        device = os.stat(path).st_dev
        told = f"{os.major(device)}:{os.minor(device)}"
        require(mounts.get(path) == told, f"{path} is {mounts.get(path)} for mountinfo and {told} for stat")
    require(os.stat("/proc").st_dev != os.stat("/").st_dev, "/proc is on the same device as /")
    return "stat and mountinfo agree on / and /proc"


def pty():
    """There are pseudo-terminals, and the C library recognizes them as terminals.

    Since glibc 2.42 isatty and tcgetattr ask by the ioctl TCGETS2, which older QEMUs do not know.
    Needed by: test_builtin.PtyTests, test_pty, test_tty, test_openpty, test_termios, test_curses, test_pyrepl.
    """
    master, slave = os.openpty()
    for name, descriptor in (("the terminal", slave), ("its other end", master)):
        ctypes.set_errno(0)
        if call("isatty", descriptor) != 1:
            raise Unsupported(f"isatty says no of {name}: {error_name(ctypes.get_errno())}")
    _, attributes = keep = buffer(256)
    call("tcgetattr", slave, attributes)
    call("tcsetattr", slave, 0, attributes)
    del keep
    os.write(master, b"line\n")
    require(select.select([slave], [], [], PATIENCE / 2)[0], "what is typed does not arrive")
    require(os.read(slave, 100) == b"line\n", "what is typed arrives changed")
    return "it is a terminal, its settings can be read and set, and what is typed arrives"


def perf_map():
    """The file for perf with the names of generated code, /tmp/perf-PID.map, can be written.

    Needed by: test_perf_profiler, test_perfmaps, test_samply_profiler.
    """
    path = f"/tmp/perf-{os.getpid()}.map"
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600)
    os.write(descriptor, b"0 1 name\n")
    os.close(descriptor)
    os.unlink(path)
    return "/tmp/perf-PID.map can be written"


def linker():
    """A linker is installed, with objdump and a C library to link to; images for running programs only lack them.

    Needed by: test_ctypes.test_find.FindLibraryLinux.test_find_library_with_gcc and its like.
    """
    for program in ("ld", "objdump"):
        require(shutil.which(program), f"{program} is not installed")
    # as ctypes.util does: linking fails without a program, but the trace has the library's path
    command = ["ld", "-t", "-o", os.devnull, "-lc"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    found = re.search(rb"\S*libc\.\S*", done.stdout)
    require(found, "ld finds no C library")
    return f"ld finds {os.fsdecode(found[0])}"


FEATURE_CHECKS = (
    mount_points,
    pty,
    perf_map,
    linker,
)
