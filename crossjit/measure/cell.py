"""Measuring one cell: two sides in containers of the meter's image, compared benchmark by benchmark."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from crossjit.build.container import container_name
from crossjit.config.conditions import TargetEnvironment
from crossjit.images import Image, Role
from crossjit.measure import meter, packages, process, session
from crossjit.measure.benchmarks import TABLE, Benchmark
from crossjit.measure.model import Call, CellMeasurement, Side
from crossjit.measure.process import Place
from crossjit.model import Expectation, Verdict
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedCell
from crossjit.progress import Step
from crossjit.validation import durations
from crossjit.validation.target import (
    container_options,
    environment,
    install,
    memory_for,
    target_limits,
    without_tests,
)
from crossjit.validation.verdict import judge

Built = tuple[PreparedCell, BuiltCell]

DAY = 24 * 3600
DURATIONS = "measure"  # the name that the processes' times are recorded under


@dataclass(frozen=True)
class Build:
    """A build that takes part in a comparison, with the JIT on or off."""

    prepared: PreparedCell
    built: BuiltCell
    jit: bool

    @property
    def side(self) -> Side:
        """Its name in the measurement."""
        artifact = self.built.artifact
        return Side(self.prepared.cell, artifact.full_id, self.prepared.version, self.jit)

    @property
    def makes_code(self) -> bool:
        """Whether its JIT is meant to make machine code."""
        return self.prepared.request.variant.expects is Expectation.MACHINE_CODE


def sides(measured: Built, against: Built | None = None) -> tuple[Build, Build]:
    """Return what is compared: a build with the JIT on with itself, JIT off, or with another build as it is meant."""
    first = Build(*measured, jit=True)
    if against is None:
        return first, replace(first, jit=False)
    second = Build(*against, jit=False)
    return first, replace(second, jit=second.makes_code)


def vacuous(build: Build) -> str:
    """Return why measuring a build's JIT would prove nothing; empty if it makes machine code."""
    request = build.prepared.request
    if not build.makes_code:
        return f"the variant {request.variant.name} makes no machine code"
    verdict, reasons = judge(build.prepared.cell, request.variant, build.built.artifact.manifest.probe, ())
    return reasons[0] if verdict is Verdict.VACUOUS else ""


def measure(
    ctx: BuildContext,
    measured: Build,
    baseline: Build,
    benchmarks: Sequence[Benchmark],
    contents: Mapping[str, bytes],
    *,
    repeat: int = 1,
) -> CellMeasurement:
    """Measure benchmarks in two builds. A benchmark that fails is part of the result.

    `contents` are the files of the benchmarks and their packages, see `packages.contents`. Each process runs `repeat`
    times. Raises InfrastructureError if the meter's self-test fails, EngineErrors.
    """
    began = time.monotonic()
    builds = (measured, baseline)
    arch = measured.prepared.cell.arch
    image = ctx.ensure_image(measured.prepared.image, Role.METER, arch)
    cpu = measured.prepared.request.cpu or arch.cpu
    env = TargetEnvironment(measured.prepared.python, arch, measured.prepared.request.variant, emulated=True, cpu=cpu)
    known = durations.load(ctx.settings.home, DURATIONS, env)
    jobs = session.plan(benchmarks, [build.side for build in builds], repeat=repeat, seconds=known)
    with (
        ctx.progress.step("measure", str(measured.prepared.cell)) as step,
        ThreadPoolExecutor(ctx.jobs) as pool,  # the containers end first, and with them what its threads wait for
        contextlib.ExitStack() as containers,
    ):
        runs = {build.side: place.run for build, place in _places(ctx, containers, image, builds, contents, step)}
        outcomes = session.run(jobs, runs, pool, step, known)
    seconds = {outcome.job.key: outcome.seconds for outcome in outcomes}
    ctx.optional("recording times", durations.record_seconds, ctx.settings.home, DURATIONS, env, seconds)
    found = tuple(session.results(benchmarks, measured.side, baseline.side, outcomes))
    return replace(
        nothing(measured, baseline),
        results=found,
        meter=image.key,
        cpu=cpu,
        seconds=round(time.monotonic() - began, 1),
    )


def nothing(measured: Build, baseline: Build, why: str = "") -> CellMeasurement:
    """Return a measurement without results; `why` says that it is vacuous."""
    digest = hashlib.sha256(TABLE.read_bytes() + packages.LOCK.read_bytes()).hexdigest()
    return CellMeasurement(measured.side, baseline.side, Call.WARM, vacuous=why, table=digest)


def _places(
    ctx: BuildContext,
    containers: contextlib.ExitStack,
    image: Image,
    builds: Sequence[Build],
    contents: Mapping[str, bytes],
    step: Step,
) -> Iterator[tuple[Build, Place]]:
    """Start a container for each artifact, install everything in it, and test the meter there."""
    started: dict[str, Place] = {}
    for build in builds:
        artifact, cell, request = build.built.artifact, build.prepared.cell, build.prepared.request
        if artifact.full_id not in started:
            env = environment(request.variant, ctx.emulation(cell.arch, request.cpu))
            limits = target_limits(memory_for(ctx.facts, ctx.jobs), DAY)
            options = container_options(image, container_name(f"measure-{cell.slug}", ctx.run), ctx.labels, env, limits)
            container = containers.enter_context(ctx.engine.container(options))
            step.update(detail="installing")
            install(container, request.variant, partial(without_tests, artifact.open))
            process.install(container, contents)
            step.update(detail="testing the meter")
            made = meter.prepare(container, host=ctx.facts.arch, arch=cell.arch, cpu=request.cpu or cell.arch.cpu)
            meter.self_test(made, container)
            started[artifact.full_id] = Place(container, made, build.jit)
        yield build, replace(started[artifact.full_id], jit=build.jit)
