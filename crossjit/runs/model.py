"""A run: its state, events and error, and their form in the record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from crossjit.errors import CrossjitError, ExitCode, InfrastructureError
from crossjit.model import Cell, CellResult, Verdict
from crossjit.util import files


def exit_code(results: Sequence[CellResult]) -> ExitCode:
    """Return a run's exit code: that of its cells' worst verdict."""
    return exit_code_of(result.verdict for result in results)


def exit_code_of(verdicts: Iterable[Verdict]) -> ExitCode:
    """Return the exit code of the worst of some verdicts."""
    return _CODES[worst(verdicts)]


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of some verdicts, in the order of `_WORST_FIRST`; `pass` of none."""
    found = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in found), Verdict.PASS)


# After an interruption the rest is unknown. A product failure is certain even if other cells failed on our side.
_WORST_FIRST = (Verdict.ABORTED, Verdict.FAIL, Verdict.INFRA, Verdict.VACUOUS)

_CODES = {
    Verdict.ABORTED: ExitCode.INTERRUPTED,
    Verdict.FAIL: ExitCode.PRODUCT,
    Verdict.INFRA: ExitCode.INFRASTRUCTURE,
    Verdict.VACUOUS: ExitCode.VACUOUS,
    Verdict.PASS: ExitCode.PASS,
}

RUN_FILE = "run.json"
EVENTS_FILE = "events.jsonl"
RESULT_FILE = "result.json"
ATTEMPT = "attempt"  # in a run's facts: the number of CI's attempt


class RunState(StrEnum):
    """A run's state: `aborted` means that its process died before it could record its end."""

    RUNNING = "running"
    FINISHED = "finished"
    ABORTED = "aborted"


@dataclass(frozen=True)
class RunError:
    """The error that ended a run early, as shown to the user."""

    message: str
    hint: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """A run record: `run.json`, and the `folder` it was read from.

    `reproduce` is a command line that repeats it, `request` are its options, `facts` the host and the versions, `cells`
    the cells to do in order, `verdicts` the verdicts so far by the cell's name. `sequence` grows from run to run, even
    if the clock is set back. `looks` marks a run without verdicts, such as a shell, which `last` skips. Unknown keys
    are ignored on reading.
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
        """Return the folder of a cell's logs, which need not exist."""
        return self.folder / "cells" / cell.slug

    def result(self, cell: Cell) -> CellResult | None:
        """Return a cell's result; None if the run did not finish the cell."""
        return read_result(self.cell_folder(cell) / RESULT_FILE)

    def results(self) -> tuple[CellResult, ...]:
        """Return the cells' results in order.

        A cell that an ended run did not finish is `aborted`, one with a damaged result is `infra`, each with a reason.
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
        """Return the events in order, without incomplete lines."""
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
        """Return the steps that started and did not end, outermost first: a dead run died in them."""
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
    """The kind of an event."""

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

    `done`, `total` and `detail` are a step's last update, `text` is a message or an error. Of a running step, `share`
    is the finished share and `left` the estimated remaining seconds. Of a finished command in a container, `text` is
    its beginning, `detail` how it ended, and `seconds` its time.
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
    """Read a cell's result; None if it is missing or damaged."""
    try:
        return result_type().validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
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
    # lone surrogates, which a test's message may contain, become question marks
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
