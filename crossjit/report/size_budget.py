"""How much of a page each kind of content may take, so that no run makes one that nobody can open."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from crossjit.util.text import printable

T = TypeVar("T")

NAME = 300  # characters of a test's name
LINE = 400  # characters of a line that sums something up
OUTPUT = 4000  # characters of one test's output


class SizeBudget:
    """A number of bytes of the page that content of one kind may take."""

    def __init__(self, size: int, overhead: int = 60) -> None:
        self.left = size
        self.overhead = overhead  # bytes of markup around each

    def holds(self, *texts: str, markup: int = 0) -> bool:
        """Take the texts' room, as they are when escaped; False, and nothing is taken, where they do not fit.

        `markup` is what these need beside that of all.
        """
        size = self.overhead + markup + sum(len(html.escape(printable(text)).encode()) for text in texts)
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True)
class Truncated(Generic[T]):
    """As many of something as there was room for, and how many more there are."""

    items: tuple[T, ...]
    more: int = 0


def some(items: Iterable[T], room: SizeBudget, text: Callable[[T], str]) -> Truncated[T]:
    """Take items as long as there is room for what `text` makes of them."""
    everything = list(items)
    for number, item in enumerate(everything):
        if not room.holds(text(item)):
            return Truncated(tuple(everything[:number]), len(everything) - number)
    return Truncated(tuple(everything))
