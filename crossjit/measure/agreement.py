"""How well times and instructions agree: what each says of the same benchmarks. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from crossjit.errors import UserError
from crossjit.measure.model import CellMeasurement
from crossjit.measure.statistics import rows

SHORTEST = 0.003  # seconds of the baseline's call; shorter ones are rather the clock's and the machine's noise
APART = 0.05  # ratios that differ by more are said to part
FEWEST = 3  # benchmarks: two always correlate


@dataclass(frozen=True)
class Pair:
    """A benchmark's two ratios, measured side by baseline, and the seconds of the baseline's call."""

    name: str
    instructions: float
    time: float
    seconds: float

    @property
    def distance(self) -> float:
        """The logarithm of what time says by what instructions say: above 0, the hardware gains less."""
        return math.log(self.time / self.instructions)

    @property
    def opposite(self) -> bool:
        """Whether one says faster, and the other slower."""
        return (self.time - 1) * (self.instructions - 1) < 0


@dataclass(frozen=True)
class Agreement:
    """How well times and instructions agree over all benchmarks that take long enough.

    `correlation` is Pearson's, of the ratios' logarithms; None of fewer than three, or if one kind is constant.
    `apart` are those where they part, the farthest first; `too_short` are not part of anything.
    """

    correlation: float | None
    compared: int
    apart: tuple[Pair, ...]
    too_short: tuple[str, ...]
    shortest: float


def of(instructions: CellMeasurement, time: CellMeasurement) -> Agreement:
    """Return how well two measurements of a cell agree. Raises UserError if they are not of the same benchmarks."""
    for what, one, other in (
        ("tables of benchmarks", instructions.table, time.table),
        ("baselines", instructions.baseline.cell.variant, time.baseline.cell.variant),
        ("builds", instructions.measured.artifact, time.measured.artifact),
    ):
        if one != other:
            raise UserError(
                f"the two measurements of {time.cell} have different {what}: {one[:12]} for instructions, "
                f"{other[:12]} for time",
                hint="measure the same build both ways, with the same options",
            )
    counted = {row.name: row.ratio for row in rows(instructions)}
    return agreement(
        Pair(row.name, ratio, row.ratio, row.seconds[1])
        for row in rows(time)
        if (ratio := counted.get(row.name)) and row.ratio and row.seconds
    )


def agreement(pairs: Iterable[Pair], *, shortest: float = SHORTEST, apart: float = APART) -> Agreement:
    """Compare what times and instructions say of the same benchmarks."""
    found = tuple(pairs)
    long_enough = [pair for pair in found if pair.seconds >= shortest]
    far = [pair for pair in long_enough if abs(pair.distance) > math.log1p(apart)]
    return Agreement(
        correlation=_correlation(long_enough),
        compared=len(long_enough),
        apart=tuple(sorted(far, key=lambda pair: (-abs(pair.distance), pair.name))),
        too_short=tuple(sorted(pair.name for pair in found if pair.seconds < shortest)),
        shortest=shortest,
    )


def _correlation(pairs: list[Pair]) -> float | None:
    columns = [[math.log(pair.instructions) for pair in pairs], [math.log(pair.time) for pair in pairs]]
    if len(pairs) < FEWEST or any(len(set(column)) == 1 for column in columns):
        return None
    return statistics.correlation(*columns)
