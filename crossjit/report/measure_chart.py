"""Charts of measurements: a ratio's place on a logarithmic axis, and the parts of a stacked bar. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crossjit.measure.model import INTERPRETER, JIT, Counts

WIDEST = 64.0  # times as many or as few instructions; what is farther off stands at the edge
MARGIN = 1.06  # between the outermost ratio and the edge
GAP = 10.0  # percent of the axis between two ticks, at least
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis of ratios that has 1.0 on it; places on it are percent of its length."""

    low: float
    high: float

    @staticmethod
    def of(ratios: Iterable[float]) -> Axis:
        """Return the axis that holds these ratios."""
        inside = [min(max(ratio, 1 / WIDEST), WIDEST) for ratio in ratios]
        return Axis(min([0.9, *inside]) / MARGIN, max([1.1, *inside]) * MARGIN)

    def place(self, ratio: float) -> float:
        """Return where a ratio stands."""
        inside = min(max(ratio, self.low), self.high)
        return round(100 * math.log(inside / self.low) / math.log(self.high / self.low), 2)

    @property
    def ticks(self) -> tuple[float, ...]:
        """The ratios to write on the axis: 1.0, and from there outwards what has room."""
        kept = [1.0]
        for tick in sorted(_TICKS, key=lambda tick: abs(math.log(tick))):
            place = self.place(tick)
            if GAP / 2 < place < 100 - GAP / 2 and all(abs(place - self.place(other)) >= GAP for other in kept):
                kept.append(tick)
        return tuple(sorted(kept))


@dataclass(frozen=True)
class Kind:
    """A part of a stacked bar: its name and CSS class."""

    name: str
    style: str


KINDS = {
    JIT: Kind("JIT code", "jit"),
    INTERPRETER: Kind("interpreter's loop", "loop"),
    "python": Kind("rest of CPython", "python"),
    "memory": Kind("allocation and deallocation", "memory"),
    "gc": Kind("garbage collector", "gc"),
    "ext": Kind("extension modules", "ext"),
    "lib": Kind("libraries", "lib"),
    "other": Kind("other", "other"),
}
"""What instructions are shown as, in the order of a bar; classes such as `lib:NAME` are folded into `lib`."""


@dataclass(frozen=True)
class Part:
    """A part of a stacked bar, in percent: where it begins, and how wide it is."""

    kind: Kind
    start: float
    width: float

    @property
    def text(self) -> str:
        """Its share, for people."""
        return f"{self.width:.1f} %"


def folded(counts: Mapping[str, float]) -> dict[str, float]:
    """Return counts, or shares, by the keys of KINDS; unknown classes are other."""
    total: dict[str, float] = {}
    for name, count in counts.items():
        kind = name.partition(":")[0]
        key = kind if kind in KINDS else "other"
        total[key] = total.get(key, 0.0) + count
    return total


def shares(samples: Sequence[tuple[Counts, int]]) -> dict[str, float]:
    """Return the mean share of each class, in percent of its sample's whole: each sample counts the same."""
    sums: dict[str, float] = {}
    for counts, whole in samples:
        for name, count in counts.items():
            sums[name] = sums.get(name, 0.0) + 100 * count / whole / len(samples)
    return sums


def within(percents: Mapping[str, float]) -> tuple[Part, ...]:
    """Return the single libraries and extension modules below a bar's parts, the largest of each kind first."""
    found: list[Part] = []
    start = 0.0
    whole = folded(percents)
    for key, kind in KINDS.items():
        own = [(name.partition(":")[2], width) for name, width in percents.items() if name.startswith(f"{key}:")]
        place = start
        for name, width in sorted(own, key=lambda each: (-each[1], each[0])):
            if width >= 0.05:
                found.append(Part(Kind(name, kind.style), round(place, 2), round(width, 2)))
            place += width
        start += whole.get(key, 0.0)
    return tuple(found)


def parts(percents: Mapping[str, float]) -> tuple[Part, ...]:
    """Return the parts of a bar, by the keys of KINDS; what is too thin to be seen is left out."""
    found: list[Part] = []
    start = 0.0
    for key, kind in KINDS.items():
        width = percents.get(key, 0.0)
        if width >= 0.05:
            found.append(Part(kind, round(start, 2), round(width, 2)))
        start += width
    return tuple(found)
