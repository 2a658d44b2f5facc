"""The command-line client of docker or podman: its command line, short subcommands, and translated errors."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic
from python_on_whales import ClientNotFoundError, DockerClient
from python_on_whales.client_config import ParsingError
from python_on_whales.exceptions import DockerException

from crossjit import PROGRAM
from crossjit.config.engines import NamedEngine
from crossjit.engine import endpoint
from crossjit.engine.base import DELEGATE, unlimited
from crossjit.engine.endpoint import Endpoint
from crossjit.engine.process import ClientResult, end_all, finish
from crossjit.errors import EngineError, Interrupted, OutOfMemoryError

CALL_TIMEOUT = 120.0  # seconds for a short subcommand on a busy engine
KILL_TIMEOUT = 30.0  # seconds for killing a command's processes, even under emulation
MORE_MEMORY = "give it more memory, or run fewer jobs at a time: CROSSJIT_JOBS=1"


def is_transient(output: str) -> bool:
    """Whether a failed pull is worth another try, by the client's messages: its exit status is always the same.

    A host that cannot be resolved is final, so that a pull without a network fails at once.
    """
    text = output.lower()
    if "no such host" in text or "name resolution" in text or "not found" in text:
        return False
    return bool(
        re.search(
            r"time-?d? ?out|deadline exceeded|connection (reset|refused by peer)|unexpected eof|\b50[0234]\b"
            r"|internal server error|bad gateway|service unavailable|too ?many ?requests",
            text,
        )
    )


class CliClient:
    """One engine's client. `library` is python-on-whales' client for it, whose answers are parsed."""

    def __init__(self, name: str, at: NamedEngine | None = None) -> None:
        self.name: Literal["docker", "podman"] = "podman" if name == "podman" else "docker"
        self.words = (self.name, *(at.flags if at else ()))  # the command line as a user types it
        self.stopped = False
        self._at = at
        self.library = DockerClient(client_call=[*self.words], client_type=self.name)

    def stop(self) -> None:
        """End the clients that take long, and make their callers raise Interrupted."""
        self.stopped = True
        end_all(self.command)

    def check(self) -> None:
        """Raise Interrupted if it was stopped."""
        if self.stopped:
            raise Interrupted("the run was interrupted")

    @functools.cached_property
    def command(self) -> tuple[str, ...]:
        """The client's command line up to the subcommand. Raises EngineError if the client is not installed."""
        try:
            return tuple(str(part) for part in self.library.client_config.docker_cmd)
        except ClientNotFoundError as error:
            raise EngineError(
                f"{self.name} is not installed", hint=f"install it, or let crossjit do it: {PROGRAM} setup"
            ) from error

    def call(self, what: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a short subcommand and return its stdout; `what` completes 'cannot …' in the EngineError if it fails."""
        result = self.try_call(*arguments, env=env)
        if result.returncode != 0:
            raise self.error(what, result.stderr)
        return result.stdout

    def try_call(
        self, *arguments: str, timeout: float = CALL_TIMEOUT, env: Mapping[str, str] | None = None
    ) -> ClientResult:
        """Run a short subcommand. Raises EngineError if the engine does not answer in time.

        One that may take longer than CALL_TIMEOUT raises Interrupted if it was stopped.
        """
        lasting = timeout > CALL_TIMEOUT
        try:
            if lasting:
                self.check()
            result = finish((*self.command, *arguments), timeout=timeout, env=env, lasting=lasting)
            if lasting:
                self.check()
            return result
        except subprocess.TimeoutExpired as error:
            raise EngineError(
                f"{self.name} did not answer within {timeout:.0f} s",
                hint=f"see what the engine is doing: {shlex.join(self.words)} ps",
            ) from error

    def error(self, what: str, output: str) -> EngineError:
        """Make the error of a failed client: the engine does not answer, or it refused this request."""
        details = tuple(line for line in output.splitlines() if line.strip())
        version = self.try_call("version", "--format", "{{json .}}", timeout=KILL_TIMEOUT)
        if version.returncode != 0:
            engine = self.endpoint()
            if not engine.is_own:
                hint = engine.hint
            elif "permission denied" in version.stderr:
                hint = f"this user has no access to it: join the group {self.name} and log in again"
            else:
                hint = f"start it, or let crossjit do it: {PROGRAM} setup"
            lines = tuple(line for line in version.stderr.splitlines() if line.strip())
            name = self.name if engine.is_own else f"{self.name} at {engine.words}"
            return EngineError(f"the container engine ({name}) does not answer", hint=hint, details=lines)
        hint = ""
        if "exec format error" in output.lower():
            hint = f"this host cannot run that architecture: {PROGRAM} doctor says why"
        return EngineError(f"{self.name} cannot {what}", hint=hint, details=details)

    def info(self) -> Any:
        """Return the engine's `info`. Raises EngineError, also for an engine that ignores the limits of containers."""
        podman, action = self.name == "podman", "report its state"
        with self.translated_errors(action):
            info = json.loads(self.call(action, "info", "--format", "json" if podman else "{{json .}}"))
        if not podman and not info.get("ServerVersion"):  # clients before 27 exit with 0 if no engine answers
            raise self.error(action, "")
        if missing := unlimited(info):
            raise EngineError(f"{self.name} without root cannot limit {' and '.join(missing)} here", hint=DELEGATE)
        return info

    def endpoint(self) -> Endpoint:
        """Return the address of the engine that the client talks to."""
        if self.name == "podman":
            return Endpoint()

        def ask(arguments: Sequence[str]) -> tuple[int, str, str]:
            result = self.try_call(*arguments, timeout=KILL_TIMEOUT)
            return result.returncode, result.stdout, result.stderr

        return endpoint.find(ask, os.environ, self._at)

    @functools.cached_property
    def root(self) -> Path | None:
        """The engine's data folder; None if it is on a different machine or unknown."""
        try:
            info = self.info()
            root, kernel = (
                (info["store"]["graphRoot"], info["host"]["kernel"])
                if self.name == "podman"
                else (info["DockerRootDir"], info["KernelVersion"])
            )
        except (EngineError, KeyError, TypeError):
            return None
        # Docker Desktop and remote engines run under a different kernel, even if the address looks local
        local = kernel == os.uname().release and not self.endpoint().is_remote
        return Path(root) if local else None

    @contextlib.contextmanager
    def translated_errors(self, what: str) -> Iterator[None]:
        """Turn python-on-whales' errors into EngineError."""
        _ = self.command  # raises if the client is not installed
        try:
            yield
        except DockerException as error:
            raise self.error(what, error.stderr or error.stdout or str(error)) from error
        except (ParsingError, pydantic.ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise self.error(what, f"its answer cannot be parsed: {error}") from error

    def require_running(self, container: str, name: str) -> None:
        """Raise EngineError unless the container is running; OutOfMemoryError if it was killed for its memory.

        Raises Interrupted if the client was stopped.
        """
        self.check()
        with self.translated_errors(f"find the container {name} any more"):
            state = self.library.container.inspect(container).state
        if state.running:
            return
        if state.oom_killed:
            raise OutOfMemoryError(f"the container {name} was killed for its memory", hint=MORE_MEMORY)
        if state.exit_code == 0:
            raise EngineError(f"the container {name} reached its time limit")
        raise EngineError(f"the container {name} ended while a command ran (exit status {state.exit_code})")
