"""The tests that fail in a change, and whether they fail in its base as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossjit.config.test_selection import TestSelection
from crossjit.measure.cell import Built
from crossjit.model import SuiteResult, TestResult
from crossjit.pipeline import validate_cell
from crossjit.pipeline.context import BuildContext


@dataclass(frozen=True)
class Regressions:
    """What tests say about a change: how many ran, those that newly fail, and those that fail in the base as well.

    `problems` are the suites' own, of the change: a suite with one proves less than it should.
    """

    suites: tuple[str, ...]
    ran: int
    newly_failing: tuple[TestResult, ...] = ()
    also_failing: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def find(ctx: BuildContext, before: Built, after: Built, folder: Path) -> Regressions:
    """Run the requested suites on the change, and on the base the modules in which a test fails.

    `folder` gets the logs, those of the base in the folder `base`. Raises EngineErrors, DocumentError.
    """
    prepared, built = after
    suites = validate_cell.validate_cell(ctx, prepared, built, folder=folder)
    failing = [result for suite in suites for result in suite.results if result.failed]
    base: tuple[SuiteResult, ...] = ()
    if failing:
        own, its_build = before
        names = tuple(dict.fromkeys(name for suite in suites for name in _modules(suite)))
        selection = TestSelection(suites=prepared.request.suites, tests=names)
        request = replace(own.request, selection=selection)
        base = validate_cell.validate_cell(ctx, replace(own, request=request), its_build, folder=folder / "base")
    return compare(suites, base)


def compare(suites: Sequence[SuiteResult], base: Sequence[SuiteResult]) -> Regressions:
    """Tell the tests that newly fail from those that fail in the base as well. Pure."""
    failed_before = {(suite.suite, result.name) for suite in base for result in suite.results if result.failed}
    failing = [(suite.suite, result) for suite in suites for result in suite.results if result.failed]
    return Regressions(
        tuple(suite.suite for suite in suites),
        sum(suite.tests_run for suite in suites),
        tuple(result for suite, result in failing if (suite, result.name) not in failed_before),
        tuple(result.name for suite, result in failing if (suite, result.name) in failed_before),
        tuple(text for suite in suites for text in (*suite.problems, *suite.limits, *suite.unproved)),
    )


def _modules(suite: SuiteResult) -> Iterator[str]:
    """Yield the names of the modules in which a test fails."""
    names = [result.name.removeprefix("test.") for result in suite.results if result.failed]
    yield from (module.name for module in suite.modules if any(name.startswith(module.name) for name in names))
