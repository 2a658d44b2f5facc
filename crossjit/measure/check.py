"""Checking the meter: benchmarks in one container, once under it and once under valgrind's callgrind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from crossjit.engine.base import Container
from crossjit.errors import InfrastructureError, UserError
from crossjit.measure import callgrind, cell, meter, process
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.callgrind import Comparison
from crossjit.measure.cell import Build
from crossjit.measure.meter import Meter
from crossjit.pipeline.context import BuildContext, PreparedCell

BENCHMARKS = ("deltablue", "nbody", "richards")  # light ones, in which most of the instructions are JIT code
CLASSES = {"interpreter": 0.0001, "jit": 0.0001, "": 0.005}  # how far each may differ, as a part of 1; "" is everything
SECONDS = 3600  # of a process under valgrind, at most


@dataclass(frozen=True)
class Check:
    """All calls of a benchmark together, as the meter and as callgrind counted them; or what went wrong."""

    benchmark: str
    jit: bool
    counts: Comparison | None = None
    problem: str = ""

    @property
    def agrees(self) -> bool:
        """Whether JIT code, the interpreter's loop and all instructions are the same, but for `CLASSES`."""
        return all(self.agrees_in(name) for name in CLASSES)

    def agrees_in(self, name: str) -> bool:
        """Whether one of `CLASSES` is the same, but for what it allows."""
        return self.counts is not None and self.counts.differs(name) <= CLASSES[name]


def require_native(ctx: BuildContext, prepared: PreparedCell) -> None:
    """Raise UserError if valgrind would have to run under QEMU."""
    if ctx.emulation(prepared.cell.arch, None):
        raise UserError(
            f"{prepared.cell} cannot be checked here: valgrind would run under QEMU",
            hint=f"check {ctx.facts.arch}, or use a machine with {prepared.cell.arch}",
        )


def check(
    ctx: BuildContext, build: Build, benchmarks: Sequence[Benchmark], contents: Mapping[str, bytes]
) -> Iterator[Check]:
    """Yield each benchmark with the JIT on and off. Raises InfrastructureError for a broken meter, EngineErrors."""
    image = callgrind.with_valgrind(build.prepared.image)
    build = replace(build, prepared=replace(build.prepared, image=image))
    pairs = [(benchmark, jit) for benchmark in benchmarks for jit in (True, False)]
    with (
        ctx.progress.step("check", str(build.prepared.cell)) as step,
        contextlib.ExitStack() as containers,
    ):
        place = cell.place(ctx, containers, build, contents, step)
        for number, (benchmark, jit) in enumerate(pairs):
            step.update(done=number, total=len(pairs), detail=f"{benchmark.name}, JIT {'on' if jit else 'off'}")
            yield _check(place.container, callgrind.alike(place.meter), benchmark, jit=jit)


def _check(container: Container, near: Meter, benchmark: Benchmark, *, jit: bool) -> Check:
    command, env = process.command(benchmark), {**process.ENVIRONMENT, **callgrind.ENVIRONMENT}
    ours = meter.run(near, container, command, jit=jit, timeout=process.SECONDS, env=env)
    if ours.problem:
        return Check(benchmark.name, jit, problem=process.failure(ours.problem, ours.output).message)
    try:
        theirs = callgrind.run(container, near.python, command, jit=jit, timeout=SECONDS, env=env)
        windows = callgrind.compare(ours.marks, theirs)
    except InfrastructureError as error:
        return Check(benchmark.name, jit, problem=error.message)
    return Check(benchmark.name, jit, callgrind.together(each for each in windows if each.label != process.CALIBRATION))
