"""Turns the runner's events and files into a suite's result."""

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

CRASHES = 200  # of a suite, at most


@dataclass(frozen=True)
class SuiteOutput:
    """The runner's output. `problems` are about the modules' files; `ran_out` says that it reached its time limit."""

    events: RunnerEvents
    completed: Completed
    problems: tuple[str, ...] = ()
    ran_out: bool = False


def compose(
    name: str,
    suite: Suite,
    env: TargetEnvironment,
    known: tuple[KnownFailure, ...],
    output: SuiteOutput,
    logs: Path,
    data: Path,
    selection: TestSelection,
) -> tuple[SuiteResult, tuple[str, ...]]:
    """Return a suite's result, and the names of the modules that failed while the kernel killed for memory.

    `logs` is the folder of the modules' files, `data` that of the caveats.
    """
    events = output.events
    collected = _collect(name, events.ended, logs)
    results, unexpected = mark_known(collected.results, known)
    results = annotate_mismatch(results, known)
    failed = {result.name for result in results if result.failed}
    skipped = cut_short(results, known, [module.test for module in events.ended]) if not selection.tests else ()
    results += deselected(name, known, [module.name for module in events.ended])
    limits = tuple(_limits(output))
    result = SuiteResult(
        suite=name,
        results=tuple(sorted(results, key=lambda result: result.name)),
        seconds=round(output.completed.seconds, 3),
        caveats=suites.caveats(name, env, data),
        problems=(*_problems(output), *collected.problems, *limits),
        unproved=(*(job_list.missing(suite, env, results) if selection.is_whole else ()), *skipped),
        notes=(*_notes(events, selection), *collected.notes, *unexpected),
        modules=tuple(module.module_run for module in events.ended),
        crashes=tuple(collected.crashes),
        limits=limits,
    )
    return result, starved(collected.tests, failed)


def starved(tests: Sequence[tuple[ModuleExit, Set[str]]], failed: Set[str]) -> tuple[str, ...]:
    """Return the names of the modules that failed while the kernel killed a process in the container for memory.

    `tests` are modules with their tests' names, `failed` those of failed tests. The killed process may have been any
    of the modules' that ran at the same time; modules that passed are not affected.
    """
    return tuple(
        module.name
        for module, names in tests
        if module.memory_kills and (module.signal == "SIGKILL" or not failed.isdisjoint(names))
    )


@dataclass
class _Collected:
    """The results in the modules' files; `tests` are the modules with their tests' names."""

    results: list[TestResult] = field(default_factory=list)
    tests: list[tuple[ModuleExit, frozenset[str]]] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def _collect(name: str, modules: Sequence[ModuleExit], logs: Path) -> _Collected:
    collected, size = _Collected(), 0
    for module in modules:
        outcomes = of_module(name, module, logs)
        size += sum(len(result.name) + len(result.message) for result in outcomes.results)
        if len(collected.results) + len(outcomes.results) > BUDGET.tests or size > BUDGET.messages:
            bounds = f"{BUDGET.tests:,} tests, or {BUDGET.messages:,} characters"
            collected.problems.append(f"{module}: the suite reports more than {bounds}; the rest is left out")
            break
        collected.results += outcomes.results
        collected.tests.append((module, frozenset(result.name for result in outcomes.results)))
        collected.notes += outcomes.notes
        if len(collected.crashes) < CRASHES:
            collected.crashes += crashes.of_module(module, outcomes.results, logs)
    return collected


def _notes(events: RunnerEvents, selection: TestSelection) -> Iterator[str]:
    if not selection.is_whole:
        yield f"only a part of it ran: {selection}"
    if events.resumed:
        yield f"{pluralize(events.resumed, 'module')} taken from an earlier run, which this one continues"
    yield from (_absent(item.name) for item in events.missing if item.optional)


def _problems(output: SuiteOutput) -> Iterator[str]:
    """Yield the errors outside of tests that no limit caused."""
    events = output.events
    yield from (_absent(item.name) for item in events.missing if not item.optional)
    yield from output.problems
    yield from events.problems
    if not output.ran_out and (not events.done or output.completed.returncode):
        yield _no_end(output)


def _limits(output: SuiteOutput) -> Iterator[str]:
    """Yield what our limits, or the machine's, cut short: they say nothing about CPython."""
    for module in output.events.ended:
        if module.suite_timed_out:
            yield f"{module} did not finish: the suite reached its time limit after {module.seconds:,.0f} s of it"
    yield from (f"{job.name} did not run: {job.reason}" for job in output.events.left)
    if output.ran_out:
        yield f"{_no_end(output)}; it reached its time limit"


def _no_end(output: SuiteOutput) -> str:
    running = names(output.events.running.values())
    return f"the runner did not finish ({output.completed.how}); {running} was running"


def _absent(name: str) -> str:
    return f"{name}: this Python has no such test module"
