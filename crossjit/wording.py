"""How values are said in sentences."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Say how many of something there are: `1 test`, `7,610 tests`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(count: int) -> str:
    """Say a number of bytes for a person: `512 B`, `1.5 KiB`, `118 MiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1023.5:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
