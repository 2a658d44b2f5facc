"""Building a commit and running the test there."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from crossjit.bisect import failure, history
from crossjit.bisect.ahead import Ahead, KnownImages
from crossjit.bisect.journal import Plan
from crossjit.config.recipes import Recipe
from crossjit.config.test_selection import ALL_TESTS
from crossjit.engine.base import Engine
from crossjit.errors import BuildError, ProductError, UserError
from crossjit.measure import benchmarks, cell
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.process import ProblemError
from crossjit.model import Arch, Cell, Expectation, TestResult
from crossjit.pipeline import build_cell, plan, prepare, validate_cell
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell
from crossjit.pipeline.packages import ScriptPackages
from crossjit.progress import Silent
from crossjit.triage import rerun
from crossjit.triage.experiments import JIT_OFF
from crossjit.triage.failure import of_result
from crossjit.triage.rerun import TestRerun
from crossjit.validation.failure import Failure
from crossjit.validation.target import Target

NEWEST = "main"  # the recipe of versions that have none of their own yet


class UnfitError(Exception):
    """A commit cannot be judged. Its cause is the error, if there was one."""


@dataclass(frozen=True)
class Observation:
    """What runs of the test showed at a commit: the failures of each run that took place, none for a pass."""

    runs: tuple[tuple[Failure, ...], ...]
    artifact: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Built:
    prepared: PreparedCell
    built: BuiltCell
    seconds: Mapping[str, float]


def recipe_for(version: tuple[int, int], recipes: Mapping[str, Recipe]) -> Recipe:
    """Return the recipe of a version. Raises UserError if there is none."""
    name = ".".join(map(str, version))
    numbered = [tuple(map(int, each.split("."))) for each in recipes if each.replace(".", "").isdecimal()]
    if name not in recipes and NEWEST in recipes and version > max(numbered, default=version):
        name = NEWEST
    if name not in recipes:
        raise UserError(f"no recipe is for CPython {name}", hint="give one with --recipe")
    return recipes[name]


class Trials:
    """The machine's side of a bisection: builds commits of a plan's repository and runs its test there.

    `base` is a request whose strategy and options all builds share. `ahead` builds what `expect` names while tests run.
    """

    def __init__(
        self, ctx: BuildContext, plan: Plan, recipes: Mapping[str, Recipe], base: CellRequest, folder: Path
    ) -> None:
        self._images = KnownImages(ctx.ensure_image)
        self._ctx = replace(ctx, ensure_image=self._images.ensure)
        self._plan = plan
        self._recipes = recipes
        self._base = base
        self._folder = folder
        self._packages = ScriptPackages(self._ctx, plan.script.requirements if plan.script else ())
        self._expected: tuple[str, ...] = ()
        self._last: tuple[str, _Built] | None = None
        self._good: int | None = None  # instructions
        self._numbers = itertools.count(1)
        self.ahead: Ahead[_Built] = Ahead(ctx.engine, self._make_ahead)

    @property
    def jobs(self) -> int:
        """How many runs take place at a time."""
        return self._ctx.jobs

    def expect(self, commits: Sequence[str]) -> None:
        """Say which commits may be next: they are built while the next test runs."""
        self._expected = tuple(commits)

    def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
        """Build a commit, unless it is the last one, and run the test. Raises UnfitError, EngineErrors.

        The runs take place one after another, or `together` as many at once as there are processors.
        """
        first = self._last is None or self._last[0] != commit
        began = time.monotonic()
        try:
            made = self._build(commit)
        except BuildError as error:
            if not self._plan.crash:
                raise UnfitError(error.message) from error
            return Observation(((failure.of_build(error),),), seconds={"build": time.monotonic() - began})
        except (UserError, ProductError) as error:
            raise UnfitError(error.message) from error
        seconds = dict(made.seconds) if first else {}
        if self._plan.crash:
            return replace(_probed(made.built), seconds=seconds)
        reference = self._reference() if self._plan.benchmark else 0
        self.ahead.start(self._expected)
        began = time.monotonic()
        runs: tuple[tuple[Failure, ...], ...]
        if self._plan.benchmark:
            runs = (self._compared(made, reference),)
        else:
            runs = self._run(made, times, self.jobs if together else 1)
        return Observation(runs, made.built.artifact.id, {**seconds, "test": time.monotonic() - began})

    def count(self, commit: str) -> int:
        """Build a commit, and return the instructions of the benchmark's warm call. Raises UnfitError, EngineErrors."""
        try:
            made = self._build(commit)
        except (UserError, ProductError) as error:
            raise UnfitError(error.message) from error
        self.ahead.start(self._expected)
        return self._count(made)

    def _reference(self) -> int:
        """Return the instructions at the plan's good commit."""
        if self._good is None:
            self._good = self._count(self._build(self._plan.good))
        return self._good

    def _compared(self, made: _Built, reference: int) -> tuple[Failure, ...]:
        """Count the benchmark's instructions; return the failure if there are too many. Raises UnfitError."""
        percent = (self._count(made) / reference - 1) * 100
        return (failure.of_count(self._plan.benchmark, percent),) if percent > self._plan.slower else ()

    def _count(self, made: _Built) -> int:
        """Return the instructions of the benchmark's warm call. Raises UnfitError, EngineErrors."""
        jit = dict(self._plan.env).get("PYTHON_JIT") != "0"
        build = cell.Build(made.prepared, made.built, jit=jit)
        if jit and (why := cell.vacuous(build)):
            raise UnfitError(why)
        benchmark, number, contents = self._benchmark
        try:
            return cell.count(self._ctx, build, benchmark, contents).samples[number].totals[-1]
        except ProblemError as error:
            raise UnfitError(error.message) from error

    @cached_property
    def _benchmark(self) -> tuple[Benchmark, int, Mapping[str, bytes]]:
        """The plan's benchmark, the number of its result, and the files that it needs."""
        name = self._plan.benchmark
        (chosen,) = benchmarks.select(benchmarks.load(), (name,))
        number = chosen.results.index(name) if name in chosen.results else 0
        return chosen, number, benchmarks.contents([chosen], self._ctx.settings.home, self._ctx.progress)

    def without_jit(self) -> Trials | str:
        """Return the same with the JIT switched off, or why that is not possible."""
        if self._base.variant.expects is not Expectation.MACHINE_CODE or self._plan.crash:
            return "there is no JIT to switch off" if not self._plan.crash else "the test is the build"
        return self._changed(replace(self._plan, env=tuple({**dict(self._plan.env), **JIT_OFF}.items())), self._base)

    def on_other_arch(self) -> Trials | str:
        """Return the same on another arch, or why that is not possible."""
        own = self._base.cell.arch
        others = [arch for arch in Arch if arch is not own and arch in self._base.variant.arches]
        runs = [arch for arch in others if self._ctx.ability.runs(arch)]
        if not runs:
            return f"nothing here runs {others[0]} programs" if others else f"the variant is for {own} only"
        strategy = plan.choose_strategy(None, self._ctx.ability, runs[0])
        base = replace(self._base, cell=replace(self._base.cell, arch=runs[0]), strategy=strategy, cpu=None)
        return self._changed(replace(self._plan, arch=str(runs[0])), base)

    def _changed(self, plan: Plan, base: CellRequest) -> Trials:
        return Trials(self._ctx, plan, self._recipes, base, self._folder)

    def _build(self, commit: str) -> _Built:
        """Return a commit's cell: the last one, one that was built ahead, or a new one. Raises CrossjitErrors."""
        if self._last is not None and self._last[0] == commit:
            return self._last[1]
        made = self._begun_ahead(commit) or self._make(self._ctx, commit)
        self._last = commit, made
        return made

    def _begun_ahead(self, commit: str) -> _Built | None:
        """Wait for a commit's cell if it was begun ahead, and give up all others that were."""
        if not self.ahead.is_making(commit):
            return self.ahead.take(commit)
        began = time.monotonic()
        with self._ctx.progress.step("build", f"{commit[:12]}, which was begun during the last test"):
            made = self.ahead.take(commit)
        return made and replace(made, seconds={"build": time.monotonic() - began})

    def _make_ahead(self, commit: str, engine: Engine) -> _Built:
        quiet = replace(self._ctx, engine=engine, progress=Silent(), ensure_image=self._images.known)
        return self._make(quiet, commit)

    def _make(self, ctx: BuildContext, commit: str) -> _Built:
        times = [time.monotonic()]
        request = self._request(commit)
        ctx = replace(ctx, pinned={**ctx.pinned, request.wanted: prepare.resolve(ctx, request)})
        times.append(time.monotonic())
        (prepared,) = prepare.prepare(ctx, [request])
        times.append(time.monotonic())
        built = build_cell.build_cell(ctx, prepared, log=self._folder / f"build-{prepared.cell.arch}-{commit[:12]}.log")
        times.append(time.monotonic())
        phases = ("source", "toolchain", "build")
        seconds = {name: end - start for name, (start, end) in zip(phases, itertools.pairwise(times), strict=True)}
        return _Built(prepared, built, seconds)

    def _request(self, commit: str) -> CellRequest:
        """Return the request for a commit's cell, by the recipe of its version. Raises UserError, SourceError."""
        name = self._plan.recipe
        recipe = self._recipes[name] if name else recipe_for(self._version(commit), self._recipes)
        variant = recipe.variants.get(self._plan.variant)
        if variant is None:
            raise UserError(f"the recipe {recipe.name} does not offer {self._plan.variant}")
        return replace(
            self._base,
            cell=Cell(recipe.name, self._base.cell.arch, variant.name),
            recipe=recipe,
            variant=variant,
            source=f"{self._plan.repo}#{commit}",
            selection=ALL_TESTS,
        )

    def _version(self, commit: str) -> tuple[int, int]:
        return history.version(Path(self._plan.repo), commit)

    def _run(self, made: _Built, times: int, jobs: int) -> tuple[tuple[Failure, ...], ...]:
        """Run the test in a target of the cell; return the failures of each run. Raises UnfitError if it is absent."""
        target = validate_cell.target_of(self._ctx, made.prepared, made.built, "bisect")
        if self._plan.script is not None:
            packages = self._packages.files(made.prepared)
            target = replace(target, files={**self._plan.script.files, **packages})
        tests = self._tests(target)
        with self._ctx.progress.step("test", f"{made.prepared.cell}: {self._plan.what}") as step:
            counts = rerun.run(
                self._ctx.engine,
                target,
                tests,
                times,
                env=dict(self._plan.env),
                jobs=jobs,
                folder=self._folder / f"test-{next(self._numbers)}",
                step=step,
            )
        return _runs(tuple(zip(*(counts[test].runs for test in tests), strict=True)))

    def _tests(self, target: Target) -> tuple[TestRerun, ...]:
        script, env = self._plan.script, target.conditions
        if script is not None:
            return (script.within(env).test,)
        try:
            return rerun.of_names(self._plan.tests, self._plan.suites or target.variant.suites, env)
        except UserError as error:
            raise UnfitError(error.message) from error


def _runs(runs: Sequence[Sequence[Sequence[TestResult] | None]]) -> tuple[tuple[Failure, ...], ...]:
    """Return the failures of each run, given the failed results of each test in it, None for one that did not run.

    Raises UnfitError if one did not run, and nothing failed.
    """
    failures = [tuple(of_result(result) for each in run for result in each or ()) for run in runs]
    whole = [None not in run for run in runs]
    if not any(failures) and not all(whole):
        raise UnfitError("the test did not run: it is missing, or skips itself")
    return tuple(found for found, complete in zip(failures, whole, strict=True) if found or complete)


def _probed(built: BuiltCell) -> Observation:
    """Return what the probe of a build showed."""
    probe = built.artifact.manifest.probe
    crashed, output = probe.get("crashed"), probe.get("output")
    if "unfinished" in probe:
        raise UnfitError(str(probe["unfinished"]))
    lines = [str(line) for line in output] if isinstance(output, list | tuple) else []
    failures = (failure.of_probe(str(crashed), lines),) if crashed else ()
    return Observation((failures,), built.artifact.id)
