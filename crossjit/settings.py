"""The user's settings, from the environment; only this module reads crossjit's environment variables."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from crossjit.errors import UserError, did_you_mean
from crossjit.util.paths import full_path

SNAPSHOT = r"[0-9]{8}(T[0-9]{6}Z)?"
# A registry's host, which may have a port, and a name as the OCI distribution specification has it; or a folder.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
STASH_REMOTE = (
    rf"oci://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?/{_COMPONENT}(?:/{_COMPONENT})*|file:///\S.*"
)
_HINT = "set CROSSJIT_HOME to a writable folder"


@dataclass(frozen=True)
class Settings:
    """Where state is kept, and the user's preferences.

    `home` holds `stash/`, `runs/`, `sources/`, `locks/`. `source_mirrors` are folders or URLs with source archives
    under their upstream or Debian file names, tried first. `jobs` is make's parallelism, 0 for as much as the engine's
    cores and memory allow. `prepare` lets commands that need the engine set up the host first. `snapshot` is the date
    of the Debian snapshot that images are built from, `snapshot_mirror` the URL of a mirror of it, with `{date}` in
    place of the date. `stash_remote` is the URL of a stash that machines share, `trust` the file that says whose
    artifacts are taken from it, `signing_key` the key that signs what is pushed.
    """

    home: Path
    source_mirrors: tuple[str, ...] = ()
    engine: str = "docker"
    jobs: int = 0
    prepare: bool = False
    snapshot: str = ""
    snapshot_mirror: str = ""
    stash_remote: str = ""
    trust: Path | None = None
    signing_key: Path | None = None

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

        The host name is included because several machines may share an engine and have the same state path.
        """
        return hashlib.sha256(f"{os.uname().nodename}\n{self.home.resolve()}".encode(errors="replace")).hexdigest()[:16]

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.home / "locks"


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read `CROSSJIT_HOME`, `CROSSJIT_SOURCE_MIRROR`, `CROSSJIT_ENGINE`, `CROSSJIT_JOBS`, `CROSSJIT_PREPARE`,
    `CROSSJIT_SNAPSHOT`, `CROSSJIT_SNAPSHOT_MIRROR`, `CROSSJIT_STASH_REMOTE`, `CROSSJIT_TRUST`, `CROSSJIT_SIGNING_KEY`.

    Raises UserError for an unknown engine, an invalid number of jobs, snapshot or remote, and if there is no place for
    the state.
    """
    home = full_path(environ["CROSSJIT_HOME"]) if environ.get("CROSSJIT_HOME") else _data_folder()
    engine = environ.get("CROSSJIT_ENGINE") or "docker"
    if engine not in ("docker", "podman"):
        raise UserError(f"invalid CROSSJIT_ENGINE={engine}: expected docker or podman")
    jobs = environ.get("CROSSJIT_JOBS") or "0"
    if not jobs.isdecimal():
        raise UserError(
            f"invalid CROSSJIT_JOBS={jobs}: expected a whole number",
            hint="leave it unset to use what the machine allows",
        )
    return Settings(
        home=_require_folders(home),
        source_mirrors=tuple(map(_mirror, environ.get("CROSSJIT_SOURCE_MIRROR", "").split())),
        engine=engine,
        jobs=int(jobs),
        prepare=environ.get("CROSSJIT_PREPARE") == "1",
        snapshot=_snapshot(environ.get("CROSSJIT_SNAPSHOT", "")),
        snapshot_mirror=_snapshot_mirror(environ.get("CROSSJIT_SNAPSHOT_MIRROR", "")),
        stash_remote=_stash_remote(environ.get("CROSSJIT_STASH_REMOTE", "")),
        trust=full_path(environ["CROSSJIT_TRUST"]) if environ.get("CROSSJIT_TRUST") else None,
        signing_key=full_path(environ["CROSSJIT_SIGNING_KEY"]) if environ.get("CROSSJIT_SIGNING_KEY") else None,
    )


def make_home(settings: Settings) -> None:
    """Make the state folder if it is missing. Raises UserError if it cannot be made or written."""
    home = settings.home
    try:
        home.mkdir(parents=True, exist_ok=True)
        # The kernel checks writes against the effective ids and their capabilities.
        may_write = os.access(home, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)
        reason = "" if may_write else "it cannot be written"
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        reason = (error.strerror or str(error)).lower()
    if reason:
        raise UserError(f"cannot make the state folder {home}: {reason}", hint=_HINT)


def _require_folders(home: Path) -> Path:
    """Return the path. Raises UserError if it, or a parent of it, is not a folder."""
    for place in (home, *home.parents):
        try:
            if place.is_dir():
                return home
            if place.exists():
                raise UserError(f"the state folder cannot be {home}: {place} is not a folder", hint=_HINT)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"the state folder cannot be {home}: {reason}", hint=_HINT) from error
    return home


def _snapshot(date: str) -> str:
    if date and not re.fullmatch(SNAPSHOT, date):
        raise UserError(f"invalid CROSSJIT_SNAPSHOT={date}: expected a date", hint="such as 20261101T000000Z")
    return date


def _snapshot_mirror(url: str) -> str:
    if url and not (re.match(r"https?://[^/\s]+/\S*$", url) and "{date}" in url):
        raise UserError(
            f"invalid CROSSJIT_SNAPSHOT_MIRROR={url}: expected a URL with {{date}} in it",
            hint="such as https://HOST/archive/debian/{date}",
        )
    return url


def _stash_remote(url: str) -> str:
    if url and not re.fullmatch(STASH_REMOTE, url):
        scheme, mark, _ = url.partition("://")
        meant = did_you_mean(scheme, ("oci", "file")) if mark and scheme not in ("oci", "file") else ""
        raise UserError(
            f"invalid CROSSJIT_STASH_REMOTE={url}: expected oci://HOST/NAME or file:///FOLDER{meant}",
            hint="such as oci://registry.example.org/team/stash; a NAME has no capital letters",
        )
    return url


def _data_folder() -> Path:
    """Return the default state folder. Raises UserError for a user without a home folder."""
    try:
        return platformdirs.user_data_path("crossjit")
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder, so there is no place for crossjit's state", hint=_HINT
        ) from error


def _mirror(place: str) -> str:
    return place if "://" in place else str(full_path(place))


def wants_traceback(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether `CROSSJIT_DEBUG` asks for tracebacks instead of messages."""
    return environ.get("CROSSJIT_DEBUG") not in (None, "", "0")
