"""Where the instructions of benchmarks go, as text and as JSON. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from crossjit.measure import symbols
from crossjit.measure.detail import CellDetails, Detail, Kind, Warm
from crossjit.measure.model import Counts
from crossjit.measure.uops import Division
from crossjit.report import tables
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import pluralize

MOST = 40  # rows of a table
FUNCTIONS = ("function", "class", "JIT on", "JIT off")
ACCESSES = ("class", "loads, JIT on", "loads, JIT off", "stores, JIT on", "stores, JIT off")
UOPS = ("uop", "executions", "instructions", "of JIT code", "each", "places", "bytes")

Row = tuple[str, ...]


def as_json(kind: Kind, found: Sequence[CellDetails], *, run: str, reproduce: str) -> dict[str, Any]:
    """Return everything that was counted, as JSON values."""
    cells = {
        str(each.cell): {
            "vacuous": each.vacuous,
            "benchmarks": [_document(kind, detail) for detail in each.details],
        }
        for each in found
    }
    return {"run": run, "reproduce": reproduce, "detail": kind, "cells": cells}


def as_text(kind: Kind, found: Sequence[CellDetails], style: TerminalStyle) -> str:
    """Return a table for each benchmark of each cell."""
    parts = []
    for each in found:
        if each.vacuous:
            parts.append(f"{each.cell}: vacuous: {each.vacuous}")
        parts += ["\n".join(_benchmark(kind, each, detail, style)) for detail in each.details]
    return "\n\n".join(parts)


def class_of(function: str, warm: Warm) -> str:
    """Return the class of a function; code that is no known function has the name of its class."""
    return function if function in warm.counts else symbols.class_of(function)


def _benchmark(kind: Kind, of: CellDetails, detail: Detail, style: TerminalStyle) -> Iterator[str]:
    if detail.trouble:
        yield f"{of.cell}: {detail.name}: {detail.trouble}: {detail.problem}"
        return
    yield f"{of.cell}: {detail.name}, warm call: {_TITLES[kind]}"
    yield ""
    if kind is Kind.FUNCTIONS:
        yield tables.render(FUNCTIONS, list(_functions(detail)), style)
    elif kind is Kind.ACCESSES:
        yield tables.render(ACCESSES, list(_accesses(detail)), style)
    elif detail.on and detail.on.uops:
        division = detail.on.uops
        yield tables.render(UOPS, list(_uops(division)), style)
        yield ""
        yield f"{pluralize(division.executors, 'executor')} at the end, with {division.bytes:,} bytes"


_TITLES = {
    Kind.FUNCTIONS: "instructions by function",
    Kind.ACCESSES: "loads and stores by class of code",
    Kind.UOPS: "JIT code by uop",
}


def _functions(detail: Detail) -> Iterator[Row]:
    names = _largest([side.functions if side else {} for side in (detail.on, detail.off)])
    for name in names[:MOST]:
        warm = next(side for side in (detail.on, detail.off) if side and name in side.functions)
        yield name, class_of(name, warm), *_both(detail, name)
    if rest := names[MOST:]:
        yield f"{len(rest)} more", "", *_both(detail, *rest)
    yield "all", "", *_both(detail, *names)


def _both(detail: Detail, *names: str) -> Row:
    """Return the instructions of functions on both sides; a dash for a side that was not counted."""
    return tuple(
        f"{sum(side.functions.get(name, 0) for name in names):,}" if side else "-" for side in (detail.on, detail.off)
    )


def _accesses(detail: Detail) -> Iterator[Row]:
    sides = [side for side in (detail.on, detail.off) if side]
    names = _largest([counts for side in sides for counts in (side.loads, side.stores)])
    for title, chosen in (*((name, [name]) for name in names), ("all", names)):
        row = [title]
        for which in ("loads", "stores"):
            for side in (detail.on, detail.off):
                counts = getattr(side, which) if side else None
                row.append("-" if counts is None else f"{sum(counts.get(name, 0) for name in chosen):,}")
        yield tuple(row)


def _uops_json(division: Division) -> dict[str, Any]:
    return {
        **asdict(division),
        "executors": division.executors,
        "uops": [asdict(uop) for uop in division.uops],
    }


def _uops(division: Division) -> Iterator[Row]:
    def row(name: str, instructions: int, *cells: str) -> Row:
        executions, *rest = cells or ("", "", "", "")
        share = f"{100 * instructions / division.instructions:.1f} %" if division.instructions else "-"
        return name, executions, f"{instructions:,}", share, *rest

    for uop in division.uops[:MOST]:
        times = uop.executions
        each = f"{uop.instructions / times:.1f}" if times else "-"
        known = "-" if times is None else f"{times:,}"
        yield row(uop.name, uop.instructions, known, each, f"{uop.places:,}", f"{uop.bytes:,}")
    if rest := division.uops[MOST:]:
        instructions = sum(uop.instructions for uop in rest)
        places, size = (f"{sum(values):,}" for values in zip(*((uop.places, uop.bytes) for uop in rest), strict=True))
        yield row(f"{len(rest)} more", instructions, "", "", places, size)
    yield row("trampolines", division.trampolines)
    yield row("other JIT code", division.other)
    yield row("all", division.instructions)


def _largest(sides: Sequence[Counts]) -> list[str]:
    """Return all names, those with the largest count on any side first."""
    largest = {name: max(side.get(name, 0) for side in sides) for side in sides for name in side}
    return sorted(largest, key=lambda name: (-largest[name], name))


def _document(kind: Kind, detail: Detail) -> dict[str, Any]:
    sides = {"on": detail.on, "off": detail.off}
    document: dict[str, Any] = {
        "name": detail.name,
        "problem": detail.problem,
        "trouble": detail.trouble,
        "counts": {side: dict(warm.counts) if warm else None for side, warm in sides.items()},
    }
    if kind is Kind.UOPS:
        document["uops"] = _uops_json(detail.on.uops) if detail.on and detail.on.uops else None
    elif kind is Kind.ACCESSES:
        for which in ("loads", "stores"):
            document[which] = {side: dict(getattr(warm, which)) if warm else None for side, warm in sides.items()}
    else:
        document["functions"] = list(_function_documents(detail))
    return document


def _function_documents(detail: Detail) -> Iterator[dict[str, Any]]:
    sides = (detail.on, detail.off)
    for name in _largest([side.functions if side else {} for side in sides]):
        warm = next(side for side in sides if side and name in side.functions)
        on, off = (side.functions.get(name, 0) if side else None for side in sides)
        yield {"function": name, "class": class_of(name, warm), "on": on, "off": off}
