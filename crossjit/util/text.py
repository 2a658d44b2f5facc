"""Text for people: counts, sizes, durations, lists, and escapes of unsafe characters."""

from __future__ import annotations

import re
from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Format a time for people: `0.4s`, `45s`, `4m 19s`, `1h 02m`."""
    if seconds < 9.95:
        return f"{max(seconds, 0.0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}h {minutes % 60:02d}m"


_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

# Characters that XML 1.0 does not allow (https://www.w3.org/TR/xml/#charsets), and those that change text direction.
NO_TEXT = re.compile("[^\t\n\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    r"""Return text that is safe in HTML, XML and a terminal: other characters as escapes such as `\x1b`, no colours."""
    return NO_TEXT.sub(_escape, _COLOURS.sub("", text).replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return printable text on one line."""
    return " ".join(printable(text).split())


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def shortened(text: str, limit: int) -> str:
    """Cut the middle out of a text longer than `limit`."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def join_words(words: Sequence[str]) -> str:
    """Join words for a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def pluralize(number: int, noun: str) -> str:
    """Format a count: `1 test`, `7,610 tests`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(count: int) -> str:
    """Format a number of bytes: `512 B`, `1.5 KiB`, `118 MiB`."""
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1023.5:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 9.95 else f"{amount:.1f} {unit}"
