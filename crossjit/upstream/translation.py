"""How upstream's configure lines and variables become ours: the file translation.toml."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from crossjit.config import documents

TRANSLATION = Path(__file__).with_name("translation.toml")


@documents.table
class Variables:
    """Variables that a program reads while it runs."""

    built: tuple[str, ...]
    """Of the build and of all that runs."""
    tested: tuple[str, ...]
    """Of the tests alone."""


@documents.table
class Translation:
    """The file translation.toml."""

    dropped: Mapping[str, str]
    """Arguments of configure that are left out, with what is there instead."""
    arguments: tuple[str, ...]
    """Variables that become arguments of configure."""
    environment: Variables
    """Variables that are passed on."""
    ignored: tuple[str, ...]
    """Options of `python -m test` that do not choose tests."""


@cache
def translation() -> Translation:
    """Return the file's content."""
    return documents.load(TRANSLATION, Translation)
