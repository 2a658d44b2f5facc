"""A benchmark along a history: as text, as JSON, and as a page with a chart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from crossjit.bisect.walk import Point, moves
from crossjit.measure.compare import NOISE
from crossjit.model import Arch
from crossjit.report import html, tables
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import shortened

WIDTH, HEIGHT, MARGIN = 960, 320, 48  # of the chart, in its own units
SUBJECT = 60  # characters
UNKNOWN = "-"


@dataclass(frozen=True)
class Dot:
    """A commit in the chart: its place, and what is said of it."""

    x: float
    y: float
    title: str
    moved: bool


@dataclass(frozen=True)
class Series:
    """An arch's line in the chart; `path` is an SVG path, broken where there is no count."""

    arch: Arch
    path: str
    dots: tuple[Dot, ...]


@dataclass(frozen=True)
class Tick:
    """A line of the chart's scale, in percent of the first count."""

    y: float
    label: str


def as_text(benchmark: str, points: Sequence[Point], style: TerminalStyle) -> str:
    """Return a table of the commits, and the moves below it."""
    arches = _arches(points)
    headers = ("commit", "day", *map(str, arches), "subject")
    rows = [
        (point.commit.id[:12], point.commit.day, *cells, shortened(point.commit.subject, SUBJECT))
        for point, cells in zip(points, _cells(points, arches), strict=True)
    ]
    lines = [f"{benchmark}: instructions of the warm call with the JIT on", "", tables.render(headers, rows, style), ""]
    return "\n".join([*lines, *_told(points)])


def documents(benchmark: str, points: Sequence[Point], *, run: str, reproduce: str) -> dict[str, str]:
    """Return the same in each of its forms, as `answers.write` takes them."""
    return {
        "json": json.dumps(as_json(benchmark, points, run=run, reproduce=reproduce), indent=2),
        "html": page(benchmark, points, run=run, reproduce=reproduce),
        "text": as_text(benchmark, points, TerminalStyle()),
    }


def as_json(benchmark: str, points: Sequence[Point], *, run: str, reproduce: str) -> dict[str, Any]:
    """Return the same as JSON values; instructions are null where a commit has none."""
    arches = _arches(points)
    return {
        "run": run,
        "reproduce": reproduce,
        "benchmark": benchmark,
        "noise_percent": NOISE * 100,
        "commits": [
            {
                "commit": point.commit.id,
                "subject": point.commit.subject,
                "author": point.commit.author,
                "day": point.commit.day,
                "instructions": {str(arch): point.instructions.get(arch) for arch in arches},
                "problems": {str(arch): text for arch, text in point.problems.items()},
            }
            for point in points
        ],
        "moves": [
            {"commit": each.commit.id, "arch": str(each.arch), "percent": round(each.percent, 4)}
            for each in moves(points)
        ],
    }


def page(benchmark: str, points: Sequence[Point], *, run: str, reproduce: str) -> str:
    """Return the page, with a chart of all archs in percent of their first count."""
    ticks, series = chart(points)
    arches = _arches(points)
    return html.template("measure_history.html.j2").render(
        benchmark=benchmark,
        run=run,
        reproduce=reproduce,
        noise=NOISE * 100,
        width=WIDTH,
        height=HEIGHT,
        margin=MARGIN,
        ticks=ticks,
        series=series,
        arches=arches,
        rows=list(zip((point.commit for point in points), _cells(points, arches), strict=True)),
        moves=[
            (each.commit.id[:12], f"{each.percent:+.2f} % on {each.arch}", each.commit.subject)
            for each in moves(points)
        ],
    )


def chart(points: Sequence[Point]) -> tuple[tuple[Tick, ...], tuple[Series, ...]]:
    """Return the chart's scale and lines. Pure."""
    shares = {arch: _percents(points, arch) for arch in _arches(points)}
    values = [value for each in shares.values() for value in each if value is not None]
    low, high = min(values, default=100.0), max(values, default=100.0)
    padding = max((high - low) * 0.1, 0.5)
    low, high = low - padding, high + padding

    def y(percent: float) -> float:
        return round(MARGIN / 2 + (high - percent) / (high - low) * (HEIGHT - MARGIN), 1)

    def x(index: int) -> float:
        return round(MARGIN + index * (WIDTH - 2 * MARGIN) / max(len(points) - 1, 1), 1)

    moved = {(each.commit.id, each.arch) for each in moves(points)}
    series = []
    for arch, percents in shares.items():
        dots = []
        for index, (point, percent) in enumerate(zip(points, percents, strict=True)):
            if percent is not None:
                is_move = (point.commit.id, arch) in moved
                dots.append((index, Dot(x(index), y(percent), _title(point, arch, percent), is_move)))
        series.append(Series(arch, _path(dots), tuple(dot for _, dot in dots)))
    step = (high - low) / 4
    ticks = tuple(Tick(y(low + number * step), f"{low + number * step:.1f} %") for number in range(5))
    return ticks, tuple(series)


def _path(dots: Sequence[tuple[int, Dot]]) -> str:
    """Return an SVG path through dots; it begins anew after a commit that has none."""
    parts = []
    before = None
    for index, dot in dots:
        parts.append(f"{'L' if before == index - 1 else 'M'}{dot.x} {dot.y}")
        before = index
    return " ".join(parts)


def _title(point: Point, arch: Arch, percent: float) -> str:
    return f"{point.commit.id[:12]}, {arch}: {point.instructions[arch]:,} ({percent:.2f} %), {point.commit.subject}"


def _percents(points: Sequence[Point], arch: Arch) -> list[float | None]:
    """Return an arch's counts in percent of its first one."""
    first = next((point.instructions[arch] for point in points if arch in point.instructions), 0)
    return [point.instructions[arch] / first * 100 if arch in point.instructions else None for point in points]


def _cells(points: Sequence[Point], arches: Sequence[Arch]) -> tuple[tuple[str, ...], ...]:
    """Return for each commit each arch's count in millions, with how far it moved if that is more than the noise."""
    moved = {(each.commit.id, each.arch): f" {each.percent:+.2f} %" for each in moves(points)}

    def cell(point: Point, arch: Arch) -> str:
        if arch not in point.instructions:
            return shortened(point.problems.get(arch, UNKNOWN), SUBJECT)
        return f"{point.instructions[arch] / 1e6:,.2f} M{moved.get((point.commit.id, arch), '')}"

    return tuple(tuple(cell(point, arch) for arch in arches) for point in points)


def _told(points: Sequence[Point]) -> Iterator[str]:
    found = moves(points)
    if not found:
        yield f"it moved nowhere by more than {NOISE * 100:g} %, which a different layout of the same code can do"
        return
    yield f"it moved by more than {NOISE * 100:g} %, which a different layout of the same code can do, at:"
    for each in found:
        yield f"  {each.commit.id[:12]} {each.percent:+.2f} % on {each.arch}: {shortened(each.commit.subject, SUBJECT)}"


def _arches(points: Sequence[Point]) -> tuple[Arch, ...]:
    named = {arch for point in points for arch in (*point.instructions, *point.problems)}
    return tuple(arch for arch in Arch if arch in named)
