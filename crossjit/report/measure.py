"""Measurements as text and as JSON. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from crossjit.measure.model import SCHEMA, CellMeasurement, Metric
from crossjit.measure.statistics import Row, State, Summary, WarmUp, rows, summary, time_samples
from crossjit.report import tables
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import pluralize, size

HEADERS = ("benchmark", "ratio", "cold", "JIT", "loop", "warm-up", "pays off", "machine code")
TIME_HEADERS = ("benchmark", "ratio", "95 % interval", "significant", "baseline", "measured", "machine code")
UNKNOWN = "unknown"
NOT_TIMES = "these are counts of instructions under QEMU, not times: where hardware says otherwise, it is right"


@dataclass(frozen=True)
class CellDocument:
    """A cell's measurement, with the figures that follow from it."""

    measurement: CellMeasurement
    summary: Summary
    benchmarks: tuple[Row, ...]


@dataclass(frozen=True)
class Document:
    """What `measure --json` prints. `reproduce` is the command that measures again."""

    run: str
    reproduce: str
    cells: tuple[CellDocument, ...]
    schema: int = SCHEMA


def document(measurements: Sequence[CellMeasurement], *, run: str, reproduce: str) -> dict[str, Any]:
    """Return measurements as JSON values, in the form of `schema`."""
    cells = []
    for measurement in measurements:
        found = rows(measurement)
        cells.append(CellDocument(measurement, summary(found, time_samples(measurement)), found))
    value: dict[str, Any] = _type().dump_python(Document(run, reproduce, tuple(cells)), mode="json")
    return value


def schema() -> dict[str, Any]:
    """Return the JSON schema of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_type().json_schema(mode="serialization"),
    }


def as_text(measurements: Sequence[CellMeasurement], style: TerminalStyle) -> str:
    """Return a table for each cell, the worst benchmark first, and its summary below."""
    return "\n\n".join("\n".join(_cell(measurement, style)) for measurement in measurements)


def _cell(measurement: CellMeasurement, style: TerminalStyle) -> Iterator[str]:
    cell = measurement.cell
    if measurement.vacuous:
        yield f"{cell}: vacuous: {measurement.vacuous}"
        return
    found = rows(measurement)
    yield f"{cell}: {measurement.metric} with the JIT on against {against(measurement)}"
    yield ""
    with_ratio = [row for row in found if row.state is State.MEASURED]
    if with_ratio:
        yield tables.render(headers(measurement.metric), [texts(row) for row in with_ratio], style)
        yield ""
    figures = summary(found, time_samples(measurement))
    yield from _summary(figures, found)
    if figures.confidence is not None:
        yield f"hierarchical performance testing: faster with a confidence of {figures.confidence * 100:.1f} %"
    if figures.speedup is not None:
        yield f"with a confidence of 99 %, at least {figures.speedup:.3f} times as fast"
    if measurement.noise is not None:
        yield f"noise: the baseline against itself differed by up to {measurement.noise * 100:.1f} %"


def _summary(figures: Summary, found: Sequence[Row]) -> Iterator[str]:
    ratios = {row.name: row.ratio for row in found}
    if figures.geometric_mean is not None:
        yield (
            f"geometric mean {figures.geometric_mean:.3f} of {pluralize(figures.measured, 'benchmark')}; "
            f"best {figures.best} {ratios[figures.best or '']:.3f}, worst {figures.worst} "
            f"{ratios[figures.worst or '']:.3f}"
        )
    counts = ", ".join(f"{percent} %: {count}" for percent, count in figures.slower.items())
    yield f"slower by more than {counts}"
    if figures.untouched:
        names = ", ".join(f"{name} {ratios[name]:.3f}" for name in figures.untouched)
        yield f"untouched, because no JIT code ran ({len(figures.untouched)}): {names}"
    for row in found:
        if row.problem:
            yield f"{row.state}: {row.name}: {row.problem}"


def against(measurement: CellMeasurement) -> str:
    """Say what a cell is compared with, after `JIT on against`, and in which call."""
    measured, baseline = measurement.measured, measurement.baseline
    other = "off" if measured.cell == baseline.cell else f"{baseline.cell}, JIT {'on' if baseline.jit else 'off'}"
    return other if measurement.metric is Metric.TIME else f"{other}, {measurement.call} call"


def headers(metric: Metric) -> tuple[str, ...]:
    """Return the headers of a cell's table."""
    return TIME_HEADERS if metric is Metric.TIME else HEADERS


def texts(row: Row) -> tuple[str, ...]:
    """Return a benchmark's figures as text, in the order of its metric's headers."""
    return _timed_row(row) if row.interval else _row(row)


def _row(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        _ratio(row.ratio),
        _ratio(row.cold),
        _share(row.jit_share),
        _share(row.interpreter_share),
        *_warm_up(row.warm_up),
        f"{pluralize(row.executors, 'executor')}, {size(row.code_bytes)}",
    )


def _timed_row(row: Row) -> tuple[str, ...]:
    seconds = row.seconds or (0.0, 0.0)
    return (
        row.name,
        _ratio(row.ratio),
        f"{row.interval.low:.3f} to {row.interval.high:.3f}" if row.interval else "-",
        "yes" if row.differs else "no",
        *(_seconds(each) for each in reversed(seconds)),
        f"{pluralize(row.executors, 'executor')}, {size(row.code_bytes)}",
    )


def _seconds(value: float) -> str:
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _share(share: float | None) -> str:
    return UNKNOWN if share is None else f"{share * 100:.1f} %"


def _warm_up(found: WarmUp | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    after = "never" if found.pays_off is None else f"after {pluralize(found.pays_off, 'call')}"
    return f"{found.instructions / 1e6:,.1f} M", after


@cache
def _type() -> TypeAdapter[Document]:
    return TypeAdapter(Document)
