"""gdb's report (`gdb/session.py`). Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crossjit.channels.reading import Count, Line, Offset, Word, read
from crossjit.config import documents
from crossjit.util.budget import BUDGET


@documents.table
class Uop:
    """The position in an executor's machine code.

    `level` is the number of the native frame in that code: 0 if the pc is in it. `number` is that of the uop, from 0 to
    `uops` - 1, and None after the last one; `offset` is in bytes from the uop's start, or from the start of the code at
    address `code`, which has `size` bytes. `function` is the compiled function: its name and place.
    """

    address: Word
    code: Word
    size: Count
    function: Line
    uops: Count
    uop: Word
    number: Count | None
    offset: Offset
    level: Count


@documents.table
class Stop:
    """Where a program stopped. `signal` is None if no signal stopped it; `interrupted` says that its time was over.

    `place` is what the pc is in: `JIT code`, `the program`, or a library's path.
    """

    signal: Word | None
    interrupted: bool
    pc: Word
    place: Line
    instruction: Line = ""
    function: Line = ""
    source: Line = ""
    executor: Uop | None = None
    event: Literal["stop"] = "stop"


@documents.table
class Begun:
    """A program was started."""

    event: Literal["start"]
    about: Line
    number: Count = 0


@documents.table
class Exit:
    """The program ended."""

    event: Literal["exit"]
    code: Offset | None


@documents.table
class Section:
    """A section of the report."""

    event: Literal["section"]
    title: Word
    text: Annotated[str, Field(max_length=BUDGET.report)]


@documents.table
class Whole:
    """The report is complete."""

    event: Literal["done"]


_Event = Annotated[Begun | Stop | Exit | Section | Whole, Field(discriminator="event")]


def read_line(line: str) -> Begun | Stop | Exit | Section | Whole:
    """Parse a line of the report. Raises MalformedError."""
    return read(_Event, line, limit=BUDGET.report)  # type: ignore[arg-type]
