"""crossjit's commands with a state folder of their own, timed as a user would see them, and what they did."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import figures
from crossjit.engine.base import HOME, OWNED
from crossjit.runs import history
from crossjit.runs.model import EventKind, Run
from crossjit.settings import Settings

LAST = 12  # lines of what a command said that are worth showing
PATIENCE = 120.0  # seconds that an interrupted command gets to clean up


class MeasurementError(Exception):
    """A command failed, or did what it was not to do: its line of the table says so."""


@dataclass(frozen=True)
class Done:
    """A command that ended: its wall seconds, its exit status, and what it printed."""

    seconds: float
    status: int
    stdout: str
    stderr: str

    def why(self) -> list[str]:
        """Say what went wrong: the cells that did not pass, or the last lines."""
        try:
            cells = json.loads(self.stdout)["cells"]
        except (ValueError, KeyError, TypeError):
            cells = []
        said = [
            line
            for cell in cells
            if cell["verdict"] != "pass"
            for line in (f"{cell['cell']}: {cell['verdict']}: {'; '.join(cell['reasons'])}", *cell["details"][-LAST:])
        ]
        return said or [line for line in (self.stderr + self.stdout).splitlines() if line.strip()][-LAST:]


def run(command: list[str], *, environ: dict[str, str], cwd: Path) -> Done:
    """Run a command to its end.

    It gets a session of its own, so that a Ctrl-C reaches this process alone; then the command is interrupted, and
    waited for while it cleans up.
    """
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ, cwd=cwd, start_new_session=True
        )
        try:
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        for file in (out, err):
            file.seek(0)
        return Done(seconds, status, out.read().decode(errors="replace"), err.read().decode(errors="replace"))


@dataclass(frozen=True)
class Built:
    """A `build` or `validate` that ended well: its wall seconds, its run record, and what `--json` printed."""

    seconds: float
    run: Run
    json: Any

    def own(self) -> tuple[float, dict[str, float]]:
        """Return the seconds in which no command ran in a container, and where they went, by step."""
        events = self.run.events()
        running = figures.busy(
            (event.at - event.seconds, event.at)
            for event in events
            if event.kind is EventKind.COMMAND and event.seconds is not None
        )
        own: dict[str, float] = {}
        for event in events:
            if event.kind is EventKind.FINISH and event.seconds is not None:
                whole = (event.at - event.seconds, event.at)
                spent = event.seconds - figures.length(running, whole)
                own[event.name] = own.get(event.name, 0.0) + max(0.0, spent)
        total = self.seconds - figures.length(running)
        return total, {**own, "outside steps": max(0.0, total - sum(own.values()))}


@dataclass(frozen=True)
class Home:
    """A state folder that a round begins with, with what is known of the images in it and nothing else."""

    settings: Settings
    mirror: Path

    @classmethod
    def fresh(cls, folder: Path, like: Settings, mirror: Path, jobs: int) -> Home:
        """Make one. `like` is the user's own, which has had the images made; `mirror` holds the release's archive."""
        shutil.copytree(like.home / "images", folder / "images", ignore=shutil.ignore_patterns(".*"))
        return cls(Settings(home=folder, engine=like.engine, jobs=jobs), mirror)

    @property
    def environ(self) -> dict[str, str]:
        """What commands run with: nothing of the user's settings but the engine."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("CROSSJIT_", "QEMU_"))}
        return environ | {
            "CROSSJIT_HOME": str(self.settings.home),
            "CROSSJIT_ENGINE": self.settings.engine,
            "CROSSJIT_JOBS": str(self.settings.jobs),
            "CROSSJIT_SOURCE_MIRROR": str(self.mirror),
        }

    @property
    def labels(self) -> dict[str, str]:
        """What a container carries that `clean` of this state folder is to find."""
        return {OWNED: "container", HOME: self.settings.identity}

    def invoke(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> Done:
        """Run a command of crossjit's. Raises MeasurementError."""
        command = [sys.executable, "-m", "crossjit", *arguments]
        done = run(command, environ=self.environ, cwd=self.settings.home)
        if done.status not in accept:
            told = "\n  ".join(done.why())
            raise MeasurementError(f"`crossjit {' '.join(arguments)}` ended with {done.status}:\n  {told}")
        return done

    def build(self, *arguments: str, command: str = "build", accept: tuple[int, ...] = (0,)) -> Built:
        """Build cells, or do another of crossjit's commands with them. Raises MeasurementError."""
        done = self.invoke(command, *arguments, "--json", accept=accept)
        printed = json.loads(done.stdout)
        return Built(done.seconds, history.load(self.settings, printed["run"]), printed)

    @contextlib.contextmanager
    def without_containers(self) -> Iterator[None]:
        """Raise MeasurementError if a container is created for this state folder meanwhile, by the engine's account."""
        since = time.time()
        yield
        name = "{{.Actor.ID}}" if self.settings.engine == "docker" else "{{.ID}}"
        span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
        filters = ("type=container", "event=create", f"label={HOME}={self.settings.identity}")
        flags = [flag for each in filters for flag in ("--filter", each)]
        command = [self.settings.engine, "events", *span, *flags, "--format", name]
        created = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.split()
        if created:
            raise MeasurementError(f"it started {len(created)} containers, and there was nothing to do")

    def remove(self) -> None:
        """Remove the folder, and all that carries its label in the engine."""
        try:
            self.invoke("clean")
        finally:
            shutil.rmtree(self.settings.home, ignore_errors=True)
