"""Two measurements of the same benchmarks: what moved in each of them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from crossjit.errors import UserError
from crossjit.measure import times
from crossjit.measure.model import Call, CellMeasurement, Metric, Result, Sample, Side
from crossjit.measure.statistics import Row, State, geometric_mean, rows
from crossjit.measure.times import Interval
from crossjit.util.text import join_words

NOISE = 0.0025
"""How much a count may move without any change of what is measured: one build of 3.15.0rc2 in five memory layouts
differed by 0.10 to 0.25 %. Two builds of one source are the same bytes. Of 18 commits of 3.15 in a row, 16 did not move
nbody at all, though many changed the interpreter elsewhere (after e017971eb9f, to d0e66ef1c09)."""


class Direction(StrEnum):
    """Where a benchmark moved: `same` is a movement within the noise."""

    SLOWER = "slower"
    FASTER = "faster"
    SAME = "same"


@dataclass(frozen=True)
class Movement:
    """A benchmark in both measurements.

    `ratio` is the later measured side by the earlier one, `baseline` the same for the sides that they are compared
    with; `before` and `after` are each measurement's own ratio, JIT on by JIT off. The shares are of JIT code, None of
    times, and `touched` says whether any ran.
    """

    name: str
    direction: Direction
    ratio: float
    baseline: float
    before: float
    after: float
    share_before: float | None
    share_after: float | None
    touched_before: bool
    touched_after: bool

    @property
    def lost_the_jit(self) -> bool:
        """Whether JIT code ran in it, and no longer does."""
        return self.touched_before and not self.touched_after


@dataclass(frozen=True)
class LeftOut:
    """A benchmark that cannot be compared, and why. `broke` if only the later measurement failed."""

    name: str
    why: str
    broke: bool = False


@dataclass(frozen=True)
class CellComparison:
    """A cell in two measurements: its benchmarks, the worst movement first. Geometric means are None of nothing."""

    before: Side
    after: Side
    movements: tuple[Movement, ...]
    left_out: tuple[LeftOut, ...]
    noise: float
    geometric_mean: float | None
    jit_before: float | None
    jit_after: float | None
    notes: tuple[str, ...] = ()

    def count(self, direction: Direction) -> int:
        """Return how many benchmarks moved so."""
        return Counter(each.direction for each in self.movements)[direction]

    @property
    def broke(self) -> tuple[str, ...]:
        """The benchmarks that fail only in the later measurement."""
        return tuple(each.name for each in self.left_out if each.broke)


def pairs(
    before: Sequence[CellMeasurement], after: Sequence[CellMeasurement]
) -> tuple[tuple[CellMeasurement, CellMeasurement], ...]:
    """Return what to compare: the same cells; without any, those of an arch that each has once. Raises UserError."""
    same = [(one, other) for one in before for other in after if one.cell == other.cell]
    if same:
        return tuple(same)
    counts = [Counter(each.cell.arch for each in some) for some in (before, after)]
    found = [
        (one, other)
        for one in before
        for other in after
        if one.cell.arch is other.cell.arch and counts[0][one.cell.arch] == counts[1][one.cell.arch] == 1
    ]
    if not found:
        names = [join_words([str(each.cell) for each in some]) for some in (before, after)]
        raise UserError(
            f"the measurements have no cell in common: {names[0]} before, {names[1]} after",
            hint="measure the same cells in both, such as with --arch all",
        )
    return tuple(found)


def compare(before: CellMeasurement, after: CellMeasurement, *, noise: float | None = None) -> CellComparison:
    """Compare two measurements of a cell. Raises UserError if they cannot be compared.

    `noise` is by default `NOISE`, or for times what the machine had.
    """
    _require_comparable(before, after)
    if noise is None:
        is_time = after.metric is Metric.TIME
        noise = max(before.noise or 0.0, after.noise or 0.0) if is_time else NOISE
    earlier, later = _by_name(before), _by_name(after)
    movements: list[Movement] = []
    left_out: list[LeftOut] = []
    for name in dict.fromkeys((*later, *earlier)):
        found = _benchmark(name, earlier.get(name), later.get(name), after.call, noise)
        if isinstance(found, Movement):
            movements.append(found)
        else:
            left_out.append(found)
    touched = [each for each in movements if each.touched_before or each.touched_after]
    return CellComparison(
        before=before.measured,
        after=after.measured,
        movements=tuple(sorted(movements, key=lambda each: (-each.ratio, each.name))),
        left_out=tuple(sorted(left_out, key=lambda each: (not each.broke, each.name))),
        noise=noise,
        geometric_mean=geometric_mean(each.ratio for each in movements),
        jit_before=geometric_mean(each.before for each in touched),
        jit_after=geometric_mean(each.after for each in touched),
        notes=tuple(_notes(before, after)),
    )


def _require_comparable(before: CellMeasurement, after: CellMeasurement) -> None:
    """Raise UserError for measurements whose difference would say nothing."""
    for measurement, when in ((before, "earlier"), (after, "later")):
        if measurement.vacuous:
            raise UserError(
                f"the {when} measurement of {measurement.cell} has nothing to compare: {measurement.vacuous}",
                hint="measure a cell whose JIT makes machine code",
            )
    again = "measure both again, with the same crossjit and options"
    for what, one, other, hint in (
        ("metrics", before.metric, after.metric, "compare measurements of the same metric"),
        ("architectures", before.cell.arch, after.cell.arch, "compare cells of one architecture"),
        ("calls", before.call, after.call, again),
        ("tables of benchmarks", before.table[:12], after.table[:12], again),
        ("CPU models", before.cpu, after.cpu, "measure both with the same --cpu"),
        ("baselines", _kind(before), _kind(after), "measure both with the same --against"),
    ):
        if one != other:
            raise UserError(f"{after.cell} was measured with different {what}: {one} before, {other} after", hint=hint)


def _kind(measurement: CellMeasurement) -> str:
    """Say what a measurement's baseline is, in words that two commits share."""
    measured, baseline = measurement.measured, measurement.baseline
    build = "the same build" if baseline.cell == measured.cell else baseline.cell.variant
    return f"{build} with the JIT {'on' if baseline.jit else 'off'}"


_Measured = tuple[Result, Row]


def _by_name(measurement: CellMeasurement) -> dict[str, _Measured]:
    figures = {row.name: row for row in rows(measurement)}
    return {result.name: (result, figures[result.name]) for result in measurement.results}


def _benchmark(
    name: str, before: _Measured | None, after: _Measured | None, call: Call, noise: float
) -> Movement | LeftOut:
    sides: list[tuple[Sample, Sample, Row]] = []
    for when, found in (("earlier", before), ("later", after)):
        if found is None:
            return LeftOut(name, f"the {when} measurement does not have it")
        result, row = found
        if result.measured is None or result.baseline is None:
            broke = when == "later" and row.state is State.FAILED
            return LeftOut(name, f"{row.state} in the {when} measurement: {result.problem}", broke)
        sides.append((result.measured, result.baseline, row))
    (earlier, usual, row), (later, usual_later, row_later) = sides
    moved = _moved(earlier, later, call)
    return Movement(
        name=name,
        direction=Direction.SAME if moved.low < 1 < moved.high else direction(moved.ratio, noise),
        ratio=moved.ratio,
        baseline=_moved(usual, usual_later, call).ratio,
        before=row.ratio or 0.0,
        after=row_later.ratio or 0.0,
        share_before=row.jit_share,
        share_after=row_later.jit_share,
        touched_before=row.state is State.MEASURED,
        touched_after=row_later.state is State.MEASURED,
    )


def _moved(before: Sample, after: Sample, call: Call) -> Interval:
    """Return how a side moved, and where that may be: of times an interval, of instructions the ratio alone."""
    if before.times and after.times:
        return times.interval(before.times, after.times)
    ratio = call.of(after.totals) / call.of(before.totals)
    return Interval(ratio, ratio, ratio)


def direction(ratio: float, noise: float) -> Direction:
    """Return where a benchmark moved; a movement of no more than the noise is none."""
    if abs(ratio - 1) <= noise:
        return Direction.SAME
    return Direction.SLOWER if ratio > 1 else Direction.FASTER


def _notes(before: CellMeasurement, after: CellMeasurement) -> Iterator[str]:
    """Say what else differs, and may be a reason."""
    if before.cell != after.cell:
        yield f"different cells: {before.cell} before, {after.cell} after"
    if before.meter != after.meter:
        yield "the images differ, and so may the libraries in them"
    if before.measured.artifact == after.measured.artifact:
        yield "both measured the same build"
