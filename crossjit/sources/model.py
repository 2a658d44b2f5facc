"""Resolved sources."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Kind(StrEnum):
    """Where a source comes from."""

    ARCHIVE = "archive"
    GIT = "git"
    CHECKOUT = "checkout"


@dataclass(frozen=True)
class TreeFacts:
    """Facts read from a CPython tree.

    `top` is the archive's top folder. `version` is `PY_VERSION` of `Include/patchlevel.h`, such as `3.15.0rc2` or,
    between releases, `3.16.0a0+`; `python` its major and minor number. `llvm` is the major version in
    `Tools/jit/_llvm.py` (`_LLVM_VERSION`: a number up to 3.14, a string since 3.15), or None without the JIT: without
    that file, or without configure's option for the JIT. `core` is a digest of all but the tests, which a build only
    copies; empty if a link from outside leads to the tests, and in old records.
    """

    top: str
    version: str
    python: tuple[int, int]
    llvm: str | None
    core: str = ""


@dataclass(frozen=True)
class Source:
    """A resolved CPython tree.

    `archive` is a local tar file, maybe compressed, with all members in the folder `top`; it was checked and is safe to
    unpack. `digest` is a sha256 (hexadecimal): for an archive that file's; for git and checkout that of the
    uncompressed tar, which depends only on the tree without `tarball.UNREAD`, so a clean checkout has its commit's.
    `origin` is where it came from, without credentials. `commit` is the git commit, for a checkout HEAD.
    `diff_digest` is a digest of a checkout's uncommitted changes, None without any. `regenerate` are make's arguments,
    a call each, before compiling, for generated files that these changes make stale. `tree` is the file that builds get
    instead of an archive: a tar without unread files, compressed to open fast. The others are as in TreeFacts.
    """

    kind: Kind
    version: str
    python: tuple[int, int]
    digest: str
    archive: Path
    top: str
    origin: str
    commit: str | None = None
    diff_digest: str | None = None
    llvm: str | None = None
    regenerate: tuple[str, ...] = ()
    core: str = ""
    tree: Path | None = None

    @property
    def compiled(self) -> str:
        """The digest of the compiled files: all but the tests, or everything if `core` is empty."""
        return self.core or self.digest
