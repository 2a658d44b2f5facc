"""What a resolved source is."""

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
    """What a CPython tree says of itself.

    `top` is the one folder that everything in the archive is in; `version` is `PY_VERSION` of `Include/patchlevel.h`,
    such as `3.15.0rc2` or, between releases, `3.16.0a0+`; `python` its major and minor number; `llvm` the major version
    that `Tools/jit/_llvm.py` names (`_LLVM_VERSION`: a number up to 3.14, a string since 3.15), or None; `core` is a
    digest of all but the tests, which a build only copies; empty where a link from elsewhere leads to these, and in
    records of before there was one.
    """

    top: str
    version: str
    python: tuple[int, int]
    llvm: str | None
    core: str = ""


@dataclass(frozen=True)
class Source:
    """A resolved CPython tree.

    `archive` is a local tar file, maybe compressed, whose members are all in the folder `top`; it has been checked and
    is safe to unpack. `digest` is the sha256 (hexadecimal) of that file for an archive, and of the uncompressed tar for
    git and checkout, where it depends on the tree alone, without what no build reads (`tarball.UNREAD`): a clean
    checkout and its commit give the same. `origin` is the place it came from, without credentials; `commit` the git
    commit, and for a checkout HEAD's; `diff_digest` a digest of a checkout's uncommitted changes, None where there are
    none; `regenerate` what make is to be called with, one after the other, before anything is compiled, since these
    changes make generated files stale; `tree` what builds are given of an archive, where that is not the archive
    itself: a tar without what no build reads, compressed so that it opens fast. The others are as in TreeFacts.
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
        """The digest of all that is compiled: of all but the tests, or of everything where that is not known."""
        return self.core or self.digest
