"""What crossjit itself has to do with a build's output: a fix of ours must not find what was built before it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

import crossjit

SCRIPTS = crossjit.PROJECT / "toolchain"
KINDS = (".c", ".py", ".sh", ".toml")
# What fills containers, and takes out what they leave; what they decide is in no command.
MODULES = (
    *sorted((crossjit.PACKAGE / "build").glob("*.py")),
    crossjit.PACKAGE / "stash/packing.py",
    crossjit.PACKAGE / "stash/tree.py",
    crossjit.PACKAGE / "util/tar.py",
    crossjit.PACKAGE / "util/tar_zst.py",
)


def scripts(folder: Path = SCRIPTS) -> tuple[Path, ...]:
    """List what is run in toolchain containers, or decides what is."""
    return tuple(sorted(path for path in folder.iterdir() if path.suffix in KINDS))


@functools.cache
def scripts_digest() -> str:
    """Return the digest that the caches' keys hold: that of what fills them."""
    return digest(scripts())


@functools.cache
def whole_digest() -> str:
    """Return the digest that a build key holds: that of the scripts and of the modules that use them."""
    return digest((*scripts(), *MODULES))


def digest(paths: Iterable[Path]) -> str:
    """Return the digest of files' names and contents: 64 hex digits."""
    lines = (f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
