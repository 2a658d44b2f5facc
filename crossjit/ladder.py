"""Climbing the ladder: runs failing tests on rung after rung until `triage` knows which layer each is about."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit import flow, plan, trials
from crossjit.circumstances import Circumstances
from crossjit.diagnosis import Diagnosis, Try
from crossjit.errors import CrossjitError, Interrupted
from crossjit.flow import BuiltCell, Order, Prepared, Workshop
from crossjit.model import Arch, Cell, Expectation
from crossjit.triage import Conclusion, Count, Next, Rung, Subject, step
from crossjit.trials import Tally, Trial
from crossjit.validation import Target

INTERPRETER = "interp"  # the variant with the optimizer and without machine code
STRESS = {"PYTHON_JIT_STRESS": "1"}
JIT_OFF = {"PYTHON_JIT": "0"}

# What is set beside a test's own environment, on the rungs that need no other build.
_SWITCHES: Mapping[Rung, Mapping[str, str]] = {
    Rung.AGAIN: {},
    Rung.CONTROL: {},
    Rung.JIT_OFF: JIT_OFF,
    Rung.STRESS: STRESS,
    Rung.OPTIMIZER_OFF: {"PYTHON_UOPS_OPTIMIZE": "0"},
    Rung.GIL_ON: {"PYTHON_GIL": "1", "FT_WORKLOAD_ANYWAY": "1"},
    Rung.OTHER_CPU: {},
}


@dataclass(frozen=True)
class _Place:
    """Where a rung's tests run, and with what set. `how` says it in words."""

    target: Target
    env: Mapping[str, str]
    how: str


class Ladder:
    """The rungs for one cell. Other builds are made, or taken from the stash, when they are first wanted."""

    def __init__(self, shop: Workshop, prepared: Prepared, built: BuiltCell, folder: Path, *, builds: bool) -> None:
        self._shop = shop
        self._prepared = prepared
        self._folder = folder
        self._builds = builds
        self._target = flow.target_of(shop, prepared, built, "triage")
        self._places: dict[Rung, _Place | str] = {}

    @property
    def subject(self) -> Subject:
        """What is known of the cell beforehand."""
        variant, arch = self._prepared.order.variant, self._prepared.cell.arch
        jit = variant.expects is Expectation.MACHINE_CODE
        emulated = self._shop.emulated(arch)
        can = {
            Rung.JIT_OFF: jit,
            Rung.STRESS: jit and self._prepared.source.python >= (3, 15),
            Rung.OPTIMIZER_OFF: jit,
            Rung.GIL_ON: variant.free_threaded,
            Rung.OTHER_CPU: emulated,
            Rung.NATIVE: emulated,
            Rung.INTERPRETER: jit and INTERPRETER in self._prepared.order.recipe.variants,
            Rung.OTHER_ARCH: jit and self._shop.ability.runs(_other(arch)) is not False,
            Rung.REFERENCE: self._prepared.order.source is not None,
        }
        return Subject(arch, jit, variant.free_threaded, emulated, frozenset(rung for rung in can if can[rung]))

    @property
    def run(self) -> str:
        """The id of the run that climbs."""
        return self._shop.run

    @property
    def where(self) -> Circumstances:
        """In what the cell's suites run."""
        return self._target.circumstances

    def climb(self, tests: Sequence[Trial], then: Next) -> dict[Trial, Try]:
        """Run the tests on a rung. What cannot be had (a build that fails) is a rung on which nothing ran."""
        began = time.monotonic()
        place = self._place(then.rung)
        if isinstance(place, str):
            cell = self._prepared.cell
            return {test: Try(then.rung, cell, place, Count(absent=then.times), "", 0.0) for test in tests}
        env = {**(STRESS if then.stress else {}), **place.env}
        there = place.target.circumstances
        as_there = {test: trials.lasting(test, self.where, there) for test in tests}
        run = [trials.control(there)] if then.rung is Rung.CONTROL else [*as_there.values()]
        with self._shop.progress.step("triage", f"{place.target.cell}: {then.rung}") as step:
            tallies = trials.run(
                self._shop.engine,
                place.target,
                run,
                then.times,
                env=env,
                jobs=self._shop.jobs,
                folder=self._folder / f"{time.time_ns()}-{then.rung.name.lower()}",
                step=step,
            )
        seconds = round(time.monotonic() - began, 1)
        how = ", ".join([*([place.how] if place.how else []), *(f"{name}={value}" for name, value in env.items())])
        cell = place.target.cell
        return {
            test: Try(then.rung, cell, how, tally.count, tally.message, seconds)
            for test, tally in (
                (test, tallies.get(as_there[test]) or next(iter(tallies.values()), Tally())) for test in tests
            )
        }

    def _place(self, rung: Rung) -> _Place | str:
        """Return where a rung's tests run; why not, in words, where that cannot be had."""
        if rung not in self._places:
            try:
                self._places[rung] = self._make(rung)
            except Interrupted:
                raise
            except CrossjitError as error:
                self._places[rung] = error.message
        return self._places[rung]

    def _make(self, rung: Rung) -> _Place | str:
        target, order = self._target, self._prepared.order
        if rung is Rung.OTHER_CPU:
            now = target.emulation["QEMU_CPU"]
            cpu = "max" if now != "max" else str(self._shop.emulation(target.cell.arch, None)["QEMU_CPU"])
            return _Place(replace(target, emulation={**target.emulation, "QEMU_CPU": cpu}), {}, f"QEMU as {cpu}")
        if rung in _SWITCHES:
            return _Place(target, _SWITCHES[rung], "")
        off = JIT_OFF if order.variant.expects is Expectation.MACHINE_CODE else {}
        match rung:
            case Rung.NATIVE:
                return self._sibling(order, off, arch=self._shop.facts.arch)
            case Rung.OTHER_ARCH:
                return self._sibling(order, {}, arch=_other(order.cell.arch))
            case Rung.INTERPRETER:
                return self._sibling(order, {}, variant=INTERPRETER)
            case _:
                return self._sibling(replace(order, source=None), off)

    def _sibling(
        self, order: Order, env: Mapping[str, str], *, arch: Arch | None = None, variant: str | None = None
    ) -> _Place | str:
        """Return another build of the same, or of the recipe's own source."""
        cell = replace(order.cell, arch=arch or order.cell.arch, variant=variant or order.cell.variant)
        strategy = plan.choose_strategy(None, self._shop.ability, cell.arch)
        wanted = replace(order, cell=cell, variant=order.recipe.variants[cell.variant], strategy=strategy)
        (prepared,) = flow.prepare(self._shop, [wanted])
        if not self._builds and self._shop.store.find(prepared.key) is None:
            return "not in the stash, and nothing was to be built"
        built = flow.build_cell(self._shop, prepared, log=self._folder / f"build-{cell.slug}.log")
        return _Place(flow.target_of(self._shop, prepared, built, "triage"), env, prepared.source.version)


def diagnose(ladder: Ladder, cell: Cell, tests: Mapping[Trial, bool]) -> Iterator[Diagnosis]:
    """Climb until each test's layer is known, and yield each as soon as it is.

    Tests that want the same rung next run there together. `tests` says of each whether it failed when it was seen.
    Raises EngineError and its kin for what is the engine's.
    """
    subject = ladder.subject
    tried: dict[Trial, list[Try]] = {
        test: [Try(Rung.SEEN, cell, "", Count(failed=int(failed), passed=int(not failed)), "", 0.0)]
        for test, failed in tests.items()
    }
    while tried:
        wanted: dict[Next, list[Trial]] = {}
        for test in list(tried):
            then = step(subject, _counts(tried[test]))
            if isinstance(then, Conclusion):
                tries = tuple(tried.pop(test))
                yield Diagnosis(cell, test.suite, str(test), then, tries, ladder.run, datetime.now(UTC))
            else:
                wanted.setdefault(then, []).append(test)
        if wanted:
            cheapest = min(wanted, key=lambda then: list(Rung).index(then.rung))
            for test, outcome in ladder.climb(wanted[cheapest], cheapest).items():
                tried[test].append(outcome)


def _counts(tries: Sequence[Try]) -> dict[Rung, Count]:
    counts: dict[Rung, Count] = {}
    for each in tries:
        counts[each.rung] = counts.get(each.rung, Count()) + each.count
    return counts


def _other(arch: Arch) -> Arch:
    return Arch.X86_64 if arch is Arch.AARCH64 else Arch.AARCH64
