"""Lines of a table: values within a round, medians over rounds, bounds, and how they are shown. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum


class Unit(StrEnum):
    """What a line's value is in: seconds, hand-typed native builds of the same round, a quotient, per cent."""

    SECONDS = "s"
    BASELINE = "T"
    TIMES = "times"
    SHARE = "%"


class Kind(StrEnum):
    """How a value was come by: to its end, stopped before it (the value is at least that), or sampled and reckoned."""

    MEASURED = "measured"
    STOPPED = "stopped"
    EXTRAPOLATED = "extrapolated"


class Status(StrEnum):
    """What a line came to; `reported` has no bound, `failed` has a command that did not work."""

    MET = "met"
    MISSED = "missed"
    REPORTED = "reported"
    FAILED = "failed"
    NOT_TAKEN = "not taken"

    @property
    def is_failure(self) -> bool:
        """Whether the benchmark ends with 1 for it."""
        return self in (Status.MISSED, Status.FAILED)


@dataclass(frozen=True)
class Line:
    """A line of the table. `bound` is in its unit: the most that the median may be, or the least where `at_least`."""

    name: str
    title: str
    unit: Unit
    bound: float | None = None
    at_least: bool = False

    @property
    def demand(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "-"
        return f"{'>=' if self.at_least else '<='} {shown(self.bound, self.unit, bound=True)}"


@dataclass(frozen=True)
class Sample:
    """What one round found: the value in the line's unit, and the wall seconds that it comes of.

    `note` is worth a line below the table; `details` are seconds of parts, for the JSON.
    """

    value: float
    seconds: float
    kind: Kind = Kind.MEASURED
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What all rounds found for a line, and what went wrong."""

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
        """The least certain of the rounds' kinds; any that was stopped makes the median a lower bound."""
        kinds = {sample.kind for sample in self.samples}
        return next((kind for kind in (Kind.EXTRAPOLATED, Kind.STOPPED) if kind in kinds), Kind.MEASURED)

    @property
    def note(self) -> str:
        """What is to be said of the round that is nearest to the median."""
        middle = self.value
        return "" if middle is None else min(self.samples, key=lambda sample: abs(sample.value - middle)).note

    @property
    def status(self) -> Status:
        """Whether the bound is met; a lower bound of something that may be no more than that much meets nothing."""
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
    """Make a sample of a time in hand-typed native builds."""
    return Sample(ratio(seconds, baseline), seconds, **more)  # type: ignore[arg-type]


def ratio(seconds: float, to: float) -> float:
    """Divide times of one round. Raises ValueError where there is nothing to divide by."""
    if to <= 0:
        raise ValueError("a time to compare with is no time at all")
    return seconds / to


def busy(intervals: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join intervals (begin, end) that overlap, so that what ran side by side counts once."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(intervals):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def length(joined: Iterable[tuple[float, float]], within: tuple[float, float] | None = None) -> float:
    """Add joined intervals up, or what of them lies within another one."""
    if within is None:
        return sum(end - begin for begin, end in joined)
    return sum(max(0.0, min(end, within[1]) - max(begin, within[0])) for begin, end in joined)


@dataclass(frozen=True)
class Pace:
    """A phase of a build: its wall seconds so far, the second at which each step was told, and whether it ended."""

    seconds: float
    marks: tuple[float, ...]
    ended: bool = True


def extrapolated(sample: Sequence[Pace], full: Sequence[Pace], jobs: int = 1) -> float:
    """Reckon how long a build would take that was stopped, by a whole one of the same phases.

    Phases that ended count as they are. The one that was stopped is taken to go on as slowly as it went, compared with
    the whole build at the same step; those that it did not come to, as slowly as that. Steps are told as they begin, so
    the first `jobs` of a phase, which all begin with it, say nothing; then it goes by the phase before. Raises
    ValueError if there is none.
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
    """Write a value with its unit."""
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


def _row(each: Found) -> tuple[str, ...]:
    return (
        each.line.name,
        each.line.title,
        "-" if each.value is None else _SIGNS[each.kind] + shown(each.value, each.line.unit),
        "-" if each.seconds is None else f"{each.seconds:.1f}",
        str(len(each.samples)),
        each.line.demand,
        each.status.value,
    )


def table(found: Sequence[Found]) -> Iterator[str]:
    """Lay out the lines, then what is to be said of each, then what went wrong."""
    head = ("", "what", "median", "seconds", "rounds", "must be", "")
    rows = [head, *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = (2, 3, 4)
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    notes = [(each.line.name, each.note) for each in found if each.note]
    errors = [(each.line.name, error) for each in found for error in each.errors]
    for heading, said in (("", notes), ("what failed", errors)):
        if said:
            yield from ("", *([heading] if heading else []))
            yield from (f"{name}: {text}" for name, text in said)


def document(found: Sequence[Found], machine: Mapping[str, object]) -> dict[str, object]:
    """Return the same as values that JSON can hold."""
    return {
        "machine": dict(machine),
        "lines": [
            {
                **asdict(each.line),
                "median": each.value,
                "median_seconds": each.seconds,
                "kind": each.kind.value,
                "status": each.status.value,
                "rounds": [asdict(sample) for sample in each.samples],
                "errors": list(each.errors),
            }
            for each in found
        ],
    }
