"""The recorded runs."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from crossjit import PROGRAM
from crossjit.errors import InfrastructureError, UserError
from crossjit.runs.model import RUN_FILE, Run, RunState, run_errors, run_type
from crossjit.settings import Settings
from crossjit.util import files, sequence

LAST = "last"  # the newest run that gives verdicts


def load(settings: Settings, name: str = LAST) -> Run:
    """Read a run record by its id, the beginning of one, or `last`.

    `last` is the newest run that built or validated something, or the newest of all if there is none. Raises UserError
    unless exactly one matches, InfrastructureError for a damaged record.
    """
    runs = list_runs(settings)
    if name == LAST and runs:
        return next((run for run in runs if not run.looks), runs[0])
    matches = [run for run in runs if run.id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f"{name!r} matches {len(matches)} runs",
            hint="give more digits",
            details=tuple(run.id for run in matches),
        )
    damaged = [
        folder for folder in run_folders(settings) if folder.name.startswith(name) and (folder / RUN_FILE).exists()
    ]
    if damaged:
        raise InfrastructureError(
            f"the record of run {damaged[0].name} is damaged: {damaged[0] / RUN_FILE} cannot be read",
            hint="its logs are in that folder",
        )
    raise UserError(
        "there are no runs yet" if not runs else f"there is no run {name!r}",
        hint=f"`{PROGRAM} runs list` shows them",
    )


def list_runs(settings: Settings) -> tuple[Run, ...]:
    """Return all runs, newest first, without unreadable records. Works without write permission."""
    runs = (_read(folder) for folder in run_folders(settings))
    ordered = sorted((run for run in runs if run), key=lambda run: (run.sequence, run.started, run.id), reverse=True)
    return tuple(ordered)


def next_number(settings: Settings) -> int:
    """Return the sequence number of a new run. Raises OSError."""
    return sequence.next_number(
        settings.runs / "sequence", lambda: max((run.sequence for run in list_runs(settings)), default=0)
    )


@contextlib.contextmanager
def presence(settings: Settings) -> Iterator[str]:
    """Yield the id of a living run without a record, for the labels of a command that starts containers.

    Nothing of it remains after the block. Raises InfrastructureError.
    """
    with contextlib.ExitStack() as stack:
        with run_errors(settings.runs):
            settings.runs.mkdir(parents=True, exist_ok=True)
            # folders of killed processes
            files.remove_dead(settings.runs, lambda folder: not (folder / RUN_FILE).exists())
            folder = stack.enter_context(new_folder(settings.runs, datetime.now(UTC)))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder.name


def is_alive(settings: Settings, run_id: str) -> bool:
    """Whether a run's process is alive, by its lock; False for an unknown run."""
    return "/" not in run_id and run_id not in ("", ".", "..") and files.is_alive(settings.runs / run_id)


def living(settings: Settings) -> tuple[str, ...]:
    """Return the ids of the runs whose process is alive, including this one."""
    return tuple(sorted(folder.name for folder in run_folders(settings) if files.is_alive(folder)))


def prune(settings: Settings, *, keep: int, dry_run: bool = False) -> tuple[str, ...]:
    """Remove all but the `keep` newest records, never a living run's; return ids. Raises InfrastructureError."""
    recent = {run.id for run in list_runs(settings)[: max(keep, 0)]}
    with run_errors(settings.runs):
        if dry_run:
            return tuple(folder.name for folder in files.stale_dirs(settings.runs) if folder.name not in recent)
        removed = files.remove_dead(settings.runs, lambda folder: folder.name not in recent)
        return tuple(folder.name for folder in removed)


@contextlib.contextmanager
def new_folder(runs: Path, started: datetime) -> Iterator[Path]:
    """Make a run's folder, and hold its lock for the block."""
    with contextlib.ExitStack() as stack:
        folder = None
        while folder is None:
            name = f"{started:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
            with contextlib.suppress(FileExistsError):
                folder = stack.enter_context(files.locked_dir(runs, name))
        yield folder


def run_folders(settings: Settings) -> list[Path]:
    """List the folders of all runs."""
    try:
        return [path for path in settings.runs.iterdir() if path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(folder: Path) -> Run | None:
    # Check the lock first: a run that ends in between has then recorded that it is finished.
    alive = files.is_alive(folder)
    try:
        run = run_type().validate_python(json.loads((folder / RUN_FILE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None
    if run.state is RunState.RUNNING and not alive:
        run = replace(run, state=RunState.ABORTED)
    return replace(run, folder=folder, id=folder.name)
