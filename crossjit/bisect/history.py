"""The commits between a good and a bad one, read from a repository on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from crossjit.errors import SourceError, UserError
from crossjit.sources.located import locate
from crossjit.sources.repository import commit_of

_PULL = re.compile(r"\((?:#|GH-)(\d+)\)\s*$", re.I)
_RELEASE = re.compile(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?")
_VERSION_FILE = "Include/patchlevel.h"
_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Commit:
    """A commit: its id, subject line, author and day (ISO 8601)."""

    id: str
    subject: str
    author: str
    day: str

    @property
    def pull_request(self) -> int | None:
        """The number of its pull request, as CPython's subjects end with it."""
        match = _PULL.search(self.subject)
        return int(match[1]) if match else None


@dataclass(frozen=True)
class History:
    """A line of commits, oldest first.

    `forked` says that the older ref was not an ancestor of the newer one; the line then begins at their merge base.
    """

    path: Path
    commits: tuple[str, ...]
    forked: bool = False

    def source(self, index: int) -> str:
        """Return a commit as `--source` takes it."""
        return f"{self.path}#{self.commits[index]}"


def commit(path: Path, ref: str) -> str:
    """Return the id of a ref's commit. Raises SourceError."""
    return commit_of(locate(path), ref)


def read(path: Path, older: str, newer: str, *, hint: str = "swap them") -> History:
    """Return the commits from the older to the newer one, along first parents.

    Raises SourceError for a folder that is not a repository, UserError for refs without a line between them, with this
    hint if they are in the wrong order.
    """
    repository = locate(path)
    start, end = commit_of(repository, older), commit_of(repository, newer)
    if start == end:
        raise UserError(f"{older} and {newer} are the same commit", hint="give two different ones")
    base = repository.ask("merge-base", start, end).text
    if not base:
        raise UserError(f"{older} and {newer} have no common ancestor", hint="give two refs of one history")
    if base == end:
        raise UserError(f"{newer} is an ancestor of {older}", hint=hint)
    listed = repository.ask("rev-list", "--first-parent", "--reverse", f"{base}..{end}")
    if not listed.ok:
        raise SourceError(f"git cannot list the commits of {path}", hint="see what git says", details=listed.errors)
    return History(path, (base, *listed.text.split()), forked=base != start)


def version(path: Path, commit: str) -> tuple[int, int]:
    """Return CPython's version at a commit, (major, minor). Raises SourceError if it is not CPython's."""
    shown = locate(path).ask("show", f"{commit}:{_VERSION_FILE}")
    numbers = [re.search(rf"^#define\s+PY_{name}_VERSION\s+(\d+)", shown.text, re.M) for name in ("MAJOR", "MINOR")]
    if not shown.ok or not all(numbers):
        raise SourceError(
            f"{path} is not a repository of CPython: {_VERSION_FILE} cannot be read at {commit[:12]}",
            hint="give a clone of CPython with --repo",
            details=shown.errors,
        )
    major, minor = (int(number[1]) for number in numbers if number)
    return major, minor


def releases(path: Path, commit: str) -> tuple[str, ...]:
    """Return the tags of releases that are ancestors of a commit, newest first. Raises SourceError."""
    repository = locate(path)
    listed = repository.ask("tag", "--merged", commit, "--list", "v[0-9]*.[0-9]*")
    if not listed.ok:
        raise SourceError(f"git cannot list the tags of {path}", hint="see what git says", details=listed.errors)
    tags = {tag: Version(tag[1:]) for tag in listed.text.split() if _RELEASE.fullmatch(tag)}
    own = repository.ask("tag", "--points-at", commit).text.split()
    return tuple(sorted(tags.keys() - own, key=lambda tag: tags[tag], reverse=True))


def describe(path: Path, ids: Sequence[str]) -> tuple[Commit, ...]:
    """Return what a person wants to know of some commits. Raises SourceError."""
    repository = locate(path)
    form = _SEPARATOR.join(("%H", "%s", "%an", "%cs"))
    shown = repository.ask("show", "--no-patch", f"--format={form}", *ids)
    if not shown.ok:
        raise SourceError(f"git cannot show the commits of {path}", hint="see what git says", details=shown.errors)
    return tuple(Commit(*line.split(_SEPARATOR)) for line in shown.text.splitlines() if _SEPARATOR in line)


def files(path: Path, commit: str) -> tuple[str, ...]:
    """Return the files that a commit changed. Raises SourceError."""
    listed = locate(path).ask("diff-tree", "--no-commit-id", "--name-only", "-r", "-z", commit)
    if not listed.ok:
        raise SourceError(f"git cannot show {commit}", hint="see what git says", details=listed.errors)
    return tuple(name for name in listed.text.split("\0") if name)
