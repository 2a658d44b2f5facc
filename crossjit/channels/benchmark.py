"""What `meter/launch.py` and `meter/machine_code.py` write about a benchmark's process. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Count, Names, Text, Word
from crossjit.config import documents

LONGEST = 100_000  # uops of a trace


@documents.table
class BenchmarkFacts:
    """A process that has run benchmarks.

    `names` are those of the script's benchmarks that ran, in order. `jit` says whether the JIT was on, None if the
    Python does not tell. `libraries` are those that it loaded in addition to CPython's own. `executors` are those with
    machine code at the end, `bytes` is the size of that. `timed` is what pyperf wrote, if it timed the benchmark.
    """

    names: Names
    jit: bool | None
    libraries: Names
    extension_modules: Names
    executors: Count
    bytes: Count
    timed: Text = ""


@documents.table
class ExecutorFacts:
    """An executor of the JIT with machine code: `size` bytes at `address`; `code` has them without zeros at the end.

    `place` tells where it is entered: the function and its line, and for a side exit from which executor.
    For each uop of its trace, in order, `names` has the plain name and `opcodes` the number of its variant. `jumps` are
    the indexes of those that others jump to.
    """

    place: Text
    address: Count
    size: Count
    code: Annotated[str, Field(pattern="^([0-9a-f]{2})*$")]
    names: Annotated[tuple[Word, ...], Field(max_length=LONGEST)]
    opcodes: Annotated[tuple[Count, ...], Field(max_length=LONGEST)]
    jumps: Annotated[tuple[Count, ...], Field(max_length=LONGEST)]
