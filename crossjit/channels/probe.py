"""The facts of the probe (`validate/probe.py`), and their form in a manifest. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from crossjit.channels.reading import (
    Count,
    Line,
    Lines,
    MalformedError,
    Names,
    Offset,
    Seconds,
    Table,
    Text,
    Word,
    read,
)
from crossjit.config import documents
from crossjit.util.budget import BUDGET


@documents.table
class Executable:
    """The header of the interpreter's file."""

    machine: Word | None = None
    path: Line = ""
    bits: Count = 0
    order: Word = ""


@documents.table
class Version:
    """Python's version."""

    text: Line
    hex: Word
    info: Annotated[tuple[Count | Word, ...], Field(max_length=10)]


@documents.table
class Gil:
    """Whether there is a GIL, and whether it is on."""

    disabled_in_build: bool
    enabled: bool


@documents.table
class JitSwitches:
    """The facts of `sys._jit`."""

    available: bool
    enabled: bool


@documents.table
class Executor:
    """An executor; `bytes` is the size of its machine code."""

    function: Line
    offset: Count
    kind: Literal["machine code", "uops"]
    bytes: Count | None = None


@documents.table
class Workload:
    """The result of a workload."""

    name: Word
    correct: bool
    executors: Annotated[tuple[Executor, ...], Field(max_length=1_000)] = ()
    unavailable: Line | None = None
    seconds: Seconds = 0.0


@documents.table
class ExecutableMemory:
    """The process's executable memory that is not mapped from a file."""

    regions: Count = 0
    bytes: Count = 0
    machine_code_in_it: Count | None = None


@documents.table
class Modules:
    """The optional extension modules."""

    imported: Names = ()
    failed: Table = field(default_factory=dict)
    absent: Table = field(default_factory=dict)


@documents.table
class Told:
    """Facts that only the host knows, passed to the probe."""

    emulated: bool = False
    cpu: Word | None = None


@documents.table
class ProbeFacts:
    """All facts of the probe; None for unknown ones, with the reason in `errors`."""

    told: Told | None = None
    executable: Executable | None = None
    machine: Word | None = None
    version: Version | None = None
    implementation: Word | None = None
    configure: Text | None = None
    debug: bool | None = None
    compiler: Line | None = None
    libc: Line | None = None
    flags: Annotated[dict[Word, bool | Offset | Word | None], Field(max_length=200)] | None = None
    environment: Table | None = None
    gil: Gil | None = None
    jit: JitSwitches | None = None
    workloads: Annotated[tuple[Workload, ...], Field(max_length=100)] | None = None
    steps_active: Count | None = None
    executable_memory: ExecutableMemory | None = None
    modules: Modules | None = None
    gil_after_imports: Gil | None = None
    errors: Table = field(default_factory=dict)


@documents.table
class ProbeRecord(ProbeFacts):
    """The probe in a manifest: its facts, or why there are none.

    `crashed` says how it ended, `unfinished` that a limit of ours ended it; `output` is the end of its output.
    """

    crashed: Text | None = None
    unfinished: Text | None = None
    output: Lines = ()


def probe_record(recorded: Mapping[str, object]) -> ProbeRecord:
    """Parse a manifest's probe, written by any version. Raises MalformedError."""
    try:
        text = json.dumps(recorded)
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedError(str(error)) from error
    return read(ProbeRecord, text, limit=BUDGET.log, lenient=True)
