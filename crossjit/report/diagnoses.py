"""Triage's conclusions about the failing tests of a run, for reports. Nothing is printed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossjit.model import Cell
from crossjit.report.size_budget import LINE
from crossjit.report.tables import render
from crossjit.report.terminal_style import TerminalStyle
from crossjit.runs.model import Run
from crossjit.triage.diagnosis import Diagnosis, load
from crossjit.util.text import duration, shortened
from crossjit.validation import reason

MESSAGE = 100  # characters of a test's message, in a table on a terminal

Diagnoses = Mapping[tuple[Cell, str, str], Diagnosis]  # by cell, suite and the test's full name


@dataclass(frozen=True)
class Experiment:
    """A row of the table of experiments. `cell` is empty if it is the one that the test failed in."""

    changed: str
    cell: str
    how: str
    outcome: str
    said: str
    seconds: float


def of(run: Run, cells: Iterable[Cell] | None = None) -> Diagnoses:
    """Read the diagnoses of a run's cells: the newest for each test."""
    return {
        (cell, diagnosed.suite, diagnosed.test): diagnosed
        for cell in (run.cells if cells is None else cells)
        for diagnosed in load(run.cell_folder(cell))
    }


def experiments(diagnosis: Diagnosis) -> tuple[Experiment, ...]:
    """Return the table of experiments that a conclusion is based on."""
    return tuple(
        Experiment(
            changed=tried.experiment.value,
            cell="" if tried.cell == diagnosis.cell else str(tried.cell),
            how=shortened(tried.how, LINE),
            outcome=str(tried.count),
            said=shortened(reason.of(tried.message), LINE),
            seconds=tried.seconds,
        )
        for tried in diagnosis.tries
    )


def by_layer(diagnoses: Diagnoses) -> tuple[tuple[Diagnosis, str], ...]:
    """Return the diagnoses with the cells that each holds for, sorted by layer and test."""
    cells: dict[tuple[str, str, str], list[Diagnosis]] = {}
    for diagnosis in diagnoses.values():
        cells.setdefault((diagnosis.conclusion.layer.value, diagnosis.test, str(diagnosis)), []).append(diagnosis)
    return tuple((same[0], ", ".join(str(diagnosis.cell) for diagnosis in same)) for _, same in sorted(cells.items()))


def as_text(diagnoses: Sequence[Diagnosis], *, style: TerminalStyle) -> str:
    """Return diagnoses as text, each with its table."""
    return "\n\n".join("\n".join(_lines(diagnosis, style)) for diagnosis in diagnoses)


def _lines(diagnosis: Diagnosis, style: TerminalStyle) -> Iterator[str]:
    yield f"{diagnosis.cell}: {diagnosis.test}"
    yield f"  {diagnosis}"
    yield ""
    rows = [
        (
            experiment.changed,
            experiment.cell or str(diagnosis.cell),
            experiment.how or "-",
            experiment.outcome,
            duration(experiment.seconds),
            shortened(experiment.said, MESSAGE),
        )
        for experiment in experiments(diagnosis)
    ]
    for line in render(("changed", "cell", "how", "outcome", "time", "said"), rows, style).splitlines():
        yield f"  {line}"
