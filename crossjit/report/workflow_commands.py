"""Annotations for GitHub: the failures of a run at the lines of CPython's tests.

They are workflow commands (https://docs.github.com/actions/reference/workflow-commands-for-github-actions), in which
everything that a test can choose is escaped as `ActionCommand.cs` of actions/runner reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from crossjit.model import CellResult, TestResult, Verdict
from crossjit.report.output import command_value
from crossjit.util.text import shortened

MOST = 10  # errors of a step that GitHub shows
_LINE = re.compile(r'File "[^"\n]*/(test/[\w/]+\.py)", line (\d+)')
_LENGTH = 2000  # characters of a message


def commands(results: Sequence[CellResult]) -> str:
    """Return a command for each failure, one a line: failed tests first, then cells that failed without one."""
    found = [*_of_tests(results), *_of_cells(results)]
    return "".join(f"{command}\n" for command in found[:MOST])


def _of_tests(results: Sequence[CellResult]) -> Iterator[str]:
    for result in results:
        for suite in result.suites:
            yield from (_of_test(result, test) for test in suite.results if test.failed)


def _of_test(result: CellResult, test: TestResult) -> str:
    places = _LINE.findall(test.message)
    where = {"file": f"Lib/{places[-1][0]}", "line": places[-1][1]} if places else {}
    return _error({**where, "title": f"{result.cell}: {test.name}"}, test.message or str(test.outcome))


def _of_cells(results: Sequence[CellResult]) -> Iterator[str]:
    for result in results:
        if result.verdict is not Verdict.PASS and not any(
            test.failed for suite in result.suites for test in suite.results
        ):
            yield _error({"title": f"{result.cell}: {result.verdict}"}, "\n".join(result.reasons))


def _error(properties: dict[str, str], message: str) -> str:
    given = ",".join(f"{name}={command_value(value, ':,')}" for name, value in properties.items())
    return f"::error {given}::{command_value(shortened(message, _LENGTH))}"
