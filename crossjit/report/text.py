"""Text of tests and tools made fit to show: what is no text becomes visible, and nothing is without end."""

from __future__ import annotations

import re
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
    Verdict.PASS: "the build is what the cell asks for, the probe found what the variant is for, "
    "and no test failed that is not known to",
    Verdict.FAIL: "CPython does not compile, crashes, is not what the cell asks for, or fails a test",
    Verdict.VACUOUS: "everything is green and nothing is proved",
    Verdict.INFRA: "our side or the machine's: this says nothing about CPython",
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

_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What XML 1.0 does not allow (https://www.w3.org/TR/xml/#charsets), and what changes the order of what is shown.
NO_TEXT = re.compile("[^\t\n\x20-\x7e\xa0-\u2029\u202f-\u2065\u206a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    r"""Return text that HTML, XML and a terminal can hold: other characters as escapes such as `\x1b`, no colours."""
    return NO_TEXT.sub(_escape, _COLOURS.sub("", text).replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return text that one line of a terminal can hold."""
    return " ".join(printable(text).split())


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def shortened(text: str, limit: int) -> str:
    """Cut the middle out of what is too long."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def listed(words: Sequence[str]) -> str:
    """Put words into a sentence: `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def headline(verdicts: Sequence[Verdict]) -> str:
    """Say in a line how cells came out: `all 2 cells passed`, `1 of 4 cells failed, 1 vacuous`."""
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
        Verdict.ABORTED: "did not come to an end",
    }
    (number, word), *rest = [(number, words[verdict]) for verdict, number in count.items() if verdict in words]
    first = f"the cell {word}" if total == 1 else f"{number} of {total} cells {word}"
    return ", ".join([first, *(f"{number} {word}" for number, word in rest)])
