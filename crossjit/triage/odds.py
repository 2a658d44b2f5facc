"""How often a test failed, how often it must run, and what follows from two such counts. Pure.

A changed condition cures a test if it passes there each time, so often that chance explains it in fewer than one case
of a hundred (`CHANCE`, by Fisher's exact test): the less often a test fails, the more passes that takes. The error of
the whole procedure, over all failure rates and with its runs counted as they come, is below that too; a test adds it
up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

# How often a test runs where it began: enough to tell one that always fails from one that does so every third time;
# for one that does not, twice as often each time, until it failed `ENOUGH` times or ran `MOST` times.
REPEATS_STABLE, REPEATS_FLAKY, MOST = 5, 10, 40
ENOUGH = 4
PATIENCE = 100  # passes that are waited for, at most, under a changed condition
CHANCE = 0.01  # the accepted error of one comparison


@dataclass(frozen=True)
class Count:
    """How a test ended on a rung. `absent` counts the times that it did not run: skipped, or not there.

    `crashed` and `hung` count those of the failures that were a crash, and a hang.
    """

    failed: int = 0
    passed: int = 0
    absent: int = 0
    crashed: int = 0
    hung: int = 0

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

    @property
    def depends_on_timing(self) -> bool:
        """Whether it may: it crashed, hung, or did not end alike each time."""
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


def runs_wanted(again: Count) -> int:
    """Return how many more runs it takes to know how often a test fails; 0 where that is known well enough."""
    ran = again.ran + again.absent
    if ran < REPEATS_STABLE:
        return REPEATS_STABLE - ran
    if again.fails or not again.ran:
        return 0
    if ran < REPEATS_FLAKY:
        return REPEATS_FLAKY - ran
    return min(ran, MOST - ran) if 0 < again.failed < ENOUGH else 0


def passes_wanted(again: Count) -> int:
    """Return how many passes in a row show that a changed condition cures what fails so often; `PATIENCE` at most.

    >>> [passes_wanted(Count(failed, 10 - failed)) for failed in (10, 8, 6, 4, 2)]
    [3, 5, 9, 19, 86]
    """
    return next(
        (passes for passes in range(1, PATIENCE) if chance(again, Count(passed=passes)) < CHANCE),
        PATIENCE,
    )
