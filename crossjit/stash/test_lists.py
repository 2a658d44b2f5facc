"""Test lists of artifacts, kept in the stash. A damaged file counts as no file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from dataclasses import asdict
from pathlib import Path

from crossjit.channels import MalformedError, TestList, read
from crossjit.stash.artifact import Artifact
from crossjit.stash.layout import Layout
from crossjit.util import files
from crossjit.util.budget import BUDGET


def find(stash: Path, artifact: Artifact) -> TestList | None:
    """Return an artifact's test list; None if there is none, or if it is damaged or belongs to another build."""
    try:
        seal, _, packed = _path(stash, artifact).read_bytes().partition(b"\n")
        if seal != _seal(artifact, packed):
            return None
        return read(TestList, zlib.decompress(packed).decode(), limit=BUDGET.log)
    except (OSError, MalformedError):
        return None


def keep(stash: Path, artifact: Artifact, tests: TestList) -> None:
    """Keep an artifact's test list. If the stash cannot be written, it is made again each time."""
    packed = zlib.compress(json.dumps(asdict(tests)).encode("ascii"))
    path = _path(stash, artifact)
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        files.replace(path, _seal(artifact, packed) + b"\n" + packed)


def _path(stash: Path, artifact: Artifact) -> Path:
    return Layout(stash).test_lists / artifact.key


def _seal(artifact: Artifact, packed: bytes) -> bytes:
    return hashlib.sha256(artifact.full_id.encode() + packed).hexdigest().encode()
