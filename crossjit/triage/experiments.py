"""Runs experiments on failing tests until the layer of each is known."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit.config.conditions import TargetEnvironment
from crossjit.config.pythons import DebianPython
from crossjit.config.recipes import Recipe
from crossjit.errors import CrossjitError, Interrupted, UserError
from crossjit.model import NO_OPTIMIZER, Arch, Cell, EmulationSupport, Expectation, Variant
from crossjit.pipeline import build_cell, installed, plan, prepare, validate_cell
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell, PreparedPython
from crossjit.pipeline.packages import ScriptPackages
from crossjit.triage import rerun
from crossjit.triage.decide import Conclusion, Experiment, Next, Subject, step
from crossjit.triage.diagnosis import Diagnosis, ExperimentResult
from crossjit.triage.odds import Count
from crossjit.triage.rerun import RerunCounts, TestRerun
from crossjit.validation.target import Target

PYDEBUG = "--with-pydebug"
INTERPRETER = "interp"  # the variant with the optimizer and without machine code
STRESS = {"PYTHON_JIT_STRESS": "1"}
JIT_OFF = {"PYTHON_JIT": "0"}
# A loop, a function and a side exit are hot after 16 rounds instead of thousands (Python/pystate.c of 3.15).
LOW_THRESHOLDS = {
    f"PYTHON_JIT_{place}_INITIAL_{name}": value
    for place in ("JUMP_BACKWARD", "RESUME", "SIDE_EXIT")
    for name, value in (("VALUE", "16"), ("BACKOFF", "0"))
}

# Variables added to a test's environment, for experiments with the same build.
_SWITCHES: Mapping[Experiment, Mapping[str, str]] = {
    Experiment.AGAIN: {},
    Experiment.CONTROL: {},
    Experiment.JIT_OFF: JIT_OFF,
    Experiment.STRESS: STRESS,
    Experiment.LOW_THRESHOLDS: LOW_THRESHOLDS,
    Experiment.OPTIMIZER_OFF: NO_OPTIMIZER,
    Experiment.GIL_ON: {"PYTHON_GIL": "1", "FT_WORKLOAD_ANYWAY": "1"},
    Experiment.OTHER_CPU: {},
}


@dataclass(frozen=True)
class _Place:
    """The target and the added variables of an experiment. `how` describes them."""

    target: Target
    env: Mapping[str, str]
    how: str


class Experiments:
    """The experiments of one cell. Other builds are made, or taken from the stash, when first needed.

    `files` are installed in each target, by their path, and `packages` as they fit its Python.
    """

    def __init__(
        self,
        ctx: BuildContext,
        prepared: PreparedCell,
        built: BuiltCell,
        folder: Path,
        *,
        builds: bool,
        files: Mapping[str, bytes] | None = None,
        packages: ScriptPackages | None = None,
    ) -> None:
        self._ctx = ctx
        self._prepared = prepared
        self._folder = folder
        self._builds = builds
        self._files = files or {}
        self._packages = packages
        self._target = self._target_of(prepared, built)
        self._places: dict[tuple[Experiment, bool], _Place | str] = {}
        self._passes: dict[TestRerun, dict[int, float]] = {}  # seconds of the longest pass, by the suite's factor there
        self._hangs: Counter[TestRerun] = Counter()

    @property
    def subject(self) -> Subject:
        """The cell's properties."""
        variant, arch = self._prepared.request.variant, self._prepared.cell.arch
        jit = variant.expects is Expectation.MACHINE_CODE
        asserts = debug_sibling(variant, self._prepared.request.recipe) is not None
        emulated = self._ctx.emulated(arch)
        can = {
            Experiment.JIT_OFF: jit,
            Experiment.STRESS: jit and self._prepared.python >= (3, 15),
            Experiment.LOW_THRESHOLDS: jit and self._prepared.python >= (3, 15),
            Experiment.OPTIMIZER_OFF: jit,
            Experiment.GIL_ON: variant.free_threaded,
            Experiment.OTHER_CPU: emulated,
            Experiment.NATIVE: emulated and self._ctx.facts.arch in variant.arches,
            Experiment.INTERPRETER: jit and INTERPRETER in self._prepared.request.recipe.variants,
            Experiment.DEBUG: asserts and (jit or variant.free_threaded),
            Experiment.OTHER_ARCH: jit and _other(arch, variant, self._ctx.ability) is not None,
            Experiment.REFERENCE: self._prepared.request.source is not None,
            Experiment.DEBIAN: not (variant.free_threaded or variant.debug or variant.packaged),
        }
        return Subject(
            arch, jit, variant.free_threaded, emulated, frozenset(experiment for experiment in can if can[experiment])
        )

    @property
    def run_id(self) -> str:
        """The id of the run of triage."""
        return self._ctx.run

    def target(self, experiment: Experiment) -> tuple[Target, Mapping[str, str]]:
        """Return an experiment's target and the variables that it adds. Raises UserError if it is not possible."""
        place = self._place(experiment, debug=False)
        if isinstance(place, str):
            raise UserError(f"{self._prepared.cell}: {experiment}: {place}", hint="see the message of the build")
        return place.target, place.env

    @property
    def env(self) -> TargetEnvironment:
        """The environment of the cell's suites."""
        return self._target.conditions

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        """Run the tests in an experiment. If it is not possible (a build fails), its count is `absent`."""
        began = time.monotonic()
        place = self._place(then.experiment, debug=then.debug)
        if isinstance(place, str):
            cell = self._prepared.cell
            return {
                test: ExperimentResult(then.experiment, cell, place, Count(absent=then.times), "", 0.0)
                for test in tests
            }
        env = {**(STRESS if then.stress else {}), **place.env}
        there = place.target.conditions
        scaled = {test: self._scaled(test, there) for test in tests}
        run = [rerun.sanity_test(there)] if then.experiment is Experiment.CONTROL else [*scaled.values()]
        with self._ctx.progress.step("triage", f"{place.target.cell}: {then.experiment}") as step:
            tallies = rerun.run(
                self._ctx.engine,
                place.target,
                run,
                then.times,
                env=env,
                jobs=self._ctx.jobs if then.together else 1,
                folder=self._folder / f"{time.time_ns()}-{then.experiment.name.lower()}",
                step=step,
            )
        seconds = round(time.monotonic() - began, 1)
        tries = {}
        for test in tests:
            tally = tallies.get(scaled[test]) or next(iter(tallies.values()), RerunCounts())
            hows = [place.how, *(f"{name}={value}" for name, value in env.items())]
            if then.experiment is not Experiment.CONTROL:
                self._learn(test, tally, there)
                hows += ["among its module's other tests"] if test.with_others else []
                hows += [f"{scaled[test].seconds} s at most"] if tally.count.hung else []
            how = ", ".join(filter(None, hows))
            tries[test] = ExperimentResult(then.experiment, place.target.cell, how, tally.count, tally.message, seconds)
        return tries

    def _scaled(self, test: TestRerun, there: TargetEnvironment) -> TestRerun:
        """Set a test's time limit for an experiment; for one that hangs, just enough to detect the hang."""
        scaled = rerun.scale_timeout(test, self.env, there)
        if not (test.hung or self._hangs[test]):
            return scaled
        factor = rerun.factor(test.suite, there)
        passes = [seconds * max(1, factor / slower) for slower, seconds in self._passes.get(test, {}).items()]
        longest = max(passes, default=None)
        return replace(scaled, seconds=rerun.limit(scaled, longest, self._hangs[test]))

    def _learn(self, test: TestRerun, tally: RerunCounts, there: TargetEnvironment) -> None:
        """Record the longest pass, and whether it hung."""
        self._hangs[test] += int(tally.count.hung > 0)
        if tally.longest is not None:
            factor, passes = rerun.factor(test.suite, there), self._passes.setdefault(test, {})
            passes[factor] = max(tally.longest, passes.get(factor, 0.0))

    def _place(self, experiment: Experiment, *, debug: bool) -> _Place | str:
        """Return where an experiment's tests run, or why they cannot."""
        if (experiment, debug) not in self._places:
            try:
                self._places[experiment, debug] = self._make_with_debug(experiment) if debug else self._make(experiment)
            except Interrupted:
                raise
            except CrossjitError as error:
                self._places[experiment, debug] = error.message
        return self._places[experiment, debug]

    def _make_with_debug(self, experiment: Experiment) -> _Place | str:
        """Return where an experiment with the debug build as its baseline runs."""
        request = self._prepared.request
        variant = debug_sibling(request.variant, request.recipe)
        assert variant is not None
        if experiment is Experiment.DEBUG:
            return self._sibling(request, {}, variant=variant)
        if experiment is Experiment.OTHER_ARCH:
            return self._sibling(
                request, {}, variant=variant, arch=_other(request.cell.arch, variant, self._ctx.ability)
            )
        if experiment is Experiment.INTERPRETER:
            interpreter = request.recipe.variants[INTERPRETER]
            sibling = debug_sibling(interpreter, request.recipe) or _with_pydebug(interpreter)
            return self._sibling(request, {}, variant=sibling)
        baseline = self._place(Experiment.DEBUG, debug=True)
        return baseline if isinstance(baseline, str) else self._switched(experiment, baseline.target)

    def _switched(self, experiment: Experiment, target: Target) -> _Place:
        """Return the same build with variables set, or with a different CPU model."""
        if experiment is not Experiment.OTHER_CPU:
            return _Place(target, _SWITCHES[experiment], "")
        now = target.emulation["QEMU_CPU"]
        cpu = "max" if now != "max" else str(self._ctx.emulation(target.cell.arch, None)["QEMU_CPU"])
        return _Place(replace(target, emulation={**target.emulation, "QEMU_CPU": cpu}), {}, f"QEMU as {cpu}")

    def _make(self, experiment: Experiment) -> _Place | str:
        request = self._prepared.request
        if experiment in _SWITCHES:
            return self._switched(experiment, self._target)
        off = JIT_OFF if request.variant.expects is Expectation.MACHINE_CODE else {}
        match experiment:
            case Experiment.NATIVE:
                return self._sibling(request, off, arch=self._ctx.facts.arch)
            case Experiment.OTHER_ARCH:
                return self._sibling(request, {}, arch=_other(request.cell.arch, request.variant, self._ctx.ability))
            case Experiment.INTERPRETER:
                return self._sibling(request, {}, variant=request.recipe.variants[INTERPRETER])
            case Experiment.DEBIAN:
                return self._in_debian()
            case _:
                return self._sibling(replace(request, source=None), off)

    def _sibling(
        self, request: CellRequest, env: Mapping[str, str], *, arch: Arch | None = None, variant: Variant | None = None
    ) -> _Place | str:
        """Return a different build of the same source, or of the recipe's own."""
        variant = variant or request.variant
        cell = replace(request.cell, arch=arch or request.cell.arch, variant=variant.name)
        strategy = plan.strategy_of(request.recipe, None, self._ctx.ability, cell.arch)
        changed = replace(request, cell=cell, variant=variant, strategy=strategy)
        (prepared,) = prepare.prepare(self._ctx, [changed])
        if not self._builds and not _is_stashed(self._ctx, prepared):
            return "not in the stash, and building was not allowed"
        built = build_cell.build_cell(self._ctx, prepared, log=self._folder / f"build-{cell.slug}.log")
        return _Place(self._target_of(prepared, built), env, prepared.version)

    def _in_debian(self) -> _Place | str:
        """Return Debian's build of the same Python, of the cell's own suite or of another."""
        request, own = self._prepared.request, self._prepared.image.suite
        series = "python" + ".".join(map(str, self._prepared.python))
        reason = f"Debian has no {series}"
        for suite in sorted({spec.suite for spec in self._ctx.images}, key=lambda suite: (suite != own, suite)):
            try:
                prepared = installed.of_debian(
                    self._ctx, DebianPython(suite, series), request.cell.arch, request.cpu, fetch=self._builds
                )
            except UserError as error:
                reason = error.message
                continue
            built = BuiltCell(prepared.artifact, prepared.from_stash)
            env = {} if request.variant.expects is Expectation.MACHINE_CODE else JIT_OFF
            return _Place(self._target_of(prepared, built), env, installed.describe(prepared.artifact))
        return reason

    def _target_of(self, prepared: PreparedCell, built: BuiltCell) -> Target:
        target = validate_cell.target_of(self._ctx, prepared, built, "triage")
        files = {**self._files, **(self._packages.files(prepared) if self._packages else {})}
        return replace(target, files=files) if files else target


def diagnose(experiments: Experiments, cell: Cell, tests: Mapping[TestRerun, bool]) -> Iterator[Diagnosis]:
    """Run experiments until each test's layer is known; yield each diagnosis as soon as there is one.

    Tests with the same next experiment run together. `tests` says of each whether it failed originally. One that
    failed, but does not fail alone, is tried again with its module's other tests: it may depend on code that these made
    hot. Raises EngineErrors.
    """
    subject = experiments.subject
    undecided = {
        test: _TestProgress(
            ExperimentResult(
                Experiment.SEEN, cell, "", Count(int(failed), int(not failed), hung=int(test.hung)), "", 0.0
            )
        )
        for test, failed in tests.items()
    }
    while undecided:
        waiting: dict[Next, list[TestRerun]] = {}
        for test, state in [*undecided.items()]:
            then = step(subject, state.tried, state.debug)
            if isinstance(then, Conclusion) and then.is_gone and (more := rerun.with_module(test)):
                del undecided[test]
                test, state = more, state.restarted()
                undecided[test] = state
                then = step(subject, state.tried, state.debug)
            if isinstance(then, Conclusion):
                del undecided[test]
                then = then.among_others() if test.with_others else then
                tries, now = tuple(state.tries), datetime.now(UTC)
                yield Diagnosis(cell, test.suite, str(test), then, tries, experiments.run_id, now)
            else:
                waiting.setdefault(then, []).append(test)
        if waiting:
            cheapest = min(waiting, key=lambda then: (then.debug, list(Experiment).index(then.experiment)))
            for test, outcome in experiments.run(waiting[cheapest], cheapest).items():
                undecided[test].add(outcome, debug=cheapest.debug)


class _TestProgress:
    """A test's results, and its counts by experiment, separately for the debug build."""

    def __init__(self, seen: ExperimentResult) -> None:
        self.tries: list[ExperimentResult] = []
        self._latest: ExperimentResult | None = None
        self.tried: dict[Experiment, Count] = {}
        self.debug: dict[Experiment, Count] = {}
        self.add(seen, debug=False)

    def restarted(self) -> _TestProgress:
        """Return it with the same results, but of the counts only the original failure and the control."""
        again = _TestProgress(self.tries[0])
        again.tries = self.tries
        again.tried[Experiment.CONTROL] = self.tried[Experiment.CONTROL]
        return again

    def add(self, outcome: ExperimentResult, *, debug: bool) -> None:
        """Add the result of an experiment."""
        counts = self.debug if debug else self.tried
        counts[outcome.experiment] = counts.get(outcome.experiment, Count()) + outcome.count
        if self._latest is not None and self._latest.is_like(outcome):
            outcome = self._latest.joined(outcome)
            self.tries[-1] = outcome
        else:
            self.tries.append(outcome)
        self._latest = outcome


def _is_stashed(ctx: BuildContext, prepared: PreparedCell) -> bool:
    return isinstance(prepared, PreparedPython) or prepare.stashed(ctx.store, prepared) is not None


def debug_sibling(variant: Variant, recipe: Recipe) -> Variant | None:
    """Return the recipe's variant with the same configuration and assertions; None if there is none."""
    configure = sorted((*variant.configure, PYDEBUG))
    return next((sibling for sibling in recipe.variants.values() if sorted(sibling.configure) == configure), None)


def _with_pydebug(variant: Variant) -> Variant:
    """Make the debug sibling of a variant whose recipe has none; only experiments use it."""
    return replace(variant, name=f"{variant.name}-debug", configure=(*variant.configure, PYDEBUG), debug=True)


def _other(arch: Arch, variant: Variant, ability: EmulationSupport) -> Arch | None:
    """Return a different arch of a variant that runs here, preferably natively."""
    others = (other for other in (ability.arch, *Arch) if other is not arch and other in variant.arches)
    return next((other for other in others if ability.runs(other)), None)
