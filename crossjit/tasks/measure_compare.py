"""`measure compare`: what moved between two measurements."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode, UserError
from crossjit.report import terminal_style
from crossjit.tasks.framework import command, show, show_json
from crossjit.tasks.options import describe, percentage

if TYPE_CHECKING:
    from crossjit.measure.model import CellMeasurement
    from crossjit.runs.model import Run
    from crossjit.settings import Settings

RUN = "the id of a run of `measure`, the beginning of its id, or last"


@command(
    help=describe(
        "json",
        before=f"the earlier measurement: {RUN}; can be given without --before; required",
        after="the later one, named likewise; can be given without --after; required",
        noise="a movement of at most so much counts as none, such as 0.5%; default: 0.25%, or what the machine had "
        "with --by time",
        fail_slower="end with 1 if a benchmark needs more instructions or time by over this, such as 1%; "
        "default: no limit",
    )
)
def compare(
    context: Context, before: str, after: str, noise: str = "", fail_slower: str = "", json: bool = False
) -> ExitCode:
    """Compare two measurements, benchmark by benchmark: `measure compare RUN_A RUN_B`.

    Shows how the counts or times with the JIT on moved, the worst first, and each one's ratio to its baseline. Ends
    with 1 if a benchmark fails only in the later one. Of one build's instructions and times it shows how well they
    agree.
    """
    from crossjit import settings
    from crossjit.measure import compare as comparing
    from crossjit.measure import model
    from crossjit.report import measure_compare as report

    limit = percentage("fail-slower", fail_slower) / 100 if fail_slower else None
    tolerated = percentage("noise", noise) / 100 if noise else None
    loaded = settings.load()
    first, second = _run(loaded, before), _run(loaded, after)
    pairs = comparing.pairs(model.load(first), model.load(second))
    if {each.metric for pair in pairs for each in pair} == {*model.Metric}:
        _show_agreement(pairs, json=json)
        return ExitCode.PASS
    cells = [comparing.compare(*pair, noise=tolerated) for pair in pairs]
    if json:
        show_json(report.as_json(cells, before=first.id, after=second.id))
    else:
        show(report.as_text(cells, before=first.id, after=second.id, style=terminal_style.style_of(sys.stdout)))
    slower = [each for cell in cells for each in cell.movements if each.direction is comparing.Direction.SLOWER]
    too_slow = limit is not None and any(each.ratio > 1 + limit for each in slower)
    return ExitCode.PRODUCT if too_slow or any(cell.broke for cell in cells) else ExitCode.PASS


def _show_agreement(pairs: Sequence[tuple[CellMeasurement, CellMeasurement]], *, json: bool) -> None:
    """Print how well times and instructions agree."""
    from crossjit.measure import agreement
    from crossjit.measure.model import Metric
    from crossjit.report import measure_compare as report

    found = {}
    for pair in pairs:
        instructions, time = sorted(pair, key=lambda each: each.metric is Metric.TIME)
        found[str(time.cell)] = agreement.of(instructions, time)
    if json:
        show_json({"agreement": {cell: report.agreement_json(each) for cell, each in found.items()}})
    else:
        show("\n\n".join(f"{cell}: {report.agreement_text(each)}" for cell, each in found.items()))


def _run(settings: Settings, name: str) -> Run:
    """Return the named run, or the last one that measured. Raises UserError."""
    from crossjit.measure import model
    from crossjit.runs import history

    if name != history.LAST:
        return history.load(settings, name)
    found = next((run for run in history.list_runs(settings) if model.recorded(run)), None)
    if found is None:
        raise UserError("nothing has been measured yet", hint="start with `measure`")
    return found
