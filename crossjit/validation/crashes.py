"""What a process that crashed or hung left in its log. Pure but for reading it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from crossjit.channels import ModuleExit
from crossjit.model import Crash, Outcome, TestResult
from crossjit.util import safe_files

TRACEBACK = 80  # lines that are kept; the whole is in the log
LINE = 1000  # characters of such a line
END = 1 << 18  # bytes of a log in which a traceback is looked for

# How faulthandler begins: `faulthandler_fatal_error` and `faulthandler_thread` in Modules/faulthandler.c, `fatal_error`
# in Python/pylifecycle.c. It comes behind the name of the test, whose line is not at its end yet.
_BEGINNING = re.compile(
    r"Fatal Python error(?:: | from unexpected signum: )|Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$", re.M
)


def of_module(ended: ModuleExit, results: Iterable[TestResult], folder: Path) -> tuple[Crash, ...]:
    """Say how a module's or script's process crashed or hung, if it did; its log is in `folder`."""
    test = next((each.name for each in results if each.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)), None)
    if test is None:
        return ()
    settings = [f"{name}={shlex.quote(value)}" for name, value in ended.env.items()]
    command = " ".join([*settings, shlex.join(ended.command)]) if ended.command else ""
    written = traceback(safe_files.read_end(folder, ended.log, END))
    return (Crash(test, ended.key, ended.how, command, written, ended.log),)


def traceback(text: str) -> tuple[str, ...]:
    """Find what faulthandler wrote last: all that follows, since nothing is written after it; cut where it is long."""
    found = list(_BEGINNING.finditer(text))
    if not found:
        return ()
    lines = [line[:LINE] for line in text[found[-1].start() :].rstrip().splitlines()]
    return tuple(lines if len(lines) <= TRACEBACK else [*lines[:TRACEBACK], f"… and {len(lines) - TRACEBACK} more"])
