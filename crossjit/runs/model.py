"""A run: its state, its events, the error it ended with, and how they are written down."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import CrossjitError, ExitCode, InfrastructureError
from crossjit.model import Cell, CellResult, Verdict
from crossjit.util import files


def exit_code(results: Sequence[CellResult]) -> ExitCode:
    """Return the code that a run over these cells ends with: the worst, in the order of `_WORST_FIRST`."""
    verdicts = {result.verdict for result in results}
    return next((_CODES[verdict] for verdict in _WORST_FIRST if verdict in verdicts), ExitCode.PASS)


# An interruption makes the rest unknown; a product failure is known whatever our side did to other cells.
_WORST_FIRST = (Verdict.ABORTED, Verdict.FAIL, Verdict.INFRA, Verdict.VACUOUS)

_CODES = {
    Verdict.ABORTED: ExitCode.INTERRUPTED,
    Verdict.FAIL: ExitCode.PRODUCT,
    Verdict.INFRA: ExitCode.INFRASTRUCTURE,
    Verdict.VACUOUS: ExitCode.VACUOUS,
}

RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"


class RunState(StrEnum):
    """Where a run is: `aborted` means that its process died before it could say how it ended."""

    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True)
class RunError:
    """What ended a run early, as it was shown to the user."""

    message: str
    hint: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run record; `run.json` without `folder`, which is where it was read from.

    `reproduce` is a command line that does the same again, `request` what its options asked for, `facts` what the host
    and the versions were, `cells` what was to be done in order, `verdicts` those of the cells that have one, by the
    cell's name. `sequence` grows from run to run, which `started` does not where a clock is set; `looks` is of a run
    that was to give no verdicts, such as a shell, which `last` does not mean. Unknown keys are ignored on reading.
    """

    id: str
    argv: tuple[str, ...]
    reproduce: str
    started: datetime
    request: dict[str, object] = field(default_factory=dict)
    facts: dict[str, object] = field(default_factory=dict)
    cells: tuple[Cell, ...] = ()
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    state: RunState = RunState.RUNNING
    finished: datetime | None = None
    exit_code: int | None = None
    error: RunError | None = None
    sequence: int = 0
    looks: bool = False
    folder: Path = Path()

    def cell_folder(self, cell: Cell) -> Path:
        """Where a cell's logs are, if it has any."""
        return self.folder / "cells" / cell.slug

    def result(self, cell: Cell) -> CellResult | None:
        """Return the result of a cell that was dealt with; None for one that the run did not come to the end of."""
        return read_result(self.cell_folder(cell) / RESULT_FILE)

    def results(self) -> tuple[CellResult, ...]:
        """Return the cells' results in order.

        A cell that an ended run did not come to is `aborted`, one whose result is damaged is `infra`, each with reason.
        """
        results = []
        for cell in self.cells:
            result = self.result(cell)
            path = self.cell_folder(cell) / RESULT_FILE
            if result is None and path.exists():
                result = CellResult(cell, Verdict.INFRA, (f"its record is damaged: {path} cannot be read",))
            elif result is None and self.state is not RunState.RUNNING:
                result = CellResult(cell, Verdict.ABORTED, (self._why_aborted(),))
            if result is not None:
                results.append(result)
        return tuple(results)

    def events(self) -> tuple[Event, ...]:
        """Return what happened, in order; a line that is half written is left out."""
        try:
            lines = (self.folder / EVENTS_FILE).read_bytes().splitlines()
        except OSError:
            return ()
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):
                events.append(event_type().validate_python(json.loads(line)))
        return tuple(events)

    def open_steps(self) -> tuple[Event, ...]:
        """Return the steps that began and did not end: what a dead run died in, outermost first."""
        open_steps: dict[int, Event] = {}
        for event in self.events():
            if event.kind is EventKind.START:
                open_steps[event.step] = event
            elif event.kind is EventKind.FINISH:
                open_steps.pop(event.step, None)
        return tuple(open_steps.values())

    def _why_aborted(self) -> str:
        if self.state is RunState.FINISHED:
            return f"the run ended before: {self.error.message}" if self.error else "the run ended before"
        steps = ", ".join(" ".join(filter(None, (event.name, event.subject))) for event in self.open_steps())
        return f"the run died in: {steps}" if steps else "the run died"


class EventKind(StrEnum):
    """What an event tells."""

    START = "start"
    FINISH = "finish"
    SAY = "say"
    COMMAND = "command"
    PROGRESS = "progress"


class Status(StrEnum):
    """How a step ended."""

    OK = "ok"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Event:
    """A line of `events.jsonl`. `step` numbers steps from 1, `at` is seconds since the epoch, `seconds` a step's time.

    `done`, `total` and `detail` are what a step said last before it ended, `text` what was said or what went wrong.
    Of a step under way, `share` is the share of it that is done and `left` an estimate of the seconds that are left.
    Of a command that ended in a container `text` is its beginning, `detail` how it ended, and `seconds` what it took.
    """

    at: float
    kind: EventKind
    step: int = 0
    name: str = ""
    subject: str = ""
    text: str = ""
    status: Status | None = None
    seconds: float | None = None
    done: int | None = None
    total: int | None = None
    detail: str = ""
    share: float | None = None
    left: float | None = None


def read_result(path: Path) -> CellResult | None:
    """Read a cell's result; None where it is missing or damaged."""
    try:
        return result_type().validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def exit_code_of_error(error: BaseException) -> int:
    """Return the exit code of a run that ends with an error."""
    if isinstance(error, CrossjitError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return ExitCode.INFRASTRUCTURE


def run_errors(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Turn an OSError inside into InfrastructureError."""
    return files.translate_os_errors(InfrastructureError, "cannot write the run record", folder)


def to_json(document: object, indent: int | None = 2) -> bytes:
    """Return a document as UTF-8 JSON."""
    # what is no text in some test's message (lone surrogates) becomes a question mark
    return (json.dumps(document, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "replace")


@cache
def run_type() -> TypeAdapter[Run]:
    """Return the adapter for a run."""
    return TypeAdapter(Run)


@cache
def result_type() -> TypeAdapter[CellResult]:
    """Return the adapter for a cell's result."""
    return TypeAdapter(CellResult)


@cache
def event_type() -> TypeAdapter[Event]:
    """Return the adapter for an event."""
    return TypeAdapter(Event)
