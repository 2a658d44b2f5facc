"""Run a command, and beside it another one, for as long as the first takes, on what that leaves idle.

    run_alongside.py OTHER… -- COMMAND…

Of phases that keep one core busy, such as configure. OTHER is work that need not be done, or can be done later: it has
the lowest priority, and is ended with its processes when COMMAND has ended, whose exit status is ours. What it prints
and how it ends does not matter, nor whether it begins. What fails in here ends with the status FAULT, which is told
from COMMAND's.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import traceback

FAULT = 97  # crossjit/build/layout.py knows it, too


def main():
    """Run both; return COMMAND's exit status."""
    end = sys.argv.index("--")
    command = sys.argv[end + 1 :]
    with beside(sys.argv[1:end]):
        try:
            status = subprocess.call(command)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # as a shell has it
            print(error, file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
    if status == FAULT and str(pathlib.Path(__file__).with_name("build_cache.py")) not in command:
        return 1
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def beside(argv):
    """Have a command run beside the block, if it can be started."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = None
    with contextlib.suppress(OSError):
        other = subprocess.Popen(["nice", "-n", "19", *argv], **quiet, start_new_session=True)
    try:
        yield
    finally:
        if other:
            os.killpg(other.pid, signal.SIGKILL)  # not waited for before, so it is there, or its number is its own yet
            other.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # ours, or the machine's
        traceback.print_exc()
        sys.exit(FAULT)
