"""Bounds on what a container, an archive or a repository may hand to the host; going over one is the source's fault."""

from __future__ import annotations

from dataclasses import dataclass

from crossjit.errors import CrossjitError, ProductError


class BudgetError(ProductError):
    """A stream of the source's, or of something built from it, went over a bound."""


@dataclass(frozen=True)
class Budget:
    """Bytes of one line, of a whole log, of a tree's files together and of its headers; members and depth of a tree."""

    line: int = 64 << 10
    log: int = 200 << 20
    tree: int = 4 << 30
    members: int = 500_000
    depth: int = 256
    headers: int = 1 << 20


BUDGET = Budget()


class TreeCount:
    """Counts a tree's members as they come. `what` names the tree; `error` is what going over a bound raises."""

    def __init__(self, what: str, *, budget: Budget = BUDGET, error: type[CrossjitError] = BudgetError) -> None:
        self._what = what
        self._budget = budget
        self._error = error
        self._members = 0
        self._size = 0

    def add(self, name: str, size: int = 0) -> None:
        """Count one member, of `size` bytes, before it is read. Raises `error`."""
        self._members += 1
        self._size += size
        if self._members > self._budget.members:
            raise self._error(f"{self._what} has more than {self._budget.members:,} files and folders")
        if self._size > self._budget.tree:
            raise self._error(f"{self._what} has more than {self._budget.tree:,} bytes")
        if name.count("/") > self._budget.depth:
            raise self._error(f"{self._what} has folders nested more than {self._budget.depth} deep")
