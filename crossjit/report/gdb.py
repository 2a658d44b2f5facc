"""gdb's report about a stopped program, as text and as JSON. Nothing is printed here."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from dataclasses import asdict

from crossjit.channels import Stop, Uop
from crossjit.debugger.findings import GdbReport
from crossjit.model import Cell
from crossjit.util.text import pluralize

SEEN = "debug.txt"  # gdb's report, in a cell's folder of the run record
LINES = 16  # lines shown of a stack; all are in the run record
WIDTH = 160  # characters of such a line
OUTPUT = 60  # lines of the program's output in the record


def shown(cell: Cell, report: GdbReport, *, program_log: str = "") -> str:
    """Return the most important lines: where it stopped, the tops of the stacks, the end of the program's output."""
    lines = [f"{cell}: {report.about}", *(f"  {line}" for line in summary(report))]
    for title in ("Python stack", "native stack"):
        text = report.section(title).splitlines()
        if text:
            lines += ["", f"  {title}", *(f"    {_cut(line)}" for line in text[:LINES])]
            lines += [f"    … and {len(text) - LINES} lines more"] if len(text) > LINES else []
    if output := _end(program_log, LINES):
        lines += ["", "  the end of its output", *(f"    {_cut(line)}" for line in output)]
    return "\n".join(lines)


def written(cell: Cell, report: GdbReport, *, program_log: str) -> str:
    """Return the whole report for the run record, with the end of the program's output."""
    parts = ["\n".join([f"{cell}: {report.about}", *summary(report)])]
    parts += (f"== {title}\n\n{text.rstrip()}" for title, text in report.sections)
    if output := _end(program_log, OUTPUT):
        parts.append("\n".join(["== the end of the program's output", "", *output]))
    return "\n\n".join(parts) + "\n"


def as_json(cell: Cell, report: GdbReport, *, program_log: str = "") -> dict[str, object]:
    """Return the report as JSON values; `offset` and `size` in bytes, `output` the last lines."""
    return {
        "cell": str(cell),
        "about": report.about,
        "stop": {name: value for name, value in asdict(report.stop).items() if name != "event"}
        if report.stop
        else None,
        "ended": report.ended,
        "exit_code": report.exit_code,
        "whole": report.whole,
        "summary": list(summary(report)),
        "sections": [{"title": title, "text": text} for title, text in report.sections],
        "output": _end(program_log, OUTPUT),
    }


def summary(report: GdbReport) -> Iterator[str]:
    """Yield a few lines about where it stopped."""
    yield from _stopped(report)
    if report.wrong:
        yield f"{pluralize(report.wrong, 'line')} of gdb's report cannot be used"


def _stopped(report: GdbReport) -> Iterator[str]:
    if report.stop is None:
        yield "it finished without a crash" + ("" if report.exit_code is None else f": exit status {report.exit_code}")
        if report.exit_code != 0:
            yield "warning: it failed in a different way, or did not do what was asked: see its output"
        return
    stop = report.stop
    yield f"{_why(stop)} in {_where(stop)}"
    yield f"=> {stop.pc}: {stop.instruction}" if stop.instruction else f"=> {stop.pc}: there is no code"
    if stop.executor is not None:
        yield uop_text(stop.executor)
    if not report.whole:
        yield "gdb died before the end of it"


def uop_text(uop: Uop) -> str:
    """Describe a part of an executor."""
    place = f"uop {uop.number} of {uop.uops}, {uop.uop}" if uop.number is not None else "code behind its uops"
    frame = "" if uop.level == 0 else f"frame #{uop.level} is JIT code: "
    function = f" for {uop.function}" if uop.function else ""
    return f"{frame}{place}, {uop.offset} bytes into it; compiled{function}, {uop.size:,} bytes at {uop.code}"


def _end(program_log: str, lines: int) -> list[str]:
    return program_log.rstrip().splitlines()[-lines:]


def _why(stop: Stop) -> str:
    """Return what stopped it: `SIGSEGV (Segmentation fault)`."""
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
    """Shorten a line of a stack; a function's arguments are only in the run record."""
    line = re.sub(r" \(.*\) (at|from) ", r" \1 ", line)
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
