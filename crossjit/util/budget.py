"""Bounds on what a container, an archive or a repository may hand to the host; going over one is the source's fault."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from crossjit.errors import CrossjitError, ProductError
from crossjit.util.text import size

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class BudgetError(ProductError):
    """A stream of the source's, or of something built from it, went over a bound."""


@dataclass(frozen=True)
class Budget:
    """Bounds in bytes, but for `members` and `depth`, which count a tree's files and folders, and nested folders.

    `line` is for one line and `log` for a whole log; `tree` for all of a tree, `names` for its paths together,
    `headers` for what stands before one member of it; `file` for files that are read into memory, `archive` for a
    download, `memory` for what a decompressor takes at most. Of a suite, `report` is for
    what one file may have that is read whole, `results` for all that it leaves on disk, `told` for the characters of
    all that its tests say, and `tests` counts these.
    """

    line: int = 64 << 10
    log: int = 200 << 20
    tree: int = 4 << 30
    members: int = 500_000
    depth: int = 256
    names: int = 64 << 20
    headers: int = 1 << 20
    file: int = 256 << 20
    archive: int = 1 << 30
    memory: int = 128 << 20
    report: int = 16 << 20
    results: int = 1 << 30
    tests: int = 200_000
    told: int = 64 << 20

    @property
    def stream(self) -> int:
        """Bytes of a tar stream: the files, and for each member a header, an extended one, and padding."""
        return self.tree + self.members * 2048


BUDGET = Budget()

# Percent of the engine's memory. What runs a source's code at one time (a build and a probe) never has more than nine
# tenths together; a suite and a debugger run alone.
BUILD_MEMORY, PROBE_MEMORY = 60, 20
SUITE_MEMORY = 75

# Bytes of the engine's disk that a container may have: what its commands write, and its own cache volume. CPython's
# largest build (3.15 with ASan) writes 0.9 GiB. A stranger's cache is bounded to 0.25 GiB, that of others to 4.8 GiB
# (`toolchain/cache_entries.py`), and theirs are shared. What is watched is ended some seconds late: a stranger's source
# never has more than 2 GiB with what it writes until then.
STRANGER_DISK, OWN_DISK, TARGET_DISK = 5 << 28, 16 << 30, 5 << 28
ANSWER = 8 << 20  # bytes kept of what a short command says; the rest is read and dropped


class LogCount:
    """Counts the bytes of a command's output as they come. `what` names the command."""

    def __init__(self, what: str, *, budget: Budget = BUDGET) -> None:
        self._what = what
        self._left = budget.log
        self._limit = budget.log

    def add(self, size: int) -> None:
        """Count some bytes. Raises BudgetError."""
        self._left -= size
        if self._left < 0:
            raise BudgetError(
                f"{self._what} wrote more than {self._limit:,} bytes",
                hint="crossjit stops a command that writes more; its source makes it write this",
            )


def disk_exceeded(what: str, limit: int) -> BudgetError:
    """Make the error of a command under which its container wrote more than `limit` bytes to disk."""
    return BudgetError(
        f"{what} and the processes beside it wrote more than {size(limit)} to disk",
        hint="crossjit stops a command that writes more; its source makes it write this",
    )


class BoundedReader(io.RawIOBase):
    """A stream of at most `limit` bytes: what goes on after them raises BudgetError. `what` names the stream."""

    def __init__(self, stream: BinaryIO, what: str, limit: int) -> None:
        super().__init__()
        self._stream = stream
        self._what = what
        self._left = self._limit = limit

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what fits into the buffer, or what there is left."""
        with memoryview(buffer) as view:
            data = self._stream.read(len(view))
            self._left -= len(data)
            if self._left < 0:
                raise BudgetError(f"{self._what} is longer than {self._limit:,} bytes")
            view[: len(data)] = data
        return len(data)


class TreeCount:
    """Counts a tree's members as they come, and the folders that they are in.

    `what` names the tree; `error` is what going over a bound raises, with `hint`.
    """

    def __init__(
        self,
        what: str,
        *,
        budget: Budget | None = None,
        error: type[CrossjitError] = BudgetError,
        hint: str = "",
    ) -> None:
        self.budget = budget or BUDGET
        self._what = what
        self._error = error
        self._hint = hint
        self._members = 0
        self._size = 0
        self._names = 0
        self._folders: set[str] = set()

    def add(self, name: str, size: int = 0) -> None:
        """Count one member, of `size` bytes, before it is read. Raises `error`."""
        if name.count("/") > self.budget.depth:
            raise self.over(f"folders nested more than {self.budget.depth} deep")
        self._size += max(size, 0)
        if self._size > self.budget.tree:
            raise self.over(f"more than {self.budget.tree:,} bytes")
        self._count(name)
        while (name := name.rpartition("/")[0]) and name not in self._folders:
            self._folders.add(name)
            self._count(name)

    def _count(self, name: str) -> None:
        self._members += 1
        self._names += len(name)
        if self._members > self.budget.members:
            raise self.over(f"more than {self.budget.members:,} files and folders")
        if self._names > self.budget.names:
            raise self.over(f"paths of more than {self.budget.names:,} characters")

    def over(self, bound: str) -> CrossjitError:
        """Make the error that says which bound was gone over."""
        return self._error(f"{self._what} has {bound}", hint=self._hint)
