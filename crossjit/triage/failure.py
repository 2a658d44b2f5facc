"""The failures of tests by their results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from crossjit.model import Outcome, TestResult
from crossjit.triage.rerun import RerunCounts
from crossjit.validation.failure import Failure, How

_HOW: Mapping[Outcome, How] = {Outcome.CRASHED: "crashed", Outcome.TIMED_OUT: "hung"}


def of_result(result: TestResult) -> Failure:
    """Return the failure of a failed test."""
    return replace(Failure.of(_HOW.get(result.outcome, "failed"), result.message), test=result.name)


def of_counts(counts: RerunCounts) -> Failure | None:
    """Return the failure of a test that was run again, None if it did not fail."""
    if not counts.count.failed:
        return None
    how: How = "crashed" if counts.count.crashed else "hung" if counts.count.hung else "failed"
    return Failure.of(how, counts.message)
