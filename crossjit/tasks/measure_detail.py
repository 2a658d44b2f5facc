"""`measure --detail`: where the instructions of benchmarks go, by function, by uop, or by loads and stores."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from crossjit.errors import ExitCode, UserError
from crossjit.model import Verdict
from crossjit.report import terminal_style
from crossjit.tasks import measure_builds
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession, opened

if TYPE_CHECKING:
    from crossjit.measure.benchmarks import Benchmark
    from crossjit.measure.detail import CellDetails, Kind


def run(request: Request, detail: str, names: Sequence[str], *, json: bool) -> ExitCode:
    """Count the warm call of the named benchmarks in more detail, and show it. Raises UserError."""
    from crossjit.measure import benchmarks
    from crossjit.measure.detail import Kind
    from crossjit.report import measure_detail as report
    from crossjit.runs.model import exit_code_of

    if detail not in list(Kind):
        raise UserError(
            f"invalid --detail {detail!r}: expected functions, uops or accesses", hint="such as --detail functions"
        )
    if not names:
        raise UserError("--detail needs the names of benchmarks", hint="such as --only nbody")
    kind = Kind(detail)
    chosen = benchmarks.select(benchmarks.load(), names)
    with opened(request.with_jit(), looks=True) as session:
        found = tuple(_details(session, kind, chosen))
        code = exit_code_of(_verdicts(kind, found))
        session.record.finish(code)
    about = session.record.run
    if json:
        show_json(report.as_json(kind, found, run=about.id, reproduce=about.reproduce))
        return code
    show(report.as_text(kind, found, terminal_style.style_of(sys.stdout)))
    show(f"\nrun:       {about.id}\nreproduce: {about.reproduce}")
    return code


def _details(session: RunSession, kind: Kind, chosen: Sequence[Benchmark]) -> Iterator[CellDetails]:
    """Build what is missing, and count cell by cell."""
    from crossjit.measure import benchmarks, cell, detail

    ctx = session.ctx
    contents = benchmarks.contents(chosen, ctx.settings.home, ctx.progress)
    require = detail.require_uops if kind is detail.Kind.UOPS else None
    for built in measure_builds.built(session, require):
        build, _ = cell.sides(built)
        yield detail.count(ctx, build, kind, chosen, contents)


def _verdicts(kind: Kind, found: Sequence[CellDetails]) -> Iterator[Verdict]:
    """Yield what decides the exit code: benchmarks that failed or are no evidence, and a cell without JIT code."""
    from crossjit.measure.detail import Kind
    from crossjit.measure.model import Trouble

    for each in found:
        if each.vacuous and kind is Kind.UOPS:
            yield Verdict.VACUOUS
        for detail in each.details:
            if detail.trouble:
                yield Verdict.FAIL if detail.trouble is Trouble.FAILED else Verdict.INFRA
