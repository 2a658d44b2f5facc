"""A measurement as Markdown, such as for the summary of a job on GitHub, or a comment: at most 60 lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossjit.measure.model import CellMeasurement
from crossjit.measure.statistics import THRESHOLDS, Row, State, Summary, rows, summary
from crossjit.report import output
from crossjit.report.markdown import code, escaped, preformatted
from crossjit.report.measure import NOT_TIMES, against
from crossjit.report.measure_page import headline

WORST = 10  # benchmarks in the table
PROBLEMS = 10

Found = Sequence[tuple[CellMeasurement, tuple[Row, ...]]]


def as_markdown(measurements: Sequence[CellMeasurement], *, run: str, reproduce: str) -> str:
    """Return the summary of each cell, the worst benchmarks, and what has no ratio."""
    found = [(each, rows(each)) for each in measurements if not each.vacuous]
    blocks = [f"## crossjit: {escaped(headline(measurements))}"]
    blocks += [NOT_TIMES[0].upper() + NOT_TIMES[1:] + "."]
    blocks += [_summaries(found)] if found else []
    blocks += ["\n".join(_worst(found))] if found else []
    blocks += ["\n".join(lines)] if (lines := list(_problems(measurements, found))) else []
    blocks.append(f"Run {code(run)}. The same again:\n\n{preformatted(reproduce)}")
    return output.markup("\n\n".join(blocks)) + "\n"


def _summaries(found: Found) -> str:
    figures = [(measurement, summary(each), {row.name: row for row in each}) for measurement, each in found]

    def named(name: str | None, by_name: dict[str, Row]) -> str:
        return f"{by_name[name].ratio:.3f} {code(name)}" if name else ""

    lines = [
        ("", *(escaped(f"{each.cell}, JIT on against {against(each)}") for each, _, _ in figures)),
        ("---", *("---" for _ in figures)),
        ("geometric mean", *(_mean(each) for _, each, _ in figures)),
        ("best", *(named(each.best, by_name) for _, each, by_name in figures)),
        ("worst", *(named(each.worst, by_name) for _, each, by_name in figures)),
        (
            f"slower by more than {', '.join(map(str, THRESHOLDS))} %",
            *(", ".join(str(each.slower[percent]) for percent in THRESHOLDS) for _, each, _ in figures),
        ),
        ("untouched", *(str(len(each.untouched)) for _, each, _ in figures)),
        ("failed or unreliable", *(str(len(each.failed) + len(each.unreliable)) for _, each, _ in figures)),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(figures: Summary) -> str:
    return "" if figures.geometric_mean is None else f"**{figures.geometric_mean:.3f}** of {figures.measured}"


def _worst(found: Found) -> Iterator[str]:
    yield "| worst | cell | ratio | JIT share |"
    yield "|---|---|---|---|"
    measured = [(row, each) for each, some in found for row in some if row.state is State.MEASURED]
    for row, each in sorted(measured, key=lambda pair: -(pair[0].ratio or 0))[:WORST]:
        share = f"{100 * (row.jit_share or 0):.0f} %"
        yield f"| {code(row.name)} | {escaped(str(each.cell))} | {row.ratio:.3f} | {share} |"


def _problems(measurements: Sequence[CellMeasurement], found: Found) -> Iterator[str]:
    lines = [f"- {escaped(str(each.cell))}: vacuous: {escaped(each.vacuous)}" for each in measurements if each.vacuous]
    lines += [
        f"- {row.state}: {code(row.name)} in {escaped(str(each.cell))}: {escaped(row.problem)}"
        for each, some in found
        for row in some
        if row.problem
    ]
    yield from lines[:PROBLEMS]
    if len(lines) > PROBLEMS:
        yield f"- and {len(lines) - PROBLEMS} more"
