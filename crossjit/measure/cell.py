"""Measuring one cell: two sides in containers with the meter, compared benchmark by benchmark."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from crossjit import images
from crossjit.build.container import container_name
from crossjit.config.conditions import TargetEnvironment
from crossjit.engine.base import Container
from crossjit.errors import InfrastructureError, UserError
from crossjit.images import Image, Role
from crossjit.images.spec import METER
from crossjit.measure import meter, packages, process, pyperf_files, session, timing
from crossjit.measure.benchmarks import TABLE, Benchmark
from crossjit.measure.model import Call, CellMeasurement, Metric, Side
from crossjit.measure.process import Place, Process
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
    def file(self) -> pyperf_files.Build:
        """What is said of it in pyperf's files."""
        manifest, cell = self.built.artifact.manifest, self.prepared.cell
        source = manifest.source
        return pyperf_files.Build(
            arch=cell.arch.value,
            version=manifest.version,
            commit=source.commit or source.digest,
            date=manifest.created,
            ref=cell.recipe,
            jit=self.jit,
        )

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

    `contents` are the files of the benchmarks and their packages, see `benchmarks.contents`. Each process runs `repeat`
    times. Raises InfrastructureError if the meter's self-test fails, EngineErrors.
    """
    began = time.monotonic()
    builds = (measured, baseline)
    arch = measured.prepared.cell.arch
    image = _meter_image(ctx)
    cpu = measured.prepared.request.cpu or arch.cpu
    env = TargetEnvironment(measured.prepared.python, arch, measured.prepared.request.variant, emulated=True, cpu=cpu)
    known = durations.load(ctx.settings.engine_home, DURATIONS, env)
    jobs = session.plan(benchmarks, [build.side for build in builds], repeat=repeat, seconds=known)
    with (
        ctx.progress.step("measure", str(measured.prepared.cell)) as step,
        ThreadPoolExecutor(ctx.jobs) as pool,  # the containers end first, and with them what its threads wait for
        contextlib.ExitStack() as containers,
    ):
        step.update(detail="installing")
        runs = {build.side: place.run for build, place in _places(ctx, containers, image, builds, contents, step)}
        outcomes = session.run(jobs, runs, pool, step, known)
    seconds = {outcome.job.key: outcome.seconds for outcome in outcomes}
    ctx.optional("recording times", durations.record_seconds, ctx.settings.engine_home, DURATIONS, env, seconds)
    found = tuple(session.results(benchmarks, measured.side, baseline.side, outcomes))
    return replace(
        nothing(measured, baseline),
        results=found,
        meter=image.key,
        cpu=cpu,
        seconds=round(time.monotonic() - began, 1),
    )


def count(ctx: BuildContext, build: Build, benchmark: Benchmark, contents: Mapping[str, bytes]) -> Process:
    """Run one benchmark once in one build, after the meter's self-test.

    Raises ProblemError if the benchmark gives no counts, InfrastructureError, EngineErrors.
    """
    with (
        ctx.progress.step("measure", f"{build.side}: {benchmark.name}") as step,
        contextlib.ExitStack() as containers,
    ):
        return place(ctx, containers, build, contents, step).run(benchmark)


def place(
    ctx: BuildContext, containers: contextlib.ExitStack, build: Build, contents: Mapping[str, bytes], step: Step
) -> Place:
    """Start a container for one build, with the benchmarks and a tested meter; it ends with `containers`.

    Raises InfrastructureError if the meter's self-test fails, EngineErrors.
    """
    ((_, found),) = _places(ctx, containers, _meter_image(ctx), (build,), contents, step)
    return found


def nothing(measured: Build, baseline: Build, why: str = "") -> CellMeasurement:
    """Return a measurement without results; `why` says that it is vacuous."""
    # what launches a benchmark moves its memory, and so counts a little, as the benchmark itself does
    files = [TABLE, packages.LOCK, *sorted(METER.glob("**/*.py"))]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return CellMeasurement(measured.side, baseline.side, Call.WARM, vacuous=why, table=digest)


def measure_time(
    ctx: BuildContext,
    measured: Build,
    baseline: Build,
    benchmarks: Sequence[Benchmark],
    contents: Mapping[str, bytes],
    folder: Path,
    *,
    limit: float,
    workers: int = timing.WORKERS,
) -> CellMeasurement:
    """Time benchmarks in two builds, one process at a time, and write pyperf's files into `folder`.

    `limit` is the noise that is accepted, as a part of 1. The arch must be the machine's: see `require_hardware`.
    Raises InfrastructureError if the machine is too noisy, EngineErrors.
    """
    began = time.monotonic()
    builds = (measured, baseline)
    first = sorted(benchmarks, key=lambda benchmark: not benchmark.fast)[: timing.NOISE_BENCHMARKS]
    names = [(benchmark, number) for benchmark in benchmarks for number in range(len(benchmark.results))]
    with (
        ctx.progress.step("time", str(measured.prepared.cell)) as step,
        contextlib.ExitStack() as containers,
    ):
        step.update(detail="installing")
        running = _containers(ctx, containers, builds, contents)
        one, other = (timing.Bench(running[build.side.artifact], build.side) for build in builds)
        tick = _ticker(step, (len(first) + len(names)) * (2 * workers + 1))
        noise = timing.noise(other, first, tick, workers)
        if noise > limit:
            raise InfrastructureError(
                f"this machine is too noisy: a build against itself differed by up to {noise * 100:.1f} %, "
                f"accepted are {limit * 100:g} %",
                hint="stop other programs, or accept more with --noise, such as --noise 5%",
            )
        found = [timing.time(benchmark, number, one, other, tick, workers) for benchmark, number in names]
    for index, build in enumerate(builds):
        documents = [each.documents[index] for each in found if each.documents[index]]
        if documents:
            pyperf_files.write(folder, build.file, documents)
    return replace(
        nothing(measured, baseline),
        metric=Metric.TIME,
        results=tuple(each.result for each in found),
        noise=noise,
        seconds=round(time.monotonic() - began, 1),
    )


def _ticker(step: Step, total: int) -> timing.Tick:
    """Return what shows the progress of `total` workers, and the time that is left at their pace."""
    began = time.monotonic()
    done = itertools.count(1)

    def tick(name: str) -> None:
        finished = next(done)
        left = (time.monotonic() - began) / finished * (total - finished)
        step.update(done=finished, total=total, detail=name, left=left)

    return tick


def require_hardware(ctx: BuildContext, prepared: PreparedCell) -> None:
    """Raise UserError if a cell's arch is emulated here."""
    cell = prepared.cell
    if ctx.emulation(cell.arch, prepared.request.cpu):
        raise UserError(
            f"{cell} cannot be timed here: QEMU emulates {cell.arch}, and its times say nothing about hardware",
            hint=f"--by instructions needs no hardware; or time it on a machine with {cell.arch}",
        )


def _meter_image(ctx: BuildContext) -> Image:
    """Return the meter's image, which is of the engine's own arch and serves all cells."""
    return ctx.ensure_image(images.spec_with_meter(images.configured(ctx.settings)), Role.METER, ctx.facts.arch)


def _places(
    ctx: BuildContext,
    containers: contextlib.ExitStack,
    image: Image,
    builds: Sequence[Build],
    contents: Mapping[str, bytes],
    step: Step,
) -> Iterator[tuple[Build, Place]]:
    """Start a container for each artifact, install everything in it, and test the meter there."""
    meters = {}
    running = _containers(ctx, containers, builds, contents)
    for build in builds:
        arch, cpu = build.prepared.cell.arch, build.prepared.request.cpu
        container = running[build.side.artifact]
        if build.side.artifact not in meters:
            step.update(detail="testing the meter")
            name = container_name(f"measure-{build.prepared.cell.slug}-meter", ctx.run)
            meter.install(ctx.engine, image, container, name=name, labels=ctx.labels)
            made = meter.prepare(container, host=ctx.facts.arch, arch=arch, cpu=cpu or arch.cpu)
            meter.self_test(made, container)
            meters[build.side.artifact] = made
        yield build, Place(container, meters[build.side.artifact], build.jit)


def _containers(
    ctx: BuildContext,
    containers: contextlib.ExitStack,
    builds: Sequence[Build],
    contents: Mapping[str, bytes],
) -> Mapping[str, Container]:
    """Start a container for each artifact with everything installed in it; return them by the artifacts' ids."""
    started: dict[str, Container] = {}
    for build in builds:
        artifact, cell, request = build.built.artifact, build.prepared.cell, build.prepared.request
        if artifact.full_id not in started:
            env = environment(request.variant, ctx.emulation(cell.arch, request.cpu))
            limits = target_limits(memory_for(ctx.facts, ctx.jobs), DAY)
            target = ctx.ensure_image(build.prepared.image, Role.TARGET, cell.arch)
            name = container_name(f"measure-{cell.slug}", ctx.run)
            options = container_options(target, name, ctx.labels, env, limits)
            container = containers.enter_context(ctx.engine.container(options))
            install(container, request.variant, partial(without_tests, artifact.open))
            process.install(container, contents)
            started[artifact.full_id] = container
    return started
