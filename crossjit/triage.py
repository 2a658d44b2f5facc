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
from math import comb

from crossjit.model import Arch
from crossjit.wording import counted

# How often a test runs: where it began, enough to tell one that always fails from one that does so every third time;
# then, for one that always fails, on other rungs; and everywhere for one that fails at times.
STEADY, FEW, MANY = 5, 3, 10
CHANCE = 0.01  # two counts differ if chance alone would make them differ so no more often than this


class Rung(StrEnum):
    """What is changed before a test runs again; `SEEN` is how it ended before anybody asked."""

    SEEN = "as it was seen"
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
class Count:
    """How a test ended on a rung. `absent` counts the times that it did not run: skipped, or not there.

    `crashed` counts those of the failures that were a crash.
    """

    failed: int = 0
    passed: int = 0
    absent: int = 0
    crashed: int = 0

    @property
    def ran(self) -> int:
        """How often it really ran."""
        return self.failed + self.passed

    @property
    def fails(self) -> bool:
        """Whether it failed each time."""
        return self.failed > 0 and self.passed == 0

    @property
    def passes(self) -> bool:
        """Whether it passed each time."""
        return self.passed > 0 and self.failed == 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.failed + other.failed,
            self.passed + other.passed,
            self.absent + other.absent,
            self.crashed + other.crashed,
        )

    def __str__(self) -> str:
        return f"failed {self.failed} of {self.ran}" if self.ran else "did not run"


@dataclass(frozen=True)
class Subject:
    """What is known of the cell beforehand. `can` holds the rungs that this machine and the recipe allow."""

    arch: Arch
    jit: bool
    free_threaded: bool
    emulated: bool
    can: frozenset[Rung] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Next:
    """What to try next, and how often; under `stress` where only that makes the test fail each time.

    `debug` says that the debug build is what is changed from.
    """

    rung: Rung
    times: int
    stress: bool = False
    debug: bool = False


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


Tried = Mapping[Rung, Count]


def step(subject: Subject, tried: Tried, debug: Tried | None = None) -> Next | Conclusion:
    """Say what to try next for a test that failed once, or what its failure is about.

    `debug` is what was tried with the debug build; `tried` all the rest.
    """
    again = tried.get(Rung.AGAIN, Count())
    if again.ran + again.absent < STEADY:
        return Next(Rung.AGAIN, STEADY)
    if Rung.CONTROL not in tried:
        return Next(Rung.CONTROL, 1)
    if not tried[Rung.CONTROL].passes:
        return Conclusion(Layer.ENVIRONMENT, "a test that must pass anywhere fails here as well", again)
    if again.ran == 0:
        return Conclusion(Layer.UNCLEAR, "the test did not run again", again)
    if not again.fails and again.ran < MANY:
        return Next(Rung.AGAIN, MANY - again.ran)
    case = _Case(subject, tried, again)
    found = _settle(case)
    if isinstance(found, Conclusion) and case.is_open(found):
        return _in_the_debug_build(replace(case, tried=debug or {}, debug=True)) or found
    return found


@dataclass(frozen=True)
class _Case:
    """A test, and what was tried."""

    subject: Subject
    tried: Tried
    again: Count
    stress: bool = False
    debug: bool = False

    def next(self, rung: Rung) -> Next | None:
        """Return the rung if it is possible and was not tried."""
        if rung in self.tried or rung not in self.subject.can:
            return None
        return Next(rung, FEW if self.again.fails else MANY, self.stress, self.debug)

    def cures(self, rung: Rung) -> bool:
        """Whether the test fails less on that rung than where it began, beyond chance."""
        there = self.tried.get(rung, Count())
        return there.passed > 0 and ((self.again.fails and there.passes) or chance(self.again, there) < CHANCE)

    def keeps(self, rung: Rung) -> bool:
        """Whether the test fails on that rung as well."""
        return self.tried.get(rung, Count()).failed > 0

    def is_open(self, found: Conclusion) -> bool:
        """Whether the debug build may settle what is not: why a test fails with the JIT only, as far as was seen.

        That is one that does so at times, under stress, too; or each time, and crashes.
        """
        if found.layer not in (Layer.FLAKY, Layer.UNCLEAR) or not self.again.failed:
            return False
        steady = self.again.fails or self.tried.get(Rung.STRESS, Count()).fails
        only = Rung.JIT_OFF in self.tried and not self.keeps(Rung.JIT_OFF)
        return only and (not steady or self.again.crashed > 0)

    def concludes(self, layer: Layer, why: str) -> Conclusion:
        return Conclusion(layer, why, self.again)


def chance(often: Count, seldom: Count) -> float:
    """Return how probable it is that one of two alike counts has so many more failures (Fisher's exact test).

    >>> round(chance(Count(6, 4), Count(0, 10)), 4)
    0.0054
    """
    failed, runs = often.failed + seldom.failed, often.ran + seldom.ran
    ways = sum(
        comb(often.ran, number) * comb(seldom.ran, failed - number)
        for number in range(often.failed, min(failed, often.ran) + 1)
        if failed - number <= seldom.ran
    )
    return ways / comb(runs, failed)


def _settle(case: _Case) -> Next | Conclusion:
    """Go on with a test that has run often enough where it began."""
    subject = case.subject
    if not case.again.failed:
        runs = counted(case.again.ran, "run")
        if not case.tried.get(Rung.SEEN, Count()).failed:
            return case.concludes(Layer.UNCLEAR, f"it did not fail in {runs}")
        return case.concludes(Layer.FLAKY, f"failed when it was seen, and not in {runs} after that")
    if subject.free_threaded:
        if more := case.next(Rung.GIL_ON):
            return more
        if case.cures(Rung.GIL_ON):
            return case.concludes(Layer.FREE_THREADING, "passes in the same build with the GIL on")
    if subject.jit:
        if more := case.next(Rung.JIT_OFF):
            return more
        if not case.keeps(Rung.JIT_OFF) and (case.cures(Rung.JIT_OFF) or not case.tried[Rung.JIT_OFF].ran):
            return _with_the_jit(case)
        if not case.again.fails and not case.keeps(Rung.JIT_OFF):
            if more := case.next(Rung.STRESS):
                return more
            stressed = case.tried.get(Rung.STRESS, Count())
            if stressed.fails:
                return _with_the_jit(replace(case, again=stressed, stress=True))
    if not case.again.fails:
        return case.concludes(Layer.FLAKY, "passes and fails without anything being changed")
    return _without_the_jit(case)


def _with_the_jit(case: _Case) -> Next | Conclusion:
    """Go on with a test that fails only with the JIT on, or runs only then."""
    arch = case.subject.arch
    if more := case.next(Rung.OPTIMIZER_OFF) or case.next(Rung.OTHER_CPU):
        return more
    if case.subject.emulated and case.cures(Rung.OTHER_CPU):
        return case.concludes(Layer.EMULATOR, "passes when QEMU plays another CPU model")
    if more := case.next(Rung.INTERPRETER):
        return more
    only = "passes with the JIT off" if case.tried[Rung.JIT_OFF].ran else "needs the JIT to run"
    if case.keeps(Rung.INTERPRETER):
        passes = "passes without the optimizer and " if case.cures(Rung.OPTIMIZER_OFF) else ""
        return case.concludes(
            Layer.OPTIMIZER, f"{only}, {passes}fails in the tier-2 interpreter, which has no machine code"
        )
    if not case.cures(Rung.INTERPRETER):
        if case.cures(Rung.OPTIMIZER_OFF):
            return case.concludes(
                Layer.UNCLEAR, f"{only} and without the optimizer; no tier-2 interpreter to compare with"
            )
        return case.concludes(Layer.UNCLEAR, f"{only}; no tier-2 interpreter to compare with")
    if more := case.next(Rung.OTHER_ARCH):
        return more
    if case.keeps(Rung.OTHER_ARCH):
        return case.concludes(Layer.JIT, f"{only} and in the tier-2 interpreter, fails as machine code of both archs")
    if case.cures(Rung.OTHER_ARCH):
        return case.concludes(
            Layer.BACKEND, f"{only}, in the tier-2 interpreter and on the other arch: {arch}'s machine code"
        )
    return case.concludes(Layer.UNCLEAR, f"{only} and in the tier-2 interpreter; the other arch could not be asked")


def _in_the_debug_build(case: _Case) -> Next | Conclusion | None:
    """Go on where assertions may make a failure steady; None where that settles nothing.

    What fails there may be another thing than what does without assertions, so the conclusion names the build.
    """
    if more := case.next(Rung.DEBUG):
        return more
    steady = case.tried.get(Rung.DEBUG, Count())
    if not steady.fails:
        return None
    if more := case.next(Rung.JIT_OFF):
        return more
    if case.keeps(Rung.JIT_OFF):
        return None
    found = _with_the_jit(replace(case, again=steady))
    if isinstance(found, Next):
        return found
    return replace(found, why=f"in the debug build, where it fails each time: {found.why}")


def _without_the_jit(case: _Case) -> Next | Conclusion:
    """Go on with a test that fails without the JIT, too."""
    emulated = case.subject.emulated
    if emulated:
        if more := case.next(Rung.OTHER_CPU):
            return more
        if case.cures(Rung.OTHER_CPU):
            return case.concludes(Layer.EMULATOR, "passes when QEMU plays another CPU model")
        if more := case.next(Rung.NATIVE):
            return more
    without = "fails without the JIT, too" if case.subject.jit else "fails"
    if emulated and not case.keeps(Rung.NATIVE):
        if not case.cures(Rung.NATIVE):
            return case.concludes(Layer.UNCLEAR, f"{without}; nothing native to compare with")
        if more := case.next(Rung.REFERENCE):
            return more
        if case.cures(Rung.REFERENCE):
            return case.concludes(
                Layer.INTERPRETER, f"{without}, not natively on the host's arch, and not with the recipe's own source"
            )
        return case.concludes(Layer.EMULATOR, f"{without}, and passes natively on the host's arch")
    if case.subject.free_threaded:
        if not case.tried.get(Rung.GIL_ON, Count()).ran:
            return case.concludes(Layer.UNCLEAR, "the test does not run with the GIL on")
        return case.concludes(Layer.INTERPRETER, "fails with the GIL on, too")
    native = " and natively" if emulated else ""
    return case.concludes(Layer.INTERPRETER, f"{without}{native}")
