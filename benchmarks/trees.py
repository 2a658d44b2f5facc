"""Checkouts of a release, and changes to them."""

from __future__ import annotations

import subprocess
import tarfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crossjit import sources
from crossjit.sources import Source

IDENTITY = ("-c", "user.name=benchmark", "-c", "user.email=benchmark@crossjit.invalid", "-c", "gc.auto=0")


def git(tree: Path, *arguments: str) -> str:
    """Run git in a repository and return its output. Raises CalledProcessError."""
    command = ["git", "-C", str(tree), *IDENTITY, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout


def checkout(folder: Path, source: Source, message: str) -> Path:
    """Unpack a source into a git repository with one commit, so that later changes are uncommitted."""
    with sources.decompressed(source.archive) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(folder, filter="tar")
    tree = folder / source.top
    for command in (("init", "--quiet"), ("add", "--all", "--force"), ("commit", "--quiet", "--message", message)):
        git(tree, *command)
    return tree


@dataclass(frozen=True)
class Edit:
    """A change of one file: `old`, which occurs once, is replaced by `new`; without `old`, `new` is appended.

    {n} in `new` becomes a number, so that each application is a different change. `changes` names the trees of the
    artifact (`install`, `generated`) that must differ afterwards; otherwise the build ignored the change.
    """

    path: str
    new: str
    old: str = ""
    changes: tuple[str, ...] = ()

    def apply(self, tree: Path, number: int) -> None:
        """Apply the change to an unchanged tree. Raises ValueError if it does not apply, OSError."""
        file = tree / self.path
        text = file.read_text(encoding="utf-8")
        new = self.new.replace("{n}", str(number))
        if self.old and text.count(self.old) != 1:
            raise ValueError(f"{self.path} has {self.old!r} {text.count(self.old)} times, not once")
        file.write_text(text.replace(self.old, new) if self.old else text + new, encoding="utf-8")


@dataclass(frozen=True)
class Edits:
    """The measured changes, and those of the commits of an artificial history."""

    core: Edit
    uop: Edit
    tests: Edit
    docs: Edit
    walk: tuple[Edit, ...]


def load_edits(path: Path) -> Edits:
    """Read the changes from a file. Raises OSError, ValueError, TypeError for a missing or unknown key."""
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    walk = tuple(_edit(**edit) for edit in document.pop("walk"))
    return Edits(**{name: _edit(**edit) for name, edit in document.items()}, walk=walk)


def _edit(changes: Iterable[str] = (), **fields: str) -> Edit:
    return Edit(**fields, changes=tuple(changes))


def restore(tree: Path) -> None:
    """Revert uncommitted changes."""
    git(tree, "checkout", "--quiet", "--", ".")
    git(tree, "clean", "--quiet", "--force", "-d")


def make_history(tree: Path, edits: tuple[Edit, ...]) -> list[str]:
    """Commit each change on top of the previous one, then check out the start again; return the commits."""
    start = git(tree, "rev-parse", "HEAD").strip()
    commits = []
    for number, edit in enumerate(edits, 100):
        edit.apply(tree, number)
        git(tree, "commit", "--quiet", "--all", "--message", f"{edit.path}: {number}")
        commits.append(git(tree, "rev-parse", "HEAD").strip())
    git(tree, "checkout", "--quiet", start)
    return commits


def history(repository: Path, commits: str, limit: int) -> list[str]:
    """Return the last commits of a range, oldest first; a merge counts as one. Raises ValueError if there is none."""
    result = git(repository, "rev-list", "--reverse", "--first-parent", commits).split()[-limit:]
    if not result:
        raise ValueError(f"there is no commit in {commits}")
    return result
