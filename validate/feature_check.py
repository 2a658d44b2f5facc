"""What feature checks are made of: what they can say, the C library, and processes.

Numbers are those of Linux, the same on x86_64 and AArch64.
"""

import errno
import os
import signal
import traceback

try:
    import ctypes
except ImportError:  # then the feature checks that need it go wrong one by one, and say so
    ctypes = None

PATIENCE = 10.0  # seconds for one feature check, which needs a small part of one, under QEMU too
TICK = 0.02  # seconds: how long timers in checks run


class Unsupported(Exception):  # noqa: N818 - it is the finding, not an error of ours
    """The capability is not there: what came instead."""


class Inconclusive(Exception):  # noqa: N818
    """Nothing can be said about the capability."""


def require(condition, message):
    """Raise Missing unless the condition holds (an assert would go with -O)."""
    if not condition:
        raise Unsupported(message)


def call(name, *arguments, result="c_int"):
    """Call a function of the C library, whose result has the type that `result` names. Raises OSError for -1."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = getattr(ctypes, result)
    ctypes.set_errno(0)
    value = function(*arguments)
    if value == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return value


def check(name, *arguments):
    """Call a function that returns an error number (pthread_… and their like). Raises OSError unless it is 0."""
    number = call(name, *arguments)
    if number:
        raise OSError(number, f"{name}: {os.strerror(number)}")


def error_name(number):
    """Name an error number: `ENOENT`."""
    return errno.errorcode.get(number, f"error {number}")


def strings(*texts):
    """Make an array of C strings, and the null that ends it."""
    return (ctypes.c_char_p * (len(texts) + 1))(*(os.fsencode(text) for text in texts), None)


def buffer(size):
    """Make a buffer, and its address as an argument for `call`."""
    made = ctypes.create_string_buffer(size)
    return made, ctypes.c_void_p(ctypes.addressof(made))


def fork(body):
    """Fork; the child runs `body()` and exits with what that returns, 0 for None, 99 for an exception."""
    pid = os.fork()
    if pid:
        return pid
    status = 99
    try:
        status = body() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def error_of(function):
    """Return the number of the error that a function raises, 0 for none: an exit status for a child."""
    try:
        function()
    except OSError as error:
        return error.errno
    return 0


def how(status):
    """Say what a wait status tells: `exit status 2`, `killed by SIGSEGV`."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal_name(os.WTERMSIG(status))}"
    if os.WIFSTOPPED(status):
        return f"stopped by {signal_name(os.WSTOPSIG(status))}"
    return f"exit status {os.WEXITSTATUS(status)}"


def signal_name(number):
    """Name a signal as people know it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def wait(pid):
    """Wait for a child's end and return its wait status."""
    return os.waitpid(pid, 0)[1]


def succeed(pid, what):
    """Wait for a child. Raises Missing unless it exits with 0."""
    status = wait(pid)
    require(status == 0, f"{what}: {how(status)}")


def program(name):
    """Find a program of the target's."""
    for folder in ("/bin", "/usr/bin"):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise Inconclusive(f"there is no {name} here to try it with")


def run(name, *arguments, closed=()):
    """Run a program; return its wait status and all that it wrote."""
    path = program(name)
    reader, writer = os.pipe()

    def body():
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.closerange(3, 256)
        for descriptor in closed:
            os.close(descriptor)
        os.execv(path, [name, *arguments])

    pid = fork(body)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    return wait(pid), said.decode("utf-8", "replace")
