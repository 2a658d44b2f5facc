"""Decides which layer a failing test is about: the next experiment, or the conclusion. Pure.

Cheap experiments come first: the same build with different switches, then different builds. Each conclusion names its
evidence; if the evidence is ambiguous, it is `unclear`. An unclear failure that needs the JIT, and is intermittent or a
crash, is tried again from the start in the debug build, whose assertions can make it fail each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from crossjit.model import Arch
from crossjit.triage.odds import CHANCE, REPEATS_FLAKY, REPEATS_STABLE, Count, chance, passes_wanted, runs_wanted
from crossjit.util.text import pluralize


class Experiment(StrEnum):
    """What is changed before a test runs again; `SEEN` is the original failure."""

    SEEN = "as first seen"
    AGAIN = "the same again"
    CONTROL = "a test that must pass"
    JIT_OFF = "JIT off"
    STRESS = "JIT stress"
    LOW_THRESHOLDS = "low JIT thresholds"
    OPTIMIZER_OFF = "optimizer off"
    GIL_ON = "GIL on"
    OTHER_CPU = "another CPU model"
    NATIVE = "native, on the host's arch"
    INTERPRETER = "tier-2 interpreter"
    DEBUG = "debug build"
    OTHER_ARCH = "the other arch"
    REFERENCE = "the recipe's own source"
    DEBIAN = "Debian's own build"


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
    """The cell's properties. `can` holds the experiments that this machine and the recipe allow."""

    arch: Arch
    jit: bool
    free_threaded: bool
    emulated: bool
    can: frozenset[Experiment] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Next:
    """The next experiment, and the number of runs; with `stress` if only that makes the test fail each time.

    `debug` says that the debug build is the baseline. Runs may be parallel only with `together`: otherwise they would
    change the timing that a failure may depend on.
    """

    experiment: Experiment
    times: int
    stress: bool = False
    debug: bool = False
    together: bool = False


@dataclass(frozen=True)
class Conclusion:
    """The layer, and why in one sentence. `odds` counts the runs without a change."""

    layer: Layer
    why: str
    odds: Count

    @property
    def is_gone(self) -> bool:
        """Whether the test failed in the run, and never after it."""
        return self.layer is Layer.FLAKY and self.odds.passes

    def among_others(self) -> Conclusion:
        """Return it for a test that did not fail alone, when run with its module's other tests."""
        if self.is_gone:
            return replace(self, why=f"{self.why}, alone or among its module's other tests")
        if self.odds.failed:
            return replace(self, why=f"not alone, but among its module's other tests: {self.why}")
        return self

    def __str__(self) -> str:
        rate = f" ({self.odds.failed} of {self.odds.ran})" if self.layer is Layer.FLAKY else ""
        return f"{self.layer}{rate}"


Tried = Mapping[Experiment, Count]


def step(subject: Subject, tried: Tried, debug: Tried | None = None) -> Next | Conclusion:
    """Return the next experiment for a test that failed, or the conclusion.

    `debug` are the experiments with the debug build, `tried` all others.
    """
    again = tried.get(Experiment.AGAIN, Count())
    expensive = _is_expensive(tried)
    runs = int(not again.ran + again.absent) if expensive else runs_wanted(again)
    if runs and (Experiment.CONTROL in tried or again.ran + again.absent < REPEATS_STABLE):
        return Next(Experiment.AGAIN, runs)
    if Experiment.CONTROL not in tried:
        return Next(Experiment.CONTROL, 1)
    if not tried[Experiment.CONTROL].passes:
        return Conclusion(Layer.ENVIRONMENT, "a test that must pass anywhere fails here as well", again)
    if again.ran == 0:
        return Conclusion(Layer.UNCLEAR, "the test did not run again", again)
    case = _Case(subject, tried, again, expensive=expensive)
    result = _settle(case)
    if isinstance(result, Conclusion) and case.is_open(result):
        result = _in_the_debug_build(replace(case, tried=debug or {}, debug=True)) or result
    if isinstance(result, Conclusion) and again.failed and result.layer in _OF_CPYTHON:
        return case.in_debian() or case.compared_with_debian(result)
    return result


# Layers of CPython itself, of which it is worth knowing whether Debian's build fails as well.
_OF_CPYTHON = (Layer.BACKEND, Layer.JIT, Layer.OPTIMIZER, Layer.INTERPRETER, Layer.UNCLEAR)


def _is_expensive(tried: Tried) -> bool:
    """Whether each run may take a hang's whole time limit: the test hangs, and a pass's duration is unknown.

    Each experiment then has one run only, until one passes.
    """
    again = tried.get(Experiment.AGAIN, Count())
    hangs = again.hung or (not again.ran and tried.get(Experiment.SEEN, Count()).hung)
    timed = (count for experiment, count in tried.items() if experiment not in (Experiment.SEEN, Experiment.CONTROL))
    return bool(hangs) and not any(count.passed for count in timed)


@dataclass(frozen=True)
class _Case:
    """A test and its experiments. `again` counts its runs without a change."""

    subject: Subject
    tried: Tried
    again: Count
    stress: bool = False
    debug: bool = False
    expensive: bool = False

    @property
    def together(self) -> bool:
        """Whether runs may be parallel."""
        return not (self.subject.free_threaded or self.again.depends_on_timing)

    def next(self, experiment: Experiment) -> Next | None:
        """Return the experiment if it is possible and not settled by a failure or enough passes."""
        count = self.tried.get(experiment, Count())
        if experiment not in self.subject.can or count.failed or count.absent:
            return None
        missing = (1 if self.expensive else passes_wanted(self.again)) - count.passed
        if missing <= 0:
            return None
        return Next(experiment, min(missing, REPEATS_FLAKY), self.stress, self.debug, self.together)

    def once(self, experiment: Experiment) -> Next | None:
        """Return an experiment that may make the test fail each time, if it is possible and was not tried."""
        if experiment in self.tried or experiment not in self.subject.can:
            return None
        return Next(experiment, REPEATS_FLAKY, self.stress, self.debug)

    def in_debian(self) -> Next | None:
        """Return the experiment in Debian's build, if it is possible, was not tried, and costs no more hangs."""
        stress = not self.again.fails and self.tried.get(Experiment.STRESS, Count()).fails
        if self.expensive or Experiment.DEBIAN in self.tried or Experiment.DEBIAN not in self.subject.can:
            return None
        times = REPEATS_STABLE if self.again.fails or stress else REPEATS_FLAKY
        return Next(Experiment.DEBIAN, times, stress, together=self.together)

    def compared_with_debian(self, conclusion: Conclusion) -> Conclusion:
        """Add to a conclusion what happens in Debian's build, if that is certain; the layer stays."""
        if self.still_fails(Experiment.DEBIAN):
            return replace(conclusion, why=f"{conclusion.why}; fails in Debian's build as well")
        if self.fixes(Experiment.DEBIAN):
            return replace(conclusion, why=f"{conclusion.why}; passes in Debian's build")
        return conclusion

    def fixes(self, experiment: Experiment) -> bool:
        """Whether the test passes in that experiment so often that chance is unlikely."""
        count = self.tried.get(experiment, Count())
        return count.passes and chance(self.again, count) < CHANCE

    def still_fails(self, experiment: Experiment) -> bool:
        """Whether the test fails in that experiment as well."""
        return self.tried.get(experiment, Count()).failed > 0

    def is_open(self, conclusion: Conclusion) -> bool:
        """Whether the debug build may settle a case that is not: a failure that needs the JIT, as far as observed.

        It must be intermittent, even under stress, or a crash. Also a failure that needs the GIL off, and is too rare
        to be certain.
        """
        if conclusion.layer not in (Layer.FLAKY, Layer.UNCLEAR) or not self.again.failed:
            return False
        if self.subject.free_threaded and self.tried.get(Experiment.GIL_ON, Count()).passes:
            return True
        steady = self.again.fails or self.tried.get(Experiment.STRESS, Count()).fails
        only = Experiment.JIT_OFF in self.tried and not self.still_fails(Experiment.JIT_OFF)
        return only and (not steady or self.again.crashed > 0)

    def concludes(self, layer: Layer, why: str) -> Conclusion:
        return Conclusion(layer, why, self.again)

    def too_seldom(self, experiment: Experiment, changed: str) -> Conclusion:
        """Return `unclear` because the passes in an experiment are too few."""
        count = self.tried[experiment]
        odds = chance(self.again, count)
        return self.concludes(
            Layer.UNCLEAR,
            f"{self.again} without a change, and none of {count.ran} {changed}: "
            f"too seldom to tell, chance alone does that in {odds:.0%} of cases",
        )


def _settle(case: _Case) -> Next | Conclusion:
    """Decide about a test that has run often enough without a change."""
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
    """Conclude about an intermittent failure that no switch of its own build certainly fixes."""
    conditions = []
    for experiment, changed in ((Experiment.GIL_ON, "with the GIL on"), (Experiment.JIT_OFF, "with the JIT off")):
        if case.still_fails(experiment):
            conditions.append(changed)
        elif experiment in case.tried and case.tried[experiment].passed:
            return case.too_seldom(experiment, changed)
        elif experiment in case.tried:
            return case.concludes(Layer.UNCLEAR, f"fails at times, and does not run {changed}")
    condition = f"{' and '.join(conditions)} as well" if conditions else "without anything being changed"
    return case.concludes(Layer.FLAKY, f"passes and fails {condition}")


def _with_the_jit(case: _Case) -> Next | Conclusion:
    """Decide about a test that fails only with the JIT on, or runs only then."""
    arch = case.subject.arch
    if more := case.next(Experiment.OPTIMIZER_OFF) or case.next(Experiment.OTHER_CPU):
        return more
    if case.subject.emulated and case.fixes(Experiment.OTHER_CPU):
        return case.concludes(Layer.EMULATOR, "passes when QEMU emulates another CPU model")
    if more := case.next(Experiment.INTERPRETER):
        return more
    only = "passes with the JIT off" if case.tried[Experiment.JIT_OFF].ran else "needs the JIT to run"
    for experiment, changed in (
        (Experiment.INTERPRETER, "in the tier-2 interpreter"),
        (Experiment.OTHER_ARCH, "on the other arch"),
    ):
        if case.tried.get(experiment, Count()).passes and not (case.fixes(experiment) or case.next(experiment)):
            return case.too_seldom(experiment, changed)
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
    """Decide in the debug build, whose assertions may make a test fail each time; None if that settles nothing.

    The failure may be different from the one without assertions, so the conclusion names the build.
    """
    if more := case.once(Experiment.DEBUG):
        return more
    case = replace(case, again=case.tried.get(Experiment.DEBUG, Count()))
    result = _free_threading_in_the_debug_build(case) if case.again.failed and case.subject.free_threaded else None
    if result is None and case.again.fails and case.subject.jit:
        fails_without = case.still_fails(Experiment.JIT_OFF)
        result = case.next(Experiment.JIT_OFF) or (None if fails_without else _with_the_jit(case))
    if result is None or isinstance(result, Next):
        return result
    often = "each time" if case.again.fails else f"{case.again.failed} of {case.again.ran} times"
    return replace(result, why=f"in the debug build, where it fails {often}: {result.why}")


def _free_threading_in_the_debug_build(case: _Case) -> Next | Conclusion | None:
    """Decide about a race, which may be intermittent even with assertions."""
    if more := case.next(Experiment.GIL_ON):
        return more
    if case.fixes(Experiment.GIL_ON):
        return case.concludes(Layer.FREE_THREADING, "passes in the same build with the GIL on")
    return None


def _without_the_jit(case: _Case) -> Next | Conclusion:
    """Decide about a test that also fails without the JIT."""
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
