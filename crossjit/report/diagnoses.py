"""What triage concluded about the failing tests of a run, to be told beside them. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossjit.model import Cell
from crossjit.report.size_budget import LINE
from crossjit.report.tables import render
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import Run
from crossjit.triage import diagnosis
from crossjit.triage.diagnosis import Diagnosis
from crossjit.util.text import duration, shortened
from crossjit.validation import reason

SAID = 100  # characters of what a test said, in a table on a terminal

Diagnoses = Mapping[tuple[Cell, str, str], Diagnosis]  # by cell, suite and the test's full name


@dataclass(frozen=True)
class Experiment:
    """A row of the table that a conclusion rests on. `cell` is empty where it is the one that the test failed in."""

    changed: str
    cell: str
    how: str
    outcome: str
    said: str
    seconds: float


def of(run: Run, cells: Iterable[Cell] | None = None) -> Diagnoses:
    """Read what was concluded about a run's cells: the newest for each test."""
    return {
        (cell, found.suite, found.test): found
        for cell in (run.cells if cells is None else cells)
        for found in diagnosis.kept(run.cell_folder(cell))
    }


def experiments(found: Diagnosis) -> tuple[Experiment, ...]:
    """Return the table that a conclusion rests on."""
    return tuple(
        Experiment(
            changed=tried.experiment.value,
            cell="" if tried.cell == found.cell else str(tried.cell),
            how=shortened(tried.how, LINE),
            outcome=str(tried.count),
            said=shortened(reason.of(tried.message), LINE),
            seconds=tried.seconds,
        )
        for tried in found.tries
    )


def by_layer(found: Diagnoses) -> tuple[tuple[Diagnosis, str], ...]:
    """Return what was concluded, each with the cells that it holds for, sorted by layer and test."""
    cells: dict[tuple[str, str, str], list[Diagnosis]] = {}
    for each in found.values():
        cells.setdefault((each.conclusion.layer.value, each.test, str(each)), []).append(each)
    return tuple((same[0], ", ".join(str(each.cell) for each in same)) for _, same in sorted(cells.items()))


def as_text(diagnoses: Sequence[Diagnosis], *, style: TerminalStyle) -> str:
    """Return what failing tests are about, each with its table."""
    return "\n\n".join("\n".join(_lines(each, style)) for each in diagnoses)


def _lines(found: Diagnosis, style: TerminalStyle) -> Iterator[str]:
    yield f"{found.cell}: {found.test}"
    yield f"  {found}"
    yield ""
    rows = [
        (
            experiment.changed,
            experiment.cell or str(found.cell),
            experiment.how or "-",
            experiment.outcome,
            duration(experiment.seconds),
            shortened(experiment.said, SAID),
        )
        for experiment in experiments(found)
    ]
    for line in render(("changed", "cell", "how", "outcome", "time", "said"), rows, style).splitlines():
        yield f"  {line}"
