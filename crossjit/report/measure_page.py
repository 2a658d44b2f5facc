"""A measurement as one self-contained HTML page: ratios as a chart, where instructions went, and all figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossjit.measure.model import JIT, CellMeasurement, Result, Side
from crossjit.measure.statistics import Row, State, Summary, rows, summary, time_samples
from crossjit.report import html, output
from crossjit.report import measure as text
from crossjit.report.facts import Fact
from crossjit.report.measure_chart import KINDS, Axis, Part, folded, parts, shares, within
from crossjit.report.size_budget import LINE
from crossjit.util.text import duration, join_words, pluralize, shortened

SIGNS = ("●", "□")  # of a chart's columns; more have none
SLOWER = 1.01  # what is called slower in the chart
LINES = 400  # benchmarks on the page, at most; the table has fewer than a hundred
NAMES = 5  # libraries and extension modules that are named
NAME = 60  # characters of a benchmark's name

WORDS = {"instructions": ("fewer instructions", "more instructions"), "time": ("less time", "more time")}


@dataclass(frozen=True)
class Column:
    """A cell beside others: its number among them, its benchmarks' figures, and its summary."""

    number: int
    label: str
    measurement: CellMeasurement
    rows: Mapping[str, Row]
    figures: Summary

    @property
    def style(self) -> str:
        """The CSS class of its colour."""
        return f"s{self.number + 1}"

    @property
    def sign(self) -> str:
        """What stands for it in the chart."""
        return SIGNS[self.number]


@dataclass(frozen=True)
class Dot:
    """A benchmark in one cell: its ratio, its place on the axis, and where its instructions went.

    Times have an interval instead, as places on the axis.
    """

    column: Column
    ratio: str
    place: float
    slower: bool
    untouched: bool
    share: str
    parts: tuple[Part, ...]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """A benchmark in the chart: a dot for each column that has a ratio, and its place in each order."""

    name: str
    dots: tuple[Dot | None, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Cells that differ in their arch only, and their chart. `orders` are the names of the lines' orders."""

    anchor: str
    title: str
    against: str
    columns: tuple[Column, ...]
    axis: Axis
    orders: tuple[str, ...]
    mean: tuple[Dot | None, ...]
    lines: tuple[Line, ...]
    more: int
    apart: tuple[tuple[str, tuple[str, ...]], ...]
    classes: tuple[ClassLine, ...]


@dataclass(frozen=True)
class ClassLine:
    """A class of instructions, or one library: its mean share in each column, with the JIT off and on."""

    name: str
    style: str
    shares: tuple[tuple[str, str], ...]


def page(measurements: Sequence[CellMeasurement], *, run: str, reproduce: str) -> str:
    """Return the page of a run's measurements."""
    groups = tuple(_groups(measurements))
    rendered = html.template("measure.html.j2").render(
        run=run,
        reproduce=reproduce,
        headline=headline(measurements),
        groups=groups,
        vacuous=[each for each in measurements if each.vacuous],
        headers=text.headers(measurements[0].metric),
        texts=text.texts,
        words=WORDS[measurements[0].metric],
        metric=measurements[0].metric.value,
        limit=LINES,
        facts=facts,
        bars=bars,
    )
    return output.markup(rendered) + "\n"


def headline(measurements: Sequence[CellMeasurement]) -> str:
    """Return the answer in one line: `With the JIT on: 17.7 % fewer instructions on aarch64, 12.6 % on x86_64`."""
    means = [(each, summary(rows(each)).geometric_mean) for each in measurements]
    found = [(each, mean) for each, mean in means if mean is not None]
    if not found:
        return "Nothing was measured"
    several = len({(each.cell.recipe, each.cell.variant) for each, _ in found}) > 1
    changes = [
        f"{change(mean, WORDS[each.metric])} {f'in {each.cell}' if several else f'on {each.cell.arch}'}"
        for each, mean in found
    ]
    return f"With the JIT on: {join_words(changes)}"


def change(ratio: float, words: tuple[str, str]) -> str:
    """Return a ratio in words: `17.7 % fewer instructions`."""
    less, more = words
    if abs(ratio - 1) < 0.0005:
        return f"neither {less} nor {more}"
    return f"{abs(ratio - 1) * 100:.1f} % {less if ratio < 1 else more}"


def _groups(measurements: Sequence[CellMeasurement]) -> Iterator[Group]:
    """Yield the charts: cells that differ in their arch only have one together."""
    together: dict[tuple[str, ...], list[CellMeasurement]] = {}
    for each in measurements:
        if not each.vacuous:
            key = (each.cell.recipe, each.cell.variant, each.baseline.cell.variant, each.metric, each.call)
            together.setdefault(key, []).append(each)
    for number, cells in enumerate(together.values(), 1):
        for start in range(0, len(cells), len(SIGNS)):
            yield _group(f"g{number}-{start}", cells[start : start + len(SIGNS)])


def _group(anchor: str, cells: Sequence[CellMeasurement]) -> Group:
    columns = []
    for number, each in enumerate(cells):
        found = rows(each)
        columns.append(
            Column(
                number, each.cell.arch.value, each, {row.name: row for row in found}, summary(found, time_samples(each))
            )
        )
    first = cells[0]
    axis = Axis.of(row.ratio for column in columns for row in column.rows.values() if row.ratio)
    orders, lines, more = _lines(columns, axis)
    return Group(
        anchor=anchor,
        title=f"CPython {first.cell.recipe}, {first.cell.variant}",
        against=f"{first.metric} with the JIT on against {text.against(first)}",
        columns=tuple(columns),
        axis=axis,
        orders=orders,
        mean=tuple(_mean(column, axis) for column in columns),
        lines=lines,
        more=more,
        apart=tuple(_apart(columns)),
        classes=tuple(_classes(columns)),
    )


def _lines(columns: Sequence[Column], axis: Axis) -> tuple[tuple[str, ...], tuple[Line, ...], int]:
    """Return the orders' names, the chart's lines, worst first, and how many had no room."""
    names = {
        name for column in columns for name, row in column.rows.items() if row.state is State.MEASURED and row.ratio
    }

    def descending(figure: str, some: Sequence[Column]) -> list[str]:
        def key(name: str) -> tuple[float, str]:
            found = [column.rows[name] for column in some if name in column.rows]
            figures = [getattr(row, figure) or 0.0 for row in found if row.state is State.MEASURED]
            return -max(figures, default=0.0), name

        return sorted(names, key=key)

    orders = {"worst first": descending("ratio", columns)}
    if len(columns) > 1:
        orders |= {f"worst on {column.label}": descending("ratio", [column]) for column in columns}
    if any(row.jit_share for column in columns for row in column.rows.values()):
        orders["JIT share"] = descending("jit_share", columns)
    orders["name"] = sorted(names)
    places = [{name: place for place, name in enumerate(order)} for order in orders.values()]
    worst = orders["worst first"][:LINES]
    results = [{result.name: result for result in column.measurement.results} for column in columns]
    lines = [
        Line(
            shortened(name, NAME),
            tuple(_dot(column, axis, name, found) for column, found in zip(columns, results, strict=True)),
            tuple(place[name] for place in places),
        )
        for name in worst
    ]
    return tuple(orders), tuple(lines), len(names) - len(lines)


def _dot(column: Column, axis: Axis, name: str, results: Mapping[str, Result]) -> Dot | None:
    row, result = column.rows.get(name), results.get(name)
    if row is None or row.ratio is None or result is None or result.measured is None:
        return None
    calls = result.measured.calls
    counts = column.measurement.call.of(calls) if calls else {}
    return Dot(
        column=column,
        ratio=f"{row.ratio:.3f}",
        place=axis.place(row.ratio),
        slower=row.ratio > SLOWER and row.differs is not False,
        untouched=row.state is State.UNTOUCHED,
        share=_share(row.jit_share or 0.0),
        parts=parts(folded(shares([(counts, sum(counts.values()))]))),
        interval=(axis.place(row.interval.low), axis.place(row.interval.high)) if row.interval else None,
    )


def _share(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _mean(column: Column, axis: Axis) -> Dot | None:
    """Return the geometric mean as if it were a benchmark."""
    ratio = column.figures.geometric_mean
    if ratio is None:
        return None
    _, measured = _samples(column)
    whole = sum(measured.values())
    percents = {key: 100 * value / whole for key, value in folded(measured).items()}
    share = _share(percents.get(JIT, 0.0) / 100)
    return Dot(
        column, f"{ratio:.3f}", axis.place(ratio), ratio > SLOWER, untouched=False, share=share, parts=parts(percents)
    )


def _apart(columns: Sequence[Column]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what has no ratio that counts: a title, and a line for each benchmark."""
    titles = {
        State.UNTOUCHED: "Untouched: no JIT code ran, though the JIT was on",
        State.FAILED: "Failed",
        State.UNRELIABLE: "Unreliable: what was counted is no evidence",
    }
    for state, title in titles.items():
        found: dict[str, dict[str, list[str]]] = {}
        for column in columns:
            for row in column.rows.values():
                if row.state is state:
                    said = shortened(row.problem, LINE) or f"{row.ratio or 0:.3f}"
                    found.setdefault(row.name, {}).setdefault(said, []).append(column.label)
        if found:
            yield (
                title,
                tuple(
                    f"{shortened(name, NAME)}: "
                    + "; ".join(f"{said} on {join_words(on)}" for said, on in found[name].items())
                    for name in sorted(found)[:LINES]
                ),
            )


# Where instructions went


@dataclass(frozen=True)
class Bar:
    """A side's instructions as a flame graph: its width in percent of the baseline's, and two rows of parts."""

    name: str
    width: float
    parts: tuple[Part, ...]
    within: tuple[Part, ...]


def bars(column: Column) -> tuple[Bar, ...]:
    """Return a cell's two sides."""
    found = _samples(column)
    widths = [sum(mean.values()) for mean in found]
    scale = 100 / max(100.0, *widths)
    names = tuple(f"JIT {'on' if each.jit else 'off'}" for each in _sides(column))
    scaled = [{key: value * scale for key, value in mean.items()} for mean in found]
    return tuple(
        Bar(name, round(width, 1), parts(folded(mean)), within(mean))
        for name, width, mean in zip(names, widths, scaled, strict=True)
    )


def _sides(column: Column) -> tuple[Side, Side]:
    return column.measurement.baseline, column.measurement.measured


def _samples(column: Column) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean shares of classes, in percent of what the baseline needs: of the baseline, and measured."""
    call = column.measurement.call
    pairs = [
        (call.of(result.baseline.calls), call.of(result.measured.calls))
        for result in column.measurement.results
        if result.measured
        and result.baseline
        and result.baseline.calls
        and column.rows[result.name].state is State.MEASURED
    ]
    wholes = [sum(baseline.values()) for baseline, _ in pairs]
    return (
        shares([(baseline, whole) for (baseline, _), whole in zip(pairs, wholes, strict=True)]),
        shares([(measured, whole) for (_, measured), whole in zip(pairs, wholes, strict=True)]),
    )


def _classes(columns: Sequence[Column]) -> Iterator[ClassLine]:
    """Yield the classes of instructions, and below libraries and extension modules those with the largest shares."""
    found = [_samples(column) for column in columns]
    wholes = [tuple(folded(mean) for mean in means) for means in found]
    for key, kind in KINDS.items():
        if any(mean.get(key) for means in wholes for mean in means):
            yield _class(kind.name, kind.style, [[mean.get(key) for mean in means] for means in wholes])
        names = {name for means in found for mean in means for name in mean if name.startswith(f"{key}:")}
        largest = sorted(names, key=lambda name: (-max(mean.get(name, 0.0) for each in found for mean in each), name))
        for name in largest[:NAMES]:
            label = shortened(name.partition(":")[2], NAME)
            yield _class(label, "", [[mean.get(name) for mean in means] for means in found])


def _class(name: str, style: str, values: Sequence[Sequence[float | None]]) -> ClassLine:
    def percent(value: float | None) -> str:
        return "-" if value is None or math.isclose(value, 0.0) else f"{value:.1f} %"

    return ClassLine(name, style, tuple((percent(before), percent(after)) for before, after in values))


# How it was measured


def facts(measurement: CellMeasurement) -> tuple[Fact, ...]:
    """Return how a cell was measured."""
    measured, baseline = measurement.measured, measurement.baseline
    values = {
        "measured": _side(measured),
        "against": _side(baseline),
        "what": f"{measurement.metric}, {measurement.call} call",
        "noise": ""
        if measurement.noise is None
        else f"the baseline against itself: up to {measurement.noise * 100:.1f} %",
        "CPU model": measurement.cpu,
        "image": measurement.meter[:12],
        "benchmarks": f"{pluralize(len(measurement.results), 'result')}, table {measurement.table[:12]}",
        "took": duration(measurement.seconds),
    }
    return tuple(Fact(name, shortened(value, LINE)) for name, value in values.items() if value)


def _side(side: Side) -> str:
    return f"{side}: CPython {side.version}, artifact {side.artifact[:12]}"
