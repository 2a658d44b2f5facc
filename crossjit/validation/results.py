"""Turns a module's report, log and exit status into outcomes of tests."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossjit.channels import Check, MalformedError, ModuleExit, junit, read
from crossjit.known_failures.entries import KnownFailure
from crossjit.model import Outcome, TestResult
from crossjit.util import safe_files
from crossjit.util.budget import BUDGET, BudgetError
from crossjit.util.text import pluralize
from crossjit.validation import reason

# Exit statuses of regrtest (Lib/test/libregrtest/results.py, the same in 3.13 to 3.15): 2 a test failed, 3 all passed
# but the environment was altered (with --fail-env-changed), 4 no test ran (or a resource was denied), 5 a rerun failed,
# 130 interrupted. A module that skips itself exits with 0 and without a report. 1 is from faulthandler after the
# time-out, and from exceptions outside of any test.
FAILED, ENVIRONMENT_CHANGED, NOTHING_RAN = 2, 3, 4
NORMAL = (0, ENVIRONMENT_CHANGED, NOTHING_RAN)  # nothing went wrong

MESSAGE = 4000  # characters kept of a message; the whole is in the module's log
NAME = 1000  # characters of a test's name
LOG_END = 8 << 20  # bytes at a log's end that are read: the results are there
RUNNING_END = 1 << 18  # characters at its end, and a message's, that are searched for the running test and the reason

STARTED = "started"  # the outcome in a script's line about a check that starts
_CHECK_OUTCOMES = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "error": Outcome.ERROR,
    "skipped": Outcome.SKIPPED,
}


@dataclass(frozen=True)
class ModuleResults:
    """A module's outcomes, and notes."""

    results: tuple[TestResult, ...]
    notes: tuple[str, ...] = ()


def of_module(suite: str, module: ModuleExit, folder: Path) -> ModuleResults:
    """Read the outcomes from a module's or script's report, exit status and log in `folder`.

    If the suite's time limit ended it, its exit status is ignored.
    """
    text = safe_files.read_end(folder, module.log, LOG_END)
    if module.kind == "script":
        lines = _lines(folder, module.checks) if module.checks else []
        results, running = list(_checks(suite, module, lines)), _running_check(module, lines)
    else:
        results, running = list(_reported(suite, module, folder, text)), _running(text[-RUNNING_END:])
    if not module.suite_timed_out:
        results += _ending(suite, module, text, results, running or module.test)
    notes = []
    if module.kind == "module" and module.status == ENVIRONMENT_CHANGED:
        notes.append(f"{module.name} left its environment altered (regrtest: env changed)")
    label = f" [{module.label}]" if module.label else ""
    results = [replace(result, name=f"{result.name[:NAME]}{label}") for result in results]
    return ModuleResults(tuple(results), tuple(notes))


def mark_known(
    results: Iterable[TestResult], known: Sequence[KnownFailure]
) -> tuple[list[TestResult], tuple[str, ...]]:
    """Mark the known failures, and the listed tests that passed; return all results, and notes about the latter.

    An entry may be a pattern: its tests pass unexpectedly only if none of them fails as listed.
    """
    marked: list[TestResult] = []
    failed: set[KnownFailure] = set()
    passed: set[KnownFailure] = set()
    for result in results:
        entries = [entry for entry in known if entry.matches(result.name)]
        as_listed = next((entry for entry in entries if entry.kind.outcome is result.outcome), None)
        if as_listed is not None:
            failed.add(as_listed)
            result = replace(result, known=as_listed.reason)
        elif result.outcome is Outcome.PASSED:
            passed.update(entries)
        marked.append(result)
    unexpected = [entry for entry in known if entry in passed - failed]
    if unexpected:
        marked = [_unexpected_pass(result, unexpected) for result in marked]
    notes = tuple(
        f"unexpected pass: {entry.test} is listed as a known {entry.kind} ({entry.reason})" for entry in unexpected
    )
    return marked, notes


def _unexpected_pass(result: TestResult, entries: Iterable[KnownFailure]) -> TestResult:
    if result.outcome is not Outcome.PASSED:
        return result
    return replace(result, known=next((entry.reason for entry in entries if entry.matches(result.name)), None))


def deselected(suite: str, known: Iterable[KnownFailure], modules: Iterable[str]) -> tuple[TestResult, ...]:
    """Make skipped results for the entries with `run = false` that match modules of the suite."""
    places = [f"test.{module}".split(".") for module in modules]
    return tuple(
        TestResult(suite, entry.test, Outcome.SKIPPED, message=f"not run: {entry.reason}", known=entry.reason)
        for entry in known
        if not entry.run and any(_within(entry.test.split("."), place) for place in places)
    )


def _within(pattern: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a pattern can match tests of a module; both are split at dots."""
    if len(pattern) < len(place):
        return pattern[-1].endswith("*") and _within(pattern, place[: len(pattern)])
    return all(fnmatch.fnmatchcase(name, part) for name, part in zip(place, pattern, strict=False))


def annotate_mismatch(results: Iterable[TestResult], known: Sequence[KnownFailure]) -> list[TestResult]:
    """Add a remark to failed tests that are listed as a different kind of known failure."""
    annotated = []
    for result in results:
        if result.failed:
            kinds = " or ".join(dict.fromkeys(entry.kind.value for entry in known if entry.matches(result.name)))
            if kinds:
                remark = f"listed as a known {kinds}, not as {result.outcome}"
                result = replace(result, message=reason.remark(result.message, remark))
        annotated.append(result)
    return annotated


def cut_short(results: Iterable[TestResult], known: Sequence[KnownFailure], modules: Iterable[str]) -> tuple[str, ...]:
    """Return messages about known crashes and hangs that kept their module's other tests from running.

    `modules` are full names, with which tests' names start. An entry that matches the whole module accepts that.
    """
    modules = tuple(modules)
    messages = []
    for result in results:
        if result.known is None or result.outcome not in (Outcome.CRASHED, Outcome.TIMED_OUT):
            continue
        name = result.name.partition(" [")[0]
        module = next((module for module in modules if f"{name}.".startswith(f"{module}.")), name)
        if not any(entry.describes(result) and entry.matches(module) for entry in known):
            messages.append(
                f"{result.name} {result.outcome} as expected, and the other tests of {module} did not run; "
                "`run = false` in its entry leaves it out"
            )
    return tuple(messages)


def _reported(suite: str, module: ModuleExit, folder: Path, text: str) -> Iterator[TestResult]:
    """Yield the results in regrtest's JUnit XML, and those that only the log has.

    The XML has no name for a test of which only subtests failed, and no element for `setUpClass` and similar fixtures;
    it counts both in `errors` and `failures`.
    """
    if module.junit is None:
        return
    try:
        report = junit.read(safe_files.read_whole(folder, module.junit))
    except (OSError, MalformedError, BudgetError) as error:
        message = f"the report {module.junit} cannot be read: {error}"
        yield TestResult(suite, module.test, Outcome.ERROR, module.seconds, message)
        return
    failed = set()
    for case in report.cases:
        result = _case(suite, case)
        if result.outcome.is_failure:
            failed.add(result.name)
        yield result
    if report.bad:
        yield from (result for result in _headings(suite, text) if result.name not in failed)


_OUTCOMES = {"skipped": Outcome.SKIPPED, "failure": Outcome.FAILED, "error": Outcome.ERROR}


def _case(suite: str, case: junit.Case) -> TestResult:
    """Return the result of a case; its name is the test's, with a subtest's parameters if a subtest was skipped."""
    outcome, message = Outcome.PASSED, ""
    for kind, text in case.said:
        if kind in _OUTCOMES:
            outcome, message = _OUTCOMES[kind], text
    if any(kind == "outcome" for kind, _ in case.said):
        outcome, message = Outcome.FAILED, "an unexpected success: the test is marked as an expected failure"
    return TestResult(suite, case.name.partition(" (")[0], outcome, case.seconds, _cut(message))


_HEADING = re.compile(
    r"^={70}\n(FAIL|ERROR): (\S+) \(([^()\n]+)\)([^\n]*)\n(.*?)(?=^={70}\n|^-{70}\nRan |\Z)", re.M | re.S
)


def _headings(suite: str, text: str) -> Iterator[TestResult]:
    """Yield the failures that unittest reports in a log, one result for each test with all its subtests."""
    by_name: dict[str, TestResult] = {}
    for kind, method, place, subtest, details in _HEADING.findall(text):
        name = place if place.rpartition(".")[2] == method else f"{place}.{method}"
        outcome = Outcome.FAILED if kind == "FAIL" else Outcome.ERROR
        message = f"{subtest.strip()}\n{details.lstrip('-').strip()}".strip()
        earlier = by_name.get(name)
        if earlier is None:
            by_name[name] = TestResult(suite, name, outcome, message=_cut(message))
        elif outcome is Outcome.ERROR:
            by_name[name] = replace(earlier, outcome=outcome)
    yield from by_name.values()


def _ending(
    suite: str, module: ModuleExit, text: str, results: Sequence[TestResult], name: str
) -> Iterator[TestResult]:
    """Yield the result of the process's end: a crash, a hang, a module that skipped itself or did not load.

    `name` is the test that was running at the end.
    """
    end = ", ".join(filter(None, (f"{module.test}: {module.how}", reason.last_words(text[-RUNNING_END:]))))
    message = f"{module.tail.rstrip()}\n{end}"
    if module.timed_out or _faulthandler_ended(module, text):
        yield TestResult(suite, name, Outcome.TIMED_OUT, module.seconds, _cut(message))
    elif module.signal is not None:
        yield TestResult(suite, name, Outcome.CRASHED, module.seconds, _cut(message))
    elif module.kind == "script":
        if module.status:
            yield TestResult(suite, name, Outcome.CRASHED, module.seconds, _cut(message))
    elif module.status in NORMAL:
        if not results:
            yield TestResult(suite, module.test, Outcome.SKIPPED, module.seconds, _why_skipped(module))
    elif module.status != FAILED:
        yield TestResult(suite, name, Outcome.CRASHED, module.seconds, _cut(message))
    elif not any(result.outcome.is_failure for result in results):
        yield TestResult(suite, module.test, Outcome.ERROR, module.seconds, _cut(message))


_TIME_OUT = re.compile(r"Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$", re.M)


def _faulthandler_ended(module: ModuleExit, text: str) -> bool:
    """Whether regrtest's own time-out ended it: faulthandler wrote `Timeout (0:05:00)!` and exited with 1."""
    return module.kind == "module" and module.status == 1 and bool(_TIME_OUT.search(text))


def _cut(message: str) -> str:
    return reason.cut(message[-RUNNING_END:], MESSAGE)


def _why_skipped(module: ModuleExit) -> str:
    match = re.search(r"^\S* ?skipped -- (.*)$", module.tail, re.M)
    return match[1] if match else "no tests ran"


_STARTED = re.compile(r"^(\w+) \(([\w.<>]+)\)(.*)$")


def _running(text: str) -> str | None:
    """Find the test that was running at the end of a verbose log: the last one named, if it has no outcome."""
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        match = _STARTED.match(lines[number])
        if match and match[2].rpartition(".")[2] == match[1]:
            following = "\n".join((match[3], *lines[number + 1 : number + 3]))
            return (
                None
                if re.search(r" \.\.\. (ok|FAIL|ERROR|skipped|expected failure|unexpected success)", following)
                else match[2]
            )
    return None


def _checks(suite: str, module: ModuleExit, lines: Sequence[str]) -> Iterator[TestResult]:
    """Yield the results in a script's JSON lines; invalid lines are one error together."""
    invalid, first = max(0, len(lines) - BUDGET.tests), ""
    for line in lines[: BUDGET.tests]:
        try:
            check = read(Check, line)
        except MalformedError as error:
            invalid, first = invalid + 1, first or f" ({error}): {line[:200]!r}"
            continue
        if check.outcome != STARTED:
            name, outcome = f"{module.test}.{check.check}", _CHECK_OUTCOMES[check.outcome]
            yield TestResult(suite, name, outcome, check.seconds, _cut(check.message))
    if invalid:
        yield TestResult(
            suite, module.test, Outcome.ERROR, message=f"{pluralize(invalid, 'line')} that is not a check{first}"
        )


def _running_check(module: ModuleExit, lines: Sequence[str]) -> str | None:
    """Return the check that was running at a script's end: the last line says that it started."""
    with contextlib.suppress(MalformedError, IndexError):
        check = read(Check, lines[-1])
        if check.outcome == STARTED:
            return f"{module.test}.{check.check}"
    return None


def _lines(folder: Path, name: str) -> list[str]:
    """Read a script's lines; for an unreadable file, the error is the only line."""
    try:
        text = safe_files.read_whole(folder, name).decode("utf-8", "replace")
    except (OSError, BudgetError) as error:
        return [str(error)]
    return [line for line in text.split("\n") if line]
