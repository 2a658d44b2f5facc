"""One cell of a change: both of its builds, compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from crossjit.effect import binaries, execution, uops
from crossjit.effect.model import BASE, CHANGE, PROGRAMS, Build, CellEffect, Problem
from crossjit.errors import CrossjitError, InfrastructureError, ProductError, UserError
from crossjit.measure import programs, stencils
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.cell import Built
from crossjit.measure.stencils import Stencil
from crossjit.model import Cell, Verdict
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest
from crossjit.util.text import join_words

MOST = 8  # names in a sentence

Outcome = BuiltCell | CrossjitError
"""A side of a cell: what was built, or why it was not."""


def require_stencils(request: CellRequest) -> None:
    """Raise UserError for a variant whose builds have no stencils."""
    if not request.variant.needs_llvm:
        raise UserError(
            f"{request.cell} has no stencils: the variant {request.variant.name} has no JIT that makes machine code",
            hint="leave --variant out, or choose one with a JIT, such as ft-jit",
        )


def compare(cell: Cell, base: Outcome, change: Outcome) -> CellEffect:
    """Compare the builds of a cell. What failed is a problem of its side, of the change first. Raises StashError."""
    outcomes = {CHANGE: change, BASE: base}
    problems = [problem(side, found) for side, found in outcomes.items() if isinstance(found, CrossjitError)]
    sides = {side: found for side, found in outcomes.items() if not isinstance(found, CrossjitError)}
    named: dict[str, Mapping[str, Stencil]] = {}
    builds: dict[str, Build] = {}
    for side, built in sides.items():
        try:
            named[side] = stencils.of(built.artifact)
            if not named[side]:
                raise stencils.unknown("its headers have none")
            builds[side] = _build(built)
        except CrossjitError as error:
            problems.append(problem(side, error))
    whole = len(named) == len(builds) == len(outcomes)
    return CellEffect(
        cell,
        before=builds.get(BASE),
        after=builds.get(CHANGE),
        stencils=uops.compare(named[BASE], named[CHANGE]) if whole else None,
        problems=tuple(problems),
    )


def executed(
    ctx: BuildContext,
    found: CellEffect,
    before: Built,
    after: Built,
    benchmarks: Sequence[Benchmark],
    contents: Mapping[str, bytes],
) -> CellEffect:
    """Add what the small programs and some benchmarks execute in both builds, if these differ.

    `contents` are the files of the benchmarks, see `benchmarks.contents`. What the machine does not let run is a
    problem of the cell. Raises UserError.
    """
    if before[1].artifact.full_id == after[1].artifact.full_id:
        return replace(found, not_executed="both builds are the same artifact")
    for prepared, _ in (before, after):
        if reason := execution.why_not(prepared):
            return replace(found, not_executed=reason)
    changed = frozenset(uop.name for uop in found.uops)
    small = programs.benchmark()
    try:
        all_work = execution.compare(ctx, before, after, (small, *benchmarks), contents, changed)
    except InfrastructureError as error:
        return replace(found, problems=(*found.problems, problem(PROGRAMS, error)))
    count = len(small.results)
    return replace(found, programs=all_work[:count], benchmarks=all_work[count:])


def problem(side: str, error: CrossjitError) -> Problem:
    """Return why a side cannot be compared. A source is at fault if it does not compile."""
    verdict = Verdict.FAIL if isinstance(error, ProductError) else Verdict.INFRA
    return Problem(side, verdict, error.message, error.hint, error.details)


def _build(built: BuiltCell) -> Build:
    manifest = built.artifact.manifest
    return Build(
        artifact=built.artifact.full_id,
        from_stash=built.from_stash,
        compiler=manifest.compiler or "",
        llvm=manifest.llvm or "",
        seconds={phase: round(seconds, 1) for phase, seconds in manifest.seconds.items()},
        binaries=binaries.of(built.artifact),
    )


def _not_run(each: CellEffect) -> Iterator[str]:
    """Yield the uops that changed, and that were not executed."""
    if each.programs:
        executed = {name for program in (*each.programs, *each.benchmarks) for name in program.changed}
        yield from (uop.name for uop in each.changed if uop.name not in executed)


def unknown(cells: tuple[CellEffect, ...]) -> Iterator[str]:
    """Yield what a comparison of these cells cannot tell."""
    for each in cells:
        before, after = each.before, each.after
        if before and after and before.llvm != after.llvm:
            yield f"{each.cell}: which differences are the compiler's: LLVM {before.llvm} before, {after.llvm} after"
        if each.stencils and None in (each.stencils.before.instructions, each.stencils.after.instructions):
            yield f"{each.cell}: how many instructions there are: the disassembly in the headers does not fit the bytes"
        if each.not_executed:
            yield f"{each.cell}: what programs execute: {each.not_executed}"
        if not_run := sorted(_not_run(each)):
            yield f"{each.cell}: what becomes of {join_words(not_run[:MOST])}, which no program executed"
    yield "how long the stencils alone took to build: builds do not time that step apart"
    if not any(each.tests for each in cells):
        yield "whether tests newly fail: `--suite jit` runs the JIT's tests"
