"""Texts about verdicts, and the order of outcomes."""

from __future__ import annotations

from collections.abc import Sequence

from crossjit.model import Outcome, Verdict

VERDICT_SIGNS = {
    Verdict.PASS: "✓",
    Verdict.FAIL: "✗",
    Verdict.VACUOUS: "○",
    Verdict.INFRA: "▲",
    Verdict.ABORTED: "■",
}

VERDICT_MEANINGS = {
    Verdict.PASS: "the build matches the cell, the probe confirmed the variant's feature, "
    "and no test failed unexpectedly",
    Verdict.FAIL: "CPython does not compile, crashes, does not match the cell, or fails a test",
    Verdict.VACUOUS: "everything is green and nothing is proved",
    Verdict.INFRA: "crossjit or the machine is at fault: this says nothing about CPython",
    Verdict.ABORTED: "it was interrupted",
}

WORST_FIRST = (
    Outcome.CRASHED,
    Outcome.TIMED_OUT,
    Outcome.ERROR,
    Outcome.FAILED,
    Outcome.PASSED,
    Outcome.SKIPPED,
)


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts in one line: `all 2 cells passed`, `1 of 4 cells failed, 1 proved nothing`."""
    count = {verdict: verdicts.count(verdict) for verdict in Verdict if verdict in verdicts}
    total = len(verdicts)
    if not total:
        return "no cell has a verdict"
    if count.get(Verdict.PASS) == total:
        return "the cell passed" if total == 1 else f"all {total} cells passed"
    words = {
        Verdict.FAIL: "failed",
        Verdict.VACUOUS: "proved nothing",
        Verdict.INFRA: "could not be tried",
        Verdict.ABORTED: "did not finish",
    }
    (number, word), *rest = [(number, words[verdict]) for verdict, number in count.items() if verdict in words]
    first = f"the cell {word}" if total == 1 else f"{number} of {total} cells {word}"
    return ", ".join([first, *(f"{number} {word}" for number, word in rest)])
