"""What the file system says of a working tree's files: a tree that was packed is known again without being read.

A file of the same inode, size, mode and ctime has the same content, as git's index has it, too; but for one that was
written once more within the clock's resolution. So the stamps of a tree in which something is YOUNG are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crossjit.settings import Settings
from crossjit.sources import cache
from crossjit.sources.cache import CachedSource
from crossjit.util import files

YOUNG = 2.0  # seconds; no file system's time stamps are coarser


@dataclass(frozen=True)
class Stamps:
    """A digest of all stamps of a tree and of what else decides how it is packed, and whether it can be gone by."""

    root: Path
    digest: str
    settled: bool

    def known(self, settings: Settings) -> tuple[CachedSource, str | None] | None:
        """Return what the tree was packed to, and the digest of its changes, if it is as it was then."""
        try:
            stamps, packed, diff = json.loads(self._kept(settings).read_bytes())
        except (OSError, ValueError, TypeError):
            return None
        if stamps != self.digest or not (stored := cache.find(settings, packed)):
            return None
        return stored, diff

    def keep(self, settings: Settings, packed: str, diff: str | None) -> None:
        """Note what a tree with these stamps was packed to, in place of what was noted of that folder before."""
        if not self.settled:
            return
        path = self._kept(settings)
        with cache.storing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace(path, json.dumps([self.digest, packed, diff]).encode())

    def _kept(self, settings: Settings) -> Path:
        return settings.sources / "checkouts" / hashlib.sha256(os.fsencode(self.root)).hexdigest()[:20]


def take(root: Path, paths: Iterable[str], *others: str) -> Stamps:
    """Look at the files of a tree, in an order that is always the same.

    What is not there has a stamp of its own; `others` is what decides beside them.
    """
    digest = hashlib.sha256(repr(others).encode())
    now, youngest = time.time(), 0.0
    for path in paths:
        try:
            status = (root / path).lstat()
        except OSError as error:
            stamp: tuple[int | None, ...] = (error.errno,)
        else:
            stamp = (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
            youngest = max(youngest, status.st_ctime)
        digest.update(os.fsencode(path) + b"\0" + repr(stamp).encode() + b"\0")
    return Stamps(root, digest.hexdigest(), settled=youngest < now - YOUNG)
