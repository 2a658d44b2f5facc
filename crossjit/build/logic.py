"""Digests of the crossjit code that affects a build's output: a fix there must not reuse earlier builds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import crossjit

SCRIPTS = crossjit.PROJECT / "toolchain"
KINDS = (".c", ".py", ".sh", ".toml")
# The modules that fill containers and pack their results; the build's commands do not reflect them.
MODULES = (
    *sorted((crossjit.PACKAGE / "build").glob("*.py")),
    crossjit.PACKAGE / "stash/packing.py",
    crossjit.PACKAGE / "stash/tree.py",
    crossjit.PACKAGE / "util/tar.py",
    crossjit.PACKAGE / "util/tar_zst.py",
)


def scripts(folder: Path = SCRIPTS) -> tuple[Path, ...]:
    """List the files that run in toolchain containers, or decide what runs there."""
    return tuple(sorted(path for path in folder.iterdir() if path.suffix in KINDS))


@functools.cache
def scripts_digest() -> str:
    """Return the digest of the scripts, which is part of the caches' keys."""
    return digest(scripts())


@functools.cache
def whole_digest() -> str:
    """Return the digest of the scripts and the modules that use them, which is part of build keys."""
    return digest((*scripts(), *MODULES))


def digest(paths: Iterable[Path]) -> str:
    """Return the digest of files' names and contents: 64 hex digits."""
    lines = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
