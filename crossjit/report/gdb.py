"""What gdb saw where a program stopped, as text and as JSON. Nothing is printed here."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import asdict

from crossjit.channels import Stop, Uop
from crossjit.debugger.findings import GdbReport
from crossjit.model import Cell
from crossjit.util.text import pluralize

SEEN = "debug.txt"  # in a cell's folder of the run record: what gdb saw there
LINES = 16  # of a stack that are shown; all are in the run record
WIDTH = 160  # characters of such a line
OUTPUT = 60  # lines of the program's output that are written beside what gdb saw


def shown(cell: Cell, found: GdbReport, *, program_log: str = "") -> str:
    """Return the most telling lines: where it is, the tops of the stacks, and the end of the program's output."""
    lines = [f"{cell}: {found.about}", *(f"  {line}" for line in summary(found))]
    for title in ("Python stack", "native stack"):
        text = found.section(title).splitlines()
        if text:
            lines += ["", f"  {title}", *(f"    {_cut(line)}" for line in text[:LINES])]
            lines += [f"    … and {len(text) - LINES} lines more"] if len(text) > LINES else []
    if output := _end(program_log, LINES):
        lines += ["", "  the end of its output", *(f"    {_cut(line)}" for line in output)]
    return "\n".join(lines)


def written(cell: Cell, found: GdbReport, *, program_log: str) -> str:
    """Return all of it, as it stands in the run record; of the program's output the end."""
    parts = ["\n".join([f"{cell}: {found.about}", *summary(found)])]
    parts += (f"== {title}\n\n{text.rstrip()}" for title, text in found.sections)
    if output := _end(program_log, OUTPUT):
        parts.append("\n".join(["== the end of the program's output", "", *output]))
    return "\n\n".join(parts) + "\n"


def as_json(cell: Cell, found: GdbReport, *, program_log: str = "") -> dict[str, object]:
    """Return all of it as values that JSON can hold; `offset` and `size` in bytes, `output` its last lines."""
    return {
        "cell": str(cell),
        "about": found.about,
        "stop": {name: value for name, value in asdict(found.stop).items() if name != "event"} if found.stop else None,
        "ended": found.ended,
        "exit_code": found.exit_code,
        "whole": found.whole,
        "summary": list(summary(found)),
        "sections": [{"title": title, "text": text} for title, text in found.sections],
        "output": _end(program_log, OUTPUT),
    }


def summary(found: GdbReport) -> Iterator[str]:
    """Say where it is in a few lines."""
    yield from _stopped(found)
    if found.wrong:
        yield f"{pluralize(found.wrong, 'line')} of gdb's report cannot be used"


def _stopped(found: GdbReport) -> Iterator[str]:
    if found.stop is None:
        yield "it finished without a crash" + ("" if found.exit_code is None else f": exit status {found.exit_code}")
        if found.exit_code != 0:
            yield "warning: it failed in a different way, or did not do what was asked: see its output"
        return
    stop = found.stop
    yield f"{_why(stop)} in {_where(stop)}"
    yield f"=> {stop.pc}: {stop.instruction}" if stop.instruction else f"=> {stop.pc}: there is no code"
    if stop.executor is not None:
        yield uop_text(stop.executor)
    if not found.whole:
        yield "gdb died before the end of it"


def uop_text(uop: Uop) -> str:
    """Say which part of an executor it is."""
    where = f"uop {uop.number} of {uop.uops}, {uop.uop}" if uop.number is not None else "code behind its uops"
    frame = "" if uop.level == 0 else f"frame #{uop.level} is JIT code: "
    function = f" for {uop.function}" if uop.function else ""
    return f"{frame}{where}, {uop.offset} bytes into it; compiled{function}, {uop.size:,} bytes at {uop.code}"


def _end(program_log: str, lines: int) -> list[str]:
    return program_log.rstrip().splitlines()[-lines:]


def _why(stop: Stop) -> str:
    """Say what stopped it: `SIGSEGV (Segmentation fault)`."""
    if stop.interrupted:
        return "interrupted at its time limit,"
    if stop.signal is None:
        return "stopped"
    try:
        meaning = signal.strsignal(signal.Signals[stop.signal])
    except KeyError:
        meaning = None
    return f"{stop.signal} ({meaning})" if meaning else stop.signal


def _where(stop: Stop) -> str:
    function = f", {stop.function}" if stop.function and stop.place != "JIT code" else ""
    return f"{stop.place}{function}" + (f" ({stop.source})" if stop.source else "")


def _cut(line: str) -> str:
    """Shorten a line of a stack: without a function's arguments, which are in the run record."""
    line = re.sub(r" \(.*\) (at|from) ", r" \1 ", line)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
