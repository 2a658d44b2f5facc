"""The instructions of a stencil in two builds, side by side. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum
from itertools import zip_longest

from crossjit.effect.uops import Code, Kind, Uop
from crossjit.measure.stencils import Instruction

_PLACE = re.compile(r"(?:# )?0x[0-9a-f]+ <[^>]*>")  # in the stencil: it moves with all that is before it
LONGEST = 2000  # instructions


class Sign(StrEnum):
    """What happened to a row's instruction."""

    SAME = " "
    CHANGED = "~"
    GONE = "-"
    NEW = "+"


@dataclass(frozen=True)
class Row:
    """An instruction before and after; None where there is none."""

    sign: Sign
    before: Instruction | None
    after: Instruction | None


@dataclass(frozen=True)
class Pair:
    """A variant in both builds, or one that another took the place of."""

    name: str
    before: Code | None
    after: Code | None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its instructions side by side."""
        return side_by_side(*(code.listing if code else () for code in (self.before, self.after)))


def pairs(uop: Uop) -> tuple[Pair, ...]:
    """Return the variants of a uop that are not the same.

    As many new ones as are gone took their places: a uop that takes its values from other registers has other names.
    """
    gone, new = ([each for each in uop.variants if each.kind is kind] for kind in (Kind.GONE, Kind.NEW))
    if len(gone) != len(new):
        return tuple(Pair(each.name, each.before, each.after) for each in uop.variants)
    moved = [Pair(f"{old.name} → {own.name}", old.before, own.after) for old, own in zip(gone, new, strict=True)]
    kept = [Pair(each.name, each.before, each.after) for each in uop.variants if each.before and each.after]
    return (*kept, *moved)


def side_by_side(before: Sequence[Instruction], after: Sequence[Instruction]) -> tuple[Row, ...]:
    """Align two listings. An instruction whose jump only goes to another place is the same.

    Those of stencils that are far longer than CPython's are not aligned, which would take too long.
    """
    if max(len(before), len(after)) > LONGEST:
        return (*(Row(Sign.GONE, each, None) for each in before), *(Row(Sign.NEW, None, each) for each in after))
    old, new = ([_key(each) for each in side] for side in (before, after))
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    return tuple(row for tag, *ends in matcher.get_opcodes() for row in _rows(tag, before, after, *ends))


def _rows(
    tag: str, before: Sequence[Instruction], after: Sequence[Instruction], start: int, end: int, first: int, last: int
) -> Iterator[Row]:
    for old, new in zip_longest(before[start:end], after[first:last]):
        if old and new:
            yield Row(Sign.SAME if tag == "equal" else Sign.CHANGED, old, new)
        else:
            yield Row(Sign.GONE if old else Sign.NEW, old, new)


def _key(instruction: Instruction) -> tuple[str, tuple[str, ...]]:
    return _PLACE.sub("", instruction.text), instruction.relocations
