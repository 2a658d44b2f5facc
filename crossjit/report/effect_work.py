"""What programs do in both builds of a change, as tables for all reports of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossjit.effect import work
from crossjit.effect.model import CellEffect, Effect
from crossjit.effect.work import Figures, ProgramWork, TraceMovement, UopMovement
from crossjit.report.size_budget import LINE
from crossjit.util.text import join_words, pluralize, shortened

SAME, UNKNOWN = "=", "?"
PROGRAMS, BENCHMARKS = "programs", "benchmarks"
NAMES = {PROGRAMS: "small program", BENCHMARKS: "benchmark"}

FIGURES = {
    "cold": "instructions, cold call",
    "warm": "instructions, warm call",
    "jit": "instructions of JIT code",
    "loads": "loads by JIT code",
    "stores": "stores by JIT code",
    "uops": "uops executed",
    "guards": "guards executed",
    "type_checks": "type checks among them",
    "reference_counts": "reference-count operations executed",
}


@dataclass(frozen=True)
class Table:
    """A table of a report; `more` is how many rows were left out."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def tables(effect: Effect, most: int) -> tuple[Table, ...]:
    """Return the tables of what programs and benchmarks do, each with at most so many rows."""
    return tuple(table for kind in NAMES for table in _tables(effect, kind, most))


def _tables(effect: Effect, kind: str, most: int) -> Iterator[Table]:
    cells = [each for each in effect.cells if _of(each, kind)]
    if not cells:
        return
    arches = tuple(str(each.cell.arch) for each in cells)
    name = NAMES[kind]
    count = pluralize(max(len(_of(each, kind)) for each in cells), name)
    yield Table(f"{count} together, before and after", ("figure", *arches), tuple(_figures(cells, kind)))
    rows = [(row, *figures) for row, figures in _by_program(cells, kind)]
    yield from _table(f"{name}s, instructions of JIT code and of the whole warm call", (name, *arches), rows, most)
    moved = [(row, *figures) for row, figures in _by_uop(cells, kind)]
    yield from _table(f"uops that {name}s execute more or less, how often", ("uop", *arches), moved, most)


def _table(title: str, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], most: int) -> Iterator[Table]:
    if rows:
        yield Table(title, headers, tuple(rows[:most]), max(0, len(rows) - most))


def _of(cell: CellEffect, kind: str) -> tuple[ProgramWork, ...]:
    return cell.programs if kind == PROGRAMS else cell.benchmarks


def _figures(cells: Sequence[CellEffect], kind: str) -> Iterator[tuple[str, ...]]:
    sums = [work.sums(_of(each, kind)) for each in cells]
    for name, label in FIGURES.items():
        yield label, *(change(*(getattr(side, name) for side in pair)) for pair in sums)


def _by_program(cells: Sequence[CellEffect], kind: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the programs whose JIT code does not run as many instructions, and others that moved, worst first.

    Those that the change touches come before the others.
    """
    columns = [{each.name: each for each in _of(cell, kind)} for cell in cells]
    names = [name for name in columns[0] if any(_is_told(column.get(name)) for column in columns)]

    def rank(name: str) -> tuple[bool, float]:
        found = [column[name] for column in columns if name in column]
        return not any(each.changed or each.uops for each in found), -max((each.change for each in found), key=abs)

    for name in sorted(names, key=rank):
        yield name, tuple(_program(column.get(name)) for column in columns)


def _is_told(program: ProgramWork | None) -> bool:
    return program is not None and (program.moved or bool(program.problem))


def _program(program: ProgramWork | None) -> str:
    if program is None or program.problem:
        return shortened(program.problem, LINE) if program else UNKNOWN
    if not program.moved:
        return SAME
    return f"{percent(program.before_jit, program.after_jit)}; all {program.change * 100:+.2f} %"


def _by_uop(cells: Sequence[CellEffect], kind: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    columns = [{uop.name: uop for uop in work.uops(_of(each, kind))} for each in cells]
    names = dict.fromkeys(name for column in columns for name in column)
    for name in sorted(names, key=lambda name: -max(_executions(column.get(name)) for column in columns)):
        yield name, tuple(_uop(column.get(name)) for column in columns)


def _executions(uop: UopMovement | None) -> int:
    return abs((uop.executions_after or 0) - (uop.executions_before or 0)) if uop else 0


def _uop(uop: UopMovement | None) -> str:
    if uop is None:
        return SAME
    if uop.executions_before == uop.executions_after:
        return (
            f"{_count(uop.executions_after)}, instructions {percent(uop.instructions_before, uop.instructions_after)}"
        )
    return change(uop.executions_before, uop.executions_after)


def movement(before: int | None, after: int | None) -> str:
    """Return a figure before and after.

    >>> movement(62, 49), movement(62, 62), movement(None, 3)
    ('62 → 49', '62', '? → 3')
    """
    return _count(before) if before == after else f"{_count(before)} → {_count(after)}"


def change(before: int | None, after: int | None) -> str:
    """Return a figure before and after, with how much more it is.

    >>> change(2000, 1990), change(5, 5), change(0, 5), change(None, 5)
    ('2,000 → 1,990, -0.50 %', '5', '0 → 5', '? → 5')
    """
    told = movement(before, after)
    return f"{told}, {percent(before, after)}" if before and after is not None and before != after else told


def percent(before: int, after: int) -> str:
    """Return how much more a figure is, with as many digits as it takes to see it.

    >>> percent(2000, 1990), percent(10_000_000, 9_999_900), percent(5, 5), percent(0, 3)
    ('-0.50 %', '-0.001 %', '=', 'new')
    """
    if before == after:
        return SAME
    if not before:
        return "new"
    more = (after / before - 1) * 100
    return f"{more:+.2f} %" if abs(more) >= 0.01 else f"{more:+.1g} %"


def _count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


# The answer, and traces


def sentences(effect: Effect) -> tuple[str, ...]:
    """Return in short sentences how what is executed has moved, without full stops; none if nothing ran."""
    found = []
    for kind, name in NAMES.items():
        sums = {str(each.cell.arch): work.sums(_of(each, kind)) for each in effect.cells if _of(each, kind)}
        found += [f"{name}s on {arch}: {_moved(*pair)}" for arch, pair in sums.items() if _differs(*pair)]
        if sums and not any(_differs(*pair) for pair in sums.values()):
            found.append(f"{name}s run the same JIT code on {join_words(list(sums))}")
    return tuple(found)


def _differs(before: Figures, after: Figures) -> bool:
    return (before.jit, before.uops) != (after.jit, after.uops)


def _moved(before: Figures, after: Figures) -> str:
    """Return what moved: `-2.10 % instructions of JIT code, -3.10 % reference-count operations`."""
    parts = [f"{percent(before.jit, after.jit)} instructions of JIT code"] if before.jit != after.jit else []
    for name, label in (("guards", "guards"), ("reference_counts", "reference-count operations")):
        old, new = getattr(before, name), getattr(after, name)
        if old and new is not None and old != new:
            parts.append(f"{percent(old, new)} {label}")
    return ", ".join(parts or ["other uops"])


@dataclass(frozen=True)
class ChangedTrace:
    """A trace of a program that is not the same, with the architectures on which it changed in this way."""

    program: str
    arches: tuple[str, ...]
    movement: TraceMovement


def traces(effect: Effect) -> tuple[ChangedTrace, ...]:
    """Return the traces that changed, each once if it did so on several architectures, those with most work first."""
    found: dict[tuple[object, ...], list[tuple[str, TraceMovement]]] = {}
    for cell in effect.cells:
        for program in (*cell.programs, *cell.benchmarks):
            for each in program.traces:
                key = (program.name, each.place, each.before, each.after)
                found.setdefault(key, []).append((str(cell.cell.arch), each))
    listed = [ChangedTrace(str(key[0]), tuple(arch for arch, _ in own), own[0][1]) for key, own in found.items()]
    return tuple(sorted(listed, key=lambda each: -_work(each.movement)))


def _work(trace: TraceMovement) -> int:
    return max(trace.instructions_before, trace.instructions_after)


def trace_title(trace: ChangedTrace) -> str:
    """Return where a trace is, how often it was entered, and how many instructions of it ran."""
    found = trace.movement
    what = "new, " if found.before is None else "gone, " if found.after is None else ""
    entered = change(found.entered_before, found.entered_after)
    instructions = change(found.instructions_before, found.instructions_after)
    where = f"{trace.program}, {found.place}, {' and '.join(trace.arches)}"
    return f"{shortened(where, LINE)}: {what}entered {entered}; instructions {instructions}"


def trace_change(trace: ChangedTrace) -> str:
    """Return the uops that a trace has in addition, and those that it no longer has."""
    found = trace.movement
    if found.before is None or found.after is None:
        return pluralize(len(found.before or found.after or ()), "uop")
    parts = [*_names("-", found.gone), *_names("+", found.new)]
    return "  ".join(parts) if parts else "the same uops in another order"


def _names(sign: str, uops: Mapping[str, int]) -> Iterator[str]:
    yield from (f"{sign}{name}" + (f" ({count} times)" if count > 1 else "") for name, count in uops.items())
