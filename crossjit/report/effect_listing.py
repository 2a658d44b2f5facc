"""The instructions of uops in both builds, side by side, as text; and how all reports write an instruction."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from crossjit.effect.listing import Pair, Sign, pairs
from crossjit.effect.model import Effect
from crossjit.errors import did_you_mean
from crossjit.measure.stencils import Instruction
from crossjit.report.effect import compared_cells

ALL = "all"
WIDTH = 64  # characters of a side

_LABEL = re.compile(r" <[^>]*>")  # of a place in the stencil


def as_text(effect: Effect, names: Sequence[str]) -> Iterator[str]:
    """Yield each variant of the named uops that changed, on each architecture, or of `all` that changed."""
    changed = {uop.name for each in compared_cells(effect) for uop in each.uops}
    for name in names:
        if name not in {ALL, *changed}:
            yield f"{name}: no machine code of it changed{did_you_mean(name, changed)}"
    for each in compared_cells(effect):
        for uop in each.uops:
            if {ALL, uop.name} & {*names}:
                yield from ("\n".join(_pair(f"{each.cell}: {pair.name}", pair)) for pair in pairs(uop))


def instruction(found: Instruction | None) -> str:
    """Return an instruction with its place, and the names of what is written into it."""
    if found is None:
        return ""
    text = f"{found.offset:x}: {_LABEL.sub('', found.text)}"
    return f"{text}  [{', '.join(found.relocations)}]" if found.relocations else text


def _pair(title: str, pair: Pair) -> Iterator[str]:
    yield f"{title}, before and after"
    if {row.sign for row in pair.rows} == {Sign.SAME}:
        names = [code.relocations if code else () for code in (pair.before, pair.after)]
        yield "  its instructions are the same"
        for sign, gone, other in ((Sign.GONE, names[0], names[1]), (Sign.NEW, names[1], names[0])):
            yield from (f"  {sign} {name}" for name in dict.fromkeys(gone) if name not in other)
        return
    texts = [(row.sign, instruction(row.before), instruction(row.after)) for row in pair.rows]
    width = min(WIDTH, max((len(left) for _, left, _ in texts), default=0))
    for sign, left, right in texts:
        yield f"  {sign} {left:<{width}}  {right}".rstrip()
