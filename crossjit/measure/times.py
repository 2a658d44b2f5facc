"""What times mean: ratios with their confidence intervals, and the noise of a machine. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median

CONFIDENCE = 0.95  # of an interval


@dataclass(frozen=True)
class Interval:
    """A ratio of times, new to old, and the interval that it is in with a probability of `CONFIDENCE`."""

    ratio: float
    low: float
    high: float


def interval(old: Sequence[float], new: Sequence[float]) -> Interval:
    """Return the ratio of two samples of at least two seconds each: Welch's t-test on their logarithms.

    >>> found = interval([1.0, 1.01, 0.99], [0.5, 0.51, 0.49])
    >>> round(found.ratio, 2), 0.47 < found.low < 0.5 < found.high < 0.53
    (0.5, True)
    """
    from scipy.stats import ttest_ind

    logs = [[log(value) for value in values] for values in (new, old)]
    ratio = exp(sum(logs[0]) / len(new) - sum(logs[1]) / len(old))
    if len({*old}) == len({*new}) == 1:
        return Interval(ratio, ratio, ratio)
    low, high = ttest_ind(*logs, equal_var=False).confidence_interval(CONFIDENCE)
    return Interval(ratio, exp(low), exp(high))


def noise(samples: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Return how far a machine's times of one build may be from each other, as a part of 1.

    `samples` are benchmarks in a build against the same build. It is the median of the interval's farther ends.
    """
    found = [interval(old, new) for old, new in samples]
    return median(max(each.high, 1 / each.low) - 1 for each in found)
