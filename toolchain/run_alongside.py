"""Run a command, and a second one on idle cores until the first ends.

    run_alongside.py OTHER… -- COMMAND…

For phases that use one core, such as configure. OTHER is optional work: it has the lowest priority, and is killed with
its processes when COMMAND ends. The exit status is COMMAND's; OTHER's output, exit status and failure to start are
ignored. The script's own failures exit with FAULT; COMMAND's own status of this number becomes 1, unless COMMAND is
build_cache.py.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import traceback

FAULT = 97  # SCRIPT_FAULT of crossjit/build/layout.py


def main():
    """Run both; return COMMAND's exit status."""
    end = sys.argv.index("--")
    command = sys.argv[end + 1 :]
    with background(sys.argv[1:end]):
        try:
            status = subprocess.call(command)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:  # statuses as in a shell
            print(error, file=sys.stderr)
            return 127 if isinstance(error, FileNotFoundError) else 126
    if status == FAULT and str(pathlib.Path(__file__).with_name("build_cache.py")) not in command:
        return 1
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def background(argv):
    """Run a command during the block, if it can be started."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = None
    with contextlib.suppress(OSError):
        other = subprocess.Popen(["nice", "-n", "19", *argv], **quiet, start_new_session=True)
    try:
        yield
    finally:
        if other:
            os.killpg(other.pid, signal.SIGKILL)  # it has not been waited for, so its pid is not reused
            other.wait()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception:  # a bug of this script, or the machine's failure
        traceback.print_exc()
        sys.exit(FAULT)
