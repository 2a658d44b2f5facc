"""What a module's process left behind -> outcomes of tests."""

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
# but something was left altered (with --fail-env-changed), 4 nothing ran (or a resource was denied), 5 a rerun failed,
# 130 interrupted. A module that skips itself ends with 0 and without a report. 1 comes from faulthandler when the
# time-out has come, and from exceptions outside of any test.
FAILED, ENVIRONMENT_CHANGED, NOTHING_RAN = 2, 3, 4
NORMAL = (0, ENVIRONMENT_CHANGED, NOTHING_RAN)  # nothing went wrong

MESSAGE = 4000  # characters of a message that are kept; the whole is in the module's log
NAME = 1000  # characters of a test's name
LOG_END = 8 << 20  # bytes of a log that are looked at: what a module comes to stands at its end
RUNNING_END = 1 << 18  # characters of it, and of a message, in which is looked for the test that ran, and the reason

STARTED = "started"  # what a script's line says of a check that comes next
_CHECK_OUTCOMES = {
    "passed": Outcome.PASSED,
    "failed": Outcome.FAILED,
    "error": Outcome.ERROR,
    "skipped": Outcome.SKIPPED,
}


@dataclass(frozen=True)
class ModuleResults:
    """A module's outcomes, and what is worth a note."""

    results: tuple[TestResult, ...]
    notes: tuple[str, ...] = ()


def of_module(suite: str, ended: ModuleExit, folder: Path) -> ModuleResults:
    """Collect what a module's or script's report, exit status and log in `folder` say.

    One that the suite's time was over for says nothing by its end.
    """
    text = safe_files.read_end(folder, ended.log, LOG_END)
    if ended.kind == "script":
        lines = _lines(folder, ended.checks) if ended.checks else []
        results, running = list(_checks(suite, ended, lines)), _running_check(ended, lines)
    else:
        results, running = list(_reported(suite, ended, folder, text)), _running(text[-RUNNING_END:])
    if not ended.suite_timed_out:
        results += _ending(suite, ended, text, results, running or ended.test)
    notes = []
    if ended.kind == "module" and ended.status == ENVIRONMENT_CHANGED:
        notes.append(f"{ended.name} left its environment altered (regrtest: env changed)")
    label = f" [{ended.label}]" if ended.label else ""
    results = [replace(result, name=f"{result.name[:NAME]}{label}") for result in results]
    return ModuleResults(tuple(results), tuple(notes))


def mark_known(
    results: Iterable[TestResult], known: Sequence[KnownFailure]
) -> tuple[list[TestResult], tuple[str, ...]]:
    """Mark results that fail as listed, and those that pass though listed; return all, and notes of what passed.

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
    """Make skipped results of the entries that are not run, as far as they are about modules of the suite."""
    places = [f"test.{module}".split(".") for module in modules]
    return tuple(
        TestResult(suite, entry.test, Outcome.SKIPPED, message=f"not run: {entry.reason}", known=entry.reason)
        for entry in known
        if not entry.run and any(_within(entry.test.split("."), place) for place in places)
    )


def _within(pattern: Sequence[str], place: Sequence[str]) -> bool:
    """Whether a pattern can mean tests of a module; both as the parts of their names."""
    if len(pattern) < len(place):
        return pattern[-1].endswith("*") and _within(pattern, place[: len(pattern)])
    return all(fnmatch.fnmatchcase(name, part) for name, part in zip(place, pattern, strict=False))


def annotate_mismatch(results: Iterable[TestResult], known: Sequence[KnownFailure]) -> list[TestResult]:
    """Say of tests that went wrong, and in another way than they are listed with, that they are listed."""
    told = []
    for result in results:
        if result.failed:
            kinds = " or ".join(dict.fromkeys(entry.kind.value for entry in known if entry.matches(result.name)))
            if kinds:
                said = f"listed as a known {kinds}, not as {result.outcome}"
                result = replace(result, message=reason.remark(result.message, said))
        told.append(result)
    return told


def cut_short(results: Iterable[TestResult], known: Sequence[KnownFailure], modules: Iterable[str]) -> tuple[str, ...]:
    """Say which tests took their module's others with them, as known: those then did not run, and prove nothing.

    `modules` are full names, as tests' names begin. An entry that means the whole module accepts that.
    """
    modules = tuple(modules)
    said = []
    for result in results:
        if result.known is None or result.outcome not in (Outcome.CRASHED, Outcome.TIMED_OUT):
            continue
        name = result.name.partition(" [")[0]
        module = next((module for module in modules if f"{name}.".startswith(f"{module}.")), name)
        if not any(entry.describes(result) and entry.matches(module) for entry in known):
            said.append(
                f"{result.name} {result.outcome} as expected, and the other tests of {module} did not run; "
                "`run = false` in its entry leaves it out"
            )
    return tuple(said)


def _reported(suite: str, ended: ModuleExit, folder: Path, text: str) -> Iterator[TestResult]:
    """Go through regrtest's JUnit XML, and through the log for what that leaves out.

    The XML has no name for a test of which only subtests failed, and nothing at all for `setUpClass` and the like; it
    counts both in `errors` and `failures`.
    """
    if ended.junit is None:
        return
    try:
        report = junit.read(safe_files.read_whole(folder, ended.junit))
    except (OSError, MalformedError, BudgetError) as error:
        message = f"the report {ended.junit} cannot be read: {error}"
        yield TestResult(suite, ended.test, Outcome.ERROR, ended.seconds, message)
        return
    bad = set()
    for case in report.cases:
        result = _case(suite, case)
        if result.outcome.is_failure:
            bad.add(result.name)
        yield result
    if report.bad:
        yield from (result for result in _headings(suite, text) if result.name not in bad)


_SAID = {"skipped": Outcome.SKIPPED, "failure": Outcome.FAILED, "error": Outcome.ERROR}


def _case(suite: str, case: junit.Case) -> TestResult:
    """Read one case; its name is the test's full name, with a subtest's parameters if a subtest was skipped."""
    outcome, message = Outcome.PASSED, ""
    for what, text in case.said:
        if what in _SAID:
            outcome, message = _SAID[what], text
    if any(what == "outcome" for what, _ in case.said):
        outcome, message = Outcome.FAILED, "an unexpected success: the test is marked as an expected failure"
    return TestResult(suite, case.name.partition(" (")[0], outcome, case.seconds, _cut(message))


_HEADING = re.compile(
    r"^={70}\n(FAIL|ERROR): (\S+) \(([^()\n]+)\)([^\n]*)\n(.*?)(?=^={70}\n|^-{70}\nRan |\Z)", re.M | re.S
)


def _headings(suite: str, text: str) -> Iterator[TestResult]:
    """Find unittest's reports of failures in a log, one result for each test, however many subtests failed."""
    found: dict[str, TestResult] = {}
    for kind, method, place, subtest, details in _HEADING.findall(text):
        name = place if place.rpartition(".")[2] == method else f"{place}.{method}"
        outcome = Outcome.FAILED if kind == "FAIL" else Outcome.ERROR
        message = f"{subtest.strip()}\n{details.lstrip('-').strip()}".strip()
        before = found.get(name)
        if before is None:
            found[name] = TestResult(suite, name, outcome, message=_cut(message))
        elif outcome is Outcome.ERROR:
            found[name] = replace(before, outcome=outcome)
    yield from found.values()


def _ending(suite: str, ended: ModuleExit, text: str, results: Sequence[TestResult], name: str) -> Iterator[TestResult]:
    """Say what the process's end adds to the results: a crash, a hang, a module that skipped itself or did not load.

    `name` is what was running at the end.
    """
    said = ", ".join(filter(None, (f"{ended.test}: {ended.how}", reason.last_words(text[-RUNNING_END:]))))
    about = f"{ended.tail.rstrip()}\n{said}"
    if ended.timed_out or _faulthandler_ended(ended, text):
        yield TestResult(suite, name, Outcome.TIMED_OUT, ended.seconds, _cut(about))
    elif ended.signal is not None:
        yield TestResult(suite, name, Outcome.CRASHED, ended.seconds, _cut(about))
    elif ended.kind == "script":
        if ended.status:
            yield TestResult(suite, name, Outcome.CRASHED, ended.seconds, _cut(about))
    elif ended.status in NORMAL:
        if not results:
            yield TestResult(suite, ended.test, Outcome.SKIPPED, ended.seconds, _why_skipped(ended))
    elif ended.status != FAILED:
        yield TestResult(suite, name, Outcome.CRASHED, ended.seconds, _cut(about))
    elif not any(result.outcome.is_failure for result in results):
        yield TestResult(suite, ended.test, Outcome.ERROR, ended.seconds, _cut(about))


_TIME_OUT = re.compile(r"Timeout \(\d+:\d\d:\d\d(?:\.\d+)?\)!$", re.M)


def _faulthandler_ended(ended: ModuleExit, text: str) -> bool:
    """Whether regrtest's own time-out came: faulthandler wrote `Timeout (0:05:00)!` and ended the process with 1."""
    return ended.kind == "module" and ended.status == 1 and bool(_TIME_OUT.search(text))


def _cut(message: str) -> str:
    return reason.cut(message[-RUNNING_END:], MESSAGE)


def _why_skipped(ended: ModuleExit) -> str:
    said = re.search(r"^\S* ?skipped -- (.*)$", ended.tail, re.M)
    return said[1] if said else "no tests ran"


_STARTED = re.compile(r"^(\w+) \(([\w.<>]+)\)(.*)$")


def _running(text: str) -> str | None:
    """Find the test that was running at the end of a verbose log: the last one that is named, if nothing came of it."""
    lines = text.splitlines()
    for number in range(len(lines) - 1, -1, -1):
        match = _STARTED.match(lines[number])
        if match and match[2].rpartition(".")[2] == match[1]:
            rest = "\n".join((match[3], *lines[number + 1 : number + 3]))
            return (
                None
                if re.search(r" \.\.\. (ok|FAIL|ERROR|skipped|expected failure|unexpected success)", rest)
                else match[2]
            )
    return None


def _checks(suite: str, ended: ModuleExit, lines: Sequence[str]) -> Iterator[TestResult]:
    """Read a script's JSON lines; those that are no checks are one error."""
    wrong, first = max(0, len(lines) - BUDGET.tests), ""
    for line in lines[: BUDGET.tests]:
        try:
            check = read(Check, line)
        except MalformedError as error:
            wrong, first = wrong + 1, first or f" ({error}): {line[:200]!r}"
            continue
        if check.outcome != STARTED:
            name, outcome = f"{ended.test}.{check.check}", _CHECK_OUTCOMES[check.outcome]
            yield TestResult(suite, name, outcome, check.seconds, _cut(check.message))
    if wrong:
        yield TestResult(
            suite, ended.test, Outcome.ERROR, message=f"{pluralize(wrong, 'line')} that is not a check{first}"
        )


def _running_check(ended: ModuleExit, lines: Sequence[str]) -> str | None:
    """Find the check that a script was in at its end: the one that the last line says has started."""
    with contextlib.suppress(MalformedError, IndexError):
        check = read(Check, lines[-1])
        if check.outcome == STARTED:
            return f"{ended.test}.{check.check}"
    return None


def _lines(folder: Path, name: str) -> list[str]:
    """Read a script's lines; a file that cannot be read is a line that says so."""
    try:
        text = safe_files.read_whole(folder, name).decode("utf-8", "replace")
    except (OSError, BudgetError) as error:
        return [str(error)]
    return [line for line in text.split("\n") if line]
