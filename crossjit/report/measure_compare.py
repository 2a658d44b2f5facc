"""What moved between two measurements, and how well times and instructions agree: as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from crossjit.measure.agreement import Agreement
from crossjit.measure.compare import CellComparison, Direction, Movement
from crossjit.report import tables
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import join_words, pluralize

NAMES = 10  # benchmarks that are left out for one reason
HEADERS = ("benchmark", "moved", "baseline", "ratio before", "ratio after", "JIT before", "JIT after")


def as_text(cells: Sequence[CellComparison], *, before: str, after: str, style: TerminalStyle) -> str:
    """Return what moved by more than the noise, the worst first, and a summary of each cell."""
    parts = [f"before: {before}\nafter:  {after}"]
    return "\n\n".join([*parts, *("\n".join(_cell(cell, style)) for cell in cells)])


def _cell(cell: CellComparison, style: TerminalStyle) -> Iterator[str]:
    yield f"{cell.after}: {cell.after.version} against {cell.before.version}"
    yield from (f"note: {note}" for note in cell.notes)
    if moved := [each for each in cell.movements if each.direction is not Direction.SAME]:
        yield ""
        yield tables.render(HEADERS, [_row(each) for each in moved], style)
        yield ""
    if cell.geometric_mean is not None:
        slower, faster, same = (cell.count(direction) for direction in Direction)
        yield (
            f"geometric mean {_percent(cell.geometric_mean)} of {pluralize(len(cell.movements), 'benchmark')}: "
            f"{slower} slower, {faster} faster, {same} within the noise of {cell.noise * 100:g} %"
        )
    if cell.jit_before is not None and cell.jit_after is not None:
        yield f"ratio to the baseline, geometric mean: {cell.jit_before:.3f} before, {cell.jit_after:.3f} after"
    if lost := [each.name for each in cell.movements if each.lost_the_jit]:
        yield f"no JIT code runs any more in {join_words(lost)}"
    yield from _left_out(cell)


def _left_out(cell: CellComparison) -> Iterator[str]:
    """Yield a line for each reason why benchmarks are not compared."""
    names: dict[tuple[bool, str], list[str]] = {}
    for each in cell.left_out:
        names.setdefault((each.broke, each.why), []).append(each.name)
    for (broke, why), some in names.items():
        more = f" and {len(some) - NAMES} more" if len(some) > NAMES else ""
        yield f"{'broke' if broke else 'left out'}: {', '.join(some[:NAMES])}{more}: {why}"


def _row(moved: Movement) -> tuple[str, ...]:
    return (
        moved.name,
        _percent(moved.ratio),
        _percent(moved.baseline),
        f"{moved.before:.3f}",
        f"{moved.after:.3f}",
        *("-" if share is None else f"{share * 100:.1f} %" for share in (moved.share_before, moved.share_after)),
    )


def _percent(ratio: float) -> str:
    return f"{(ratio - 1) * 100:+.2f} %"


def as_json(cells: Sequence[CellComparison], *, before: str, after: str) -> dict[str, Any]:
    """Return the comparison as JSON values."""
    return {"before": before, "after": after, "cells": [_cell_json(cell) for cell in cells]}


def _cell_json(cell: CellComparison) -> dict[str, Any]:
    counts = {direction.value: cell.count(direction) for direction in Direction}
    return {"cell": str(cell.after.cell), **asdict(cell), "counts": counts, "broke": list(cell.broke)}


def agreement_text(found: Agreement) -> str:
    """Say how well times and instructions agree, and where they part."""
    seconds = f"at least {found.shortest * 1000:g} ms"
    if found.correlation is None:
        lines = [f"{pluralize(found.compared, 'benchmark')} of {seconds} cannot be correlated"]
    else:
        over = pluralize(found.compared, "benchmark")
        lines = [f"times and instructions have a log correlation of {found.correlation:.3f} over {over} of {seconds}"]
    for pair in found.apart:
        opposite = ": one says faster, the other slower" if pair.opposite else ""
        lines.append(f"they part in {pair.name}: instructions {pair.instructions:.3f}, time {pair.time:.3f}{opposite}")
    if found.too_short:
        lines.append(f"too short: {', '.join(found.too_short)}")
    return "\n".join(lines)


def agreement_json(found: Agreement) -> dict[str, Any]:
    """Return how well times and instructions agree as JSON values."""
    apart = [{**asdict(pair), "opposite": pair.opposite} for pair in found.apart]
    return {**asdict(found), "apart": apart, "too_short": list(found.too_short)}
