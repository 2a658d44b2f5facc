"""`measure --check valgrind`: whether the meter counts what an independent program counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from crossjit.errors import ExitCode, UserError
from crossjit.report import terminal_style
from crossjit.tasks import measure_builds
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession, opened

if TYPE_CHECKING:
    from crossjit.measure.benchmarks import Benchmark
    from crossjit.measure.check import Check
    from crossjit.model import Cell

TOOL = "valgrind"


def run(request: Request, tool: str, names: Sequence[str], *, json: bool) -> ExitCode:
    """Check the meter with the named benchmarks, or three; show how far it is from valgrind. Raises UserError."""
    from crossjit.measure import benchmarks, check
    from crossjit.report import measure_check as report

    if tool != TOOL:
        raise UserError(f"invalid --check {tool!r}: expected {TOOL}", hint="it counts natively, by itself")
    chosen = benchmarks.select(benchmarks.load(), names or check.BENCHMARKS)
    with opened(request.with_jit(), looks=True) as session:
        found = dict(_check(session, chosen))
        agree = all(each.agrees for checks in found.values() for each in checks)
        code = ExitCode.PASS if agree else ExitCode.INFRASTRUCTURE
        session.record.finish(code)
    about = session.record.run
    if json:
        show_json(report.as_json(found, run=about.id, reproduce=about.reproduce))
        return code
    show(report.as_text(found, terminal_style.style_of(sys.stdout)))
    show(f"\nrun:       {about.id}\nreproduce: {about.reproduce}")
    return code


def _check(session: RunSession, chosen: Sequence[Benchmark]) -> Iterator[tuple[Cell, tuple[Check, ...]]]:
    """Build what is missing, and check cell by cell."""
    from crossjit.measure import benchmarks, cell, check

    ctx = session.ctx
    contents = benchmarks.contents(chosen, ctx.settings.home, ctx.progress)
    for built in measure_builds.built(session, partial(check.require_native, ctx)):
        build, _ = cell.sides(built)
        yield build.prepared.cell, tuple(check.check(ctx, build, chosen, contents))
