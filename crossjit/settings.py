"""The user's settings, from the environment; nothing else reads environment variables of ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from crossjit.errors import UserError
from crossjit.paths import full_path

_HINT = "set CROSSJIT_HOME to a folder that can be written"


@dataclass(frozen=True)
class Settings:
    """Where state lives and what the user prefers.

    `home` holds `stash/`, `runs/`, `sources/`, `locks/`; `source_mirrors` are folders or URLs that hold source archives
    under their upstream or Debian file names, asked before anything else; `jobs` is make's parallelism, 0 for as many
    as the engine's cores and memory allow; `prepare` lets commands that need the engine set up the host first.
    """

    home: Path
    source_mirrors: tuple[str, ...] = ()
    engine: str = "docker"
    jobs: int = 0
    prepare: bool = False

    @property
    def stash(self) -> Path:
        """The stash's folder."""
        return self.home / "stash"

    @property
    def runs(self) -> Path:
        """The run records' folder."""
        return self.home / "runs"

    @property
    def sources(self) -> Path:
        """Downloaded and packed sources."""
        return self.home / "sources"

    @property
    def identity(self) -> str:
        """16 hex digits of the state folder and its machine: the value of the label `crossjit.home`.

        The machine's name is in it because several machines may use one engine, with state folders of the same name.
        """
        return hashlib.sha256(f"{os.uname().nodename}\n{self.home.resolve()}".encode(errors="replace")).hexdigest()[:16]

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.home / "locks"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `CROSSJIT_HOME`, `CROSSJIT_SOURCE_MIRROR`, `CROSSJIT_ENGINE`, `CROSSJIT_JOBS`, `CROSSJIT_PREPARE`.

    Raises UserError for an engine that is not known, a number of jobs that is none, and where there is no place for the
    state.
    """
    home = full_path(environ["CROSSJIT_HOME"]) if environ.get("CROSSJIT_HOME") else _data_folder(environ)
    engine = environ.get("CROSSJIT_ENGINE") or "docker"
    if engine not in ("docker", "podman"):
        raise UserError(f"CROSSJIT_ENGINE is {engine!r}", hint="use docker or podman")
    jobs = environ.get("CROSSJIT_JOBS") or "0"
    if not jobs.isdecimal():
        raise UserError(
            f"CROSSJIT_JOBS is {jobs!r}", hint="give a whole number, or nothing for what the machine allows"
        )
    return Settings(
        home=home,
        source_mirrors=tuple(map(_mirror, environ.get("CROSSJIT_SOURCE_MIRROR", "").split())),
        engine=engine,
        jobs=int(jobs),
        prepare=environ.get("CROSSJIT_PREPARE") == "1",
    )


def _data_folder(environ: Mapping[str, str]) -> Path:
    """Return where the state is if nobody says it. Raises UserError for a user without a home folder."""
    folder = platformdirs.user_data_path("crossjit")
    if environ.get("HOME") == "" and not environ.get("XDG_DATA_HOME"):  # it would be below `/`
        raise UserError("HOME is empty, so there is no place for crossjit's state", hint=_HINT)
    if not folder.is_absolute():  # it begins with a `~` that could not be replaced
        raise UserError("there is no home folder for crossjit's state: this user has none", hint=_HINT)
    return folder


def _mirror(place: str) -> str:
    return place if "://" in place else str(full_path(place))


def wants_traceback(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `CROSSJIT_DEBUG` asks for tracebacks where a message would do."""
    return environ.get("CROSSJIT_DEBUG") not in (None, "", "0")
