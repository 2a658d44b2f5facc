"""A git repository on this machine, read through an empty one of ours, so that its settings are not used."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from crossjit.errors import SourceError
from crossjit.sources import cache, git
from crossjit.sources.git import Answer
from crossjit.util.budget import BUDGET

# Settings for comparing a working tree's files with committed ones; they are used whoever set them.
_COMPARING = ("autocrlf", "eol", "filemode", "symlinks", "ignorecase", "trustctime", "checkstat", "excludesfile")
_WANTED = rf"^(safe\.directory|core\.({'|'.join(_COMPARING)}))$"
_TRUSTED = ("system", "global", "command")  # git reads safe.directory from these only


@dataclass(frozen=True)
class Repository:
    """A repository's folders. `settings` are the used ones of the user's and its own."""

    path: Path
    folder: Path
    common: Path
    settings: Mapping[str, str]
    environment: Mapping[str, str]

    @property
    def objects(self) -> Path:
        """The folder of its objects."""
        return self.common / "objects"

    def ask(self, *arguments: str) -> Answer:
        """Run git in the repository itself, only to read its refs; parent folders are not searched."""
        return git.run("-C", str(self.path), *arguments, config=self.settings, env=self.environment)


def locate(path: Path) -> Repository:
    """Find a repository's folders. Raises SourceError if the path is neither a repository nor a checkout's top."""
    settings, environment = _settings(path)
    repository = Repository(path, path, path, settings, environment)
    folder, common = repository.ask("rev-parse", "--git-dir"), repository.ask("rev-parse", "--git-common-dir")
    if not (folder.ok and common.ok):
        raise SourceError(
            f"{path} is not the top folder of a git repository that git will read",
            hint="give the folder that has .git in it, or an archive",
            details=folder.errors or common.errors,
        )
    return Repository(path, path / folder.text, path / common.text, settings, environment)


def _settings(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings for comparing files, and an environment with the folders that the user trusts."""
    listed = git.run(
        "-C", str(path), "config", "-z", "--show-scope", "--get-regexp", _WANTED,
        env={"GIT_CEILING_DIRECTORIES": str(path.resolve().parent), "GIT_ALLOW_PROTOCOL": "none"}, fetching=True,
    )  # fmt: skip
    words = listed.text.split("\0")
    comparing: dict[str, str] = {}
    trusted: list[str] = []
    for scope, setting in zip(words[::2], words[1::2], strict=False):
        name, _, value = setting.partition("\n")
        if name != "safe.directory":
            comparing[name] = os.path.expanduser(value) if name == "core.excludesfile" else value  # noqa: PTH111
        elif scope in _TRUSTED:
            trusted.append(value)
    environment = {"GIT_CEILING_DIRECTORIES": str(path.resolve().parent), "GIT_CONFIG_COUNT": str(len(trusted))}
    for number, value in enumerate(trusted):
        environment |= {f"GIT_CONFIG_KEY_{number}": "safe.directory", f"GIT_CONFIG_VALUE_{number}": value}
    return comparing, environment


@dataclass(frozen=True)
class Window:
    """An empty repository of ours, through which another's objects and maybe its working tree are read."""

    folder: Path
    environment: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)

    def ask(self, *arguments: str, words: bytes = b"") -> Answer:
        """Run git in it."""
        return git.run(*self._at(arguments), config=self.settings, env=self.environment, words=words)

    @contextlib.contextmanager
    def reading(self, *arguments: str, words: bytes = b"") -> Iterator[BinaryIO]:
        """Run git in it and open its output, as `git.reading` does."""
        with git.reading(*self._at(arguments), config=self.settings, env=self.environment, words=words) as stream:
            yield stream

    def _at(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        return ("-C", self.environment["GIT_WORK_TREE"], *arguments)  # not the current folder, which may be in it


def window(objects: Path, commit: str, folder: Path) -> Window:
    """Make an empty repository to read a commit through. Its working tree and index are empty."""
    place = folder / "window.git"
    kind = "sha256" if len(commit) == 64 else "sha1"
    result = git.run("init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(place))
    if not result.ok:
        with cache.storing(folder):
            raise OSError(" ".join(result.errors))
    with cache.storing(folder):
        (folder / "nothing").mkdir()
    return Window(
        place,
        {
            "GIT_DIR": str(place),
            "GIT_WORK_TREE": str(folder / "nothing"),
            "GIT_INDEX_FILE": str(folder / "index"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{_quoted(objects)}"',
        },
    )


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')


def _copy(path: Path, copy: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= BUDGET.file:
            shutil.copy2(path, copy)


def window_on(repository: Repository, commit: str, folder: Path) -> Window:
    """Make a window on a checkout: its working tree, a copy of its index, and its ignore patterns.

    Refreshing writes to the copy of the index. The copy has the index's mtime, by which git detects files that may have
    changed in the second in which the index was written.
    """
    base = window(repository.objects, commit, folder)
    with cache.storing(folder):
        (base.folder / "info").mkdir(exist_ok=True)
        _copy(repository.folder / "index", folder / "index")
        for name in ("exclude", "attributes"):
            _copy(repository.common / "info" / name, base.folder / "info" / name)
        for path in repository.folder.glob("sharedindex.*"):
            _copy(path, base.folder / path.name)
    settings = {**repository.settings, "core.bare": "false"}
    return Window(base.folder, {**base.environment, "GIT_WORK_TREE": str(repository.path)}, settings)
