"""The commits between a good and a bad one, read from a repository on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossjit.errors import SourceError, UserError
from crossjit.sources.located import locate
from crossjit.sources.repository import commit_of

_PULL = re.compile(r"\((?:#|gh-)(\d+)\)\s*$")
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
    """A line of commits, oldest first. `forked` tells whether the good ref was not an ancestor of the bad one.

    Then the line begins at their merge base.
    """

    path: Path
    commits: tuple[str, ...]
    forked: bool = False

    def source(self, index: int) -> str:
        """Return a commit as `--source` takes it."""
        return f"{self.path}#{self.commits[index]}"


def read(path: Path, good: str, bad: str) -> History:
    """Return the commits from the good to the bad one, along first parents.

    Raises SourceError for a folder that is not a repository, UserError for refs without a line between them.
    """
    repository = locate(path)
    start, end = commit_of(repository, good), commit_of(repository, bad)
    if start == end:
        raise UserError(f"{good} and {bad} are the same commit", hint="give two different ones")
    base = repository.ask("merge-base", start, end).text
    if not base:
        raise UserError(f"{good} and {bad} have no common ancestor", hint="give two refs of one history")
    if base == end:
        raise UserError(f"{bad} is an ancestor of {good}", hint="swap them, or look for a fix with --find-fix")
    listed = repository.ask("rev-list", "--first-parent", "--reverse", f"{base}..{end}")
    if not listed.ok:
        raise SourceError(f"git cannot list the commits of {path}", hint="see what git says", details=listed.errors)
    return History(path, (base, *listed.text.split()), forked=base != start)


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
