"""Installed Pythons: packages of Debian, and folders or archives on this machine. What `--python` names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from crossjit.errors import UserError
from crossjit.model import Arch

DEBIAN = "debian:"
HINT = "such as debian:forky/python3.15, or the path of a folder or an archive with an installed Python"

_PACKAGE = re.compile(rf"{DEBIAN}(?P<suite>[a-z]+)/(?P<package>python3(\.[0-9]+)?(-[a-z]+)?)")


class LocalKind(StrEnum):
    """How an installed Python lies on this machine."""

    FOLDER = "folder"
    ARCHIVE = "archive"


@dataclass(frozen=True)
class DebianPython:
    """A package of a Debian suite, such as `python3.15` of forky."""

    suite: str
    package: str

    def __str__(self) -> str:
        return f"{DEBIAN}{self.suite}/{self.package}"

    @property
    def name(self) -> str:
        """The name of its recipe."""
        return f"{self.suite}-{self.package}"

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The archs that it may be had for."""
        return tuple(Arch)


@dataclass(frozen=True)
class LocalPython:
    """An installed Python in a folder or an archive.

    `prefix` is its own folder in there, empty for the whole; `program` its interpreter's name in `bin`.
    """

    path: Path
    kind: LocalKind
    prefix: str
    program: str
    arch: Arch

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The name of its recipe."""
        stem = re.sub(r"(\.tar)?\.[a-z0-9]+$", "", self.path.name) if self.kind is LocalKind.ARCHIVE else self.path.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:60] or "python"

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The archs that it may be had for."""
        return (self.arch,)


InstalledPython = DebianPython | LocalPython


def parse_debian(text: str) -> DebianPython | None:
    """Parse the name of a Debian package; None for a path. Raises UserError for an invalid name."""
    if not text.startswith(DEBIAN):
        return None
    match = _PACKAGE.fullmatch(text)
    if match is None:
        raise UserError(f"invalid --python {text!r}: expected debian:SUITE/PACKAGE", hint=HINT)
    return DebianPython(match["suite"], match["package"])
