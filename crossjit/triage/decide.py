"""Which layer a failing test is about: what to try next, and what follows from what was tried. Pure.

The rungs go from cheap to dear: the same build with other switches first, other builds last. Each conclusion names what
it rests on; where the evidence has two readings, the answer is `unclear`. What is open then about a failure that comes
with the JIT only, at times or as a crash, may be settled in the debug build, whose assertions can make it steady: there
the ladder begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from crossjit.model import Arch
from crossjit.triage.odds import CHANCE, REPEATS_FLAKY, REPEATS_STABLE, Count, chance, passes_wanted, runs_wanted
from crossjit.util.text import pluralize


class Experiment(StrEnum):
    """What is changed before a test runs again; `SEEN` is how it ended before anybody asked."""

    SEEN = "as first seen"
    AGAIN = "the same again"
    CONTROL = "a test that must pass"
    JIT_OFF = "JIT off"
    STRESS = "JIT stress"
    OPTIMIZER_OFF = "optimizer off"
    GIL_ON = "GIL on"
    OTHER_CPU = "another CPU model"
    NATIVE = "native, on the host's arch"
    INTERPRETER = "tier-2 interpreter"
    DEBUG = "debug build"
    OTHER_ARCH = "the other arch"
    REFERENCE = "the recipe's own source"


class Layer(StrEnum):
    """What a failure is about."""

    BACKEND = "JIT backend of one arch"
    JIT = "JIT on both archs"
    OPTIMIZER = "optimizer"
    INTERPRETER = "interpreter or library"
    FREE_THREADING = "free threading"
    EMULATOR = "emulator"
    ENVIRONMENT = "environment"
    FLAKY = "flaky"
    UNCLEAR = "unclear"


@dataclass(frozen=True)
class Subject:
    """What is known of the cell beforehand. `can` holds the rungs that this machine and the recipe allow."""

    arch: Arch
    jit: bool
    free_threaded: bool
    emulated: bool
    can: frozenset[Experiment] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Next:
    """What to try next, and how often; under `stress` where only that makes the test fail each time.

    `debug` says that the debug build is what is changed from. Only where `together` is set may runs go side by side:
    else they would take from each other the cores and the moment that a failure may depend on.
    """

    rung: Experiment
    times: int
    stress: bool = False
    debug: bool = False
    together: bool = False


@dataclass(frozen=True)
class Conclusion:
    """The layer, and why in one sentence. `odds` is how often the test fails where it began."""

    layer: Layer
    why: str
    odds: Count

    @property
    def is_gone(self) -> bool:
        """Whether the failure was seen, and then no more."""
        return self.layer is Layer.FLAKY and self.odds.passes

    def among_others(self) -> Conclusion:
        """Return it as what follows for a test that did not fail alone, of runs with its module's other tests."""
        if self.is_gone:
            return replace(self, why=f"{self.why}, alone or among its module's other tests")
        if self.odds.failed:
            return replace(self, why=f"not alone, but among its module's other tests: {self.why}")
        return self

    def __str__(self) -> str:
        where = f" ({self.odds.failed} of {self.odds.ran})" if self.layer is Layer.FLAKY else ""
        return f"{self.layer}{where}"


Tried = Mapping[Experiment, Count]


def step(subject: Subject, tried: Tried, debug: Tried | None = None) -> Next | Conclusion:
    """Say what to try next for a test that failed once, or what its failure is about.

    `debug` is what was tried with the debug build; `tried` all the rest.
    """
    again = tried.get(Experiment.AGAIN, Count())
    dear = _is_dear(tried)
    wanted = int(not again.ran + again.absent) if dear else runs_wanted(again)
    if wanted and (Experiment.CONTROL in tried or again.ran + again.absent < REPEATS_STABLE):
        return Next(Experiment.AGAIN, wanted)
    if Experiment.CONTROL not in tried:
        return Next(Experiment.CONTROL, 1)
    if not tried[Experiment.CONTROL].passes:
        return Conclusion(Layer.ENVIRONMENT, "a test that must pass anywhere fails here as well", again)
    if again.ran == 0:
        return Conclusion(Layer.UNCLEAR, "the test did not run again", again)
    case = _Case(subject, tried, again, dear=dear)
    found = _settle(case)
    if isinstance(found, Conclusion) and case.is_open(found):
        return _in_the_debug_build(replace(case, tried=debug or {}, debug=True)) or found
    return found


def _is_dear(tried: Tried) -> bool:
    """Whether each run may cost a hang's whole limit: the test hangs, and nobody knows how long a pass takes.

    Then one run on each rung has to do until one passes.
    """
    again = tried.get(Experiment.AGAIN, Count())
    hangs = again.hung or (not again.ran and tried.get(Experiment.SEEN, Count()).hung)
    timed = (count for rung, count in tried.items() if rung not in (Experiment.SEEN, Experiment.CONTROL))
    return bool(hangs) and not any(count.passed for count in timed)


@dataclass(frozen=True)
class _Case:
    """A test, and what was tried. `again` is how it ended where it began."""

    subject: Subject
    tried: Tried
    again: Count
    stress: bool = False
    debug: bool = False
    dear: bool = False

    def next(self, rung: Experiment) -> Next | None:
        """Return the rung if it is possible and not settled: one failure settles it, or enough passes."""
        there = self.tried.get(rung, Count())
        if rung not in self.subject.can or there.failed or there.absent:
            return None
        left = (1 if self.dear else passes_wanted(self.again)) - there.passed
        if left <= 0:
            return None
        together = not (self.subject.free_threaded or self.again.depends_on_timing)
        return Next(rung, min(left, REPEATS_FLAKY), self.stress, self.debug, together)

    def once(self, rung: Experiment) -> Next | None:
        """Return a rung that may make the failure steady, if it is possible and was not tried."""
        if rung in self.tried or rung not in self.subject.can:
            return None
        return Next(rung, REPEATS_FLAKY, self.stress, self.debug)

    def fixes(self, rung: Experiment) -> bool:
        """Whether the test passes on that rung, so often that it is hardly chance."""
        there = self.tried.get(rung, Count())
        return there.passes and chance(self.again, there) < CHANCE

    def still_fails(self, rung: Experiment) -> bool:
        """Whether the test fails on that rung as well."""
        return self.tried.get(rung, Count()).failed > 0

    def is_open(self, found: Conclusion) -> bool:
        """Whether the debug build may settle what is not: why a test fails with the JIT only, as far as was seen.

        That is one that does so at times, under stress, too; or each time, and crashes. Likewise what fails without the
        GIL only, and too seldom to be sure of it.
        """
        if found.layer not in (Layer.FLAKY, Layer.UNCLEAR) or not self.again.failed:
            return False
        if self.subject.free_threaded and self.tried.get(Experiment.GIL_ON, Count()).passes:
            return True
        steady = self.again.fails or self.tried.get(Experiment.STRESS, Count()).fails
        only = Experiment.JIT_OFF in self.tried and not self.still_fails(Experiment.JIT_OFF)
        return only and (not steady or self.again.crashed > 0)

    def concludes(self, layer: Layer, why: str) -> Conclusion:
        return Conclusion(layer, why, self.again)

    def too_seldom(self, rung: Experiment, changed: str) -> Conclusion:
        """Conclude nothing from passes on a rung that are too few."""
        there = self.tried[rung]
        odds = chance(self.again, there)
        return self.concludes(
            Layer.UNCLEAR,
            f"{self.again} without a change, and none of {there.ran} {changed}: "
            f"too seldom to tell, chance alone does that in {odds:.0%} of cases",
        )


def _settle(case: _Case) -> Next | Conclusion:
    """Go on with a test that has run often enough where it began."""
    subject = case.subject
    if not case.again.failed:
        runs = pluralize(case.again.ran, "run")
        if not case.tried.get(Experiment.SEEN, Count()).failed:
            return case.concludes(Layer.UNCLEAR, f"it did not fail in {runs}")
        return case.concludes(Layer.FLAKY, f"failed in the run, but not in {runs} after that")
    if subject.free_threaded:
        if more := case.next(Experiment.GIL_ON):
            return more
        if case.fixes(Experiment.GIL_ON):
            return case.concludes(Layer.FREE_THREADING, "passes in the same build with the GIL on")
    if subject.jit:
        if more := case.next(Experiment.JIT_OFF):
            return more
        if not case.still_fails(Experiment.JIT_OFF) and (
            case.fixes(Experiment.JIT_OFF) or not case.tried[Experiment.JIT_OFF].ran
        ):
            return _with_the_jit(case)
        if not case.again.fails and not case.still_fails(Experiment.JIT_OFF):
            if more := case.once(Experiment.STRESS):
                return more
            stressed = case.tried.get(Experiment.STRESS, Count())
            if stressed.fails:
                return _with_the_jit(replace(case, again=stressed, stress=True))
    return _without_the_jit(case) if case.again.fails else _at_times(case)


def _at_times(case: _Case) -> Conclusion:
    """Conclude about a test that fails at times, and that no switch of its own build cures for certain."""
    kept = []
    for rung, changed in ((Experiment.GIL_ON, "with the GIL on"), (Experiment.JIT_OFF, "with the JIT off")):
        if case.still_fails(rung):
            kept.append(changed)
        elif rung in case.tried and case.tried[rung].passed:
            return case.too_seldom(rung, changed)
        elif rung in case.tried:
            return case.concludes(Layer.UNCLEAR, f"fails at times, and does not run {changed}")
    what = f"{' and '.join(kept)} as well" if kept else "without anything being changed"
    return case.concludes(Layer.FLAKY, f"passes and fails {what}")


def _with_the_jit(case: _Case) -> Next | Conclusion:
    """Go on with a test that fails only with the JIT on, or runs only then."""
    arch = case.subject.arch
    if more := case.next(Experiment.OPTIMIZER_OFF) or case.next(Experiment.OTHER_CPU):
        return more
    if case.subject.emulated and case.fixes(Experiment.OTHER_CPU):
        return case.concludes(Layer.EMULATOR, "passes when QEMU emulates another CPU model")
    if more := case.next(Experiment.INTERPRETER):
        return more
    only = "passes with the JIT off" if case.tried[Experiment.JIT_OFF].ran else "needs the JIT to run"
    for rung, changed in (
        (Experiment.INTERPRETER, "in the tier-2 interpreter"),
        (Experiment.OTHER_ARCH, "on the other arch"),
    ):
        if case.tried.get(rung, Count()).passes and not (case.fixes(rung) or case.next(rung)):
            return case.too_seldom(rung, changed)
    if case.still_fails(Experiment.INTERPRETER):
        passes = "passes without the optimizer and " if case.fixes(Experiment.OPTIMIZER_OFF) else ""
        return case.concludes(
            Layer.OPTIMIZER, f"{only}, {passes}fails in the tier-2 interpreter, which has no machine code"
        )
    if not case.fixes(Experiment.INTERPRETER):
        if case.fixes(Experiment.OPTIMIZER_OFF):
            return case.concludes(
                Layer.UNCLEAR, f"{only} and without the optimizer; no tier-2 interpreter to compare with"
            )
        return case.concludes(Layer.UNCLEAR, f"{only}; no tier-2 interpreter to compare with")
    if more := case.next(Experiment.OTHER_ARCH):
        return more
    if case.still_fails(Experiment.OTHER_ARCH):
        return case.concludes(Layer.JIT, f"{only} and in the tier-2 interpreter, fails as machine code of both archs")
    if case.fixes(Experiment.OTHER_ARCH):
        return case.concludes(
            Layer.BACKEND, f"{only}, in the tier-2 interpreter and on the other arch: {arch}'s machine code"
        )
    return case.concludes(Layer.UNCLEAR, f"{only} and in the tier-2 interpreter; the other arch could not be tested")


def _in_the_debug_build(case: _Case) -> Next | Conclusion | None:
    """Go on where assertions may make a failure steady; None where that settles nothing.

    What fails there may be another thing than what does without assertions, so the conclusion names the build.
    """
    if more := case.once(Experiment.DEBUG):
        return more
    case = replace(case, again=case.tried.get(Experiment.DEBUG, Count()))
    found = _free_threading_in_the_debug_build(case) if case.again.failed and case.subject.free_threaded else None
    if found is None and case.again.fails and case.subject.jit:
        found = case.next(Experiment.JIT_OFF) or (None if case.still_fails(Experiment.JIT_OFF) else _with_the_jit(case))
    if found is None or isinstance(found, Next):
        return found
    often = "each time" if case.again.fails else f"{case.again.failed} of {case.again.ran} times"
    return replace(found, why=f"in the debug build, where it fails {often}: {found.why}")


def _free_threading_in_the_debug_build(case: _Case) -> Next | Conclusion | None:
    """Go on with a race, which need not fail each time with assertions either."""
    if more := case.next(Experiment.GIL_ON):
        return more
    if case.fixes(Experiment.GIL_ON):
        return case.concludes(Layer.FREE_THREADING, "passes in the same build with the GIL on")
    return None


def _without_the_jit(case: _Case) -> Next | Conclusion:
    """Go on with a test that fails without the JIT, too."""
    emulated = case.subject.emulated
    if emulated:
        if more := case.next(Experiment.OTHER_CPU):
            return more
        if case.fixes(Experiment.OTHER_CPU):
            return case.concludes(Layer.EMULATOR, "passes when QEMU emulates another CPU model")
        if more := case.next(Experiment.NATIVE):
            return more
    without = "also fails without the JIT" if case.subject.jit else "fails"
    if emulated and not case.still_fails(Experiment.NATIVE):
        if not case.fixes(Experiment.NATIVE):
            return case.concludes(Layer.UNCLEAR, f"{without}; nothing native to compare with")
        if more := case.next(Experiment.REFERENCE):
            return more
        if case.fixes(Experiment.REFERENCE):
            return case.concludes(
                Layer.INTERPRETER, f"{without}, not natively on the host's arch, and not with the recipe's own source"
            )
        return case.concludes(Layer.EMULATOR, f"{without}, and passes natively on the host's arch")
    if case.subject.free_threaded:
        if not case.tried.get(Experiment.GIL_ON, Count()).ran:
            return case.concludes(Layer.UNCLEAR, "the test does not run with the GIL on")
        return case.concludes(Layer.INTERPRETER, "also fails with the GIL on")
    native = " and natively" if emulated else ""
    return case.concludes(Layer.INTERPRETER, f"{without}{native}")
