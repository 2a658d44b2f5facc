"""A measurement: what one run of the benchmarks gave in a cell, and its form in the run's record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import InfrastructureError, UserError
from crossjit.model import Cell
from crossjit.runs.model import Run, run_errors, to_json
from crossjit.util import files

T = TypeVar("T")

FILE = "measurement.json"  # in the folder of a run's cell
SCHEMA = 1

JIT, INTERPRETER = "jit", "interpreter"  # classes of instructions

Counts = Mapping[str, int]
"""Instructions by class of code: `jit`, `interpreter`, `gc`, `memory`, `python`, `lib:NAME`, `ext:NAME`, `other`."""


class Metric(StrEnum):
    """What was measured."""

    INSTRUCTIONS = "instructions"
    TIME = "time"


class Call(StrEnum):
    """Which call of a benchmark is compared: its first, or its last."""

    COLD = "cold"
    WARM = "warm"

    def of(self, values: Sequence[T]) -> T:
        """Return the value that belongs to this call."""
        return values[0 if self is Call.COLD else -1]


class Trouble(StrEnum):
    """Why a benchmark has no ratio: it failed, or its counts are no evidence."""

    FAILED = "failed"
    UNRELIABLE = "unreliable"


@dataclass(frozen=True)
class Side:
    """One of the two builds that are compared: the cell, the artifact's id, its version, and whether the JIT is on."""

    cell: Cell
    artifact: str
    version: str
    jit: bool

    def __str__(self) -> str:
        return f"{self.cell}, JIT {'on' if self.jit else 'off'}"


@dataclass(frozen=True)
class Sample:
    """A benchmark on one side: what each call counted, in order; or the seconds of each worker process, `times`.

    `executors` and `code_bytes` are the process's machine code at its end. `runs` is how many runs gave exactly this.
    Raises ValueError for a call without instructions, or a time of 0: nothing can be compared with it.
    """

    calls: tuple[Counts, ...] = ()
    times: tuple[float, ...] = ()
    executors: int = 0
    code_bytes: int = 0
    runs: int = 1

    def __post_init__(self) -> None:
        if not all(value > 0 for value in (*self.totals, *self.times)):
            raise ValueError("a call has no instructions, or took no time")

    @property
    def totals(self) -> tuple[int, ...]:
        """Instructions of each call."""
        return tuple(sum(counts.values()) for counts in self.calls)


@dataclass(frozen=True)
class Result:
    """A benchmark on both sides, or what is wrong with it. `process` is the table's entry that ran it."""

    name: str
    process: str
    measured: Sample | None = None
    baseline: Sample | None = None
    trouble: Trouble | None = None
    problem: str = ""


@dataclass(frozen=True)
class CellMeasurement:
    """The benchmarks of one cell: `measured` against `baseline`.

    `call` is the one whose instructions are compared. `vacuous` is why nothing could be measured, empty
    otherwise. `meter` is the image that counted, `table` the digest of the benchmarks, with their table and packages:
    what has different ones cannot be compared. `noise` is of times: how far a build may be from itself, as a part of 1.
    """

    measured: Side
    baseline: Side
    call: Call = Call.WARM
    results: tuple[Result, ...] = ()
    vacuous: str = ""
    metric: Metric = Metric.INSTRUCTIONS
    meter: str = ""
    table: str = ""
    cpu: str = ""
    noise: float | None = None
    seconds: float = 0.0
    schema: int = SCHEMA

    @property
    def cell(self) -> Cell:
        """The measured cell."""
        return self.measured.cell


def save(folder: Path, measurement: CellMeasurement) -> None:
    """Write a measurement into the folder of a run's cell. Raises InfrastructureError."""
    document = _type().dump_python(measurement, mode="json")
    with run_errors(folder):
        files.replace(folder / FILE, to_json(document))


def load(run: Run) -> tuple[CellMeasurement, ...]:
    """Read the measurements of a run. Raises UserError if it has none, InfrastructureError for a damaged one."""
    found = recorded(run)
    if not found:
        raise UserError(f"run {run.id} measured nothing", hint="`measure` prints the ids of its runs")
    return found


def recorded(run: Run) -> tuple[CellMeasurement, ...]:
    """Read the measurements of a run, which may have none. Raises InfrastructureError for a damaged one."""
    paths = (run.cell_folder(cell) / FILE for cell in dict.fromkeys(run.cells))
    return tuple(_read(path) for path in paths if path.is_file())


def _read(path: Path) -> CellMeasurement:
    try:
        document = json.loads(path.read_bytes())
        schema = int(document["schema"])
        if schema > SCHEMA:
            raise UserError(
                f"{path} has schema {schema}, this crossjit reads up to {SCHEMA}", hint="use a newer crossjit"
            )
        return _type().validate_python(document)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise InfrastructureError(f"{path} is damaged: {error}", hint="measure again") from error


@cache
def _type() -> TypeAdapter[CellMeasurement]:
    return TypeAdapter(CellMeasurement)
