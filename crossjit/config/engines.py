"""Engines by name, and how the client reaches each: the values of the setting `engines`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from crossjit.config.invalid import InvalidError
from crossjit.errors import did_you_mean

NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:]+\])"
_PORT = r":[0-9]{1,5}"
FORMS = {  # by scheme: a pattern, and how it is written
    "ssh": (rf"ssh://(?:{_USER}@)?{_HOST}(?:{_PORT})?(?:/\S*)?", "ssh://[USER@]HOST[:PORT]"),
    "tcp": (rf"tcp://{_HOST}{_PORT}", "tcp://HOST:PORT"),
    "unix": (r"unix:///\S+", "unix:///SOCKET"),
    "context": (r"context:[A-Za-z0-9][A-Za-z0-9_.+-]*", "context:NAME"),
}
ADDRESS = "|".join(pattern for pattern, _ in FORMS.values())
_WRITTEN = ", ".join(written for _, written in FORMS.values())
_HINT = "such as CROSSJIT_ENGINES='local arm=ssh://box'"


@dataclass(frozen=True)
class NamedEngine:
    """An engine and its address; without one it is the engine that the client uses by itself: this machine's own."""

    name: str
    address: str = ""

    def __str__(self) -> str:
        return f"{self.name}={self.address}" if self.address else self.name

    @property
    def context(self) -> str:
        """The docker context of that name; empty for other addresses."""
        return self.address.removeprefix("context:") if self.address.startswith("context:") else ""

    @property
    def flags(self) -> tuple[str, ...]:
        """The client's options for this engine."""
        if self.context:
            return ("--context", self.context)
        return ("--host", self.address) if self.address else ()


def parse_name(text: str) -> str:
    """Return an engine's name. Raises InvalidError."""
    if not re.fullmatch(NAME, text):
        raise InvalidError(f"invalid name {text!r}: expected letters, digits, - and _", _HINT)
    return text


def parse_address(text: str, folder: Path | None = None) -> str:
    """Return an engine's address, which may be empty. Raises InvalidError."""
    if not text or re.fullmatch(ADDRESS, text):
        return text
    scheme = text.partition(":")[0]
    if scheme in FORMS:
        raise InvalidError(f"invalid address {text!r}: expected {FORMS[scheme][1]}", _HINT)
    raise InvalidError(f"invalid address {text!r}: expected {_WRITTEN}{did_you_mean(scheme, FORMS)}", _HINT)


def together(entries: Iterable[tuple[str, str]]) -> tuple[NamedEngine, ...]:
    """Return the engines of names with addresses. Raises InvalidError if two of them have one name or one address."""
    found = tuple(NamedEngine(name, address) for name, address in entries)
    for number, engine in enumerate(found):
        for other in found[:number]:
            if engine.name == other.name:
                raise InvalidError(f"two engines have the name {engine.name!r}", _HINT)
            if _place(engine) == _place(other):
                where = engine.address or "this machine's own"
                raise InvalidError(f"{other.name!r} and {engine.name!r} are the same engine: {where}", _HINT)
    return found


def _place(engine: NamedEngine) -> str:
    """Return an address without the parts that are the default anyway."""
    if engine.address.startswith("ssh:"):
        url = urlsplit(engine.address)
        return f"ssh://{url.username or ''}@{url.hostname}:{url.port or 22}{url.path.rstrip('/')}"
    return engine.address
