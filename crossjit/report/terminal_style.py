"""The abilities of a terminal: width, colour, signs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

PLAIN_WIDTH = 100


@dataclass(frozen=True)
class TerminalStyle:
    """The abilities of a stream: `live` is a terminal, where lines can be redrawn; `width` in columns."""

    live: bool = False
    color: bool = False
    unicode: bool = False
    width: int = PLAIN_WIDTH

    def mark(self, good: bool | None) -> str:
        """Return the sign before a finished line: good, bad, or neither (None)."""
        signs = ("✓", "✗", "•") if self.unicode else ("ok", "failed", "-")
        return signs[2 if good is None else 0 if good else 1]


def style_of(stream: TextIO, environ: Mapping[str, str] = os.environ) -> TerminalStyle:
    """Return a stream's abilities. `NO_COLOR` (https://no-color.org) and `TERM=dumb` are respected."""
    terminal = stream.isatty() and environ.get("TERM") != "dumb"
    return TerminalStyle(
        live=terminal,
        color=terminal and not environ.get("NO_COLOR"),
        unicode=_encodes("✓✗•━", stream),
        width=max(20, columns(stream)) if terminal else PLAIN_WIDTH,
    )


def columns(stream: TextIO) -> int:
    """Return a terminal's current width."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or PLAIN_WIDTH
    except OSError:
        return PLAIN_WIDTH


def _encodes(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
