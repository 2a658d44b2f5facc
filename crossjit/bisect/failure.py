"""When two failures are the same: how a test ended, and what it said of the reason. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crossjit.triage.rerun import RerunCounts
from crossjit.validation import reason

# What differs between two runs of one failure: addresses, numbers, quoted values, paths.
_VOLATILE = re.compile(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"|/\S+")


@dataclass(frozen=True)
class Failure:
    """How a test ended (`crashed`, `hung` or `failed`), and its reason without what differs from run to run."""

    how: str
    reason: str

    def is_same(self, other: Failure) -> bool:
        """Whether two failures are the same: they ended alike, for the same kind of reason.

        The first word of a reason is the exception or the fatal error. A hang has no reason.
        """
        if self.how != other.how:
            return False
        return self.how == "hung" or self._kind == other._kind

    @property
    def _kind(self) -> str:
        return self.reason.partition(":")[0]


def of_counts(counts: RerunCounts) -> Failure | None:
    """Return the failure of a test that was run again, None if it did not fail."""
    if not counts.count.failed:
        return None
    how = "crashed" if counts.count.crashed else "hung" if counts.count.hung else "failed"
    return Failure(how, _VOLATILE.sub("…", reason.of(counts.message)))
