"""Running crossjit as its users do: a process with a state folder and a folder to stand in, both of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from crossjit import PROJECT
from crossjit.build import cache_volume, layout
from crossjit.engine.base import HOME
from crossjit.runs import history
from crossjit.runs.model import Run, RunState
from crossjit.settings import Settings

T = TypeVar("T")

PATIENCE = 300.0  # seconds for one command; the machine may be busy
PAUSE = 0.01

# What the tiny source waits for in a container, see tiny/README.
GO = "/tmp/go"


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def json(self) -> Any:
        """What `--json` printed."""
        return json.loads(self.stdout)


class Running:
    """A command under way, in a process group of its own."""

    def __init__(self, driver: Driver, process: subprocess.Popen[bytes], out: Path, err: Path) -> None:
        self.process = process
        self._driver = driver
        self._out = out
        self._err = err
        self._before = {run.id for run in driver.runs()}
        self._started = time.monotonic()

    @property
    def stderr(self) -> str:
        """What it said so far."""
        return self._err.read_text(errors="replace")

    def until(self, what: str, look: Callable[[], T | None], patience: float = PATIENCE) -> T:
        """Wait until there is something to see; fails if the command ends before."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            if found := look():
                return found
            assert not ended, f"ended with {self.process.returncode} before {what}:\n{self.stderr}"
            time.sleep(PAUSE)
        raise AssertionError(f"no {what} within {patience:.0f} s:\n{self.stderr}")

    def run(self) -> Run:
        """Wait for the command's run record; of two that begin at once either's."""
        return self.until(
            "a run record", lambda: next((r for r in self._driver.runs() if r.id not in self._before), None)
        )

    def until_in(self, *steps: str, patience: float = PATIENCE) -> Run:
        """Wait until the command is in one of these steps."""
        identity = self.run().id

        def look() -> Run | None:
            run = history.load(self._driver.settings, identity)
            return run if any(event.name in steps for event in run.open_steps()) else None

        return self.until(f"step {' or '.join(steps)}", look, patience)

    def until_held(self, phase: str) -> str:
        """Wait until the tiny source holds in a phase of a build or in a suite, and return the container's id."""
        self.until(f"holding in {phase}", lambda: f"holding in {phase}\n" in self._driver.logs() or None)
        return self.container("jit" if phase == "suite" else "build")

    def container(self, purpose: str) -> str:
        """Wait until a container for this purpose is there, and return its id."""
        return self.until(
            f"a container to {purpose}", lambda: next(iter(self._driver.containers(f"crossjit-{purpose}-")), None)
        )

    def signal(self, number: int) -> None:
        """Signal the process group, as a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """`kill -9` of the process alone: nothing else learns of it."""
        self.process.kill()
        self.process.wait()

    def wait(self, patience: float = PATIENCE) -> Done:
        """Wait for its end."""
        try:
            code = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done within {patience:.0f} s:\n{self.stderr}") from None
        out = self._out.read_text(errors="replace")
        return Done(code, out, self.stderr, time.monotonic() - self._started)

    def released(self) -> Done:
        """Let go of every hold until the command has ended."""
        gone: set[str] = set()
        while self.process.poll() is None:
            for name in set(self._driver.containers()) - gone:
                if self._driver.release(name):
                    gone.add(name)
            time.sleep(10 * PAUSE)
        return self.wait()


@contextlib.contextmanager
def _hearing() -> Iterator[None]:
    """Start commands that heed signals, even where the tests do not: under nohup."""
    deaf = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) is signal.SIG_IGN]
    for number in deaf:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in deaf:
            signal.signal(number, signal.SIG_IGN)


@dataclass(frozen=True)
class Driver:
    """How a test calls crossjit. `environ` is added to the tests' own environment, None takes a variable out of it."""

    home: Path
    cwd: Path
    environ: Mapping[str, str | None] = field(default_factory=dict)
    project: Path = PROJECT
    prefix: tuple[str, ...] = ()
    client: str = os.environ.get("CROSSJIT_ENGINE") or "docker"
    python: str = sys.executable

    @property
    def settings(self) -> Settings:
        """The settings that the commands run with."""
        return Settings(home=self.home, engine=self.client)

    def with_environ(self, **variables: str | None) -> Driver:
        """Return one with other environment variables."""
        return replace(self, environ={**self.environ, **variables})

    def start(self, *arguments: str | Path, terminal: int | None = None) -> Running:
        """Start `crossjit` with these arguments, on a terminal if one is given: then what it says is not kept."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CROSSJIT_")}
        changes = {
            "CROSSJIT_ENGINE": self.client,
            "CROSSJIT_HOME": str(self.home),
            "CROSSJIT_JOBS": "2",
            **self.environ,
        }
        for name, value in changes.items():
            environ.pop(name, None)
            if value is not None:
                environ[name] = value
        environ["PYTHONPATH"] = str(self.project)
        command = (*self.prefix, self.python, "-m", "crossjit")
        number = len(list(self.cwd.parent.glob("command-*.out")))
        out, err = (self.cwd.parent / f"command-{number}-{os.urandom(2).hex()}.{kind}" for kind in ("out", "err"))
        with out.open("wb") as stdout, err.open("wb") as stderr, _hearing():
            process = subprocess.Popen(
                [*command, *map(str, arguments)],
                cwd=self.cwd,
                env=environ,
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=stdout if terminal is None else terminal,
                stderr=stderr if terminal is None else terminal,
                start_new_session=True,
            )
        return Running(self, process, out, err)

    def run(self, *arguments: str | Path, expect: int = 0, patience: float = PATIENCE) -> Done:
        """Run `crossjit` with these arguments to its end."""
        done = self.start(*arguments).wait(patience)
        assert done.returncode == expect, f"exit code {done.returncode}, not {expect}:\n{done.stdout}\n{done.stderr}"
        return done

    def runs(self) -> tuple[Run, ...]:
        """Return the run records, newest first."""
        return history.list_runs(self.settings)

    def last_run(self) -> Run:
        """Return the newest run record."""
        return self.runs()[0]

    def is_aborted(self) -> bool:
        """Whether the newest run is known to be dead.

        A client that was just forked holds the run's lock for the moment until it becomes that client.
        """
        deadline = time.monotonic() + 5
        while self.last_run().state is RunState.RUNNING and time.monotonic() < deadline:
            time.sleep(PAUSE)
        return self.last_run().state is RunState.ABORTED

    def logs(self) -> str:
        """Return all logs of all builds and suites."""
        found = sorted(self.home.glob("runs/*/cells/*/*.log")) + sorted(self.home.glob("runs/*/cells/*/*/runner.log"))
        return "".join(path.read_text(errors="replace") for path in found)

    def engine(self, *arguments: str, check: bool = True) -> str:
        """Ask the engine by its client."""
        environ = {**os.environ, **{name: value for name, value in self.environ.items() if value is not None}}
        done = subprocess.run(
            [self.client, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=environ,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{self.client} {arguments}: {done.stderr}"
        return done.stdout

    def containers(self, name: str = "crossjit-") -> list[str]:
        """List the containers of this state folder by the beginning of their name, running or not."""
        filters = ("--filter", f"label={self._label}", "--filter", f"name=^/?{name}")
        return self.engine("ps", "--all", "--quiet", "--no-trunc", *filters).split()

    def created_since(self, moment: float) -> list[str]:
        """List the containers that were created for this state folder since then, by the engine's own account."""
        span = ("--since", f"{moment:.3f}", "--until", f"{time.time():.3f}")
        filters = ("--filter", "type=container", "--filter", "event=create", "--filter", f"label={self._label}")
        return self.engine("events", *span, *filters, "--format", "{{.Actor.ID}}").split()

    def volumes(self) -> list[str]:
        """List the volumes of this state folder."""
        return self.engine("volume", "ls", "--quiet", "--filter", f"label={self._label}").split()

    def images(self) -> list[str]:
        """List the images of this state folder."""
        return self.engine("image", "ls", "--quiet", "--no-trunc", "--filter", f"label={self._label}").split()

    @property
    def _label(self) -> str:
        return f"{HOME}={self.settings.identity}"

    def inspect(self, container: str) -> dict[str, Any]:
        """Return all that the engine tells of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine("container", "inspect", container))
        return found[0]

    def execute(self, container: str, *argv: str, check: bool = True) -> str:
        """Run a program in a container, as whom its commands run."""
        return self.engine("exec", "--user", str(layout.BUILDER), container, *argv, check=check)

    def release(self, container: str) -> bool:
        """Let go of a hold in a container, as soon as it runs."""
        return bool(self.execute(container, "sh", "-c", f"touch {GO} && echo gone", check=False))

    def stashed(self) -> list[dict[str, Any]]:
        """List the stash's artifacts by the command."""
        found: list[dict[str, Any]] = self.run("stash", "list", "--json").json
        return found

    def leftovers(self, *containers: str) -> list[str]:
        """Look for what nothing should leave: containers, volumes, clients (of these, too), what is half made."""
        found = [f"container {name}" for name in self.containers()]
        found += [f"volume {name}" for name in self.volumes() if not name.startswith(cache_volume.name(self.settings))]
        found += [f"process {command}" for command in self.processes(*containers)]
        found += [f"file {path}" for path in self.cwd.iterdir()]
        for path in self.home.rglob("*"):
            in_the_making = path.parent.name == "tmp" and path.is_dir()
            if in_the_making or path.suffix in (".tmp", ".part") or (path.name.startswith(".base-") and path.is_dir()):
                found.append(f"file {path}")
        return found

    def processes(self, *words: str) -> list[str]:
        """Find processes that were started for a run of this state folder, by what stands on their command line.

        A client whose container was removed under it takes a moment to learn of it.
        """
        deadline = time.monotonic() + 10
        while (found := list(self.processes_now(*words))) and time.monotonic() < deadline:
            time.sleep(10 * PAUSE)
        return found

    def processes_now(self, *words: str) -> Iterator[str]:
        names = {self._label, *words, *(run.id for run in self.runs())}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                if any(name in command for name in names):
                    yield f"{folder.name}: {command}"

    def discard(self) -> None:
        """Remove whatever a failed test left in the engine."""
        for name in self.containers():
            self.engine("rm", "--force", "--volumes", name, check=False)
        for name in self.volumes():
            self.engine("volume", "rm", name, check=False)
        for name in self.images():
            self.engine("image", "rm", "--force", name, check=False)
