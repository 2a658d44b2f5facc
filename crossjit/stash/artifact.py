"""An artifact in the stash: its manifest, trees and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crossjit.errors import StashError
from crossjit.stash import packing, verified
from crossjit.stash.manifest import Manifest

INSTALL = "install"
SUPPORT = "support"
GENERATED = "generated"
MANIFEST_NAME = "manifest.json"
FILES_NAME = "files.json"
SUMS_NAME = "SHA256SUMS"
VERIFIED_NAME = "verified"
ORIGIN_NAME = "origin.json"
ATTESTATION_NAME = "attestation.json"
SHORT_ID = 12


@dataclass(frozen=True)
class Origin:
    """Where an artifact was taken from: the remote, the name and the public key of who signed it, and when."""

    remote: str
    signer: str
    key: str
    taken: str


@dataclass(frozen=True)
class Artifact:
    """A stashed build. `objects` are the `.tar.zst` files of its trees by name; `folder` is its folder in the stash."""

    manifest: Manifest
    folder: Path
    objects: Mapping[str, Path]

    @property
    def key(self) -> str:
        """The build key."""
        return self.manifest.build_key

    @property
    def full_id(self) -> str:
        """64 hex digits: a digest of the build key and the install tree, so two results for one key have two ids."""
        return hashlib.sha256(f"{self.key}\n{self.manifest.tree_digest}\n".encode()).hexdigest()

    @property
    def id(self) -> str:
        """The short form of `full_id`, for people and for `find_by_prefix`."""
        return self.full_id[:SHORT_ID]

    def open(self, tree: str = INSTALL) -> AbstractContextManager[BinaryIO]:
        """Open a tree as an uncompressed tar stream. Raises StashError if it is damaged."""
        return packing.unpack_stream(self.objects[tree])

    def is_intact(self) -> bool:
        """Whether all of its files are unchanged; `Store.verify` lists the damage.

        Objects that are unchanged since they were last read are not read again.
        """
        records = self.folder.parents[1] / VERIFIED_NAME
        try:
            return self.is_described() and all(
                verified.is_whole(path, self.manifest.trees[name].object, records)
                for name, path in self.objects.items()
            )
        except OSError:
            return False

    def is_described(self) -> bool:
        """Whether the manifest and the list of files are unchanged. Raises OSError."""
        sums = read_sums({name: file_sha256(self.folder / name) for name in (FILES_NAME, MANIFEST_NAME)})
        return sums == (self.folder / SUMS_NAME).read_bytes()

    @property
    def origin(self) -> Origin | None:
        """Where it was taken from; None if it was built here."""
        try:
            return Origin(**json.loads((self.folder / ORIGIN_NAME).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    @property
    def attestation(self) -> Path | None:
        """The file with what others attest of it, if there is one."""
        path = self.folder / ATTESTATION_NAME
        return path if path.is_file() else None

    def files(self) -> Mapping[str, Mapping[str, str]]:
        """Return the sha256 of every regular file, by tree and path. Raises StashError if the list is damaged."""
        try:
            listed = json.loads((self.folder / FILES_NAME).read_bytes())
            return {tree: dict(listed[tree]) for tree in self.objects}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StashError(
                f"{FILES_NAME} of artifact {self.id} is damaged: {error}", hint="build the cell again to repair it"
            ) from error


def sha256(data: bytes) -> str:
    """Return the digest of data."""
    return hashlib.sha256(data).hexdigest()


def read_sums(digests: Mapping[str, str]) -> bytes:
    """Return the content of a SUMS_NAME file with these digests."""
    return "".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()


def mentions(path: Path, text: str) -> bool:
    """Whether a manifest contains a text; cheaper than parsing it."""
    try:
        return text.encode() in path.read_bytes()
    except OSError:
        return False


def file_sha256(path: Path) -> str:
    """Return the digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
