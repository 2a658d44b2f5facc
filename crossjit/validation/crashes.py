"""Crashed and hung processes, described from their logs. Pure except for reading the log."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from crossjit.channels import ModuleExit
from crossjit.model import Crash, Outcome, TestResult
from crossjit.util import safe_files

TRACEBACK = 80  # lines of a traceback, at most; the whole is in the log
LINE = 1000  # characters of such a line
END = 1 << 18  # bytes at a log's end that are searched for a traceback

# The start of faulthandler's output: `faulthandler_fatal_error` and `faulthandler_thread` in Modules/faulthandler.c,
# `fatal_error` in Python/pylifecycle.c. It may follow the test's name on the same line.
_BEGINNING = re.compile(
    r"Fatal Python error(?:: | from unexpected signum: )|Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$", re.M
)


def of_module(module: ModuleExit, results: Iterable[TestResult], folder: Path) -> tuple[Crash, ...]:
    """Describe how a module's or script's process crashed or hung, if it did; its log is in `folder`."""
    test = next((result.name for result in results if result.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)), None)
    if test is None:
        return ()
    settings = [f"{name}={shlex.quote(value)}" for name, value in module.env.items()]
    command = " ".join([*settings, shlex.join(module.command)]) if module.command else ""
    lines = traceback(safe_files.read_end(folder, module.log, END))
    return (Crash(test, module.key, module.how, command, lines, module.log),)


def traceback(text: str) -> tuple[str, ...]:
    """Return faulthandler's last output, up to the log's end, shortened if it is long."""
    matches = list(_BEGINNING.finditer(text))
    if not matches:
        return ()
    lines = [line[:LINE] for line in text[matches[-1].start() :].rstrip().splitlines()]
    return tuple(lines if len(lines) <= TRACEBACK else [*lines[:TRACEBACK], f"… and {len(lines) - TRACEBACK} more"])
