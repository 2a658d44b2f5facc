"""The failure of a test that was run again."""

from __future__ import annotations

from crossjit.triage.rerun import RerunCounts
from crossjit.validation.failure import Failure


def of_counts(counts: RerunCounts) -> Failure | None:
    """Return the failure of a test that was run again, None if it did not fail."""
    if not counts.count.failed:
        return None
    how = "crashed" if counts.count.crashed else "hung" if counts.count.hung else "failed"
    return Failure.of(how, counts.message)
