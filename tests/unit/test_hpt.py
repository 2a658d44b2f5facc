"""Hierarchical Performance Testing, on samples whose answer is known."""

from __future__ import annotations

import random

import pytest

from crossjit.measure import hpt
from crossjit.measure.hpt import Samples


def simulated(speedups: list[float], *, noise: float = 0.01, runs: int = 10, seed: int = 1) -> list[Samples]:
    """Make benchmarks of different lengths, with times that are sometimes much too long, as real ones are."""
    chance = random.Random(seed)

    def times(length: float) -> list[float]:
        return [length * (1 + noise * chance.expovariate(1)) for _ in range(runs)]

    return [Samples(times(10**number), times(10**number / gain)) for number, gain in enumerate(speedups, -5)]


def speedup(benchmarks: list[Samples]) -> float:
    found = hpt.speedup(benchmarks)
    assert found is not None
    return found


def test_a_change_that_helps_everywhere() -> None:
    benchmarks = simulated([1.05, 1.06, 1.10, 1.2, 1.05, 1.07, 1.3, 1.08, 1.06, 1.09, 1.11])
    assert hpt.confidence(benchmarks) > 0.99
    assert 1.05 < speedup(benchmarks) < 1.11


def test_a_change_that_hurts() -> None:
    benchmarks = simulated([1 / 1.1] * 10)
    assert hpt.confidence(benchmarks) < 0.01
    assert speedup(benchmarks) == pytest.approx(1 / 1.1, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_the_same_program_twice_is_no_gain(seed: int) -> None:
    benchmarks = simulated([1.0] * 30, seed=seed)
    assert 0.1 < hpt.confidence(benchmarks) < 0.9
    assert speedup(benchmarks) == pytest.approx(1, abs=0.01)


def test_a_difference_within_the_noise_counts_as_none() -> None:
    noisy = Samples([1.0, 1.2, 1.1, 1.3, 1.05], [1.01, 1.19, 1.11, 1.28, 1.04])
    assert not hpt.differs(noisy)
    assert hpt.confidence([noisy] * 20) == 0.5


def test_few_benchmarks_prove_little() -> None:
    assert hpt.confidence(simulated([1.2, 1.2])) < 0.95, "however large the gain is"
    assert hpt.speedup(simulated([1.2, 1.2])) is None


def test_gains_and_losses_cancel() -> None:
    benchmarks = simulated([1.1, 1 / 1.1] * 8)
    assert 0.2 < hpt.confidence(benchmarks) < 0.8
