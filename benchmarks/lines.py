"""The lines of the table, their bounds, and their measurements, in the order of a round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import FASTER, Round
from benchmarks.figures import Line, Sample, Unit

T, SECONDS, TIMES, SHARE = Unit.BASELINE, Unit.SECONDS, Unit.TIMES, Unit.SHARE

Take = Callable[[Round], Mapping[str, Sample]]


@dataclass(frozen=True)
class Measurement:
    """A measurement: its lines, its function, and the names of the measurements that it needs.

    Its name is its first line's. One that is not `usual` is taken on request only; `emulated` says that it needs a
    toolchain image that runs under emulation.
    """

    lines: tuple[Line, ...]
    take: Take
    needs: tuple[str, ...] = ()
    usual: bool = True
    emulated: bool = False

    @property
    def name(self) -> str:
        """The name of its first line."""
        return self.lines[0].name


def _edited(name: str, title: str, bound: float) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(
            (Line(f"{name}-{strategy}", f"{title}, {which}", T, bound),),
            partial(Round.edited, line=f"{name}-{strategy}"),
            needs=("hand-native", f"checkout-{strategy}"),
        )
        for strategy, which in (("native", "native"), ("cross", "cross alone"))
    )


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement((Line("list", "invoke --list", SECONDS, 0.35),), Round.listing),
    Measurement((Line("completion", "a shell's completion", SECONDS, 0.35),), Round.completion),
    Measurement((Line("hand-native", "native by hand: configure, make, install (T)", SECONDS),), Round.hand_native),
    Measurement(
        (
            Line("native", "build native, cold but the images", T, 1.05),
            Line("share-native", "our own share of it", SHARE, 3),
        ),
        Round.native,
        needs=("hand-native",),
    ),
    Measurement((Line("nothing", "build with nothing changed", SECONDS, 1.5),), Round.nothing, needs=("native",)),
    Measurement(
        (Line("cross-second", "build cross, the native cell in the stash", T, 1.10),),
        Round.cross_second,
        needs=("native",),
    ),
    Measurement(
        (
            Line("cross", "build cross, cold but the images, build Python included", T, 1.30),
            Line("share-cross", "our own share of it", SHARE, 3),
        ),
        Round.cross,
        needs=("hand-native",),
    ),
    Measurement((Line("both", "build both archs, cold but the images", T, 2.0),), Round.both, needs=("hand-native",)),
    Measurement((Line("hand-cross", "cross by hand, upstream's recipe", T),), Round.hand_cross, needs=("hand-native",)),
    Measurement(
        (Line("emulated", "emulated by hand, QEMU's default CPU, over cross", TIMES, FASTER, at_least=True),),
        partial(Round.emulated, line="emulated", cpu=None),
        needs=("hand-native", "cross"),
        emulated=True,
    ),
    Measurement(
        (Line("emulated-cpu", "emulated by hand, crossjit's CPU model, over cross", TIMES),),
        lambda round_: round_.emulated("emulated-cpu", round_.bench.emulated_cpu),
        needs=("hand-native", "cross"),
        usual=False,
        emulated=True,
    ),
    Measurement((Line("variant", "another variant of the same source", T),), Round.variant, needs=("native",)),
    Measurement(
        (Line("suites", "emulated suite over native suite", TIMES, 5),), Round.suites, needs=("native", "cross-second")
    ),
    Measurement(
        (Line("measure-fast", "measure --fast, both archs", T, 0.6),),
        partial(Round.counted, line="measure-fast", option="--fast"),
        needs=("native", "cross-second"),
    ),
    Measurement(
        (Line("measure-full", "measure --full, both archs", T, 3.0),),
        partial(Round.counted, line="measure-full", option="--full"),
        needs=("native", "cross-second"),
        usual=False,
    ),
    Measurement(
        (Line("checkout-native", "the same source as a checkout, native", T),),
        partial(Round.checkout, strategy="native"),
        needs=("native",),
    ),
    Measurement(
        (Line("checkout-cross", "the same source as a checkout, cross alone", T),),
        partial(Round.checkout, strategy="cross"),
        needs=("cross",),
    ),
    Measurement(
        (Line("nothing-checkout", "build a checkout with nothing changed", SECONDS, 1.5),),
        Round.nothing_checkout,
        needs=("checkout-native",),
    ),
    *_edited("core", "one line of a C file of the core changed", 0.15),
    *_edited("uop", "one uop changed", 0.25),
    *_edited("tests", "only a test changed", 0.05),
    *_edited("docs", "only documentation changed", 0.05),
    Measurement(
        (Line("effect", "effect of one uop, both archs", T, 0.6),),
        partial(Round.effect, line="effect"),
        needs=("hand-native", "cross-second", "checkout-native"),
    ),
    Measurement(
        (Line("effect-fast", "effect of one uop with --fast, both archs", T, 3.0),),
        lambda round_: round_.effect("effect-fast", "--fast"),
        needs=("hand-native", "cross-second", "checkout-native"),
        usual=False,
    ),
    Measurement(
        (Line("walk", "a walk over commits, each commit and arch", T, 0.2),),
        Round.walk,
        needs=("cross-second", "checkout-native"),
    ),
)

LINES = {line.name: measurement for measurement in MEASUREMENTS for line in measurement.lines}


def chosen(names: Iterable[str]) -> tuple[Measurement, ...]:
    """Return the measurements of these lines with all that they need, in order; without names the usual ones.

    Raises KeyError for an unknown line.
    """
    selected = {LINES[name].name for name in names}
    selected = selected or {measurement.name for measurement in MEASUREMENTS if measurement.usual}
    for measurement in reversed(MEASUREMENTS):  # the measurements that one needs come before it
        if measurement.name in selected:
            selected.update(measurement.needs)
    return tuple(measurement for measurement in MEASUREMENTS if measurement.name in selected)
