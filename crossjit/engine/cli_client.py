"""The command-line client of docker or podman: its command line, short questions, and what a failure of it means."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
from python_on_whales import ClientNotFoundError, DockerClient
from python_on_whales.client_config import ParsingError
from python_on_whales.exceptions import DockerException

from crossjit import PROGRAM
from crossjit.engine import endpoint
from crossjit.engine.endpoint import Endpoint
from crossjit.engine.process import ClientResult, finish
from crossjit.errors import EngineError, OutOfMemoryError

PATIENCE = 120.0  # seconds that a busy engine gets for one small thing
KILL_PATIENCE = 30.0  # seconds that killing a command's processes may take, under emulation too
MORE_MEMORY = "give it more memory, or run fewer jobs at a time: CROSSJIT_JOBS=1"


class CliClient:
    """One engine's client. `library` is python-on-whales' view of it, for answers that it parses."""

    def __init__(self, name: str) -> None:
        self.name: Literal["docker", "podman"] = "podman" if name == "podman" else "docker"
        self.library = DockerClient(client_call=[self.name], client_type=self.name)

    @functools.cached_property
    def command(self) -> tuple[str, ...]:
        """The client's command line up to the subcommand. Raises EngineError if there is no client."""
        try:
            return tuple(str(part) for part in self.library.client_config.docker_cmd)
        except ClientNotFoundError as error:
            raise EngineError(
                f"{self.name} is not installed", hint=f"install it, or let crossjit do it: {PROGRAM} setup"
            ) from error

    def call(self, what: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a short subcommand and return its stdout; `what` completes 'cannot …' in the EngineError if it fails."""
        ended = self.try_call(*arguments, env=env)
        if ended.returncode != 0:
            raise self.error(what, ended.stderr)
        return ended.stdout

    def try_call(
        self, *arguments: str, timeout: float = PATIENCE, env: Mapping[str, str] | None = None
    ) -> ClientResult:
        """Run a short subcommand to its end. Raises EngineError if the engine does not answer in time."""
        try:
            return finish((*self.command, *arguments), timeout=timeout, env=env)
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{self.name} did not answer within {timeout:.0f} s",
                hint=f"see what the engine is doing: {self.name} ps",
            ) from error

    def error(self, what: str, said: str) -> EngineError:
        """Tell why the client failed: there is no engine behind it, or it refused this one thing."""
        details = tuple(line for line in said.splitlines() if line.strip())
        asked = self.try_call("version", "--format", "{{json .}}", timeout=KILL_PATIENCE)
        if asked.returncode != 0:
            where = self.endpoint()
            if not where.is_own:
                hint = where.hint
            elif "permission denied" in asked.stderr:
                hint = f"this user has no access to it: join the group {self.name} and log in again"
            else:
                hint = f"start it, or let crossjit do it: {PROGRAM} setup"
            lines = tuple(line for line in asked.stderr.splitlines() if line.strip())
            name = self.name if where.is_own else f"{self.name} at {where.words}"
            return EngineError(f"the container engine ({name}) does not answer", hint=hint, details=lines)
        hint = ""
        if "exec format error" in said.lower():
            hint = f"this host cannot run that architecture: {PROGRAM} doctor says why"
        return EngineError(f"{self.name} cannot {what}", hint=hint, details=details)

    def info(self) -> Any:
        """Return all that the engine tells of itself. Raises EngineError."""
        podman, what = self.name == "podman", "report its state"
        with self.translated_errors(what):
            said = json.loads(self.call(what, "info", "--format", "json" if podman else "{{json .}}"))
        if not podman and not said.get("ServerVersion"):  # clients before 27 end with 0 where no engine answers
            raise self.error(what, "")
        return said

    def endpoint(self) -> Endpoint:
        """Tell which engine the client talks to."""
        if self.name == "podman":
            return Endpoint()

        def ask(arguments: Sequence[str]) -> tuple[int, str, str]:
            ended = self.try_call(*arguments, timeout=KILL_PATIENCE)
            return ended.returncode, ended.stdout, ended.stderr

        return endpoint.find(ask, os.environ)

    @functools.cached_property
    def root(self) -> Path | None:
        """The folder in which the engine keeps all it has; None where that is on another machine, or not told."""
        try:
            said = self.info()
            root, kernel = (
                (said["store"]["graphRoot"], said["host"]["kernel"])
                if self.name == "podman"
                else (said["DockerRootDir"], said["KernelVersion"])
            )
        except (EngineError, KeyError, TypeError):
            return None
        # Docker Desktop and remote engines run under another kernel, whatever the address looks like
        local = kernel == os.uname().release and not self.endpoint().is_remote
        return Path(root) if local else None

    @contextlib.contextmanager
    def translated_errors(self, what: str) -> Iterator[None]:
        """Turn what python-on-whales raises into EngineError."""
        _ = self.command  # raises where there is no client
        try:
            yield
        except DockerException as error:
            raise self.error(what, error.stderr or error.stdout or str(error)) from error
        except (ParsingError, pydantic.ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.error(what, f"its answer cannot be parsed: {error}") from error

    def require_running(self, container: str, name: str) -> None:
        """Raise EngineError unless the container is running; OutOfMemoryError if it ended for its memory."""
        with self.translated_errors(f"find the container {name} any more"):
            state = self.library.container.inspect(container).state
        if state.running:
            return
        if state.oom_killed:
            raise OutOfMemoryError(f"the container {name} was killed for its memory", hint=MORE_MEMORY)
        if state.exit_code == 0:
            raise EngineError(f"the container {name} reached its time limit")
        raise EngineError(f"the container {name} ended while a command ran (exit status {state.exit_code})")
