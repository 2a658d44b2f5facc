"""How far the meter is from valgrind, as text and as JSON. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from crossjit.measure.check import CLASSES, Check
from crossjit.model import Cell
from crossjit.report import tables
from crossjit.report.terminal_style import TerminalStyle

HEADERS = ("benchmark", "JIT", "counted", "the meter", "callgrind", "apart", "agree")
NAMES = {"interpreter": "interpreter's loop", "jit": "JIT code", "": "everything"}

Checks = Mapping[Cell, Sequence[Check]]


def as_json(found: Checks, *, run: str, reproduce: str) -> dict[str, Any]:
    """Return the checks of each cell as JSON values, with instructions by class."""
    cells = {str(cell): [_document(check) for check in checks] for cell, checks in found.items()}
    return {"run": run, "reproduce": reproduce, "cells": cells}


def as_text(found: Checks, style: TerminalStyle) -> str:
    """Return a table for each cell."""
    return "\n\n".join("\n".join(_cell(cell, checks, style)) for cell, checks in found.items())


def _cell(cell: Cell, checks: Sequence[Check], style: TerminalStyle) -> Iterator[str]:
    yield f"{cell}: instructions of all calls, as the meter and as valgrind's callgrind count them"
    yield ""
    yield tables.render(HEADERS, [row for check in checks for row in _rows(check)], style)
    yield ""
    for check in checks:
        if check.problem:
            yield f"{check.benchmark}, JIT {_on(check)}: {check.problem}"
    wrong = sum(not check.agrees for check in checks)
    limits = ", ".join(f"{NAMES[name]} {part * 100:g} %" for name, part in CLASSES.items())
    yield f"{len(checks) - wrong} of {len(checks)} agree; at most apart: {limits}"


def _rows(check: Check) -> Iterator[tuple[str, ...]]:
    if check.counts is None:
        return
    for name in CLASSES:
        sides = check.counts.meter, check.counts.callgrind
        ours, theirs = (counts.get(name, 0) if name else sum(counts.values()) for counts in sides)
        apart = f"{check.counts.differs(name) * 100:.4f} %"
        yield check.benchmark, _on(check), NAMES[name], f"{ours:,}", f"{theirs:,}", apart, _yes(check.agrees_in(name))


def _document(check: Check) -> dict[str, Any]:
    counts = check.counts
    return {
        "benchmark": check.benchmark,
        "jit": check.jit,
        "agrees": check.agrees,
        "problem": check.problem,
        "meter": dict(counts.meter) if counts else {},
        "callgrind": dict(counts.callgrind) if counts else {},
    }


def _on(check: Check) -> str:
    return "on" if check.jit else "off"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
