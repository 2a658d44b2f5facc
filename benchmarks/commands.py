"""Runs crossjit's commands in a state folder of their own; measures their wall time, and reads their run records."""

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

LAST = 12  # lines shown of a failed command's output
CLEANUP_TIMEOUT = 120.0  # seconds for an interrupted command's clean-up


class MeasurementError(Exception):
    """A command failed, or did something that it must not do; shown in its line of the table."""


@dataclass(frozen=True)
class Done:
    """A finished command: its wall seconds, exit status, and output."""

    seconds: float
    status: int
    stdout: str
    stderr: str

    def why(self) -> list[str]:
        """Describe the failure: the cells that did not pass, or the last lines."""
        try:
            cells = json.loads(self.stdout)["cells"]
        except (ValueError, KeyError, TypeError):
            cells = []
        lines = [
            line
            for cell in cells
            if cell["verdict"] != "pass"
            for line in (f"{cell['cell']}: {cell['verdict']}: {'; '.join(cell['reasons'])}", *cell["details"][-LAST:])
        ]
        return lines or [line for line in (self.stderr + self.stdout).splitlines() if line.strip()][-LAST:]


def run(command: list[str], *, environ: dict[str, str], cwd: Path) -> Done:
    """Run a command.

    It gets a session of its own, so that a Ctrl-C reaches only this process, which then interrupts the command and
    waits for its clean-up.
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
                process.wait(CLEANUP_TIMEOUT)
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - started
        for file in (out, err):
            file.seek(0)
        return Done(seconds, status, out.read().decode(errors="replace"), err.read().decode(errors="replace"))


@dataclass(frozen=True)
class Built:
    """A successful `build` or `validate`: its wall seconds, run record, and JSON output."""

    seconds: float
    run: Run
    json: Any

    def own(self) -> tuple[float, dict[str, float]]:
        """Return the seconds in which no command ran in a container, in total and by step."""
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
    """A round's state folder, which at first has only the records of the images."""

    settings: Settings
    mirror: Path

    @classmethod
    def fresh(cls, folder: Path, like: Settings, mirror: Path, jobs: int) -> Home:
        """Make one. `like` are the user's settings, with the images' records; `mirror` has the release's archive."""
        shutil.copytree(like.home / "images", folder / "images", ignore=shutil.ignore_patterns(".*"))
        return cls(Settings(home=folder, engine=like.engine, jobs=jobs), mirror)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of commands: of the user's settings only the engine."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("CROSSJIT_", "QEMU_"))}
        return environ | {
            "CROSSJIT_HOME": str(self.settings.home),
            "CROSSJIT_ENGINE": self.settings.engine,
            "CROSSJIT_JOBS": str(self.settings.jobs),
            "CROSSJIT_SOURCE_MIRROR": str(self.mirror),
        }

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which `clean` of this state folder finds a container."""
        return {OWNED: "container", HOME: self.settings.identity}

    def invoke(self, *arguments: str, accept: tuple[int, ...] = (0,)) -> Done:
        """Run a crossjit command. Raises MeasurementError."""
        command = [sys.executable, "-m", "crossjit", *arguments]
        result = run(command, environ=self.environ, cwd=self.settings.home)
        if result.status not in accept:
            reasons = "\n  ".join(result.why())
            raise MeasurementError(f"`crossjit {' '.join(arguments)}` ended with {result.status}:\n  {reasons}")
        return result

    def build(self, *arguments: str, command: str = "build", accept: tuple[int, ...] = (0,)) -> Built:
        """Build cells, or run a different crossjit command on them. Raises MeasurementError."""
        result = self.invoke(command, *arguments, "--json", accept=accept)
        printed = json.loads(result.stdout)
        return Built(result.seconds, history.load(self.settings, printed["run"]), printed)

    @contextlib.contextmanager
    def without_containers(self) -> Iterator[None]:
        """Raise MeasurementError if the engine reports a container created for this state folder during the block."""
        since = time.time()
        yield
        name = "{{.Actor.ID}}" if self.settings.engine == "docker" else "{{.ID}}"
        span = ("--since", f"{since:.3f}", "--until", f"{time.time():.3f}")
        filters = ("type=container", "event=create", f"label={HOME}={self.settings.identity}")
        flags = [flag for condition in filters for flag in ("--filter", condition)]
        command = [self.settings.engine, "events", *span, *flags, "--format", name]
        created = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=CLEANUP_TIMEOUT
        ).stdout.split()
        if created:
            raise MeasurementError(f"it started {len(created)} containers, and there was nothing to do")

    def remove(self) -> None:
        """Remove the folder, and all objects with its label in the engine."""
        try:
            self.invoke("clean")
        finally:
            shutil.rmtree(self.settings.home, ignore_errors=True)
