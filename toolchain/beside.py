"""Run a command, and beside it another one, for as long as the first takes, on what that leaves idle.

    beside.py OTHER… -- COMMAND…

Of phases that keep one core busy, such as configure. OTHER is work that need not be done, or can be done later: it has
the lowest priority, and is ended with its processes when COMMAND has ended, whose exit status is ours. What it prints
and how it ends does not matter.
"""

import os
import signal
import subprocess
import sys


def main():
    """Run both. Ends as the command does."""
    end = sys.argv.index("--")
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    other = subprocess.Popen(["nice", "-n", "19", *sys.argv[1:end]], **quiet, start_new_session=True)
    try:
        status = subprocess.call(sys.argv[end + 1 :])
    finally:
        os.killpg(other.pid, signal.SIGKILL)  # not waited for before, so it is there, or its number is still its own
        other.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
