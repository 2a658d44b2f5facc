"""Run records: on disk from the first second, and readable at any time, even after a crash.

runs/sequence                           the number of the newest run
runs/<id>/run.json                      the request, the host, the cells and their verdicts; replaced atomically
runs/<id>/events.jsonl                  steps, remarks, and commands in containers, in order, a line each
runs/<id>/alive.lock                    held while the process is alive
runs/<id>/cells/<recipe-arch-variant>/  logs of a cell, and its result.json once it has one
  …/triage/<id>.json                    the conclusions of a run of triage about its tests
  …/measurement.json                    what `measure` counted
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit.engine.base import Completed
from crossjit.errors import CrossjitError, ExitCode, InfrastructureError
from crossjit.model import Cell, CellResult
from crossjit.progress import Step, StepState
from crossjit.runs.command_line import COMMAND_WIDTH, reproduction
from crossjit.runs.history import new_folder, next_number
from crossjit.runs.model import (
    EVENTS_FILE,
    RESULT_FILE,
    RUN_FILE,
    Event,
    EventKind,
    Run,
    RunError,
    RunState,
    Status,
    event_type,
    exit_code_of_error,
    result_type,
    run_errors,
    run_type,
    to_json,
)
from crossjit.settings import Settings
from crossjit.util import files

INTERVAL = 10.0  # seconds between records of a step's progress


class _RecordedStep:
    def __init__(self, clock: Callable[[], float], progressed: Callable[[StepState], None]) -> None:
        self.state = StepState(clock)
        self._progressed = progressed
        self._next = INTERVAL

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        self.state.update(done, total, detail, left)
        if self.state.elapsed >= self._next:
            self._next = self.state.elapsed + INTERVAL
            self._progressed(self.state)

    def line(self, text: str) -> None:
        """Drop it: the output of commands is in the cells' logs."""


def _step_event(kind: EventKind, number: int, state: StepState) -> Event:
    """Return an event of a step with its progress."""
    return Event(
        at=time.time(),
        kind=kind,
        step=number,
        seconds=round(state.elapsed, 3),
        done=state.done,
        total=state.total,
        detail=state.detail,
    )


class Recorder:
    """Listens to progress and appends events to a file. Steps may come from several threads."""

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        self._path = path
        self._clock = clock or time.monotonic
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Record a step's start and end, with its time and status. Raises InfrastructureError on a full disk."""
        with self._lock:
            number = next(self._numbers)
        self._append(Event(time.time(), EventKind.START, number, name, subject))

        def progressed(state: StepState) -> None:
            left, share = state.left, state.share
            self._append(
                replace(
                    _step_event(EventKind.PROGRESS, number, state),
                    share=None if share is None else round(share, 3),
                    left=None if left is None else round(left, 1),
                )
            )

        recorded = _RecordedStep(self._clock, progressed)

        def finish(status: Status, text: str = "") -> None:
            event = _step_event(EventKind.FINISH, number, recorded.state)
            self._append(replace(event, name=name, subject=subject, text=text, status=status))

        try:
            yield recorded
        except BaseException as error:
            # a full disk, which may be the cause, must not hide the step's error
            with contextlib.suppress(InfrastructureError):
                finish(
                    Status.INTERRUPTED if exit_code_of_error(error) == ExitCode.INTERRUPTED else Status.FAILED,
                    str(error),
                )
            raise
        finish(Status.OK)

    def say(self, text: str) -> None:
        """Record a remark."""
        self._append(Event(time.time(), EventKind.SAY, text=text))

    def command(self, completed: Completed) -> None:
        """Record a finished command in a container: all other time is crossjit's own."""
        text = shlex.join(completed.argv)
        short = text if len(text) <= COMMAND_WIDTH else f"{text[:COMMAND_WIDTH]}…"
        self._append(
            Event(time.time(), EventKind.COMMAND, text=short, seconds=round(completed.seconds, 3), detail=completed.how)
        )

    def _append(self, event: Event) -> None:
        line = to_json(event_type().dump_python(event, mode="json", exclude_defaults=True), indent=None)
        with run_errors(self._path.parent), self._lock:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)


class RunRecord:
    """The record of the present run, made by `RunRecord.start`."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self.recorder = Recorder(run.folder / EVENTS_FILE)

    @classmethod
    @contextlib.contextmanager
    def start(
        cls,
        settings: Settings,
        argv: Sequence[str],
        facts: Mapping[str, object],
        *,
        reproduce: str | None = None,
        request: Mapping[str, object] | None = None,
        cells: Sequence[Cell] = (),
        looks: bool = False,
    ) -> Iterator[RunRecord]:
        """Start a record for the block. It is on disk when the block starts, and shows the run as alive until its end.

        `argv` is the command line, its first word the program; `reproduce` the line that repeats the run, by default
        `argv` with the settings that differ from the defaults. A block that ends without `finish` is recorded as
        finished, with its exception's exit code or 0. Raises InfrastructureError if the record cannot be written.
        """
        started = datetime.now(UTC)
        with contextlib.ExitStack() as stack:
            with run_errors(settings.runs):
                folder = stack.enter_context(new_folder(settings.runs, started))
                number = next_number(settings)
            run = Run(
                id=folder.name,
                argv=tuple(argv),
                reproduce=reproduce or reproduction(settings, argv),
                started=started,
                request=dict(request or {}),
                facts=dict(facts),
                cells=tuple(cells),
                sequence=number,
                looks=looks,
                folder=folder,
            )
            record = cls(run)
            record._replace()
            try:
                yield record
            except BaseException as error:
                with contextlib.suppress(InfrastructureError):
                    record.finish(exit_code_of_error(error), error)
                raise
            record.finish(ExitCode.PASS)

    @property
    def id(self) -> str:
        """The run's id, `YYYYmmdd-HHMMSS-xxxx` in UTC: the value of the label `crossjit.run`."""
        return self._run.id

    @property
    def folder(self) -> Path:
        """The record's folder."""
        return self._run.folder

    @property
    def run(self) -> Run:
        """The run as recorded so far."""
        return self._run

    def set_cells(self, cells: Sequence[Cell]) -> None:
        """Record the cells to do, so that the record of a run that dies has those that it did not finish."""
        self._replace(cells=tuple(cells))

    def cell_folder(self, cell: Cell) -> Path:
        """Make and return the folder for a cell's logs (`build.log`, one per suite)."""
        folder = self._run.cell_folder(cell)
        with run_errors(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def adopt(self, earlier: Run, cell: Cell) -> None:
        """Copy a cell's logs from an earlier run."""
        with run_errors(self.folder):
            shutil.copytree(earlier.cell_folder(cell), self.cell_folder(cell), dirs_exist_ok=True)

    def set_cell(self, result: CellResult) -> None:
        """Record a cell's result."""
        path = self.cell_folder(result.cell) / RESULT_FILE
        document = result_type().dump_python(result, mode="json")
        with run_errors(self.folder):
            files.replace(path, to_json(document))
        with self._lock:
            cells = self._run.cells if result.cell in self._run.cells else (*self._run.cells, result.cell)
            verdicts = {**self._run.verdicts, str(result.cell): result.verdict}
            self._write(replace(self._run, cells=cells, verdicts=verdicts))

    def finish(self, exit_code: int, error: BaseException | str | None = None) -> None:
        """Record how the run ended; later calls do nothing."""
        if self._run.state is RunState.FINISHED:
            return
        if isinstance(error, CrossjitError):
            shown: RunError | None = RunError(error.message, error.hint, error.details)
        else:
            shown = None if error is None else RunError(str(error) or type(error).__name__)
        self._replace(state=RunState.FINISHED, finished=datetime.now(UTC), exit_code=int(exit_code), error=shown)

    def _replace(self, **changes: object) -> None:
        with self._lock:
            self._write(replace(self._run, **changes))  # type: ignore[arg-type]

    def _write(self, run: Run) -> None:
        document = run_type().dump_python(run, mode="json", exclude={"folder"})
        with run_errors(run.folder):
            files.replace(run.folder / RUN_FILE, to_json(document))
        self._run = run
