"""What measurements mean: ratios, shares, the cost of warming up, and summaries. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from crossjit.measure import hpt, times
from crossjit.measure.model import INTERPRETER, JIT, Call, CellMeasurement, Counts, Metric, Result, Sample, Trouble
from crossjit.measure.times import Interval

THRESHOLDS = (1, 5, 10, 20)  # percent


class State(StrEnum):
    """What is known of a benchmark. `untouched`: no JIT code ran in it, though the JIT was on."""

    MEASURED = "measured"
    UNTOUCHED = "untouched"
    FAILED = "failed"
    UNRELIABLE = "unreliable"


@dataclass(frozen=True)
class WarmUp:
    """The cost of warming up: what the measured side needs more than in its last call, less what the baseline does.

    `pays_off` is the number of the call after which the measured side has needed fewer instructions in all; None if it
    never does.
    """

    instructions: int
    pays_off: int | None


@dataclass(frozen=True)
class Row:
    """A benchmark's figures. Ratios are instructions of the measured side by those of the baseline: below 1 is faster.

    `ratio` is the compared call's. Shares are of the measured side's instructions in that call; None if unknown.
    Of times, `interval` is the ratio's, `differs` says whether it is significant, and `seconds` are both sides'
    medians, the measured one first.
    """

    name: str
    state: State
    problem: str = ""
    ratio: float | None = None
    cold: float | None = None
    warm: float | None = None
    instructions: int | None = None
    baseline: int | None = None
    jit_share: float | None = None
    interpreter_share: float | None = None
    baseline_interpreter_share: float | None = None
    warm_up: WarmUp | None = None
    executors: int = 0
    code_bytes: int = 0
    interval: Interval | None = None
    differs: bool | None = None
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Summary:
    """A cell's figures. `geometric_mean`, `best` and `worst` are of measured benchmarks only; None without any.

    `slower` is how many are slower by more than so many percent. Of times, `confidence` is how sure it is that the
    measured side is faster, and `speedup` how many times as fast it is at least, with 99 % confidence (see `hpt`).
    """

    measured: int
    geometric_mean: float | None
    best: str | None
    worst: str | None
    slower: Mapping[int, int]
    untouched: tuple[str, ...]
    failed: tuple[str, ...]
    unreliable: tuple[str, ...]
    confidence: float | None = None
    speedup: float | None = None


def rows(measurement: CellMeasurement) -> tuple[Row, ...]:
    """Return the benchmarks' figures, the worst first; then those without a ratio that counts."""
    is_time = measurement.metric is Metric.TIME
    found = [_timed(result) if is_time else row(result, measurement.call) for result in measurement.results]
    order = list(State)
    return tuple(sorted(found, key=lambda each: (order.index(each.state), -(each.ratio or 0), each.name)))


def row(result: Result, call: Call) -> Row:
    """Return the figures of one benchmark."""
    measured, baseline = result.measured, result.baseline
    if measured is None or baseline is None:
        return _without_ratio(result)
    ratios = [one / other for one, other in zip(measured.totals, baseline.totals, strict=True)]
    counts = call.of(measured.calls)
    return Row(
        name=result.name,
        state=State.MEASURED if any(counts.get(JIT) for counts in measured.calls) else State.UNTOUCHED,
        ratio=call.of(ratios),
        cold=ratios[0],
        warm=ratios[-1],
        instructions=call.of(measured.totals),
        baseline=call.of(baseline.totals),
        jit_share=share(counts, JIT),
        interpreter_share=share(counts, INTERPRETER),
        baseline_interpreter_share=share(call.of(baseline.calls), INTERPRETER),
        warm_up=warm_up(measured, baseline),
        executors=measured.executors,
        code_bytes=measured.code_bytes,
    )


def _timed(result: Result) -> Row:
    measured, baseline = result.measured, result.baseline
    if measured is None or baseline is None:
        return _without_ratio(result)
    found = times.interval(baseline.times, measured.times)
    return Row(
        name=result.name,
        state=State.MEASURED if measured.executors else State.UNTOUCHED,
        ratio=found.ratio,
        warm=found.ratio,
        executors=measured.executors,
        code_bytes=measured.code_bytes,
        interval=found,
        differs=hpt.differs(hpt.Samples(baseline.times, measured.times)),
        seconds=(median(measured.times), median(baseline.times)),
    )


def _without_ratio(result: Result) -> Row:
    state = State.FAILED if result.trouble is Trouble.FAILED else State.UNRELIABLE
    return Row(result.name, state, result.problem)


def share(counts: Counts, name: str) -> float | None:
    """Return the share of one class of instructions; None if the interpreter's loop cannot be told from the rest."""
    if name != JIT and name not in counts:
        return None
    return counts.get(name, 0) / sum(counts.values())


def warm_up(measured: Sample, baseline: Sample) -> WarmUp:
    """Return what warming up costs, and when it pays off, if all later calls are like the last one."""
    one, other = measured.totals, baseline.totals
    cost = sum(count - one[-1] for count in one) - sum(count - other[-1] for count in other)
    debt = 0
    for number, (count, usual) in enumerate(zip(one, other, strict=True), 1):
        debt += count - usual
        if debt <= 0:
            return WarmUp(cost, number)
    gain = other[-1] - one[-1]
    return WarmUp(cost, len(one) + math.ceil(debt / gain) if gain > 0 else None)


def summary(found: Sequence[Row], samples: Sequence[hpt.Samples] = ()) -> Summary:
    """Summarize a cell's benchmarks; `samples` are their times."""
    measured = [each for each in found if each.state is State.MEASURED and each.ratio is not None]
    ratios = {each.name: each.ratio for each in measured if each.ratio is not None}

    def names(state: State) -> tuple[str, ...]:
        return tuple(sorted(each.name for each in found if each.state is state))

    return Summary(
        measured=len(ratios),
        geometric_mean=geometric_mean(ratios.values()),
        best=min(ratios, key=ratios.__getitem__, default=None),
        worst=max(ratios, key=ratios.__getitem__, default=None),
        slower={percent: len(too_slow(found, percent)) for percent in THRESHOLDS},
        untouched=names(State.UNTOUCHED),
        failed=names(State.FAILED),
        unreliable=names(State.UNRELIABLE),
        confidence=hpt.confidence(samples) if samples else None,
        speedup=hpt.speedup(samples) if samples else None,
    )


def time_samples(measurement: CellMeasurement) -> tuple[hpt.Samples, ...]:
    """Return the times of benchmarks that have them on both sides; none of a measurement of instructions."""
    pairs = [(each.baseline, each.measured) for each in measurement.results]
    return tuple(hpt.Samples(old.times, new.times) for old, new in pairs if old and new and old.times and new.times)


def too_slow(found: Iterable[Row], percent: float) -> tuple[Row, ...]:
    """Return the benchmarks that are slower by more than so many percent. Untouched ones count as well.

    Times that do not differ significantly do not count.
    """
    return tuple(
        each
        for each in found
        if each.ratio is not None and each.ratio > 1 + percent / 100 and each.differs is not False
    )


def geometric_mean(ratios: Iterable[float]) -> float | None:
    """Return the geometric mean; None of nothing."""
    logarithms = [math.log(ratio) for ratio in ratios]
    return math.exp(math.fsum(logarithms) / len(logarithms)) if logarithms else None
