"""What a failing test is about, as it was concluded: the values, their form in JSON, and where a run record has them.

A run of `triage` writes what it concluded into the folder of the cell that it looked into, in a file of its own, so
that no run rewrites what another one found: cells/<cell>/triage/<id of the run of triage>.json.
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
_COUNTED_LATER = ("crashed", "hung")  # not in records of all versions


@dataclass(frozen=True)
class ExperimentResult:
    """One rung as it was climbed for one test. `cell` is what ran, `how` what was changed, `seconds` wall time."""

    rung: Experiment
    cell: Cell
    how: str
    count: Count
    message: str
    seconds: float

    def is_like(self, other: ExperimentResult) -> bool:
        """Whether both are of the same rung, climbed in the same way."""
        return (self.rung, self.cell, self.how) == (other.rung, other.cell, other.how)

    def joined(self, more: ExperimentResult) -> ExperimentResult:
        """Return two that are alike as one."""
        return replace(
            self,
            count=self.count + more.count,
            message=self.message or more.message,
            seconds=round(self.seconds + more.seconds, 1),
        )


@dataclass(frozen=True)
class Diagnosis:
    """What a failing test is about, and the table that this was concluded from.

    `test` is its full name, with its label, in `suite`. `run` is the id of the run that concluded it, `at` when it did.
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
    """Return one as values that JSON can hold; times in seconds, and in ISO 8601."""
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
                "changed": tried.rung.value,
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


def of_json(told: Mapping[str, Any]) -> Diagnosis:
    """Read what `as_json` returned. Raises what Python raises for what is not that, or UserError."""
    odds = Count(failed=told["failed"], passed=told["ran"] - told["failed"])
    return Diagnosis(
        cell=parse_cell(told["cell"]),
        suite=told["suite"],
        test=told["test"],
        conclusion=Conclusion(Layer(told["layer"]), told["why"], odds),
        tries=tuple(
            ExperimentResult(
                Experiment(tried["changed"]),
                parse_cell(tried["cell"]),
                tried["how"],
                Count(*(tried[name] for name in _COUNTED), *(tried.get(name, 0) for name in _COUNTED_LATER)),
                tried["message"],
                tried["seconds"],
            )
            for tried in told["tries"]
        ),
        run=told["run"],
        at=datetime.fromisoformat(told["at"]).astimezone(UTC),
    )


def keep(folder: Path, run: str, diagnoses: Sequence[Diagnosis]) -> None:
    """Write what a run concluded about a cell so far into that cell's folder, which must be there.

    Raises OSError, FileNotFoundError where the folder is gone.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    content = json.dumps([as_json(each) for each in diagnoses], indent=2) + "\n"
    files.replace(folder / FOLDER / f"{run}.json", content.encode())


def kept(folder: Path) -> tuple[Diagnosis, ...]:
    """Read what was concluded about a cell: the newest for each test. What cannot be read is left out."""
    newest: dict[tuple[str, str], Diagnosis] = {}
    for diagnosis in sorted(_read(folder / FOLDER), key=lambda each: each.at):
        newest[diagnosis.suite, diagnosis.test] = diagnosis
    return tuple(newest.values())


def _read(folder: Path) -> Iterable[Diagnosis]:
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        for each in told if isinstance(told, list) else []:
            try:
                yield of_json(each)
            except (AttributeError, KeyError, TypeError, ValueError, UserError):
                continue
