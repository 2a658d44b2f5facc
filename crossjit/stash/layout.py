"""The layout of the stash's folder.

    objects/<aa>/<sha256>.tar.zst           packed trees by the digest of their bytes
    artifacts/<build key>/manifest.json     the artifact's facts, and its trees by digest
    artifacts/<build key>/files.json        sha256 of every file by tree and path
    artifacts/<build key>/SHA256SUMS        of the two files above, as `sha256sum -c` reads it
    artifacts/<build key>/origin.json       where it was taken from, unless it was built here
    artifacts/<build key>/attestation.json  what others attest of it, if anything
    verified/<sha256>                       the state of an object's file when its digest was verified (see `verified`)
    tests/<build key>                       the tests that the artifact lists (see `test_lists`)
    sequence                                the number of the newest artifact
    tmp/<...>/                              unfinished artifacts
    locks/                                  one lock per build key, and one for the stash; never removed

An artifact's folder is made in tmp/ and renamed into place after its objects are in place and synced.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import filelock

from crossjit.errors import StashError
from crossjit.stash.artifact import VERIFIED_NAME
from crossjit.util import files, locks

DIGEST = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Layout:
    """The paths and locks of a stash in a folder, which need not exist yet."""

    path: Path

    @property
    def temporary(self) -> Path:
        """The folder of unfinished artifacts."""
        return self.path / "tmp"

    @property
    def locks(self) -> Path:
        """The folder of the locks."""
        return self.path / "locks"

    @property
    def objects(self) -> Path:
        """The folder of the packed trees."""
        return self.path / "objects"

    @property
    def verified(self) -> Path:
        """The folder of the records of verified objects; see `verified.is_whole`."""
        return self.path / VERIFIED_NAME

    @property
    def test_lists(self) -> Path:
        """The folder of test lists; see `test_lists`."""
        return self.path / "tests"

    def artifact_folder(self, key: str) -> Path:
        """Return the folder of an artifact."""
        if not _KEY.fullmatch(key):
            raise ValueError(f"invalid build key: {key!r}")
        return self.path / "artifacts" / key

    def object_path(self, digest: str) -> Path:
        """Return the file of a packed tree. Raises StashError for an invalid digest."""
        if not DIGEST.fullmatch(digest):
            raise StashError(f"invalid digest: {digest!r}", hint="build the cell again to repair it")
        return self.objects / digest[:2] / f"{digest}.tar.zst"

    def artifact_folders(self) -> list[Path]:
        """Return the folders of all artifacts, including damaged ones, sorted by build key."""
        try:
            return sorted(path for path in (self.path / "artifacts").iterdir() if _KEY.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def writing(self) -> AbstractContextManager[None]:
        """Turn disk errors inside the block into StashError."""
        return files.translate_os_errors(StashError, "cannot write to the stash", self.path)

    def lock_path(self, key: str) -> Path:
        """Return the file of a build key's lock."""
        self.artifact_folder(key)
        return self.locks / f"{key}.lock"

    def stash_lock(self) -> filelock.BaseFileLock:
        """Return the lock of the whole stash."""
        # '+' cannot be in a build key
        return locks.lock(self.locks / "stash+.lock")
