"""What the runner says of a suite (`validate/runner.py`), and what a script of ours says of its checks. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from crossjit.channels.reading import Count, Identity, Line, Name, Seconds, Signal, Table, Text, Word, read
from crossjit.config import documents
from crossjit.model import ModuleRun


@documents.table
class Job:
    """A module or script that the runner was told to run; `label` is its group's."""

    id: Identity
    kind: Literal["module", "script"] = "module"
    name: Word = ""
    label: Word = ""

    @property
    def short(self) -> str:
        """Its name as people know it: regrtest's of a module, a script's without folder and suffix."""
        return Path(self.name).stem if self.kind == "script" else self.name

    @property
    def key(self) -> str:
        """The name with the label: `test_dict [stress]`."""
        return f"{self.short} [{self.label}]" if self.label else self.short

    @property
    def test(self) -> str:
        """The full name that its tests' names begin with."""
        return self.short if self.kind == "script" else f"test.{self.short}"

    def __str__(self) -> str:
        name = self.name.rpartition("/")[2]
        return f"{name} ({self.label})" if self.label else name


@documents.table
class MissingRequirement:
    """An item of the order that names no module of this Python."""

    name: Word
    label: Word = ""
    optional: bool = False


@documents.table
class Plan:
    """What the runner is about to run, or a part of that."""

    event: Literal["plan"]
    modules: Annotated[tuple[Job, ...], Field(max_length=10_000)]
    missing: Annotated[tuple[MissingRequirement, ...], Field(max_length=10_000)]


@documents.table
class Start(Job):
    """A job starts."""

    event: Literal["start"] = "start"


@documents.table
class NotStarted(Job):
    """A job could not be started."""

    event: Literal["not started"] = "not started"
    reason: Line = ""


@documents.table
class ModuleExit(Job):
    """A job ended. Files are named as in its own folder.

    `timed_out` says that its time was over, `suite_timed_out` that this was what the suite had left. `memory_kills`
    counts what the kernel killed in the container meanwhile. `command` and `env`, what was set for it, are not known of
    runs that were recorded before they were told.
    """

    status: Annotated[int, Field(ge=-255, le=255)] = 0
    signal: Signal | None = None
    timed_out: bool = False
    memory_kills: Count = 0
    seconds: Seconds = 0.0
    junit: Name | None = None
    checks: Name | None = None
    log: Name = ""
    tail: Text = ""
    command: Annotated[tuple[Text, ...], Field(max_length=5_000)] = ()
    env: Table = field(default_factory=dict)
    suite_timed_out: bool = False
    event: Literal["end"] = "end"

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ModuleExit:
        if (self.status < 0) is not (self.signal is not None):
            raise ValueError("status and signal contradict each other")
        return self

    @classmethod
    def read(cls, event: Mapping[str, Any]) -> ModuleExit:
        """Make one of the runner's `end` event. Raises MalformedError."""
        return read(cls, json.dumps(event))

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.suite_timed_out:
            return "killed at the suite's time limit"
        if self.timed_out:
            return "killed after its time limit"
        return f"killed by {self.signal}" if self.signal else f"exit status {self.status}"

    @property
    def was_killed(self) -> bool:
        """Whether it did not come to its own end."""
        return self.timed_out or self.signal is not None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it left."""
        return tuple(name for name in (self.log, self.junit, self.checks) if name)

    @property
    def has_own_names(self) -> bool:
        """Whether its files are named by its id: all modules' files are kept in one folder."""
        own = (f"{self.id}.log", f"{self.id}.xml", f"{self.id}.jsonl")
        return self.log == own[0] and self.junit in (None, own[1]) and self.checks in (None, own[2])

    @property
    def module_run(self) -> ModuleRun:
        """What is kept of it beside the tests' outcomes."""
        return ModuleRun(self.short, self.label, self.seconds, self.how, self.log)


@documents.table
class Done:
    """All jobs were dealt with."""

    event: Literal["done"]


Event = Annotated[Plan | Start | ModuleExit | NotStarted | Done, Field(discriminator="event")]


def read_event(line: str) -> Plan | Start | ModuleExit | NotStarted | Done:
    """Read a line of the runner's. Raises MalformedError."""
    return read(Event, line)  # type: ignore[arg-type]


@documents.table
class Check:
    """A check that starts, or how it ended."""

    check: Word
    outcome: Literal["started", "passed", "failed", "error", "skipped"]
    seconds: Seconds = 0.0
    message: Text = ""
