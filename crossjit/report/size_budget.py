"""Limits on each kind of content of a page, so that it does not become too large to open."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from crossjit.util.text import printable

T = TypeVar("T")

NAME = 300  # characters of a test's name
LINE = 400  # characters of a summary line
OUTPUT = 4000  # characters of one test's output


class SizeBudget:
    """The remaining bytes of the page for one kind of content."""

    def __init__(self, size: int, overhead: int = 60) -> None:
        self.left = size
        self.overhead = overhead  # bytes of markup around each item

    def holds(self, *texts: str, markup: int = 0) -> bool:
        """Subtract the size of escaped texts; False, without subtracting, if they do not fit.

        `markup` are bytes in addition to the overhead.
        """
        size = self.overhead + markup + sum(len(html.escape(printable(text)).encode()) for text in texts)
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Truncated(Generic[T]):
    """The items that fit, and the number of others."""

    items: tuple[T, ...]
    more: int = 0


def some(items: Iterable[T], room: SizeBudget, text: Callable[[T], str]) -> Truncated[T]:
    """Return the items whose `text` fits into the budget."""
    all_items = list(items)
    for number, item in enumerate(all_items):
        if not room.holds(text(item)):
            return Truncated(tuple(all_items[:number]), len(all_items) - number)
    return Truncated(tuple(all_items))
