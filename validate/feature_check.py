"""Helpers of feature checks: their results, calls of the C library, and processes.

Numbers are Linux's, the same on x86_64 and AArch64.
"""

import errno
import os
import signal
import traceback

try:
    import ctypes
except ImportError:  # each feature check that needs it then reports the error
    ctypes = None

PATIENCE = 10.0  # seconds for one feature check, which takes a fraction of a second, even under QEMU
TICK = 0.02  # seconds of the timers in checks


class Unsupported(Exception):  # noqa: N818 - a finding, not an error of ours
    """The capability is missing; the message says what happened instead."""


class Inconclusive(Exception):  # noqa: N818
    """It is unknown whether the capability works."""


def require(condition, message):
    """Raise Unsupported unless the condition holds (-O removes asserts)."""
    if not condition:
        raise Unsupported(message)


def call(name, *arguments, result="c_int"):
    """Call a function of the C library; `result` names its result's type. Raises OSError for -1."""
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.restype = getattr(ctypes, result)
    ctypes.set_errno(0)
    value = function(*arguments)
    if value == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return value


def check(name, *arguments):
    """Call a function that returns an error number, such as pthread_…. Raises OSError unless it is 0."""
    number = call(name, *arguments)
    if number:
        raise OSError(number, f"{name}: {os.strerror(number)}")


def error_name(number):
    """Return the name of an error number: `ENOENT`."""
    return errno.errorcode.get(number, f"error {number}")


def strings(*texts):
    """Make a null-terminated array of C strings."""
    return (ctypes.c_char_p * (len(texts) + 1))(*(os.fsencode(text) for text in texts), None)


def buffer(size):
    """Make a buffer, and its address as an argument for `call`."""
    memory = ctypes.create_string_buffer(size)
    return memory, ctypes.c_void_p(ctypes.addressof(memory))


def fork(body):
    """Fork; the child runs `body()` and exits with its result, 0 for None, 99 for an exception."""
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
    """Return the number of a function's OSError, 0 without one: an exit status for a child."""
    try:
        function()
    except OSError as error:
        return error.errno
    return 0


def how(status):
    """Describe a wait status: `exit status 2`, `killed by SIGSEGV`."""
    if os.WIFSIGNALED(status):
        return f"killed by {signal_name(os.WTERMSIG(status))}"
    if os.WIFSTOPPED(status):
        return f"stopped by {signal_name(os.WSTOPSIG(status))}"
    return f"exit status {os.WEXITSTATUS(status)}"


def signal_name(number):
    """Return a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def wait(pid):
    """Wait for a child's end and return its wait status."""
    return os.waitpid(pid, 0)[1]


def succeed(pid, subject):
    """Wait for a child. Raises Unsupported unless it exits with 0."""
    status = wait(pid)
    require(status == 0, f"{subject}: {how(status)}")


def program(name):
    """Return the path of a program in the target."""
    for folder in ("/bin", "/usr/bin"):
        path = f"{folder}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise Inconclusive(f"there is no {name} here to try it with")


def run(name, *arguments, closed=()):
    """Run a program; return its wait status and output."""
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
        output = file.read()
    return wait(pid), output.decode("utf-8", "replace")
