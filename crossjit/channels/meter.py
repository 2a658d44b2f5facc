"""The lines of the meter's plugin (`meter/count.c`): one for each marker. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Count, Word, read
from crossjit.config import documents
from crossjit.util.budget import BUDGET

Counts = Annotated[dict[Word, Count], Field(max_length=2_000)]
Sizes = Annotated[str, Field(pattern="^[1-9a-f]+$", max_length=4_096)]
Block = tuple[Count, Sizes, Count, Count]
JitMapping = tuple[Count, Count, Count]


class Op(StrEnum):
    """The kind of a marker: set by the program, or by the plugin at the process's start and exit."""

    START = "start"
    MARK = "mark"
    BEGIN = "begin"
    END = "end"
    LAST = "last"
    EXIT = "exit"


@documents.table
class JitMemory:
    """What a process did with memory for JIT code: how often it was made executable, its bytes, how often freed."""

    maps: Count = 0
    bytes: Count = 0
    frees: Count = 0


@documents.table
class Mark:
    """The sums of a process at a marker, from its beginning and over all its threads.

    `thread` is the number of the one that set the marker. `counts`, `loads` and `stores` are by class of code, where
    `threads` has the same as `counts` for each thread. `execs` is how many programs the process and its children
    started, which the meter does not count. `blocks` are those of JIT code that ran since the mark before: address, a
    hexadecimal digit for the size of each instruction, the number of the mapping that it was in, executions. `mappings`
    are those that are there now: begin, end, number.
    """

    pid: Count
    thread: Count
    op: Op
    label: Count
    counts: Counts
    jit: JitMemory
    execs: Count
    loads: Counts = Field(default_factory=dict)
    stores: Counts = Field(default_factory=dict)
    threads: Annotated[tuple[Counts, ...], Field(max_length=10_000)] = ()
    functions: Annotated[dict[Word, Count], Field(max_length=200_000)] = Field(default_factory=dict)
    blocks: Annotated[tuple[Block, ...], Field(max_length=1_000_000)] = ()
    mappings: Annotated[tuple[JitMapping, ...], Field(max_length=1_000_000)] = ()


def read_mark(line: str) -> Mark:
    """Parse a line of the plugin's output. Raises MalformedError."""
    return read(Mark, line, limit=BUDGET.report)
