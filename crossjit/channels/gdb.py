"""What gdb's report says (`gdb/session.py`). Pure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from crossjit.channels.reading import Count, Line, Offset, Word, read
from crossjit.config import documents
from crossjit.util.budget import BUDGET


@documents.table
class Uop:
    """Where in an executor's machine code the program was.

    `level` is the number of the native frame that was in it: 0 if the pc itself was. `number` counts the executor's
    uops, from 0 to `uops` - 1, and is None behind them; `offset` is in bytes from the uop's beginning, or from the
    code's, at address `code`, which has `size` bytes. `function` was compiled: its name and place.
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
    """Where a program stopped. `signal` is None if none stopped it; `interrupted` says that its time was over.

    `place` says what the pc is in, in words: `JIT code`, `the program`, a library's path.
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
    """It came to its end."""

    event: Literal["exit"]
    code: Offset | None


@documents.table
class Section:
    """One thing to look at."""

    event: Literal["section"]
    title: Word
    text: Annotated[str, Field(max_length=BUDGET.report)]


@documents.table
class Whole:
    """Nothing is missing."""

    event: Literal["done"]


_Event = Annotated[Begun | Stop | Exit | Section | Whole, Field(discriminator="event")]


def read_line(line: str) -> Begun | Stop | Exit | Section | Whole:
    """Read a line of the report. Raises MalformedError."""
    return read(_Event, line, limit=BUDGET.report)  # type: ignore[arg-type]
