"""Climbing the ladder: runs failing tests on rung after rung until `triage` knows which layer each is about."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit.config.conditions import TargetEnvironment
from crossjit.config.recipes import Recipe
from crossjit.errors import CrossjitError, Interrupted
from crossjit.model import Arch, Cell, EmulationSupport, Expectation, Variant
from crossjit.pipeline import build_cell, plan, prepare, validate_cell
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell
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

# What is set beside a test's own environment, on the rungs that need no other build.
_SWITCHES: Mapping[Experiment, Mapping[str, str]] = {
    Experiment.AGAIN: {},
    Experiment.CONTROL: {},
    Experiment.JIT_OFF: JIT_OFF,
    Experiment.STRESS: STRESS,
    Experiment.OPTIMIZER_OFF: {"PYTHON_UOPS_OPTIMIZE": "0"},
    Experiment.GIL_ON: {"PYTHON_GIL": "1", "FT_WORKLOAD_ANYWAY": "1"},
    Experiment.OTHER_CPU: {},
}


@dataclass(frozen=True)
class _Place:
    """Where a rung's tests run, and with what set. `how` says it in words."""

    target: Target
    env: Mapping[str, str]
    how: str


class Experiments:
    """The rungs for one cell. Other builds are made, or taken from the stash, when they are first wanted."""

    def __init__(
        self, ctx: BuildContext, prepared: PreparedCell, built: BuiltCell, folder: Path, *, builds: bool
    ) -> None:
        self._shop = ctx
        self._prepared = prepared
        self._folder = folder
        self._builds = builds
        self._target = validate_cell.target_of(ctx, prepared, built, "triage")
        self._places: dict[tuple[Experiment, bool], _Place | str] = {}
        self._passes: dict[
            TestRerun, dict[int, float]
        ] = {}  # seconds of the longest, by the suite's factor where it was
        self._hangs: Counter[TestRerun] = Counter()

    @property
    def subject(self) -> Subject:
        """What is known of the cell beforehand."""
        variant, arch = self._prepared.request.variant, self._prepared.cell.arch
        jit = variant.expects is Expectation.MACHINE_CODE
        asserts = debug_sibling(variant, self._prepared.request.recipe) is not None
        emulated = self._shop.emulated(arch)
        can = {
            Experiment.JIT_OFF: jit,
            Experiment.STRESS: jit and self._prepared.source.python >= (3, 15),
            Experiment.OPTIMIZER_OFF: jit,
            Experiment.GIL_ON: variant.free_threaded,
            Experiment.OTHER_CPU: emulated,
            Experiment.NATIVE: emulated,
            Experiment.INTERPRETER: jit and INTERPRETER in self._prepared.request.recipe.variants,
            Experiment.DEBUG: asserts and (jit or variant.free_threaded),
            Experiment.OTHER_ARCH: jit and _other(arch, self._shop.ability) is not None,
            Experiment.REFERENCE: self._prepared.request.source is not None,
        }
        return Subject(arch, jit, variant.free_threaded, emulated, frozenset(rung for rung in can if can[rung]))

    @property
    def run_id(self) -> str:
        """The id of the run that climbs."""
        return self._shop.run

    @property
    def where(self) -> TargetEnvironment:
        """In what the cell's suites run."""
        return self._target.conditions

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        """Run the tests on a rung. What cannot be had (a build that fails) is a rung on which nothing ran."""
        began = time.monotonic()
        place = self._place(then.rung, debug=then.debug)
        if isinstance(place, str):
            cell = self._prepared.cell
            return {test: ExperimentResult(then.rung, cell, place, Count(absent=then.times), "", 0.0) for test in tests}
        env = {**(STRESS if then.stress else {}), **place.env}
        there = place.target.conditions
        as_there = {test: self._as_there(test, there) for test in tests}
        run = [rerun.sanity_test(there)] if then.rung is Experiment.CONTROL else [*as_there.values()]
        with self._shop.progress.step("triage", f"{place.target.cell}: {then.rung}") as step:
            tallies = rerun.run(
                self._shop.engine,
                place.target,
                run,
                then.times,
                env=env,
                jobs=self._shop.jobs if then.together else 1,
                folder=self._folder / f"{time.time_ns()}-{then.rung.name.lower()}",
                step=step,
            )
        seconds = round(time.monotonic() - began, 1)
        tries = {}
        for test in tests:
            tally = tallies.get(as_there[test]) or next(iter(tallies.values()), RerunCounts())
            hows = [place.how, *(f"{name}={value}" for name, value in env.items())]
            if then.rung is not Experiment.CONTROL:
                self._learn(test, tally, there)
                hows += ["among its module's other tests"] if test.with_others else []
                hows += [f"{as_there[test].seconds} s at most"] if tally.count.hung else []
            how = ", ".join(filter(None, hows))
            tries[test] = ExperimentResult(then.rung, place.target.cell, how, tally.count, tally.message, seconds)
        return tries

    def _as_there(self, test: TestRerun, there: TargetEnvironment) -> TestRerun:
        """Give a test its time on a rung; where it hangs, no more than it takes to see that."""
        lasting = rerun.scale_timeout(test, self.where, there)
        if not (test.hung or self._hangs[test]):
            return lasting
        factor = rerun.factor(test.suite, there)
        passes = [seconds * max(1, factor / slower) for slower, seconds in self._passes.get(test, {}).items()]
        longest = max(passes, default=None)
        return replace(lasting, seconds=rerun.limit(lasting, longest, self._hangs[test]))

    def _learn(self, test: TestRerun, tally: RerunCounts, there: TargetEnvironment) -> None:
        """Remember what a pass takes, and where it hung."""
        self._hangs[test] += int(tally.count.hung > 0)
        if tally.longest is not None:
            factor, passes = rerun.factor(test.suite, there), self._passes.setdefault(test, {})
            passes[factor] = max(tally.longest, passes.get(factor, 0.0))

    def _place(self, rung: Experiment, *, debug: bool) -> _Place | str:
        """Return where a rung's tests run; why not, in words, where that cannot be had."""
        if (rung, debug) not in self._places:
            try:
                self._places[rung, debug] = self._make_with_debug(rung) if debug else self._make(rung)
            except Interrupted:
                raise
            except CrossjitError as error:
                self._places[rung, debug] = error.message
        return self._places[rung, debug]

    def _make_with_debug(self, rung: Experiment) -> _Place | str:
        """Return a rung of the ladder that begins at the debug build."""
        request = self._prepared.request
        variant = debug_sibling(request.variant, request.recipe)
        assert variant is not None
        if rung is Experiment.DEBUG:
            return self._sibling(request, {}, variant=variant)
        if rung is Experiment.OTHER_ARCH:
            return self._sibling(request, {}, variant=variant, arch=_other(request.cell.arch, self._shop.ability))
        if rung is Experiment.INTERPRETER:
            interpreter = request.recipe.variants[INTERPRETER]
            other = debug_sibling(interpreter, request.recipe) or _with_pydebug(interpreter)
            return self._sibling(request, {}, variant=other)
        begun = self._place(Experiment.DEBUG, debug=True)
        return begun if isinstance(begun, str) else self._switched(rung, begun.target)

    def _switched(self, rung: Experiment, target: Target) -> _Place:
        """Return the same build with something set, or as another CPU model."""
        if rung is not Experiment.OTHER_CPU:
            return _Place(target, _SWITCHES[rung], "")
        now = target.emulation["QEMU_CPU"]
        cpu = "max" if now != "max" else str(self._shop.emulation(target.cell.arch, None)["QEMU_CPU"])
        return _Place(replace(target, emulation={**target.emulation, "QEMU_CPU": cpu}), {}, f"QEMU as {cpu}")

    def _make(self, rung: Experiment) -> _Place | str:
        request = self._prepared.request
        if rung in _SWITCHES:
            return self._switched(rung, self._target)
        off = JIT_OFF if request.variant.expects is Expectation.MACHINE_CODE else {}
        match rung:
            case Experiment.NATIVE:
                return self._sibling(request, off, arch=self._shop.facts.arch)
            case Experiment.OTHER_ARCH:
                return self._sibling(request, {}, arch=_other(request.cell.arch, self._shop.ability))
            case Experiment.INTERPRETER:
                return self._sibling(request, {}, variant=request.recipe.variants[INTERPRETER])
            case _:
                return self._sibling(replace(request, source=None), off)

    def _sibling(
        self, request: CellRequest, env: Mapping[str, str], *, arch: Arch | None = None, variant: Variant | None = None
    ) -> _Place | str:
        """Return another build of the same, or of the recipe's own source."""
        variant = variant or request.variant
        cell = replace(request.cell, arch=arch or request.cell.arch, variant=variant.name)
        strategy = plan.choose_strategy(None, self._shop.ability, cell.arch)
        wanted = replace(request, cell=cell, variant=variant, strategy=strategy)
        (prepared,) = prepare.prepare(self._shop, [wanted])
        if not self._builds and prepare.stashed(self._shop.store, prepared) is None:
            return "not in the stash, and building was not allowed"
        built = build_cell.build_cell(self._shop, prepared, log=self._folder / f"build-{cell.slug}.log")
        return _Place(validate_cell.target_of(self._shop, prepared, built, "triage"), env, prepared.source.version)


def diagnose(ladder: Experiments, cell: Cell, tests: Mapping[TestRerun, bool]) -> Iterator[Diagnosis]:
    """Climb until each test's layer is known, and yield each as soon as it is.

    Tests that want the same rung next run there together. `tests` says of each whether it failed when it was seen. One
    that did and does not alone climbs once more, among its module's other tests: what these made hot may be what it
    takes. Raises EngineError and its kin for what is the engine's.
    """
    subject = ladder.subject
    climbing = {
        test: _Climb(
            ExperimentResult(
                Experiment.SEEN, cell, "", Count(int(failed), int(not failed), hung=int(test.hung)), "", 0.0
            )
        )
        for test, failed in tests.items()
    }
    while climbing:
        wanted: dict[Next, list[TestRerun]] = {}
        for test, run in [*climbing.items()]:
            then = step(subject, run.tried, run.debug)
            if isinstance(then, Conclusion) and then.is_gone and (more := rerun.with_module(test)):
                del climbing[test]
                test, run = more, run.begin_again()
                climbing[test] = run
                then = step(subject, run.tried, run.debug)
            if isinstance(then, Conclusion):
                del climbing[test]
                then = then.among_others() if test.with_others else then
                yield Diagnosis(cell, test.suite, str(test), then, tuple(run.tries), ladder.run_id, datetime.now(UTC))
            else:
                wanted.setdefault(then, []).append(test)
        if wanted:
            cheapest = min(wanted, key=lambda then: (then.debug, list(Experiment).index(then.rung)))
            for test, outcome in ladder.run(wanted[cheapest], cheapest).items():
                climbing[test].add(outcome, debug=cheapest.debug)


class _Climb:
    """How far a test has come: its table, and the counts of each rung, those of the debug build's ladder apart."""

    def __init__(self, seen: ExperimentResult) -> None:
        self.tries: list[ExperimentResult] = []
        self._latest: ExperimentResult | None = None
        self.tried: dict[Experiment, Count] = {}
        self.debug: dict[Experiment, Count] = {}
        self.add(seen, debug=False)

    def begin_again(self) -> _Climb:
        """Return a climb with the same table, in which only how it was seen and the control count from here on."""
        again = _Climb(self.tries[0])
        again.tries = self.tries
        again.tried[Experiment.CONTROL] = self.tried[Experiment.CONTROL]
        return again

    def add(self, outcome: ExperimentResult, *, debug: bool) -> None:
        """Count a rung that was climbed."""
        counts = self.debug if debug else self.tried
        counts[outcome.rung] = counts.get(outcome.rung, Count()) + outcome.count
        if self._latest is not None and self._latest.is_like(outcome):
            outcome = self._latest.joined(outcome)
            self.tries[-1] = outcome
        else:
            self.tries.append(outcome)
        self._latest = outcome


def debug_sibling(variant: Variant, recipe: Recipe) -> Variant | None:
    """Return the recipe's variant that is configured as this one and with assertions; None for one that has them."""
    wanted = sorted((*variant.configure, PYDEBUG))
    return next((each for each in recipe.variants.values() if sorted(each.configure) == wanted), None)


def _with_pydebug(variant: Variant) -> Variant:
    """Make the debug sibling of a variant whose recipe has none: nobody but a rung has a use for it."""
    return replace(variant, name=f"{variant.name}-debug", configure=(*variant.configure, PYDEBUG), debug=True)


def _other(arch: Arch, ability: EmulationSupport) -> Arch | None:
    """Return another arch that runs here, natively if any does."""
    others = (each for each in (ability.arch, *Arch) if each is not arch)
    return next((each for each in others if ability.runs(each) is not False), None)
