"""Known failures: tests that fail for a reason that is not the build's, each with that reason and its conditions."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated

import pydantic

import crossjit
from crossjit.config import documents
from crossjit.config.conditions import TargetEnvironment, When, capability_names
from crossjit.errors import DocumentError
from crossjit.model import Outcome, TestResult


def literal_head(pattern: str) -> str:
    """Return what a name that matches begins with: all before the first wildcard."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def may_begin(pattern: str, beginning: str) -> bool:
    """Tell whether a name with this beginning can match a pattern; in doubt, yes."""
    head = literal_head(pattern)
    return head.startswith(beginning) or (head != pattern and beginning.startswith(head))


class FailureKind(StrEnum):
    """How a known failure shows."""

    FAIL = "fail"
    ERROR = "error"
    CRASH = "crash"
    HANG = "hang"

    @property
    def outcome(self) -> Outcome:
        """The outcome that it is."""
        return {
            FailureKind.FAIL: Outcome.FAILED,
            FailureKind.ERROR: Outcome.ERROR,
            FailureKind.CRASH: Outcome.CRASHED,
            FailureKind.HANG: Outcome.TIMED_OUT,
        }[self]


@documents.table
class KnownFailure:
    """Tests that are known to fail, for a reason that is not the build's."""

    test: Annotated[str, pydantic.Field(min_length=1)]
    """A pattern of full names: `test.test_os.test_posix.PosixTester.test_x`."""
    kind: FailureKind
    """How they fail; failing otherwise is a finding. A test that fails in several ways has several entries."""
    reason: Annotated[str, pydantic.Field(min_length=20)]
    """Why they cannot work, in words."""
    link: str = ""
    """Where that is told: an issue of CPython or QEMU."""
    run: bool = True
    """False for what would hang, or take its module or the target with it: it is left out, and counted as skipped."""
    when: When = field(default_factory=When)
    """Where they fail."""

    def matches(self, name: str) -> bool:
        """Tell whether a test's full name is meant (without a group's label)."""
        plain = name.partition(" [")[0]
        # most names are another module's, and of tens of thousands each meets every entry
        return plain.startswith(self._head) and fnmatch.fnmatchcase(plain, self.test)

    @cached_property
    def _head(self) -> str:
        return literal_head(self.test)

    def describes(self, result: TestResult) -> bool:
        """Tell whether a test went wrong, and in the way that is listed."""
        return result.outcome is self.kind.outcome and self.matches(result.name)


@documents.table
class KnownFailures:
    """A file of known failures."""

    failures: tuple[KnownFailure, ...] = ()
    """The entries."""


@dataclass(frozen=True)
class LocatedEntry:
    """A known failure, and where it is listed: the line is that of its first key, from 1."""

    failure: KnownFailure
    path: Path
    line: int


def load(folder: Path = crossjit.VALIDATE) -> tuple[KnownFailure, ...]:
    """Load the known failures of all files. Raises DocumentError."""
    return tuple(failure for file in _files(folder) for failure in documents.load(file, KnownFailures).failures)


def holding(failures: Iterable[KnownFailure], where: TargetEnvironment) -> tuple[KnownFailure, ...]:
    """Return the known failures that hold in these circumstances."""
    return tuple(failure for failure in failures if failure.when.holds(where))


def possible(failures: Iterable[KnownFailure], where: TargetEnvironment) -> tuple[KnownFailure, ...]:
    """Return the known failures that can hold in these circumstances, whatever the target turns out to lack."""
    return holding(failures, replace(where, capabilities=dict.fromkeys(capability_names(), False)))


def deselected(failures: Iterable[KnownFailure]) -> list[str]:
    """Return the patterns of what is not run: it would take its module, or the target, with it."""
    return [failure.test for failure in failures if not failure.run]


def listed(folder: Path = crossjit.VALIDATE) -> tuple[LocatedEntry, ...]:
    """Load the known failures of all files, each with its place. Raises DocumentError for all that is wrong."""
    found: list[LocatedEntry] = []
    wrong: list[DocumentError] = []
    for path in _files(folder):
        try:
            document = documents.read(path)
            failures = documents.parse(document, KnownFailures).failures
        except DocumentError as error:
            wrong.append(error)
            continue
        lines = documents.lines(document, (("failures", number) for number in range(len(failures))))
        found += (LocatedEntry(failure, path, line) for failure, line in zip(failures, lines, strict=True))
    if wrong:
        raise documents.together(wrong)
    return tuple(found)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "known_failures").glob("*.toml"))
