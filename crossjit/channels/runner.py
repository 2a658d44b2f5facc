"""The events of the runner (`validate/runner.py`), and the checks of our scripts. Pure."""

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
    """A module or script in the runner's input; `label` is its group's."""

    id: Identity
    kind: Literal["module", "script"] = "module"
    name: Word = ""
    label: Word = ""

    @property
    def short(self) -> str:
        """Its short name: regrtest's name of a module, a script's stem."""
        return Path(self.name).stem if self.kind == "script" else self.name

    @property
    def key(self) -> str:
        """The name with the label: `test_dict [stress]`."""
        return f"{self.short} [{self.label}]" if self.label else self.short

    @property
    def test(self) -> str:
        """The full name, with which its tests' names start."""
        return self.short if self.kind == "script" else f"test.{self.short}"

    def __str__(self) -> str:
        name = self.name.rpartition("/")[2]
        return f"{name} ({self.label})" if self.label else name


@documents.table
class MissingRequirement:
    """An item of the order without a module in this Python."""

    name: Word
    label: Word = ""
    optional: bool = False


@documents.table
class Plan:
    """The jobs that the runner is about to run, or a part of them."""

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
    """A job ended. Files have their names in its own folder.

    `timed_out` says that it reached its time limit, `suite_timed_out` that this was the suite's remaining time.
    `memory_kills` counts the kernel's kills in the container meanwhile. `command` and `env`, the variables set for it,
    are empty in old records.
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
        """Parse the runner's `end` event. Raises MalformedError."""
        return read(cls, json.dumps(event))

    @property
    def how(self) -> str:
        """How it ended, as text."""
        if self.suite_timed_out:
            return "killed at the suite's time limit"
        if self.timed_out:
            return "killed after its time limit"
        return f"killed by {self.signal}" if self.signal else f"exit status {self.status}"

    @property
    def was_killed(self) -> bool:
        """Whether a signal or a time limit ended it."""
        return self.timed_out or self.signal is not None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it wrote."""
        return tuple(name for name in (self.log, self.junit, self.checks) if name)

    @property
    def has_own_names(self) -> bool:
        """Whether its files are named by its id: all modules' files are stored in one folder."""
        own = (f"{self.id}.log", f"{self.id}.xml", f"{self.id}.jsonl")
        return self.log == own[0] and self.junit in (None, own[1]) and self.checks in (None, own[2])

    @property
    def module_run(self) -> ModuleRun:
        """Its part of the suite's result, without the tests' outcomes."""
        return ModuleRun(self.short, self.label, self.seconds, self.how, self.log)


@documents.table
class Done:
    """All jobs are finished."""

    event: Literal["done"]


Event = Annotated[Plan | Start | ModuleExit | NotStarted | Done, Field(discriminator="event")]


def read_event(line: str) -> Plan | Start | ModuleExit | NotStarted | Done:
    """Parse a line of the runner. Raises MalformedError."""
    return read(Event, line)  # type: ignore[arg-type]


@documents.table
class Check:
    """A check that starts, or how it ended."""

    check: Word
    outcome: Literal["started", "passed", "failed", "error", "skipped"]
    seconds: Seconds = 0.0
    message: Text = ""
