"""Reports of the build caches (`toolchain/build_cache.py`). Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Count, Name, read
from crossjit.config import documents


@documents.table
class Counts:
    """A cache's hits and misses."""

    hit: Count
    miss: Count


CacheReport = Annotated[dict[Name, Counts], Field(max_length=50)]


@documents.table
class Part:
    """One cache: its size, the number of its files, and its size limit."""

    bytes: Count
    files: Count
    limit: Count | None = None


CacheSizes = Annotated[dict[Name, Part], Field(max_length=50)]


def cache_report(line: str) -> dict[str, tuple[int, int]]:
    """Parse hits and misses by the cache's name, without unused caches. Raises MalformedError."""
    counts: dict[str, Counts] = read(CacheReport, line)
    return {name: (count.hit, count.miss) for name, count in counts.items() if count.hit + count.miss}


def cache_sizes(line: str) -> dict[str, Part]:
    """Parse the caches' sizes by name. Raises MalformedError."""
    return read(CacheSizes, line)
