"""What the runner said and the files that it left -> a suite's result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from crossjit.channels import ModuleExit
from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.config.suites import Suite
from crossjit.config.test_selection import TestSelection
from crossjit.engine.base import Completed
from crossjit.known_failures.entries import KnownFailure
from crossjit.model import Crash, SuiteResult, TestResult
from crossjit.util.budget import BUDGET
from crossjit.util.text import pluralize
from crossjit.validation import crashes, job_list
from crossjit.validation.results import annotate_mismatch, cut_short, deselected, mark_known, of_module
from crossjit.validation.runner_events import RunnerEvents, names

CRASHES = 200  # of a suite that are kept with what they wrote


@dataclass(frozen=True)
class SuiteOutput:
    """All that came of the runner. `problems` are those with the modules' files; `ran_out` says that we ended it."""

    events: RunnerEvents
    completed: Completed
    problems: tuple[str, ...] = ()
    ran_out: bool = False


def compose(
    name: str,
    suite: Suite,
    where: TargetEnvironment,
    known: tuple[KnownFailure, ...],
    output: SuiteOutput,
    logs: Path,
    data: Path,
    selection: TestSelection,
) -> tuple[SuiteResult, tuple[str, ...]]:
    """Put a suite's result together, and name the modules that went wrong while the kernel killed for memory.

    `logs` is where the modules' files are, `data` where caveats are read from.
    """
    events = output.events
    found = _collect(name, events.ended, logs)
    results, unexpected = mark_known(found.results, known)
    results = annotate_mismatch(results, known)
    bad = {result.name for result in results if result.failed}
    lost = cut_short(results, known, [ended.test for ended in events.ended]) if not selection.tests else ()
    results += deselected(name, known, [ended.name for ended in events.ended])
    limits = tuple(_limits(output))
    result = SuiteResult(
        suite=name,
        results=tuple(sorted(results, key=lambda result: result.name)),
        seconds=round(output.completed.seconds, 3),
        caveats=suites.caveats(name, where, data),
        problems=(*_problems(output), *found.problems, *limits),
        unproved=(*(job_list.missing(suite, where, results) if selection.is_whole else ()), *lost),
        notes=(*_notes(events, selection), *found.notes, *unexpected),
        modules=tuple(ended.module_run for ended in events.ended),
        crashes=tuple(found.crashes),
        limits=limits,
    )
    return result, starved(found.tests, bad)


def starved(tests: Sequence[tuple[ModuleExit, Set[str]]], bad: Set[str]) -> tuple[str, ...]:
    """Name the modules that failed while the kernel killed something in the container for its memory.

    `tests` are modules with their tests' names, `bad` the names of those that went wrong. Which of a module's processes
    was killed is not known, nor of which module that runs at the same time: what passes is not touched by it.
    """
    return tuple(
        ended.name
        for ended, those in tests
        if ended.memory_kills and (ended.signal == "SIGKILL" or not bad.isdisjoint(those))
    )


@dataclass
class _Collected:
    """What the modules' files say; `tests` are the modules with their tests' names."""

    results: list[TestResult] = field(default_factory=list)
    tests: list[tuple[ModuleExit, frozenset[str]]] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _collect(name: str, modules: Sequence[ModuleExit], logs: Path) -> _Collected:
    collected, size = _Collected(), 0
    for ended in modules:
        found = of_module(name, ended, logs)
        size += sum(len(result.name) + len(result.message) for result in found.results)
        if len(collected.results) + len(found.results) > BUDGET.tests or size > BUDGET.messages:
            bounds = f"{BUDGET.tests:,} tests, or {BUDGET.messages:,} characters"
            collected.problems.append(f"{ended}: the suite reports more than {bounds}; the rest is left out")
            break
        collected.results += found.results
        collected.tests.append((ended, frozenset(result.name for result in found.results)))
        collected.notes += found.notes
        if len(collected.crashes) < CRASHES:
            collected.crashes += crashes.of_module(ended, found.results, logs)
    return collected


def _notes(events: RunnerEvents, selection: TestSelection) -> Iterator[str]:
    if not selection.is_whole:
        yield f"only a part of it ran: {selection}"
    if events.taken:
        yield f"{pluralize(events.taken, 'module')} taken from an earlier run, which this one continues"
    yield from (_absent(item.name) for item in events.missing if item.optional)


def _problems(output: SuiteOutput) -> Iterator[str]:
    """Say what went wrong beside the tests, and is not a limit's doing."""
    events = output.events
    yield from (_absent(item.name) for item in events.missing if not item.optional)
    yield from output.problems
    yield from events.problems
    if not output.ran_out and (not events.done or output.completed.returncode):
        yield _no_end(output)


def _limits(output: SuiteOutput) -> Iterator[str]:
    """Say what our limits, or the machine's, cut short: that says nothing about CPython."""
    for ended in output.events.ended:
        if ended.suite_timed_out:
            yield f"{ended} did not finish: the suite reached its time limit after {ended.seconds:,.0f} s of it"
    yield from (f"{job.name} did not run: {job.reason}" for job in output.events.left)
    if output.ran_out:
        yield f"{_no_end(output)}; it reached its time limit"


def _no_end(output: SuiteOutput) -> str:
    running = names(output.events.running.values())
    return f"the runner did not finish ({output.completed.how}); {running} was running"


def _absent(name: str) -> str:
    return f"{name}: this Python has no such test module"
