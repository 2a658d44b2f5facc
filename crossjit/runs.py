"""Run records: what one invocation did, on disk from its first second, readable whenever and however it ended.

runs/sequence                           the number of the run that began last
runs/<id>/run.json                      what was asked, on what, the cells and their verdicts; replaced whole
runs/<id>/events.jsonl                  steps, remarks, and commands in containers, as they came, a line each
runs/<id>/alive.lock                    held as long as the process lives
runs/<id>/cells/<recipe-arch-variant>/  logs of a cell, and its result.json when it has one
  …/triage/<id>.json                    what that run of triage concluded about its tests
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crossjit import durable, sequence
from crossjit.engine.base import Completed
from crossjit.errors import CrossjitError, ExitCode, InfrastructureError, UserError
from crossjit.model import Cell, CellResult, Verdict
from crossjit.progress import Step
from crossjit.settings import Settings

LAST = "last"  # names the newest run that was to give verdicts

_RUN = "run.json"
_EVENTS = "events.jsonl"
_RESULT = "result.json"
_COMMAND_WIDTH = 200  # as much of a command as is worth a line; builds' whole commands are in their logs


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
        return _read_result(self.cell_folder(cell) / _RESULT)

    def results(self) -> tuple[CellResult, ...]:
        """Return the cells' results in order.

        A cell that an ended run did not come to is `aborted`, one whose result is damaged is `infra`, each with reason.
        """
        results = []
        for cell in self.cells:
            result = self.result(cell)
            path = self.cell_folder(cell) / _RESULT
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
            lines = (self.folder / _EVENTS).read_bytes().splitlines()
        except OSError:
            return ()
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):
                events.append(_event_type().validate_python(json.loads(line)))
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


class Status(StrEnum):
    """How a step ended."""

    OK = "ok"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Event:
    """A line of `events.jsonl`. `step` numbers steps from 1, `at` is seconds since the epoch, `seconds` a step's time.

    `done`, `total` and `detail` are what a step said last before it ended, `text` what was said or what went wrong.
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


class _RecordedStep:
    def __init__(self) -> None:
        self.done: int | None = None
        self.total: int | None = None
        self.detail = ""

    def update(self, *, done: int | None = None, total: int | None = None, detail: str = "") -> None:
        self.done = done if done is not None else self.done
        self.total = total if total is not None else self.total
        self.detail = detail or self.detail

    def line(self, text: str) -> None:
        """Drop it: commands' output is in the cells' logs."""


class Recorder:
    """Listens to progress and appends events to a file. Steps may come from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Record the step's start, end, time and how it ended. Raises InfrastructureError on a full disk."""
        with self._lock:
            number = next(self._numbers)
        self._append(Event(time.time(), EventKind.START, number, name, subject))
        recorded = _RecordedStep()
        began = time.monotonic()

        def finish(status: Status, text: str = "") -> None:
            self._append(
                Event(
                    at=time.time(),
                    kind=EventKind.FINISH,
                    step=number,
                    name=name,
                    subject=subject,
                    text=text,
                    status=status,
                    seconds=round(time.monotonic() - began, 3),
                    done=recorded.done,
                    total=recorded.total,
                    detail=recorded.detail,
                )
            )

        try:
            yield recorded
        except BaseException as error:
            # what went wrong in the step must not be covered by a disk that is full, which may be the reason for it
            with contextlib.suppress(InfrastructureError):
                finish(Status.INTERRUPTED if _exit_code(error) == ExitCode.INTERRUPTED else Status.FAILED, str(error))
            raise
        finish(Status.OK)

    def say(self, text: str) -> None:
        """Record a remark."""
        self._append(Event(time.time(), EventKind.SAY, text=text))

    def command(self, completed: Completed) -> None:
        """Record a command that ended in a container: what is not in any of these is time of ours."""
        text = shlex.join(completed.argv)
        short = text if len(text) <= _COMMAND_WIDTH else f"{text[:_COMMAND_WIDTH]}…"
        self._append(
            Event(time.time(), EventKind.COMMAND, text=short, seconds=round(completed.seconds, 3), detail=completed.how)
        )

    def _append(self, event: Event) -> None:
        line = _to_json(_event_type().dump_python(event, mode="json", exclude_defaults=True), indent=None)
        with _recording(self._path.parent), self._lock:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)


class RunRecord:
    """The record of the run under way; `RunRecord.start` gives one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = threading.Lock()
        self.recorder = Recorder(run.folder / _EVENTS)

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
        """Begin a record; it is on disk when the block begins, and tells that the run lives until the block ends.

        `argv` is the command line, its first word the program; `reproduce` the line that does the same again, by
        default `argv` with the settings that differ from the defaults. A block that ends without `finish` is recorded
        as finished with the exit code of what it raised, or 0. Raises InfrastructureError where nothing can be written.
        """
        started = datetime.now(UTC)
        with contextlib.ExitStack() as stack:
            with _recording(settings.runs):
                folder = stack.enter_context(_new_folder(settings.runs, started))
                number = sequence.next_number(settings.runs / "sequence", lambda: _newest_number(settings))
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
                    record.finish(_exit_code(error), error)
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
        """What is recorded by now."""
        return self._run

    def set_cells(self, cells: Sequence[Cell]) -> None:
        """Record what is to be done, so that a run that dies says what it did not come to."""
        self._replace(cells=tuple(cells))

    def add_facts(self, facts: Mapping[str, object]) -> None:
        """Record facts that were not known at the start."""
        self._replace(facts={**self._run.facts, **facts})

    def cell_folder(self, cell: Cell) -> Path:
        """Make the folder for a cell's logs (`build.log`, one per suite) and return it."""
        folder = self._run.cell_folder(cell)
        with _recording(self.folder):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def adopt(self, earlier: Run, cell: Cell) -> None:
        """Take over a cell's logs from an earlier run."""
        with _recording(self.folder):
            shutil.copytree(earlier.cell_folder(cell), self.cell_folder(cell), dirs_exist_ok=True)

    def set_cell(self, result: CellResult) -> None:
        """Record a cell's result."""
        path = self.cell_folder(result.cell) / _RESULT
        document = _result_type().dump_python(result, mode="json")
        with _recording(self.folder):
            durable.replace(path, _to_json(document))
        with self._lock:
            cells = self._run.cells if result.cell in self._run.cells else (*self._run.cells, result.cell)
            verdicts = {**self._run.verdicts, str(result.cell): result.verdict}
            self._write(replace(self._run, cells=cells, verdicts=verdicts))

    def finish(self, exit_code: int, error: BaseException | str | None = None) -> None:
        """Record how the run ended; only the first time counts."""
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
        document = _run_type().dump_python(run, mode="json", exclude={"folder"})
        with _recording(run.folder):
            durable.replace(run.folder / _RUN, _to_json(document))
        self._run = run


def load(settings: Settings, name: str = LAST) -> Run:
    """Read a run record by its id, the beginning of one, or `last`.

    Raises UserError unless just one matches, InfrastructureError for a record that is damaged.

    `last` is the newest that built or validated something, not one that only looked, unless there is nothing else.
    """
    runs = list_runs(settings)
    if name == LAST and runs:
        return next((run for run in runs if not run.looks), runs[0])
    found = [run for run in runs if run.id.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{name!r} is the beginning of {len(found)} runs",
            hint="give more of it",
            details=tuple(run.id for run in found),
        )
    damaged = [folder for folder in _folders(settings) if folder.name.startswith(name) and (folder / _RUN).exists()]
    if damaged:
        raise InfrastructureError(
            f"the record of run {damaged[0].name} is damaged: {damaged[0] / _RUN} cannot be read",
            hint="its logs are in that folder",
        )
    raise UserError(
        "there are no runs yet" if not runs else f"no run is {name!r}",
        hint="`./inv runs list` shows them",
    )


def list_runs(settings: Settings) -> tuple[Run, ...]:
    """Return all runs, newest first. Records that cannot be read are left out; needs no right to write."""
    runs = (_read(folder) for folder in _folders(settings))
    ordered = sorted((run for run in runs if run), key=lambda run: (run.sequence, run.started, run.id), reverse=True)
    return tuple(ordered)


@contextlib.contextmanager
def presence(settings: Settings) -> Iterator[str]:
    """Have an id that counts as a living run's for the block: for labels of what starts containers without a record.

    Nothing is left of it. Raises InfrastructureError.
    """
    with contextlib.ExitStack() as stack:
        with _recording(settings.runs):
            settings.runs.mkdir(parents=True, exist_ok=True)
            durable.remove_dead(settings.runs, lambda folder: not (folder / _RUN).exists())  # of those that were killed
            folder = stack.enter_context(_new_folder(settings.runs, datetime.now(UTC)))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder.name


def is_alive(settings: Settings, run_id: str) -> bool:
    """Whether the process of a run still lives, by its lock; one that has no record does not."""
    return "/" not in run_id and run_id not in ("", ".", "..") and durable.is_alive(settings.runs / run_id)


def living(settings: Settings) -> tuple[str, ...]:
    """Return the ids of the runs whose process lives, this one's too."""
    return tuple(sorted(folder.name for folder in _folders(settings) if durable.is_alive(folder)))


def prune(settings: Settings, *, keep: int, dry_run: bool = False) -> tuple[str, ...]:
    """Remove all but the `keep` newest records, never a living run's; return ids. Raises InfrastructureError."""
    kept = {run.id for run in list_runs(settings)[: max(keep, 0)]}
    with _recording(settings.runs):
        if dry_run:
            return tuple(folder.name for folder in durable.dead_folders(settings.runs) if folder.name not in kept)
        removed = durable.remove_dead(settings.runs, lambda folder: folder.name not in kept)
        return tuple(folder.name for folder in removed)


def reproduction(settings: Settings, argv: Sequence[str]) -> str:
    """Return a command line that does the same again, with the settings that decide what is done."""
    environment = {
        "CROSSJIT_ENGINE": "" if settings.engine == "docker" else settings.engine,
        "CROSSJIT_JOBS": str(settings.jobs or ""),
        "CROSSJIT_SOURCE_MIRROR": " ".join(settings.source_mirrors),
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items() if value]
    return " ".join([*words, shlex.join(argv)] if argv else words)


def _newest_number(settings: Settings) -> int:
    return max((run.sequence for run in list_runs(settings)), default=0)


@contextlib.contextmanager
def _new_folder(runs: Path, started: datetime) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        folder = None
        while folder is None:
            name = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            with contextlib.suppress(FileExistsError):
                folder = stack.enter_context(durable.living_folder(runs, name))
        yield folder


def _folders(settings: Settings) -> list[Path]:
    try:
        return [path for path in settings.runs.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(folder: Path) -> Run | None:
    # The lock first: a run that ends in between has then written that it is finished.
    alive = durable.is_alive(folder)
    try:
        run = _run_type().validate_python(json.loads((folder / _RUN).read_bytes()))
    except (OSError, ValueError):
        return None
    if run.state is RunState.RUNNING and not alive:
        run = replace(run, state=RunState.ABORTED)
    return replace(run, folder=folder, id=folder.name)


def _read_result(path: Path) -> CellResult | None:
    try:
        return _result_type().validate_python(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        return None


def _exit_code(error: BaseException) -> int:
    if isinstance(error, CrossjitError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        return error.code
    return ExitCode.INFRASTRUCTURE


def _recording(folder: Path) -> contextlib.AbstractContextManager[None]:
    return durable.explained(InfrastructureError, "cannot write the run record", folder)


def _to_json(document: object, indent: int | None = 2) -> bytes:
    # what is no text in some test's message (lone surrogates) becomes a question mark
    return (json.dumps(document, indent=indent, ensure_ascii=False) + "\n").encode("utf-8", "replace")


@cache
def _run_type() -> TypeAdapter[Run]:
    return TypeAdapter(Run)


@cache
def _result_type() -> TypeAdapter[CellResult]:
    return TypeAdapter(CellResult)


@cache
def _event_type() -> TypeAdapter[Event]:
    return TypeAdapter(Event)
