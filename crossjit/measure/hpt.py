"""The Hierarchical Performance Testing of Chen et al., "Statistical Performance Comparisons of Computers", HPCA 2012.

Each benchmark's two samples are compared with a rank-sum test, so that neither a distribution nor equal variances are
assumed; where they do not differ significantly, the benchmark counts as equal. A signed-rank test over all benchmarks
then says with which confidence one side is faster. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import median

SIGNIFICANCE = 0.05  # of one benchmark's difference, as in the paper
LEVEL = 0.99  # the confidence at which a speedup is reported
_STEPS = 24  # halvings of the interval in which the speedup is searched


@dataclass(frozen=True)
class Samples:
    """One benchmark's times in seconds, without and with the change; at least four each to be told apart at all."""

    old: Sequence[float]
    new: Sequence[float]


def differs(samples: Samples, speedup: float = 1.0) -> bool:
    """Return whether new times, multiplied by `speedup`, differ significantly from old ones."""
    from scipy.stats import mannwhitneyu

    scaled = [value * speedup for value in samples.new]
    return bool(mannwhitneyu(samples.old, scaled).pvalue < SIGNIFICANCE)


def confidence(benchmarks: Sequence[Samples], speedup: float = 1.0) -> float:
    """Return the confidence, 0 to 1, that new is at least `speedup` times as fast as old.

    Below 0.5, new is rather slower than that. Without any significant difference it is 0.5.
    """
    from scipy.stats import wilcoxon

    gains = [_gain(samples, speedup) for samples in benchmarks]
    if not any(gains):
        return 0.5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it approximates: there are ties
        return 1 - float(wilcoxon(gains, alternative="greater", zero_method="zsplit").pvalue)


def speedup(benchmarks: Sequence[Samples], level: float = LEVEL) -> float | None:
    """Return the largest speedup that new has over old with this confidence; below 1 it may be a slowdown.

    None if there are too few benchmarks for this confidence.
    """
    low, high = 0.1, 10.0
    if confidence(benchmarks, low) < level:
        return None
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        if confidence(benchmarks, middle) >= level:
            low = middle
        else:
            high = middle
    return low


def _gain(samples: Samples, speedup: float) -> float:
    """Return the logarithm of how many times as fast as old new is; 0 if that is not significant."""
    if not differs(samples, speedup):
        return 0.0
    return log(median(samples.old) / median(samples.new) / speedup)
