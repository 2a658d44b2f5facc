"""Starts a command of the host engine: sets its limits and its working folder, then becomes the command.

    host_start.py JSON ARGV…

JSON has "limits": {name of a resource: [soft, hard]}, "nice" and "cwd". A standalone script, since code between fork
and exec in a process with threads may hang. Before the command starts, "crossjit PID" is printed to stderr, or what
failed; from then on, stderr is stdout.
"""

import contextlib
import json
import os
import resource
import sys

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # a shell's statuses


def main() -> int:
    """Become the command; return the exit status if it cannot be started."""
    options, argv = json.loads(sys.argv[1]), sys.argv[2:]
    for name, (soft, hard) in options["limits"].items():
        number = getattr(resource, name)
        highest = resource.getrlimit(number)[1]
        wanted = [_at_most(value, highest) for value in (soft, hard)]
        with contextlib.suppress(ValueError):  # macOS has further limits on some
            resource.setrlimit(number, (wanted[0], wanted[1]))
    os.nice(options["nice"])
    os.chdir(options["cwd"])
    os.write(2, f"crossjit {os.getpid()}\n".encode())
    os.dup2(1, 2)
    try:
        os.execvpe(argv[0], argv, os.environ)  # noqa: S606 - without a shell, on purpose
    except (FileNotFoundError, NotADirectoryError):
        os.write(1, f"{argv[0]}: not found\n".encode(errors="surrogateescape"))
        return NOT_FOUND
    except OSError as error:
        os.write(1, f"{argv[0]}: {error.strerror}\n".encode(errors="surrogateescape"))
        return NOT_EXECUTABLE


def _at_most(value: int, highest: int) -> int:
    """Return a limit that this user may set; -1 is none."""
    if highest == resource.RLIM_INFINITY:
        return value if value >= 0 else resource.RLIM_INFINITY
    return min(value, highest) if value >= 0 else highest


if __name__ == "__main__":
    raise SystemExit(main())
