"""The engine that docker's client talks to: this machine's own, or one from a setting, the environment or a context."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crossjit import PROGRAM
from crossjit.config.engines import NamedEngine

OWN = ("", "unix:///var/run/docker.sock", "unix:///run/docker.sock")

_OWN_INSTEAD = f"to use this machine's own, which {PROGRAM} setup can start"

Ask = Callable[[Sequence[str]], tuple[int, str, str]]
"""Runs the client with these arguments; returns its exit status, stdout and stderr."""


@dataclass(frozen=True)
class Endpoint:
    """An engine's address, what set it, and what to do to get along without it.

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
        return f"start that engine, or {self.undo}"


def find(ask: Ask, environ: Mapping[str, str], engine: NamedEngine | None = None) -> Endpoint:
    """Return the address of an engine, or of the client's own; asks the client for contexts, which needs no engine."""
    chosen, undo = "", ""
    if engine is not None and engine.address:
        chosen, undo = f"the setting engines ({engine.name})", f"take {engine.name} out of CROSSJIT_ENGINES"
        if not engine.context:
            return Endpoint(engine.address, chosen, undo)
    elif address := environ.get("DOCKER_HOST", ""):  # it takes precedence over any context
        return Endpoint(address, "DOCKER_HOST", f"unset DOCKER_HOST {_OWN_INSTEAD}")
    status, stdout, stderr = ask(("context", "inspect"))
    try:
        (context,) = json.loads(stdout)
        name, address = str(context["Name"]), str(context["Endpoints"]["docker"]["Host"])
    except (ValueError, KeyError, TypeError):
        if status == 0 or "context" not in stderr:  # a client without contexts
            return Endpoint()
        by_environment = environ.get("DOCKER_CONTEXT", "")
        current = f"the docker context {by_environment!r}" if by_environment else "docker's current context"
        return Endpoint("", chosen or current, undo or _without_context(environ), stderr.strip().splitlines()[0])
    if name == "default" and not chosen:
        return Endpoint(address)
    return Endpoint(address, chosen or f"the docker context {name!r}", undo or _without_context(environ))


def _without_context(environ: Mapping[str, str]) -> str:
    how = "unset DOCKER_CONTEXT" if environ.get("DOCKER_CONTEXT") else "run `docker context use default`"
    return f"{how} {_OWN_INSTEAD}"
