"""The engine that docker's client talks to: this machine's own, or one from the environment or a context."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crossjit import PROGRAM

OWN = ("", "unix:///var/run/docker.sock", "unix:///run/docker.sock")

Ask = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs the client with these arguments; returns its exit status, stdout and stderr."""


@dataclass(frozen=True)
class Endpoint:
    """An engine's address in the client's settings, what set it, and how to use this machine's own engine instead.

    `chosen` and `undo` are empty if nothing was set; `problem` says why a context has no address.
    """

    address: str = ""
    chosen: str = ""
    undo: str = ""
    problem: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is the engine that this machine's system starts."""
        return not self.problem and self.address in OWN

    @property
    def is_remote(self) -> bool:
        """Whether the address names a different machine."""
        return bool(self.address) and not self.address.startswith(("unix:", "npipe:", "fd:"))

    @property
    def words(self) -> str:
        """Its description: `unix:///run/user/1000/docker.sock, by the docker context 'rootless'`."""
        return ", ".join(part for part in (self.address or self.problem, self.chosen and f"by {self.chosen}") if part)

    @property
    def hint(self) -> str:
        """What to do if it does not answer; crossjit does not start it."""
        return f"start that engine, or {self.undo} to use this machine's own, which {PROGRAM} setup can start"


def find(ask: Ask, environ: Mapping[str, str]) -> Endpoint:
    """Ask the client for its current context, which works without an engine."""
    if address := environ.get("DOCKER_HOST", ""):  # it takes precedence over any context
        return Endpoint(address, "DOCKER_HOST", "unset DOCKER_HOST")
    status, stdout, stderr = ask(("context", "inspect"))
    by_environment = environ.get("DOCKER_CONTEXT", "")
    undo = "unset DOCKER_CONTEXT" if by_environment else "run `docker context use default`"
    try:
        (context,) = json.loads(stdout)
        name, address = str(context["Name"]), str(context["Endpoints"]["docker"]["Host"])
    except (ValueError, KeyError, TypeError):
        if status == 0 or "context" not in stderr:  # a client without contexts
            return Endpoint()
        chosen = f"the docker context {by_environment!r}" if by_environment else "docker's current context"
        return Endpoint("", chosen, undo, stderr.strip().splitlines()[0])
    if name == "default":
        return Endpoint(address)
    return Endpoint(address, f"the docker context {name!r}", undo)
