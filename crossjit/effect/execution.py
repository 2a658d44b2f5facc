"""Running programs in both builds of a cell, under the meter, and comparing what they execute."""

from __future__ import annotations

import contextlib
import tarfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

from crossjit.config.conditions import in_range
from crossjit.effect import operations, work
from crossjit.effect.model import BASE, CHANGE
from crossjit.effect.operations import Operations
from crossjit.effect.work import ProgramWork, Ran
from crossjit.errors import InfrastructureError
from crossjit.measure import cell, detail, session, stencils
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.cell import Build, Built
from crossjit.measure.meter import Options
from crossjit.measure.process import Place, ProblemError
from crossjit.measure.session import Job, Outcome
from crossjit.measure.stencils import Stencils
from crossjit.pipeline.context import BuildContext, PreparedCell
from crossjit.sources import Source, tarball

OPTIONS = Options(blocks=True, accesses=True)
LARGEST = 8 << 20  # bytes of CPython's generated C file


def why_not(prepared: PreparedCell) -> str:
    """Return why the traces of a version cannot be compared; empty if they can."""
    return "" if in_range(prepared.python, detail.PYTHONS) else f"the executors of {prepared.version} are not known"


def compare(
    ctx: BuildContext,
    before: Built,
    after: Built,
    benchmarks: Sequence[Benchmark],
    contents: Mapping[str, bytes],
    changed: frozenset[str],
) -> tuple[ProgramWork, ...]:
    """Run benchmarks with the JIT on in two builds, and compare what each of their results executes.

    `changed` are the uops whose machine code is not the same. Raises InfrastructureError if the meter's self-test
    fails, StashError, EngineErrors.
    """
    builds = tuple(Build(*built, jit=True) for built in (before, after))
    sides = [build.side for build in builds]
    known = (_operations(builds[0]), _operations(builds[1]))
    jobs = [Job(benchmark, side) for benchmark in benchmarks for side in sides]
    with (
        ctx.progress.step("execute", str(after[0].cell)) as step,
        ThreadPoolExecutor(ctx.jobs) as pool,
        contextlib.ExitStack() as containers,
    ):
        step.update(detail="installing")
        runs = {}
        for build in builds:
            place = cell.place(ctx, containers, build, contents, step)
            runs[build.side] = partial(_run, place, detail.stencils_of(build))
        outcomes = session.run(jobs, runs, pool, step)
    found = {(outcome.job.benchmark.name, outcome.job.side): outcome for outcome in outcomes}
    return tuple(
        program
        for benchmark in benchmarks
        for program in _programs(benchmark, [found[benchmark.name, side] for side in sides], known, changed)
    )


def _run(place: Place, made: Stencils, benchmark: Benchmark) -> detail.Run:
    return detail.run(place, benchmark, OPTIONS, made, jit=True)


def _programs(
    benchmark: Benchmark,
    outcomes: Sequence[Outcome[detail.Run]],
    known: tuple[Operations, Operations],
    changed: frozenset[str],
) -> tuple[ProgramWork, ...]:
    """Compare each result of a benchmark; if one side failed, say so of each."""
    runs = []
    for side, outcome in zip((BASE, CHANGE), outcomes, strict=True):
        if isinstance(outcome.ended, ProblemError):
            problem = f"in the {side}: {outcome.ended.message}"
            return tuple(ProgramWork(name, problem=problem) for name in benchmark.results)
        runs.append([Ran(*each) for each in zip(outcome.ended.samples, outcome.ended.warm, strict=True)])
    return tuple(
        work.compare(name, before, after, known, changed)
        for name, before, after in zip(benchmark.results, *runs, strict=True)
    )


def _operations(build: Build) -> Operations:
    """Read what the uops of a build do. Raises InfrastructureError if its source or headers do not tell."""
    source = build.prepared.source
    metadata = stencils.internal_header(build.built.artifact, operations.METADATA)
    if source is None or metadata is None:
        raise InfrastructureError(
            f"{build.prepared.cell} has no uops to compare: its source or its headers are not here",
            hint="build it again with --rebuild",
        )
    return operations.read(metadata, _cases(source))


@cache
def _cases(source: Source) -> str:
    """Read the generated C code of the uops, once for all archs. Raises SourceError, StashError."""
    with tarball.subset_tar(source, [operations.CASES]) as stream, tarfile.open(fileobj=stream) as tar:
        file = tar.extractfile(operations.CASES)
        return file.read(LARGEST).decode("utf-8", "replace") if file else ""
