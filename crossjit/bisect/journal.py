"""What a bisection searches for, and what it found out so far: a file in the run's record, from which it can go on.

runs/<id>/bisect.jsonl   the plan, then a line for each judged commit; each is on disk before the next step starts
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crossjit.bisect.failure import Symptom, distinct
from crossjit.bisect.search import Judgement
from crossjit.errors import UserError
from crossjit.runs.model import run_errors, to_json
from crossjit.triage.user_script import Script
from crossjit.util import files
from crossjit.validation.failure import Failure

FILE = "bisect.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is searched for: a change between two commits of a repository, for one cell.

    `good` and `bad` are commit ids, `good_ref` and `bad_ref` what the user called them; `good` is empty until it was
    looked for. `recipe` is empty if it depends on each commit's version. The test is a `script`, `tests` of `suites`
    (of the variant's, if empty), or if there are none, the build itself. `env` are variables for the test, `error` is
    the accepted probability that a flaky failure makes the answer wrong. With `find_fix`, the bad commit is the
    older one.

    With `benchmark`, a commit is bad if this needs over `slower` percent more instructions than at the good one, in its
    warm call.
    """

    repo: str
    bad: str
    bad_ref: str
    arch: str
    variant: str
    good: str = ""
    good_ref: str = ""
    recipe: str = ""
    script: Script | None = None
    tests: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    error: float = 0.01
    find_fix: bool = False
    benchmark: str = ""
    slower: float = 1.0

    @property
    def crash(self) -> bool:
        """Whether the build itself is the test."""
        return self.script is None and not self.tests and not self.benchmark

    @property
    def once(self) -> bool:
        """Whether one run of the test is enough: builds and counts are the same each time."""
        return self.crash or bool(self.benchmark)

    @property
    def what(self) -> str:
        """The test in words."""
        if self.benchmark:
            return f"the benchmark {self.benchmark}"
        if self.script is not None:
            return " ".join((self.script.name, *self.script.arguments))
        return ", ".join(self.tests) or "the build and its probe"

    @property
    def old_fails(self) -> bool:
        """Whether the older commits are the failing ones."""
        return self.find_fix


@dataclass(frozen=True)
class Entry:
    """A judged commit.

    `runs` are the failures of each run of the test, none if it passed. `why` is the reason if the commit was skipped.
    `seconds` are wall seconds by phase: source, toolchain, build, test.
    """

    commit: str
    judgement: Judgement
    why: str = ""
    runs: tuple[tuple[Failure, ...], ...] = ()
    artifact: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """All failures that were seen, each once."""
        return distinct(failure for run in self.runs for failure in run)

    def failed(self, symptom: Symptom) -> int:
        """Return the number of runs that had the symptom."""
        return sum(any(symptom.has(failure) for failure in run) for run in self.runs)


class Journal:
    """The file of a bisection in a run's folder."""

    def __init__(self, folder: Path, plan: Plan, entries: tuple[Entry, ...] = ()) -> None:
        self.plan = plan
        self._path = folder / FILE
        self._entries = {entry.commit: entry for entry in entries}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The judged commits, by their id, in the order in which they were judged."""
        return self._entries

    @classmethod
    def start(cls, folder: Path, plan: Plan, entries: tuple[Entry, ...] = ()) -> Journal:
        """Write a new file, with what is known already. Raises InfrastructureError."""
        lines = [_to_line(_plan_type(), plan), *(_to_line(_entry_type(), entry) for entry in entries)]
        with run_errors(folder):
            files.replace(folder / FILE, b"".join(lines))
        return cls(folder, plan, entries)

    def add(self, entry: Entry) -> None:
        """Add a judgement; it is on disk when this returns. Raises InfrastructureError."""
        with run_errors(self._path.parent), self._path.open("ab") as file:
            file.write(_to_line(_entry_type(), entry))
            files.sync_file(file)
        self._entries[entry.commit] = entry


def has_journal(folder: Path) -> bool:
    """Whether a run's folder is that of a bisection."""
    return (folder / FILE).is_file()


def load(folder: Path) -> tuple[Plan, tuple[Entry, ...]]:
    """Read a run's file, up to a line that was not written to its end. Raises UserError if there is no valid plan."""
    try:
        first, *lines = (folder / FILE).read_bytes().splitlines()
        document = json.loads(first)
        if document["script"]:
            document["script"]["content"] = document["script"]["content"].encode("latin-1")
        plan = _plan_type().validate_python(document)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"run {folder.name} is not a bisection that can be resumed", hint="give its options again"
        ) from error
    entries: list[Entry] = []
    for line in lines:
        try:
            entries.append(_entry_type().validate_json(line))
        except ValidationError:
            break
    return plan, tuple(entries)


def _to_line(kind: TypeAdapter[Plan] | TypeAdapter[Entry], value: Plan | Entry) -> bytes:
    document = kind.dump_python(value)  # type: ignore[arg-type]
    if script := document.get("script"):
        script["content"] = script["content"].decode("latin-1")  # JSON has no bytes
    return to_json(document, indent=None)


@cache
def _plan_type() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)


@cache
def _entry_type() -> TypeAdapter[Entry]:
    return TypeAdapter(Entry)
