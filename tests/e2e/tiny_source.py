"""The tiny source that stands in for CPython (see tiny/README), as an archive, a checkout, and what a recipe names."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).parent / "tiny"
VERSION = "3.15.0"
TOP = f"Python-{VERSION}"


def files(changes: Mapping[str, str] | None = None) -> dict[str, tuple[bytes, int]]:
    """Return content and mode of the tree's files by path, with a test's changes made."""
    found = {
        str(path.relative_to(TREE)): (path.read_bytes(), 0o755 if os.access(path, os.X_OK) else 0o644)
        for path in sorted(TREE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    for name, text in (changes or {}).items():
        found[name] = (text.encode(), found.get(name, (b"", 0o644))[1])
    return found


@dataclass(frozen=True)
class Archive:
    """An archive on disk."""

    path: Path

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def url(self) -> str:
        return self.path.as_uri()


def archive(
    folder: Path, changes: Mapping[str, str] | None = None, *, more: Mapping[str, bytes] | None = None
) -> Archive:
    """Make a release archive; `more` are members by their whole name, for what no release should have."""
    path = folder / f"{TOP}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, (content, mode) in files(changes).items():
            _add(tar, f"{TOP}/{name}", content, mode)
        for name, content in (more or {}).items():
            _add(tar, name, content, 0o644)
    return Archive(path)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def checkout(folder: Path) -> Path:
    """Make a git repository with the tree committed on its branch `main`."""
    shutil.copytree(TREE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "-C", folder, "init", "--quiet", "--initial-branch=main"], check=True)
    commit(folder, "tiny")
    return folder


def commit(folder: Path, subject: str, changes: Mapping[str, str | None] | None = None) -> str:
    """Commit all of a checkout, with these files written, or removed for None; return the commit's id."""
    for name, text in (changes or {}).items():
        if text is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=tiny", "-c", "user.email=tiny@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run(
        [*git, "-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "-m", subject], check=True
    )
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def recipe(path: Path, source: Archive, *, places: tuple[str, ...] | None = None, sha256: str | None = None) -> Path:
    """Write a recipe that offers two variants of an archive."""
    where = ", ".join(f'"{place}"' for place in places or (source.url,))
    path.write_text(
        f"""\
summary = "what the tests build"
offers = ["jit", "jit-off"]
default_variants = ["jit"]

[archive]
version = "{VERSION}"
sha256 = "{sha256 or source.sha256}"
places = [{where}]

[variants.jit-off]
summary = "the JIT built in, but off"
configure = ["--enable-experimental-jit=yes-off"]
expects = "machine-code"
suites = ["jit"]
"""
    )
    return path


def tag(folder: Path, name: str, commit: str) -> None:
    """Tag a commit of a checkout."""
    subprocess.run(["git", "-C", str(folder), "tag", name, commit], check=True)
