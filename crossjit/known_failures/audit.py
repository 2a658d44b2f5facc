"""Keeping the list of known failures right: which entries mean no test, and which no run has needed."""

from __future__ import annotations

import difflib
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

import crossjit
from crossjit.config.conditions import TargetEnvironment, When
from crossjit.known_failures.entries import KnownFailure, LocatedEntry, literal_head
from crossjit.known_failures.subjects import Recorded, Subject, environment_of, outcomes_of
from crossjit.known_failures.test_inventory import family, matching
from crossjit.model import Arch, Outcome
from crossjit.util.text import pluralize


class State(StrEnum):
    """What is to be said of an entry."""

    NEEDED = "needed"
    NOT_TRIED = "not tried"
    NOT_NEEDED = "not needed"
    NO_TEST = "no such test"

    @property
    def is_wrong(self) -> bool:
        """Whether somebody has to look at the entry."""
        return self in (State.NOT_NEEDED, State.NO_TEST)


@dataclass(frozen=True)
class AuditedEntry:
    """An entry, and what is to be said of it; `why` tells what that rests on."""

    listed: LocatedEntry
    state: State
    why: str


@dataclass(frozen=True)
class History:
    """One suite of a cell in a run: in what it ran, and outcomes by tests' names (groups may repeat one)."""

    run: str
    where: TargetEnvironment
    outcomes: Mapping[str, frozenset[Outcome]] = field(default_factory=dict)

    @cached_property
    def names(self) -> list[str]:
        """The tests' names, sorted."""
        return sorted(self.outcomes)


def histories(recorded: Recorded) -> tuple[History, ...]:
    """Collect what became of tests, of suites that recorded in what they ran."""
    return tuple(
        History(run, where, outcomes_of(suite))
        for run, result in recorded
        for suite in result.suites
        if (where := environment_of(suite)) is not None
    )


def judge(
    listed: Iterable[LocatedEntry],
    subjects: Sequence[Subject],
    histories: Sequence[History],
    recipes: Iterable[str] = (),
) -> tuple[AuditedEntry, ...]:
    """Say of each entry whether its tests exist, and whether a run has needed it; `recipes` are the names of all.

    An entry is not needed if its tests ran where its conditions held, and none failed as it says. One whose tests ran
    in no such run (not in that suite, skipped, or left out by the entry itself) is not tried.
    """
    recipes = tuple(recipes)
    return tuple(_judge(each, subjects, histories, recipes) for each in listed)


def _judge(
    listed: LocatedEntry, subjects: Sequence[Subject], histories: Sequence[History], recipes: Sequence[str]
) -> AuditedEntry:
    failure = listed.failure
    if (missing := _missing(failure, subjects, recipes)) is not None:
        return AuditedEntry(listed, State.NO_TEST, missing)
    held = [history for history in histories if failure.when.holds(history.where)]
    if not held:
        why = "its conditions applied in no run" if histories else "no run recorded its environment"
        return AuditedEntry(listed, State.NOT_TRIED, why)
    needed: dict[str, None] = {}
    otherwise: dict[str, set[Outcome]] = defaultdict(set)
    for history in held:
        for name in matching(history.names, failure.test):
            outcomes = history.outcomes[name] - {Outcome.SKIPPED}
            if failure.kind.outcome in outcomes:
                needed[history.run] = None
            elif outcomes:
                otherwise[history.run] |= outcomes
    if needed:
        return AuditedEntry(listed, State.NEEDED, f"failed so in {_runs(needed)}")
    if otherwise:
        how = " or ".join(sorted({str(outcome) for outcomes in otherwise.values() for outcome in outcomes}))
        return AuditedEntry(listed, State.NOT_NEEDED, f"{how} in {_runs(otherwise)}, and {failure.kind} in none")
    why = "it is deselected, so no run can tell" if not failure.run else "its tests ran in no run where it applies"
    return AuditedEntry(listed, State.NOT_TRIED, why)


def _missing(failure: KnownFailure, subjects: Sequence[Subject], recipes: Sequence[str]) -> str | None:
    """Say why an entry can mean no test; None where it does or may mean one, or there is nothing to look in."""
    looked = [each for each in subjects if each.is_meant(failure.when)]
    if any(subject.may_have(failure.test) for subject in looked):
        return None
    head = literal_head(failure.test)
    if not head.startswith("test."):
        # doctests are called after what they are of, checks after their script: those of modules that were skipped
        # are not listed
        known = {"test", *sys.stdlib_module_names, *(path.stem for path in crossjit.VALIDATE.glob("*.py"))}
        whole = "." in head or head == failure.test  # the first part of the name
        if not whole or head.partition(".")[0] in known:
            return None
        return "test names begin with `test.`, the module of a doctest, or the name of a script"
    looked = [each for each in looked if each.tests is not None]
    if not looked:
        return None
    near = _near(failure.test, looked)
    meant = f"; did you mean {near!r}?" if near else ""
    absent = [
        f"those of {', '.join(names)} are not in the stash; an entry about them says `{key}`"
        for key, names in _absent(failure.when, looked, recipes)
        if names
    ]
    where = f" ({'; '.join(absent)})" if absent else ""
    return f"no test of {', '.join(dict.fromkeys(each.recipe for each in looked))} matches{where}{meant}"


def _absent(when: When, looked: Sequence[Subject], recipes: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the recipes and archs that were not looked at, by the condition that an entry could have about them."""
    if when.python is None:
        yield "python", [name for name in recipes if name not in {each.recipe for each in looked}]
    if not when.arch:
        yield "arch", [arch for arch in Arch if arch not in {each.where.arch for each in looked}]


def _near(pattern: str, subjects: Iterable[Subject]) -> str | None:
    """Return the name of the same module or package that is most like a pattern, if any is much like it."""
    names = {name for subject in subjects for name in subject.names(f"{family(pattern)}.")}
    return next(iter(difflib.get_close_matches(pattern, names, n=1, cutoff=0.8)), None)


def _runs(runs: Iterable[str]) -> str:
    """Name the newest of some runs, and count the others."""
    newest, *others = runs
    return f"run {newest}" + (f" and {pluralize(len(others), 'other')}" if others else "")
