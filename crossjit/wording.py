"""How values are said in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Say how many of something there are: `1 test`, `7,610 tests`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
