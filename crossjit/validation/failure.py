"""When two failures of a test are the same: how it ended, where, and for what kind of reason. Pure.

`reducer/` runs this in a container as well, so it imports nothing but the standard library and `reason`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from crossjit.validation import reason

# What differs between two runs of one failure: addresses, numbers, quoted values, paths.
_VOLATILE = re.compile(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"|/\S+")
_ASSERTION = re.compile(r"Assertion .*")
_ENDED = re.compile(r"^\S+: (killed (?:by|after) \w+|exit status \d+)", re.M)
# The innermost frame of Python, as faulthandler writes it.
_FRAME = re.compile(r"\(most recent call first\):\n +File \"[^\"\n]*\", line \d+ in (\S+)")

How = Literal["failed", "crashed", "hung"]


@dataclass(frozen=True)
class Failure:
    """How a test failed.

    `kind` is the exception's type, the failed assertion, or the fatal error and the signal, without what differs from
    run to run; empty for a hang. `place` is the Python function that a crash happened in, if known. `text` is for
    people. `test` is the test's name; empty where there is only one.
    """

    how: How
    kind: str = ""
    place: str = ""
    text: str = ""
    test: str = ""

    def __str__(self) -> str:
        test = f"{self.test} " if self.test else ""
        place = f" in {self.place}" if self.place else ""
        return f"{test}{self.how}{place}" + (f": {self.text}" if self.text else "")

    def is_same(self, other: Failure) -> bool:
        """Whether both are the same failure, wherever it happened."""
        return (self.test, self.how, self.kind) == (other.test, other.how, other.kind)

    @classmethod
    def of(cls, how: How, message: str) -> Failure:
        """Return the failure of a test that ended so with this message."""
        text = reason.of(message)
        if how == "hung":
            return cls(how)
        if how == "failed":
            return cls(how, text if text.startswith("exit status") else steady(text.partition(":")[0]), text=text)
        words = reason.last_words(message)
        ended = _ENDED.findall(message)
        kind = ", ".join(filter(None, (ended[-1] if ended else "", steady(words))))
        frame = _FRAME.search(message)
        return cls(how, kind, frame[1] if frame else "", text=words or text)


def steady(text: str) -> str:
    """Take out what differs from run to run, and of an assertion all before it: file, line and function."""
    assertion = _ASSERTION.search(text)
    return _VOLATILE.sub("…", assertion[0] if assertion else text)
