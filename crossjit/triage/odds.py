"""Counts of failures, the number of runs needed, and the significance of a difference. Pure.

A change fixes a test if it then passes each time, so often that the probability of chance is below `CHANCE` (one in a
hundred, by Fisher's exact test): the rarer the failure, the more passes this takes. The error of the whole sequential
procedure, over all failure rates, is below that as well; a unit test computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

# Runs without a change: REPEATS_STABLE tell a test that always fails from one that fails every third time. An
# intermittent one runs REPEATS_FLAKY times, then twice as often, until it failed MIN_FAILURES or ran MAX_RUNS times.
REPEATS_STABLE = 5
REPEATS_FLAKY = 10
MAX_RUNS = 40
MIN_FAILURES = 4
MAX_PASSES = 100  # passes in a row under a changed condition, at most
CHANCE = 0.01  # the accepted error of one comparison


@dataclass(frozen=True)
class Count:
    """The outcomes of a test in an experiment. `absent` counts the times that it did not run: skipped, or missing.

    `crashed` and `hung` count the failures that were a crash or a hang.
    """

    failed: int = 0
    passed: int = 0
    absent: int = 0
    crashed: int = 0
    hung: int = 0

    @property
    def ran(self) -> int:
        """The number of times that it ran."""
        return self.failed + self.passed

    @property
    def fails(self) -> bool:
        """Whether it failed each time."""
        return self.failed > 0 and self.passed == 0

    @property
    def passes(self) -> bool:
        """Whether it passed each time."""
        return self.passed > 0 and self.failed == 0

    @property
    def depends_on_timing(self) -> bool:
        """Whether it may: it crashed, hung, or had different outcomes."""
        return bool(self.crashed or self.hung or (self.failed and self.passed))

    def __add__(self, other: Count) -> Count:
        return Count(
            self.failed + other.failed,
            self.passed + other.passed,
            self.absent + other.absent,
            self.crashed + other.crashed,
            self.hung + other.hung,
        )

    def __str__(self) -> str:
        return f"failed {self.failed} of {self.ran}" if self.ran else "did not run"


def chance(often: Count, seldom: Count) -> float:
    """Return the probability of such a difference between counts of equal failure rate (Fisher's exact test).

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


def runs_wanted(again: Count) -> int:
    """Return how many more runs a test's failure rate needs; 0 if it is known well enough."""
    ran = again.ran + again.absent
    if ran < REPEATS_STABLE:
        return REPEATS_STABLE - ran
    if again.fails or not again.ran:
        return 0
    if ran < REPEATS_FLAKY:
        return REPEATS_FLAKY - ran
    return min(ran, MAX_RUNS - ran) if 0 < again.failed < MIN_FAILURES else 0


def passes_wanted(again: Count) -> int:
    """Return how many passes in a row show that a change fixes a test with these failures; at most `MAX_PASSES`.

    >>> [passes_wanted(Count(failed, 10 - failed)) for failed in (10, 8, 6, 4, 2)]
    [3, 5, 9, 19, 86]
    """
    return next(
        (passes for passes in range(1, MAX_PASSES) if chance(again, Count(passed=passes)) < CHANCE),
        MAX_PASSES,
    )
