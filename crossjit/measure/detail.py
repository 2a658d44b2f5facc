"""Where the instructions of a benchmark's warm call go: by function, by uop of the JIT's executors, loads and stores.

A benchmark runs once with the JIT on and once with it off, under a meter that counts more than usual.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from crossjit.channels import ExecutorFacts, MalformedError, read
from crossjit.config.conditions import in_range
from crossjit.errors import UserError
from crossjit.measure import cell, meter, process, stencils, uops
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.cell import Build
from crossjit.measure.marks import Block, Mark, Op, Window, windows
from crossjit.measure.meter import Options
from crossjit.measure.model import JIT, Counts, Sample, Trouble
from crossjit.measure.process import Place, ProblemError
from crossjit.measure.stencils import Stencils
from crossjit.measure.uops import Division
from crossjit.model import Cell
from crossjit.pipeline.context import BuildContext, PreparedCell
from crossjit.util import safe_files

PYTHONS = ">=3.15"  # whose executors are known
LARGEST = 128 << 20  # bytes of it


class Kind(StrEnum):
    """What is counted in addition to instructions by class of code."""

    FUNCTIONS = "functions"
    UOPS = "uops"
    ACCESSES = "accesses"


OPTIONS = {
    Kind.FUNCTIONS: Options(functions=True),
    Kind.UOPS: Options(blocks=True),
    Kind.ACCESSES: Options(accesses=True),
}


@dataclass(frozen=True)
class Warm:
    """The warm call of a benchmark on one side: instructions, loads and stores by class, instructions by function."""

    counts: Counts = field(default_factory=dict)
    functions: Counts = field(default_factory=dict)
    loads: Counts = field(default_factory=dict)
    stores: Counts = field(default_factory=dict)
    uops: Division | None = None


@dataclass(frozen=True)
class Run:
    """One process: what each call of each result counted, and more about their warm calls, in the same order."""

    samples: tuple[Sample, ...]
    warm: tuple[Warm, ...]


@dataclass(frozen=True)
class Detail:
    """A benchmark with the JIT on and off, as far as it was asked for; or what is wrong with it."""

    name: str
    on: Warm | None = None
    off: Warm | None = None
    trouble: Trouble | None = None
    problem: str = ""


@dataclass(frozen=True)
class CellDetails:
    """The benchmarks of a cell; `vacuous` is why its JIT makes no machine code, empty otherwise."""

    cell: Cell
    details: tuple[Detail, ...] = ()
    vacuous: str = ""


def require_uops(prepared: PreparedCell) -> None:
    """Raise UserError for a version whose executors cannot be divided into uops."""
    if not in_range(prepared.python, PYTHONS):
        raise UserError(
            f"{prepared.cell} has no uops to count: {prepared.version} is older than 3.15, whose executors are known",
            hint="--detail functions and --detail accesses work with all versions",
        )


def stencils_of(build: Build) -> Stencils:
    """Read the stencils of a build. Raises UserError if it has none here, StashError."""
    artifact = build.built.artifact
    named = stencils.of(artifact)
    numbers = stencils.internal_header(artifact, "pycore_uop_ids.h")
    if not named or numbers is None:
        raise UserError(
            f"{build.prepared.cell} has no uops to count: the stencils of its JIT are not with its build",
            hint="measure a build of crossjit: --detail uops needs the headers that a build makes",
        )
    return stencils.numbered(named, numbers)


def count(
    ctx: BuildContext, build: Build, kind: Kind, benchmarks: Sequence[Benchmark], contents: Mapping[str, bytes]
) -> CellDetails:
    """Count the warm calls of benchmarks in a build, with the JIT on if it has one, and off unless it is about uops.

    Raises UserError for a build without stencils, InfrastructureError for a broken meter, EngineErrors.
    """
    vacuous = cell.vacuous(build)
    is_of_uops = kind is Kind.UOPS
    if vacuous and is_of_uops:
        return CellDetails(build.prepared.cell, vacuous=vacuous)
    made = stencils_of(build) if is_of_uops else None
    sides = [jit for jit, is_wanted in ((True, not vacuous), (False, not is_of_uops)) if is_wanted]
    found: list[Detail] = []
    with (
        ctx.progress.step("count", f"{build.prepared.cell}: {kind}") as step,
        contextlib.ExitStack() as containers,
    ):
        place = cell.place(ctx, containers, build, contents, step)
        for number, benchmark in enumerate(benchmarks):
            step.update(done=number, total=len(benchmarks), detail=benchmark.name)
            found += _details(place, kind, benchmark, made, sides)
    return CellDetails(build.prepared.cell, tuple(found), vacuous)


def _details(
    place: Place, kind: Kind, benchmark: Benchmark, made: Stencils | None, sides: Sequence[bool]
) -> Iterator[Detail]:
    """Yield each result of a benchmark."""
    try:
        runs = {jit: run(place, benchmark, OPTIONS[kind], made, jit=jit).warm for jit in sides}
    except ProblemError as error:
        yield from (Detail(name, trouble=error.trouble, problem=error.message) for name in benchmark.results)
        return
    for index, name in enumerate(benchmark.results):
        on, off = (runs[jit][index] if jit in runs else None for jit in (True, False))
        yield Detail(name, on, off)


def warm_calls(benchmark: Benchmark, marks: Sequence[Mark]) -> tuple[tuple[Window, ...], ...]:
    """Return the warm call of each result: the pairs of marks that it is between. Raises ProblemError. Pure."""
    calls = {window.label: window for window in windows(marks)}  # the last one of each
    found = [calls.get(label) for label in range(1, len(benchmark.results) + 1)]
    if None in found:
        raise ProblemError("one of its results has no calls")
    return tuple(tuple(process.pairs(benchmark, window)) for window in found if window)


def warm(pairs: Sequence[Window], empty: Window) -> Warm:
    """Return what a warm call counted, less what an empty pair of marks counts. Pure."""
    return Warm(
        counts=process.added([pair.counts for pair in pairs], empty.counts),
        functions=process.added([pair.functions for pair in pairs], empty.functions),
        loads=process.added([pair.loads for pair in pairs], empty.loads),
        stores=process.added([pair.stores for pair in pairs], empty.stores),
    )


def divided(pairs: Sequence[Window], layout: uops.Layout) -> Division:
    """Divide a warm call's JIT code into uops. Raises ProblemError if something does not fit. Pure."""
    blocks: Counter[Block] = Counter()
    for pair in pairs:
        blocks.update(pair.blocks)
    division = uops.divide(layout, blocks)
    counted = sum(pair.counts.get(JIT, 0) for pair in pairs)
    if division.instructions != counted:
        raise ProblemError(f"blocks have {division.instructions:,} of {counted:,} instructions of JIT code")
    return division


def run(place: Place, benchmark: Benchmark, options: Options, made: Stencils | None = None, *, jit: bool) -> Run:
    """Run a benchmark in a place, and count what `options` ask for.

    With `made`, the stencils of the build, its JIT code is divided into uops; the options must have `blocks` then.
    Raises ProblemError, EngineErrors.
    """
    path = f"{meter.WORK}/executors-{benchmark.name}.jsonl"
    metered = meter.run(
        place.meter,
        place.container,
        process.command(benchmark, **({"executors": path} if made else {})),
        jit=jit,
        timeout=process.SECONDS,
        options=options,
        env={**process.ENVIRONMENT, **benchmark.environment},
    )
    if metered.problem:
        raise process.failure(metered.problem, metered.output)
    facts = process.read_facts(metered.output)
    process.require_evidence(benchmark, facts, metered.marks, jit=jit)
    calls = warm_calls(benchmark, metered.marks)
    calibration = [window for window in windows(metered.marks) if window.label == process.CALIBRATION]
    empty = process.pairs(benchmark, calibration[-1])[-1]
    found = tuple(warm(pairs, empty) for pairs in calls)
    if made:
        last = [mark for mark in metered.marks if mark.op is Op.LAST][-1]  # after the executors were described
        layout = uops.layout(_executors(place, path), made, last.mappings)
        divisions = [divided(pairs, layout) for pairs in calls]
        found = tuple(replace(each, uops=division) for each, division in zip(found, divisions, strict=True))
    return Run(process.samples(benchmark, facts, metered.marks), found)


def _executors(place: Place, path: str) -> tuple[ExecutorFacts, ...]:
    """Read what the process wrote about its executors. Raises ProblemError, BudgetError, EngineErrors."""
    try:
        with place.container.get(path) as stream:
            content = safe_files.whole_file(stream, most=LARGEST, what="the description of its executors has")
    except FileNotFoundError:
        raise ProblemError("it did not describe its executors") from None
    try:
        return tuple(read(ExecutorFacts, line, limit=LARGEST) for line in content.decode().splitlines())
    except (MalformedError, ValueError) as error:
        raise ProblemError(f"the description of its executors cannot be read: {error}") from error
