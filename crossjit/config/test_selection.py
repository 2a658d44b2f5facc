"""The selection of the suites and tests of a cell that run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crossjit.errors import UserError

_SHARD = re.compile(r"(\d+)/(\d+)")


Shard = tuple[int, int]
"""(i, n): the i-th of n parts, from 1."""


@dataclass(frozen=True)
class TestSelection:
    """The part of the suites that runs; all of the variant's own by default.

    `suites` are names, run instead of the variant's; `tests` are patterns of modules' names, or of tests as for
    regrtest's `--match`.
    """

    suites: tuple[str, ...] = ()
    shard: Shard | None = None
    tests: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether each suite runs whole, so that its required tests must have run."""
        return self.shard is None and not self.tests

    def __str__(self) -> str:
        parts = [f"shard {self.shard[0]}/{self.shard[1]}"] if self.shard else []
        parts += [f"tests {', '.join(self.tests)}"] if self.tests else []
        return "; ".join(parts) or "all"


ALL_TESTS = TestSelection()


def parse_shard(text: str) -> Shard | None:
    """Parse `2/3`; None for an empty text. Raises UserError for anything else."""
    if not text:
        return None
    match = _SHARD.fullmatch(text.strip())
    if match and 1 <= int(match[1]) <= int(match[2]):
        return int(match[1]), int(match[2])
    raise UserError(f"invalid --shard {text!r}: expected I/N with 1 ≤ I ≤ N", hint="2/3 is the second of three parts")
