"""The user's settings: from the environment, a project's file and the user's; only this module reads them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from platformdirs.unix import Unix

from crossjit.config.engines import NamedEngine
from crossjit.config.setting import SETTINGS, Setting
from crossjit.errors import DocumentError, UserError
from crossjit.util.paths import full_path

USER_FILE = "config.toml"  # in the user's configuration folder
PROJECT_FILE = "crossjit.toml"
_HINT = "set CROSSJIT_HOME to a writable folder"


class Origin(StrEnum):
    """Where a setting's value comes from; an earlier one wins."""

    ENVIRONMENT = "environment"
    PROJECT = "project"
    USER = "user"
    DEFAULT = "default"


@dataclass(frozen=True)
class SettingsFile:
    """A configuration file: that of a project, or of the user. `exists` says whether it is read."""

    path: Path
    origin: Origin
    exists: bool


@dataclass(frozen=True)
class Found:
    """Where a setting was found: `place` is the variable, or the file with the number of the line."""

    setting: Setting
    origin: Origin = Origin.DEFAULT
    value: Any = None
    place: str = ""


@dataclass(frozen=True)
class Settings:
    """Where state is kept, and the user's preferences.

    `home` holds `stash/`, `runs/`, `sources/`, `locks/`. `source_mirrors` are folders or URLs with source archives
    under their upstream or Debian file names, tried first. `engines` are those that the user has named; the first is
    used where one is enough, and none means the one that the client uses by itself. `jobs` is make's parallelism, 0 for
    as much as the engine's cores and memory allow. `prepare` lets commands that need the engine set up the host first.
    `snapshot` is the date of the Debian snapshot that images are built from, `snapshot_mirror` the URL of a mirror of
    it, with `{date}` in place of the date. `stash_remote` is the URL of a stash that machines share, `trust` the file
    that says whose artifacts are taken from it, `signing_key` the key that signs what is pushed. `debug` asks for
    tracebacks.
    """

    home: Path
    source_mirrors: tuple[str, ...] = ()
    engine: str = "docker"
    engines: tuple[NamedEngine, ...] = ()
    jobs: int = 0
    prepare: bool = False
    snapshot: str = ""
    snapshot_mirror: str = ""
    stash_remote: str = ""
    trust: Path | None = None
    signing_key: Path | None = None
    debug: bool = False

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

    @property
    def each_engine(self) -> tuple[Settings, ...]:
        """These settings with one engine each."""
        return tuple(replace(self, engines=(engine,)) for engine in self.engines) or (self,)

    @property
    def engine_name(self) -> str:
        """The name of the first engine: the user's, or that of its client."""
        return self.engines[0].name if self.engines else self.engine

    @property
    def engine_home(self) -> Path:
        """Where it is recorded what is in the first engine: images, locks of making them, times, uses of caches."""
        elsewhere = self.engines and self.engines[0].address
        return self.home / "engines" / self.engines[0].name if elsewhere else self.home


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings. Raises UserError for an invalid one, some that exclude each other, and no place for state."""
    values = {found.setting.attribute: found.value for found in find(environ) if found.origin is not Origin.DEFAULT}
    home = values.pop("home", None) or _data_folder()
    settings = Settings(home=_require_folders(home), **values)
    if settings.engines and settings.engine != "docker":
        raise UserError(
            f"engines by name are docker's, and the engine is {settings.engine}",
            hint="leave out one of the settings engine and engines",
        )
    return settings


def find(environ: Mapping[str, str] = os.environ) -> tuple[Found, ...]:
    """Find each setting: in the environment, else in a project's file, else in the user's.

    A variable that is empty asks for the default. Raises UserError for the first invalid variable; DocumentError with
    every error of the files.
    """
    in_files = _in_files(environ)
    return tuple(
        _in_environment(setting, environ[setting.variable])
        if setting.variable in environ
        else in_files.get(setting.name, Found(setting))
        for setting in SETTINGS
    )


def files(environ: Mapping[str, str] = os.environ) -> tuple[SettingsFile, ...]:
    """Return where configuration files are looked for: a project's, then the user's.

    A project's is in the current folder or, within a repository, in the nearest folder above up to the repository's.
    `CROSSJIT_CONFIG` names another file in place of the user's. Raises UserError if that has no full path.
    """
    return tuple(_files(environ))


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


def _files(environ: Mapping[str, str]) -> Iterator[SettingsFile]:
    try:
        here = Path.cwd()
        path = _project_file(here)
        yield SettingsFile(path or here / PROJECT_FILE, Origin.PROJECT, path is not None)
    except FileNotFoundError:
        pass  # the current folder is gone
    if named := environ.get("CROSSJIT_CONFIG"):
        yield SettingsFile(full_path(named), Origin.USER, exists=True)
        return
    try:
        path = Unix("crossjit").user_config_path / USER_FILE
        yield SettingsFile(path, Origin.USER, _is_there(path))
    except RuntimeError:
        pass  # this user has no home folder


def _project_file(folder: Path) -> Path | None:
    above = (folder, *folder.parents)
    root = next((index for index, place in enumerate(above) if _is_there(place / ".git")), 0)
    return next((place / PROJECT_FILE for place in above[: root + 1] if _is_there(place / PROJECT_FILE)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:  # also in a folder that this user may not enter
        return False
    return True


def _in_files(environ: Mapping[str, str]) -> dict[str, Found]:
    """Return the settings in files by name. Raises DocumentError with every error of them."""
    there = [file for file in files(environ) if file.exists]
    if not there:
        return {}
    from crossjit.config import documents, settings_file  # they take a tenth of a second to import

    found: dict[str, Found] = {}
    errors = []
    for file in reversed(there):
        try:
            located = settings_file.read(file.path, of_project=file.origin is Origin.PROJECT)
        except DocumentError as error:
            errors.append(error)
            continue
        for setting in SETTINGS:
            if (one := located.get(setting.name)) is not None:
                found[setting.name] = Found(setting, file.origin, one.value, f"{file.path}:{one.line}")
    if errors:
        raise documents.together(errors)
    return found


def _in_environment(setting: Setting, text: str) -> Found:
    if not text:
        return Found(setting, place=setting.variable)
    return Found(setting, Origin.ENVIRONMENT, setting.from_environment(text), setting.variable)


def _data_folder() -> Path:
    """Return the default state folder: also on macOS, whose usual place has a space in its path, and make stops there.

    Raises UserError for a user without a home folder.
    """
    try:
        return Unix("crossjit").user_data_path
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder, so there is no place for crossjit's state", hint=_HINT
        ) from error


def wants_traceback(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether tracebacks are shown instead of messages. Settings that cannot be read ask for none.

    It is asked while an error is handled, and raises nothing.
    """
    if "CROSSJIT_DEBUG" in environ:
        return environ["CROSSJIT_DEBUG"] not in ("", "0")
    try:
        return load(environ).debug
    except Exception:
        return False
