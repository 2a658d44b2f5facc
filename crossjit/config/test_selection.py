"""Which part of a cell's suites is to run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crossjit.errors import UserError

_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class TestSelection:
    """Which part of the suites runs; all of the variant's own if nothing is given.

    `suites` are names, to be run instead of the variant's; `shard` is (i, n), the i-th of n parts, from 1; `tests` are
    patterns: modules' names, or of tests as regrtest's `--match` takes them.
    """

    suites: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    tests: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether each suite runs whole, so that what it must have run can be asked for."""
        return self.shard is None and not self.tests

    def __str__(self) -> str:
        said = [f"shard {self.shard[0]}/{self.shard[1]}"] if self.shard else []
        said += [f"tests {', '.join(self.tests)}"] if self.tests else []
        return "; ".join(said) or "all"


ALL_TESTS = TestSelection()


def parse_shard(text: str) -> tuple[int, int] | None:
    """Read `2/3`; None for no text. Raises UserError for anything else."""
    if not text:
        return None
    found = _SHARD.fullmatch(text.strip())
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise UserError(f"invalid --shard {text!r}: expected I/N with 1 ≤ I ≤ N", hint="2/3 is the second of three parts")
