"""What a change does, as text and as JSON, and what all reports of it say. Nothing is printed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from crossjit.effect.model import BASE, CHANGE, PROGRAMS, SCHEMA, Build, CellEffect, Effect, Problem, Side
from crossjit.effect.uops import Kind, Size, Uop, rank
from crossjit.model import Arch, Verdict
from crossjit.report import effect_work, tables
from crossjit.report.effect_work import SAME, movement
from crossjit.report.size_budget import LINE
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import duration, join_words, pluralize, shortened

MOST = 60  # uops in the table
ROWS, TRACES = 20, 10  # of each table of what is executed, and traces
NAMES = {BASE: "The base", CHANGE: "The change", PROGRAMS: "The programs"}

WORDS = {Kind.NEW: "new", Kind.GONE: "gone", Kind.CHANGED: "changed", Kind.RELOCATED: "relocations"}


@dataclass(frozen=True)
class Document:
    """What `effect --json` prints. `reproduce` is the command that does it again."""

    run: str
    reproduce: str
    headline: str
    effect: Effect
    schema: int = SCHEMA


@dataclass(frozen=True)
class Line:
    """A uop in each cell that could be compared, in order; None where it is the same."""

    name: str
    uops: tuple[Uop | None, ...]

    @property
    def what(self) -> str:
        """What happened to it."""
        return ", ".join(dict.fromkeys(WORDS[uop.kind] for uop in self.uops if uop))


def document(effect: Effect, *, run: str, reproduce: str) -> dict[str, Any]:
    """Return what was found as JSON values, in the form of `schema`."""
    value: dict[str, Any] = _type().dump_python(Document(run, reproduce, headline(effect), effect), mode="json")
    return value


def schema() -> dict[str, Any]:
    """Return the JSON schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_type().json_schema(mode="serialization"),
    }


# What is said


def headline(effect: Effect) -> str:
    """Return the answer in a sentence, without its full stop."""
    parts = [
        f"{NAMES[side]} does not build on {join_words(on)}" for side in (CHANGE, BASE) if (on := _broken(effect, side))
    ]
    compared = compared_cells(effect)
    if compared:
        parts += [_machine_code(compared), *effect_work.sentences(effect), *_tested(compared)]
    elif not parts:
        parts.append("Nothing could be compared")
    return "; ".join(part if not number else part[0].lower() + part[1:] for number, part in enumerate(parts))


def _broken(effect: Effect, side: str) -> list[str]:
    return [
        str(each.cell.arch)
        for each in effect.cells
        if any(problem.side == side and problem.verdict is Verdict.FAIL for problem in each.problems)
    ]


def _machine_code(cells: Sequence[CellEffect]) -> str:
    where = "on either arch" if len(cells) == len(Arch) else f"on {join_words([str(each.cell.arch) for each in cells])}"
    if not any(each.changed for each in cells):
        if any(each.uops for each in cells):
            return f"No instruction changed {where}, only relocations"
        identical = all(each.before and each.after and each.before.artifact == each.after.artifact for each in cells)
        return f"No machine code changed {where}" + (": no build input differs" if identical else "")
    parts = [f"{_moved(each)} on {each.cell.arch}" for each in cells]
    return f"Machine code changed: {join_words(parts)}"


def _tested(cells: Sequence[CellEffect]) -> Iterator[str]:
    """Yield how many tests newly fail on each architecture, if any ran."""
    tested = {str(each.cell.arch): each.tests for each in cells if each.tests}
    for arch, tests in tested.items():
        if tests.newly_failing:
            yield f"{pluralize(len(tests.newly_failing), 'test')} newly failing on {arch}"
    if tested and not any(tests.newly_failing for tests in tested.values()):
        yield f"no test newly fails on {join_words(list(tested))}"


def suite_lines(effect: Effect) -> Iterator[str]:
    """Yield what the tests said in each cell: how many ran, and each that newly fails."""
    for each in effect.cells:
        if tests := each.tests:
            also = f", {len(tests.also_failing):,} fail in the base as well" if tests.also_failing else ""
            yield f"{each.cell}: {', '.join(tests.suites)}: {tests.ran:,} tests ran{also}"
            yield from (f"newly failing: {test.name}: {shortened(test.message, LINE)}" for test in tests.newly_failing)
            yield from (f"problem: {shortened(problem, LINE)}" for problem in tests.problems)


def _moved(each: CellEffect) -> str:
    """Return how many uops changed, and by how much: `1 uop (13 instructions fewer)`, `7 new uops (…)`."""
    if not each.changed or not each.stencils:
        return "no uop"
    count = Counter(uop.kind for uop in each.changed)
    difference = more(each.stencils.before, each.stencils.after)
    if len(count) == 1 and not count[Kind.CHANGED]:
        (kind,) = count
        return f"{pluralize(count[kind], f'{WORDS[kind]} uop')} ({difference})"
    special = [f"{count[kind]} {WORDS[kind]}" for kind in (Kind.NEW, Kind.GONE) if count[kind]]
    return f"{pluralize(len(each.changed), 'uop')} ({', '.join([*special, difference])})"


def more(before: Size, after: Size) -> str:
    """Return in words how much more code there is: in instructions, and in bytes if these went the other way.

    >>> more(Size(bytes=9, instructions=3), Size(bytes=8, instructions=2))
    '1 instruction fewer'
    >>> more(Size(bytes=9, instructions=3), Size(bytes=12, instructions=3))
    'as many instructions, 3 bytes more'
    """
    code = after.bytes - before.bytes
    if before.instructions is None or after.instructions is None:
        return _difference(code, "byte")
    instructions = after.instructions - before.instructions
    told = _difference(instructions, "instruction")
    same_way = (instructions > 0, instructions < 0) == (code > 0, code < 0)
    return told if same_way else f"{told}, {_difference(code, 'byte')}"


def _difference(count: int, noun: str) -> str:
    return f"{pluralize(abs(count), noun)} {'more' if count > 0 else 'fewer'}" if count else f"as many {noun}s"


def compared_cells(effect: Effect) -> tuple[CellEffect, ...]:
    """Return the cells with both builds."""
    return tuple(each for each in effect.cells if each.stencils)


def lines(effect: Effect) -> tuple[Line, ...]:
    """Return the uops whose machine code is not the same in some cell, worst first."""
    cells = [{uop.name: uop for uop in each.uops} for each in compared_cells(effect)]
    found = [Line(name, tuple(cell.get(name) for cell in cells)) for name in {name for cell in cells for name in cell}]
    return tuple(sorted(found, key=lambda line: (min(rank(uop) for uop in line.uops if uop), line.name)))


def figures(uop: Uop | None) -> tuple[str, str, str]:
    """Return a uop's instructions, bytes and relocations before and after; signs for one that is the same."""
    if uop is None:
        return SAME, SAME, SAME
    before, after = uop.before, uop.after
    return (
        movement(before.instructions, after.instructions),
        movement(before.bytes, after.bytes),
        movement(before.relocations, after.relocations),
    )


def side_text(side: Side) -> str:
    """Return a side in words: its commit or source, its version, and what it is."""
    name = side.commit[:12] if side.commit else shortened(side.source, LINE)
    about = ", ".join(filter(None, (side.version, side.what)))
    return f"{name} ({about})" if about else name


def problem_text(each: CellEffect, problem: Problem) -> str:
    """Return in a sentence what is wrong with a side of a cell."""
    return f"{each.cell}: {NAMES[problem.side].lower()}: {problem.message}"


TOTALS = ("cell", "stencils", "instructions", "bytes", "relocations", "data")


def totals(effect: Effect) -> tuple[tuple[str, ...], ...]:
    """Return a row for each cell, in the order of TOTALS: the sizes of all stencils before and after."""
    found = []
    for each in compared_cells(effect):
        assert each.stencils
        before, after = each.stencils.before, each.stencils.after
        names = ("stencils", "instructions", "bytes", "relocations", "data")
        found.append((str(each.cell), *(movement(getattr(before, name), getattr(after, name)) for name in names)))
    return tuple(found)


BUILDS = ("cell", "file", "text", "data", "bss")


def builds(effect: Effect) -> tuple[tuple[str, ...], ...]:
    """Return a row for each program and library of each cell, in the order of BUILDS: bytes before and after."""
    found = []
    for each in compared_cells(effect):
        before, after = ({one.name: one for one in side.binaries} if side else {} for side in (each.before, each.after))
        for name in before | after:
            old, new = before.get(name), after.get(name)
            sizes = (movement(*(getattr(one, kind) if one else None for one in (old, new))) for kind in BUILDS[2:])
            found.append((str(each.cell), name, *sizes))
    return tuple(found)


def build_time(build: Build) -> str:
    """Return how long a build took, and where it was."""
    where = "from the stash" if build.from_stash else "built now"
    seconds = build.seconds.get("make")
    return f"{where}, make took {duration(seconds)}" if seconds is not None else where


# As text


def as_text(effect: Effect, style: TerminalStyle) -> str:
    """Return the answer, the uops that changed, the totals, the builds, and what this cannot tell."""
    blocks = [
        f"{headline(effect)}.",
        f"change: {side_text(effect.change)}\nbase:   {side_text(effect.base)}",
        *("\n".join(_problem(each, problem)) for each in effect.cells for problem in each.problems),
    ]
    if found := lines(effect):
        blocks += ["\n".join(_uops(effect, found, style))]
    for table in effect_work.tables(effect, ROWS):
        blocks += [f"{table.title}:\n\n{tables.render(table.headers, table.rows, style)}"]
        blocks += [f"and {table.more:,} more"] if table.more else []
    blocks += ["\n".join(_traces(effect))] if effect_work.traces(effect) else []
    blocks += ["\n".join(tested)] if (tested := list(suite_lines(effect))[:MOST]) else []
    if rows := totals(effect):
        blocks += ["all stencils, before and after:\n\n" + tables.render(TOTALS, rows, style)]
    if rows := builds(effect):
        blocks += ["bytes of the builds, before and after:\n\n" + tables.render(BUILDS, rows, style)]
    blocks += ["\n".join(times)] if (times := list(_times(effect))) else []
    blocks.append("\n".join(["not told by this:", *(f"  {each}" for each in effect.unknown)]))
    return "\n\n".join(blocks)


def _problem(each: CellEffect, problem: Problem) -> Iterator[str]:
    yield problem_text(each, problem)
    yield from (f"  {shortened(detail, LINE)}" for detail in problem.details)
    if problem.hint:
        yield f"hint: {problem.hint}"


def _uops(effect: Effect, found: Sequence[Line], style: TerminalStyle) -> Iterator[str]:
    arches = effect.arches
    yield f"uops whose machine code is not the same, worst first; {SAME} is the same:"
    yield ""
    names = ("instructions", "bytes", "relocations")
    headers = ("uop", "what", *(f"{name}, {arch}" for arch in arches for name in names))
    rows = [(line.name, line.what, *(text for uop in line.uops for text in figures(uop))) for line in found[:MOST]]
    yield tables.render(headers, rows, style)
    if len(found) > MOST:
        yield f"and {pluralize(len(found) - MOST, 'uop')} more"


def _traces(effect: Effect) -> Iterator[str]:
    found = effect_work.traces(effect)
    yield f"traces that are not the same, those with most work first ({len(found)}):"
    for trace in found[:TRACES]:
        yield f"  {effect_work.trace_title(trace)}"
        yield f"    {shortened(effect_work.trace_change(trace), LINE)}"
    if len(found) > TRACES:
        yield f"  and {len(found) - TRACES:,} more"


def _times(effect: Effect) -> Iterator[str]:
    for each in effect.cells:
        told = [
            f"{name} {build_time(build)}" for name, build in (("base", each.before), ("change", each.after)) if build
        ]
        if told:
            yield f"{each.cell}: {'; '.join(told)}"


@cache
def _type() -> TypeAdapter[Document]:
    return TypeAdapter(Document)
