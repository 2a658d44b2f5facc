"""The settings: each one's name, type, meaning and reader, for the environment, files, schemas and docs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from crossjit.config import engines
from crossjit.config.invalid import InvalidError
from crossjit.errors import UserError, did_you_mean
from crossjit.util.paths import expanded, full_path

SNAPSHOT = r"[0-9]{8}(T[0-9]{6}Z)?"
# A registry's host, which may have a port, and a name as the OCI distribution specification has it; or a folder.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_STASH_REMOTE = (
    rf"oci://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?/{_COMPONENT}(?:/{_COMPONENT})*|file:///\S.*"
)
_SNAPSHOT_MIRROR = r"https?://[^/\s]+/\S*"


@dataclass(frozen=True)
class Setting:
    """A setting: a key of a configuration file, and an environment variable.

    `kind` is its type in a file, which `limits` restrict for editors, in words of JSON schemas. `read` makes its value,
    or that of each of several texts, from a text and the folder that relative paths start from, None for the current
    one; it raises InvalidError, and UserError for a path. A table has `read_name` and `combine`, too, which read the
    names and make the value out of names with values; they raise InvalidError. `default` says what holds without it.
    `of_projects`: a project's file, which may be a stranger's, can set it.
    """

    name: str
    kind: Any
    read: Callable[[str, Path | None], Any]
    meaning: str
    default: str
    limits: Mapping[str, str | int] = field(default_factory=dict)
    of_projects: bool = False
    read_name: Callable[[str], str] | None = None
    combine: Callable[[Iterable[tuple[str, Any]]], tuple[Any, ...]] = tuple

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"CROSSJIT_{self.name.upper()}"

    @property
    def attribute(self) -> str:
        """The attribute of Settings: a list's is in the plural."""
        return f"{self.name}s" if self.is_list else self.name

    @property
    def is_list(self) -> bool:
        """Whether it has several texts: an array in a file, separated by spaces in the environment."""
        return bool(self.kind == tuple[str, ...])

    @property
    def is_table(self) -> bool:
        """Whether it has names and values: a table in a file, words `NAME=VALUE` in the environment."""
        return self.read_name is not None

    def from_environment(self, text: str) -> Any:
        """Return the value of the environment variable. Raises UserError if the text is invalid."""
        try:
            if self.read_name is not None:
                return self.combine([self._entry(word, self.read_name) for word in text.split()])
            return tuple(self.read(word, None) for word in text.split()) if self.is_list else self.read(text, None)
        except InvalidError as error:
            raise UserError(f"invalid {self.variable}={text}: {error.expected}", hint=error.hint) from None

    def _entry(self, word: str, read_name: Callable[[str], str]) -> tuple[str, Any]:
        """Read `NAME=VALUE`, or `NAME` for an empty value."""
        name, equals, value = word.partition("=")
        if equals and not value:
            raise InvalidError(f"{word!r} has no value")
        return read_name(name), self.read(value, None)


def _path(text: str, folder: Path | None) -> Path:
    return folder / expanded(text) if folder else full_path(text)


def _mirror(text: str, folder: Path | None) -> str:
    return text if "://" in text else str(_path(text, folder))


def _engine(text: str, folder: Path | None) -> str:
    if text not in ("docker", "podman", "host"):
        raise InvalidError("expected docker, podman or host")
    return text


def _jobs(text: str, folder: Path | None) -> int:
    if not text.isdecimal():
        raise InvalidError("expected a whole number", "leave it unset to use what the machine allows")
    return int(text)


def _snapshot(text: str, folder: Path | None) -> str:
    if not re.fullmatch(SNAPSHOT, text):
        raise InvalidError("expected a date", "such as 20261101T000000Z")
    return text


def _snapshot_mirror(text: str, folder: Path | None) -> str:
    if not (re.match(rf"{_SNAPSHOT_MIRROR}$", text) and "{date}" in text):
        raise InvalidError("expected a URL with {date} in it", "such as https://HOST/archive/debian/{date}")
    return text


def _stash_remote(text: str, folder: Path | None) -> str:
    if not re.fullmatch(_STASH_REMOTE, text):
        scheme, mark, _ = text.partition("://")
        meant = did_you_mean(scheme, ("oci", "file")) if mark and scheme not in ("oci", "file") else ""
        raise InvalidError(
            f"expected oci://HOST/NAME or file:///FOLDER{meant}",
            "such as oci://registry.example.org/team/stash; a NAME has no capital letters",
        )
    return text


SETTINGS = (
    Setting(
        "home",
        str,
        _path,
        "the state folder: stash, run records, sources, locks",
        "the user's data folder, `~/.local/share/crossjit`",
    ),
    Setting(
        "engine",
        Literal["docker", "podman", "host"],
        _engine,
        "the container engine: `docker` or `podman`; or `host`: this machine, without containers",
        "`docker`",
    ),
    Setting(
        "engines",
        dict[str, str],
        engines.parse_address,
        "engines by name, for running cells side by side: `NAME=ADDRESS`, or a name for this machine's own",
        "the one that the client uses by itself",
        limits={"pattern": f"^({engines.ADDRESS})?$"},
        read_name=engines.parse_name,
        combine=engines.together,
    ),
    Setting(
        "jobs",
        int,
        _jobs,
        "how many commands `make` runs at a time; 0 is the default",
        "as many as cores and memory allow",
        limits={"minimum": 0},
        of_projects=True,
    ),
    Setting(
        "source_mirror",
        tuple[str, ...],
        _mirror,
        "folders or URLs where release archives are looked for first",
        "none",
    ),
    Setting(
        "prepare",
        bool,
        lambda text, folder: text == "1",
        "commands that need the engine set up the host first",
        "off; `./inv` turns it on",
    ),
    Setting(
        "snapshot",
        str,
        _snapshot,
        "the date of the Debian snapshot that images are made of, such as `20261101T000000Z`",
        "none: the mirror's current state",
        limits={"pattern": f"^{SNAPSHOT}$"},
        of_projects=True,
    ),
    Setting(
        "snapshot_mirror",
        str,
        _snapshot_mirror,
        "the URL of a mirror with snapshots, with `{date}` in place of the date",
        "none",
        limits={"pattern": f"^{_SNAPSHOT_MIRROR}$"},
    ),
    Setting(
        "stash_remote",
        str,
        _stash_remote,
        "the shared stash: `oci://HOST/NAME` or `file:///FOLDER`",
        "none",
        limits={"pattern": f"^({_STASH_REMOTE})$"},
    ),
    Setting(
        "trust",
        str,
        _path,
        "a TOML file with the public keys of those whose artifacts are taken from the shared stash",
        "none: nothing is taken",
    ),
    Setting("signing_key", str, _path, "the file of the key that signs what `stash push` pushes", "none"),
    Setting("debug", bool, lambda text, folder: text != "0", "show tracebacks where a message would do", "off"),
)
