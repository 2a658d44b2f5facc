"""The stencils of several LLVMs, as text and as JSON, and what all reports of them say. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from crossjit.effect.compilers import SCHEMA, CellCompilers, Compilers, Made, Pair, SuiteRun, UopSizes
from crossjit.effect.model import Problem
from crossjit.model import Verdict
from crossjit.report import tables
from crossjit.report.effect import side_text
from crossjit.report.effect_work import movement
from crossjit.report.size_budget import LINE
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import duration, join_words, pluralize, shortened

NONE = "-"
WORST = 8  # uops of a pair

FIGURES = ("stencils", "instructions", "bytes", "data", "relocations")
HEADERS = ("arch", "LLVM", "version", "image", *FIGURES, "result", "took")


@dataclass(frozen=True)
class Document:
    """What `effect --llvm … --json` prints. `reproduce` is the command that does it again."""

    run: str
    reproduce: str
    headline: str
    compilers: Compilers
    schema: int = SCHEMA


def document(found: Compilers, *, run: str, reproduce: str) -> dict[str, Any]:
    """Return what was found as JSON values, in the form of `schema`."""
    value: dict[str, Any] = _type().dump_python(Document(run, reproduce, headline(found), found), mode="json")
    return value


def schema() -> dict[str, Any]:
    """Return the JSON schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_type().json_schema(mode="serialization"),
    }


# What is said


def headline(found: Compilers) -> str:
    """Return the answer in a sentence, without its full stop."""
    every = [(cell, made) for cell in found.cells for made in cell.made]
    good = [llvm for llvm in found.llvms if all(not made.problem for _, made in every if made.llvm == llvm)]
    again = [made for _, made in every if made.differing is not None]
    changed = sorted({made.llvm for made in again if made.differing})
    twice = "" if changed or not again else ", each the same bytes twice" if len(good) > 1 else ", the same bytes twice"
    parts = [f"LLVM {join_words(good)} {_make(good)} the stencils of {found.source.version}{twice}"] if good else []
    for llvm in found.llvms:
        bad = [made.problem for _, made in every if made.llvm == llvm and made.problem]
        where = [str(cell.cell.arch) for cell, made in every if made.llvm == llvm and made.problem]
        if bad:
            failed = any(each.verdict is Verdict.FAIL for each in bad)
            parts.append(f"LLVM {llvm} {'fails' if failed else 'could not be tried'} on {join_words(where)}")
    if changed:
        parts.append(f"LLVM {join_words(changed)} {_make(changed)} other bytes the second time")
    failing = sorted({made.llvm for _, made in every if made.suite and made.suite.verdict is not Verdict.PASS})
    if failing:
        parts.append(f"the suites do not pass with LLVM {join_words(failing)}")
    return "; ".join(parts) or "No LLVM was tried"


def _make(llvms: list[str]) -> str:
    return "makes" if len(llvms) == 1 else "make"


def row(cell: CellCompilers, made: Made) -> tuple[str, ...]:
    """Return what an LLVM made in a cell, in the order of HEADERS."""
    sizes = [getattr(made.size, name) if made.size else None for name in FIGURES]
    figures = [NONE if value is None else f"{value:,}" for value in sizes]
    took = duration(made.seconds) if made.seconds is not None else NONE
    return (str(cell.cell.arch), made.llvm, made.version or NONE, made.image or NONE, *figures, outcome(made), took)


def rows(found: Compilers) -> tuple[tuple[str, ...], ...]:
    """Return a row for each LLVM in each cell, in the order of HEADERS."""
    return tuple(row(cell, made) for cell in found.cells for made in cell.made)


def outcome(made: Made) -> str:
    """Return in words whether the stencils could be made, and were the same the second time."""
    if made.problem:
        return "fails" if made.problem.verdict is Verdict.FAIL else "not tried"
    if made.differing is None:
        return NONE
    return "other bytes the second time" if made.differing else "the same bytes twice"


def matrix(cell: CellCompilers) -> tuple[tuple[str, ...], ...]:
    """Return a row for each LLVM: its name, and how many stencils are the same bytes as those of each other one."""
    read = [made for made in cell.made if made.size]
    if len(read) < 2:
        return ()
    return tuple((f"LLVM {one.llvm}", *(_same(cell, one.llvm, other.llvm) for other in read)) for one in read)


def matrix_headers(cell: CellCompilers) -> tuple[str, ...]:
    """Return the headers of `matrix`."""
    return (str(cell.cell.arch), *(f"as {made.llvm}" for made in cell.made if made.size))


def _same(cell: CellCompilers, one: str, other: str) -> str:
    pair = cell.pair(one, other)
    return f"{len(pair.same):,} of {pair.stencils:,}" if pair else NONE


def references(found: Compilers, cell: CellCompilers) -> tuple[Pair, ...]:
    """Return the comparisons of each LLVM with the source's own, or with the first that made stencils."""
    read = [made.llvm for made in cell.made if made.size]
    first = found.own if found.own in read else next(iter(read), "")
    return tuple(each for each in cell.pairs if first in (each.first, each.second))


UOPS = ("uop", "instructions", "bytes", "data")


def worst(pair: Pair, limit: int) -> tuple[tuple[str, ...], ...]:
    """Return the uops of a pair that differ the most in instructions, in the order of UOPS."""
    return tuple(
        (
            uop.name,
            movement(uop.first.instructions, uop.second.instructions),
            movement(uop.first.bytes, uop.second.bytes),
            movement(uop.first.data, uop.second.data),
        )
        for uop in sorted(pair.uops, key=_apart)[:limit]
    )


def _apart(uop: UopSizes) -> tuple[int, int, str]:
    instructions = (uop.second.instructions or 0) - (uop.first.instructions or 0)
    return -abs(instructions), -abs(uop.second.bytes - uop.first.bytes), uop.name


def remarks(found: Compilers) -> tuple[str, ...]:
    """Return how LLVMs were chosen where that is not as CPython does it."""
    edited = sorted({made.llvm for cell in found.cells for made in cell.made if made.edited})
    if not edited:
        return ()
    return (
        f"this source has no option for LLVM {join_words(edited)}: the version in a copy of its Tools/jit/_llvm.py "
        "was changed",
    )


def suite_text(suite: SuiteRun) -> str:
    """Return in words what the suites said."""
    parts = [f"{suite.verdict}: {pluralize(suite.tests, 'test')} ran, {len(suite.failed)} failed"]
    return "; ".join([*parts, *(shortened(reason, LINE) for reason in suite.reasons[:3])])


def suites(found: Compilers) -> tuple[tuple[str, str], ...]:
    """Return what the suites said of each LLVM in each cell: where, and what."""
    return tuple(
        (f"{cell.cell} with LLVM {made.llvm}", suite_text(made.suite))
        for cell in found.cells
        for made in cell.made
        if made.suite
    )


def problems(found: Compilers) -> tuple[tuple[str, Problem], ...]:
    """Return why LLVMs made no stencils: a sentence and the problem of each."""
    return tuple(
        (f"{cell.cell} with LLVM {made.llvm}: {made.problem.message}", made.problem)
        for cell in found.cells
        for made in cell.made
        if made.problem
    )


# As text


def as_text(found: Compilers, style: TerminalStyle) -> str:
    """Return the answer, the table, which stencils are the same, the uops that differ, and what this cannot tell."""
    blocks = [f"{headline(found)}.", f"source: {side_text(found.source)}, which wants LLVM {found.own}"]
    blocks.append(tables.render(HEADERS, rows(found), style))
    blocks += ["\n".join(_problems(found))] if problems(found) else []
    for cell in found.cells:
        if same := matrix(cell):
            title = "stencils whose bytes and relocations are the same:"
            blocks.append(f"{title}\n\n{tables.render(matrix_headers(cell), same, style)}")
        blocks += ["\n".join(_pair(cell, pair, style)) for pair in references(found, cell) if pair.uops]
    blocks += ["\n".join(f"{where}: {what}" for where, what in suites(found))] if suites(found) else []
    blocks += list(remarks(found))
    blocks.append("\n".join(["not told by this:", *(f"  {each}" for each in found.unknown)]))
    return "\n\n".join(blocks)


def _problems(found: Compilers) -> Iterator[str]:
    """Yield each problem; the same one on another arch comes without its log."""
    told = set()
    for text, problem in problems(found):
        yield text
        if (problem.side, problem.message) not in told:
            yield from (f"  {shortened(detail, LINE)}" for detail in problem.details)
            yield from [f"hint: {problem.hint}"] if problem.hint else []
        told.add((problem.side, problem.message))


def _pair(cell: CellCompilers, pair: Pair, style: TerminalStyle) -> Iterator[str]:
    shown = worst(pair, WORST)
    yield f"uops whose stencils differ the most on {cell.cell.arch}, LLVM {pair.first} → {pair.second}:"
    yield ""
    yield tables.render(UOPS, shown, style)
    if len(pair.uops) > len(shown):
        yield f"and {pluralize(len(pair.uops) - len(shown), 'uop')} more"


@cache
def _type() -> TypeAdapter[Document]:
    return TypeAdapter(Document)
