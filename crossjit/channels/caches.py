"""What the caches of builds say of themselves (`toolchain/build_cache.py`). Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Count, Name, read
from crossjit.config import documents


@documents.table
class Counts:
    """How often a cache had an answer, and how often not."""

    hit: Count
    miss: Count


CacheReport = Annotated[dict[Name, Counts], Field(max_length=50)]


@documents.table
class Part:
    """One cache: its size, its files, and what it may hold at most."""

    bytes: Count
    files: Count
    limit: Count | None = None


CacheSizes = Annotated[dict[Name, Part], Field(max_length=50)]


def cache_report(line: str) -> dict[str, tuple[int, int]]:
    """Read hits and misses by the cache's name; what was never asked is left out. Raises MalformedError."""
    found: dict[str, Counts] = read(CacheReport, line)
    return {name: (each.hit, each.miss) for name, each in found.items() if each.hit + each.miss}


def cache_sizes(line: str) -> dict[str, Part]:
    """Read what is in the caches, by name. Raises MalformedError."""
    return read(CacheSizes, line)
