"""Diagnoses of failing tests: the values, their JSON form, and their files in a run record.

A run of `triage` writes its diagnoses into the examined cell's folder, in a file of its own, so that it does not change
those of other runs: cells/<cell>/triage/<id of the run of triage>.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crossjit.errors import UserError
from crossjit.model import Cell
from crossjit.pipeline.plan import parse_cell
from crossjit.triage.decide import Conclusion, Experiment, Layer
from crossjit.triage.odds import Count
from crossjit.util import files

FOLDER = "triage"  # in a cell's folder of the run record
_COUNTED = ("failed", "passed", "absent")
_COUNTED_LATER = ("crashed", "hung")  # missing in records of older versions


@dataclass(frozen=True)
class ExperimentResult:
    """The result of an experiment for one test. `cell` is what ran, `how` the change, `seconds` wall time."""

    experiment: Experiment
    cell: Cell
    how: str
    count: Count
    message: str
    seconds: float

    def is_like(self, other: ExperimentResult) -> bool:
        """Whether both are of the same experiment, carried out in the same way."""
        return (self.experiment, self.cell, self.how) == (other.experiment, other.cell, other.how)

    def joined(self, more: ExperimentResult) -> ExperimentResult:
        """Return two results of the same experiment as one."""
        return replace(
            self,
            count=self.count + more.count,
            message=self.message or more.message,
            seconds=round(self.seconds + more.seconds, 1),
        )


@dataclass(frozen=True)
class Diagnosis:
    """The conclusion about a failing test, and the experiments that it is based on.

    `test` is its full name, with its label, in `suite`. `run` is the id of the run of triage, `at` its time.
    """

    cell: Cell
    suite: str
    test: str
    conclusion: Conclusion
    tries: tuple[ExperimentResult, ...]
    run: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.conclusion}: {self.conclusion.why}"


def as_json(diagnosis: Diagnosis) -> dict[str, object]:
    """Return a diagnosis as JSON values; times in seconds, and in ISO 8601."""
    return {
        "cell": str(diagnosis.cell),
        "suite": diagnosis.suite,
        "test": diagnosis.test,
        "layer": diagnosis.conclusion.layer.value,
        "why": diagnosis.conclusion.why,
        "failed": diagnosis.conclusion.odds.failed,
        "ran": diagnosis.conclusion.odds.ran,
        "run": diagnosis.run,
        "at": diagnosis.at.isoformat(),
        "tries": [
            {
                "changed": tried.experiment.value,
                "cell": str(tried.cell),
                "how": tried.how,
                "failed": tried.count.failed,
                "passed": tried.count.passed,
                "absent": tried.count.absent,
                "crashed": tried.count.crashed,
                "hung": tried.count.hung,
                "message": tried.message,
                "seconds": tried.seconds,
            }
            for tried in diagnosis.tries
        ],
    }


def of_json(record: Mapping[str, Any]) -> Diagnosis:
    """Read the result of `as_json`. Raises UserError, or Python's own errors, for an invalid one."""
    odds = Count(failed=record["failed"], passed=record["ran"] - record["failed"])
    return Diagnosis(
        cell=parse_cell(record["cell"]),
        suite=record["suite"],
        test=record["test"],
        conclusion=Conclusion(Layer(record["layer"]), record["why"], odds),
        tries=tuple(
            ExperimentResult(
                Experiment(tried["changed"]),
                parse_cell(tried["cell"]),
                tried["how"],
                Count(*(tried[name] for name in _COUNTED), *(tried.get(name, 0) for name in _COUNTED_LATER)),
                tried["message"],
                tried["seconds"],
            )
            for tried in record["tries"]
        ),
        run=record["run"],
        at=datetime.fromisoformat(record["at"]).astimezone(UTC),
    )


def save(folder: Path, run: str, diagnoses: Sequence[Diagnosis]) -> None:
    """Write a run's diagnoses of a cell so far into that cell's folder, which must exist.

    Raises OSError; FileNotFoundError if the folder is gone.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    content = json.dumps([as_json(diagnosis) for diagnosis in diagnoses], indent=2) + "\n"
    files.replace(folder / FOLDER / f"{run}.json", content.encode())


def load(folder: Path) -> tuple[Diagnosis, ...]:
    """Read the newest diagnosis of each of a cell's tests; unreadable ones are skipped."""
    newest: dict[tuple[str, str], Diagnosis] = {}
    for diagnosis in sorted(_read(folder / FOLDER), key=lambda diagnosis: diagnosis.at):
        newest[diagnosis.suite, diagnosis.test] = diagnosis
    return tuple(newest.values())


def _read(folder: Path) -> Iterable[Diagnosis]:
    for path in sorted(folder.glob("*.json")):
        try:
            records = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        for record in records if isinstance(records, list) else []:
            try:
                yield of_json(record)
            except (AttributeError, KeyError, TypeError, ValueError, UserError):
                continue
