"""Lines of a table: values within a round, medians over rounds, bounds, and how they are shown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Unit(StrEnum):
    """The unit of a line's value: seconds, hand-typed native builds of the same round, a quotient, per cent."""

    SECONDS = "s"
    BASELINE = "T"
    TIMES = "times"
    SHARE = "%"


class Kind(StrEnum):
    """How a value was obtained: measured, stopped early (a lower bound), or estimated from a sample."""

    MEASURED = "measured"
    STOPPED = "stopped"
    EXTRAPOLATED = "extrapolated"


class Status(StrEnum):
    """The status of a line; `reported` has no bound, `failed` had a failing command."""

    MET = "met"
    MISSED = "missed"
    REPORTED = "reported"
    FAILED = "failed"
    NOT_TAKEN = "not taken"

    @property
    def is_failure(self) -> bool:
        """Whether it makes the benchmark exit with 1."""
        return self in (Status.MISSED, Status.FAILED)


@dataclass(frozen=True)
class Line:
    """A line of the table. `bound` is in its unit: the maximum of the median, or with `at_least` the minimum."""

    name: str
    title: str
    unit: Unit
    bound: float | None = None
    at_least: bool = False

    @property
    def demand(self) -> str:
        """The bound as text."""
        if self.bound is None:
            return "-"
        return f"{'>=' if self.at_least else '<='} {shown(self.bound, self.unit, bound=True)}"


@dataclass(frozen=True)
class Sample:
    """A round's result: the value in the line's unit, and the wall seconds that it is computed from.

    `note` is shown below the table; `details` are seconds of parts, for the JSON.
    """

    value: float
    seconds: float
    kind: Kind = Kind.MEASURED
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LineResult:
    """All rounds' samples of a line, and the errors."""

    line: Line
    samples: tuple[Sample, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def value(self) -> float | None:
        """The median of the rounds' values."""
        return statistics.median(sample.value for sample in self.samples) if self.samples else None

    @property
    def seconds(self) -> float | None:
        """The median of the rounds' seconds."""
        return statistics.median(sample.seconds for sample in self.samples) if self.samples else None

    @property
    def kind(self) -> Kind:
        """The least certain of the rounds' kinds; a stopped one makes the median a lower bound."""
        kinds = {sample.kind for sample in self.samples}
        return next((kind for kind in (Kind.EXTRAPOLATED, Kind.STOPPED) if kind in kinds), Kind.MEASURED)

    @property
    def note(self) -> str:
        """The note of the round nearest to the median."""
        middle = self.value
        return "" if middle is None else min(self.samples, key=lambda sample: abs(sample.value - middle)).note

    @property
    def status(self) -> Status:
        """Whether the bound is met; a lower bound cannot meet a maximum."""
        if self.errors:
            return Status.FAILED
        if self.value is None:
            return Status.NOT_TAKEN
        if self.line.bound is None:
            return Status.REPORTED
        if self.line.at_least:
            return Status.MET if self.value >= self.line.bound else Status.MISSED
        return Status.MET if self.value <= self.line.bound and self.kind is not Kind.STOPPED else Status.MISSED


def per_baseline(seconds: float, baseline: float, **more: object) -> Sample:
    """Make a sample from a time, in hand-typed native builds."""
    return Sample(ratio(seconds, baseline), seconds, **more)  # type: ignore[arg-type]


def ratio(seconds: float, to: float) -> float:
    """Divide times of one round. Raises ValueError for a divisor of 0."""
    if to <= 0:
        raise ValueError("a time to compare with is no time at all")
    return seconds / to


def busy(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join overlapping intervals (begin, end), so that parallel ones count once."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def length(joined: Iterable[tuple[float, float]], within: tuple[float, float] | None = None) -> float:
    """Return the sum of joined intervals, or of their parts within another interval."""
    if within is None:
        return sum(end - begin for begin, end in joined)
    return sum(max(0.0, min(end, within[1]) - max(begin, within[0])) for begin, end in joined)


@dataclass(frozen=True)
class Pace:
    """A phase of a build: its wall seconds so far, the time of each step's start, and whether it ended."""

    seconds: float
    marks: tuple[float, ...]
    ended: bool = True


def extrapolated(sample: Sequence[Pace], full: Sequence[Pace], jobs: int = 1) -> float:
    """Estimate the time of a stopped build from a whole build with the same phases.

    Finished phases count as measured. The stopped phase, and those after it, are assumed to continue with its slowdown
    relative to the whole build at the same step. Steps are recorded at their start, so the first `jobs` of a phase,
    which start with it, are not used; without others the slowdown is the previous phase's. Raises ValueError if there
    is none.
    """
    total, slowdown = 0.0, None
    for part, whole in zip(sample, full, strict=False):
        if part.ended:
            total += part.seconds
            slowdown = ratio(part.seconds, whole.seconds)
            continue
        reached = min(len(part.marks), len(whole.marks))
        if reached > jobs:
            slowdown = ratio(part.marks[reached - 1], whole.marks[reached - 1])
        if slowdown is None:
            raise ValueError("it was stopped before there was anything to go by")
        total += max(part.seconds, slowdown * whole.seconds)
    if slowdown is None:
        raise ValueError("nothing was measured")
    return total + sum(slowdown * whole.seconds for whole in full[len(sample) :])


def shown(value: float, unit: Unit, *, bound: bool = False) -> str:
    """Format a value with its unit."""
    match unit:
        case Unit.SECONDS:
            return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
        case Unit.BASELINE:
            return f"{value:.2f} T" if bound else f"{value:.3f} T"
        case Unit.TIMES:
            return f"{value:.0f} times" if bound else f"{value:.1f} times"
        case Unit.SHARE:
            return f"{value:.0f} %" if bound else f"{value:.1f} %"


_SIGNS = {Kind.MEASURED: "", Kind.STOPPED: "> ", Kind.EXTRAPOLATED: "~ "}


def _row(result: LineResult) -> tuple[str, ...]:
    return (
        result.line.name,
        result.line.title,
        "-" if result.value is None else _SIGNS[result.kind] + shown(result.value, result.line.unit),
        "-" if result.seconds is None else f"{result.seconds:.1f}",
        str(len(result.samples)),
        result.line.demand,
        result.status.value,
    )


def table(results: Sequence[LineResult]) -> Iterator[str]:
    """Return the table of the lines, their notes, and the errors."""
    head = ("", "what", "median", "seconds", "rounds", "must be", "")
    rows = [head, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (2, 3, 4)
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    remarks = [(result.line.name, result.note) for result in results if result.note]
    errors = [(result.line.name, error) for result in results for error in result.errors]
    for heading, lines in (("", remarks), ("what failed", errors)):
        if lines:
            yield from ("", *([heading] if heading else []))
            yield from (f"{name}: {text}" for name, text in lines)


def document(results: Sequence[LineResult], machine: Mapping[str, object]) -> dict[str, object]:
    """Return the results as JSON values."""
    return {
        "machine": dict(machine),
        "lines": [
            {
                **asdict(result.line),
                "median": result.value,
                "median_seconds": result.seconds,
                "kind": result.kind.value,
                "status": result.status.value,
                "rounds": [asdict(sample) for sample in result.samples],
                "errors": list(result.errors),
            }
            for result in results
        ],
    }
