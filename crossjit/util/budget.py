"""Limits on the data that the host accepts from containers, archives and repositories."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from crossjit.errors import CrossjitError, ProductError
from crossjit.util.text import size

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class BudgetError(ProductError):
    """The source, or a program built from it, exceeded a limit."""


@dataclass(frozen=True)
class Budget:
    """Limits, in bytes unless noted.

    `line` is for one line, `log` for a whole log. Of a tree, `tree` is for the total size, `members` for the number of
    files and folders, `depth` for nested folders, `names` for the characters of all paths, `headers` for the tar
    headers of one member. `file` is for a file read into memory, `archive` for a download, `memory` for a
    decompressor's memory. Of a suite, `report` is for a file that is read whole, `results` for all its files on disk,
    `tests` for the number of tests, `messages` for the characters of their messages, and for the runner's own output.
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
    messages: int = 64 << 20

    @property
    def stream(self) -> int:
        """Bytes of a tar stream: the files, and a header, an extended header and padding for each member."""
        return self.tree + self.members * 2048


BUDGET = Budget()

# Percent of the engine's memory. A build and a probe can run at the same time: together they get at most 90. A suite
# and a debugger run alone.
BUILD_MEMORY, PROBE_MEMORY = 60, 20
SUITE_MEMORY = 75

# Bytes of the engine's disk that a container may use, with its own cache volume. CPython's largest build (3.15 with
# ASan) writes 0.9 GiB. A stranger's cache is limited to 0.25 GiB, the shared one of other sources to 4.8 GiB
# (`toolchain/cache_entries.py`). A container over its limit is killed some seconds late: with what it writes until
# then, a stranger's source uses at most 2 GiB.
STRANGER_DISK = 5 << 28
OWN_DISK = 16 << 30
TARGET_DISK = 5 << 28
ANSWER = 8 << 20  # bytes kept of a short command's output; the rest is read and dropped


class LogCount:
    """Counts the bytes of a command's output as they arrive. `what` names the command."""

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
    """Make the error for a command whose container wrote more than `limit` bytes to disk."""
    return BudgetError(
        f"{what} and the processes beside it wrote more than {size(limit)} to disk",
        hint="crossjit stops a command that writes more; its source makes it write this",
    )


class BoundedReader(io.RawIOBase):
    """A stream of at most `limit` bytes; reading more raises BudgetError. `what` names the stream."""

    def __init__(self, stream: BinaryIO, what: str, limit: int) -> None:
        super().__init__()
        self._stream = stream
        self._what = what
        self._left = self._limit = limit

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read into the buffer. Raises BudgetError."""
        with memoryview(buffer) as view:
            data = self._stream.read(len(view))
            self._left -= len(data)
            if self._left < 0:
                raise BudgetError(f"{self._what} is longer than {self._limit:,} bytes")
            view[: len(data)] = data
        return len(data)


class TreeCount:
    """Counts a tree's members as they arrive, and the folders that they are in.

    `what` names the tree. Exceeding a limit raises `error` with `hint`.
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
        """Make the error that says which limit was exceeded."""
        return self._error(f"{self._what} has {bound}", hint=self._hint)
