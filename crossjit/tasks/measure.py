"""`measure`: how many instructions benchmarks need with the JIT and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode, UserError
from crossjit.model import Cell, Verdict
from crossjit.report import terminal_style
from crossjit.tasks import measure_builds, measure_check, measure_detail, measure_history, report
from crossjit.tasks.framework import note, show, show_json
from crossjit.tasks.options import (
    MAKING,
    REPEATABLE,
    VARIANTS,
    Request,
    cell_command,
    describe,
    number,
    percentage,
    words,
)
from crossjit.tasks.session import RunSession, opened

NOISE = "3%"

if TYPE_CHECKING:
    from crossjit.measure.benchmarks import Benchmark
    from crossjit.measure.cell import Built
    from crossjit.measure.model import CellMeasurement
    from crossjit.runs.model import Run


@cell_command(
    *("arch", "recipe", "variant", *MAKING, "python"),
    name="run",
    default=True,
    iterable=["only"],
    help=describe(
        *("json", "html"),
        variant=f"{VARIANTS}, or all; {REPEATABLE}; default: jit",
        jobs="how many benchmarks, or commands of make, run at a time; default: CROSSJIT_JOBS, else as many as cores "
        "and memory allow",
        against="another variant to compare with, such as nojit, or ft for ft-jit; default: the same build, JIT off",
        only=f"only these benchmarks; {REPEATABLE}; default: some fifty",
        fast="only a dozen light benchmarks; default: off",
        full="all benchmarks; default: off",
        fail_slower="end with 1 if a benchmark is slower by more than this, such as 1%; default: no limit",
        repeat="how often each benchmark runs; all runs must be equal to the instruction; default: once, and every "
        "tenth twice",
        by="instructions, counted under QEMU, or time, which needs hardware of the arch; default: instructions",
        history="a repository of CPython on this machine: count one benchmark (--only) at each of --commits; "
        "default: measure the source",
        commits="with --history: the first and the last commit, as A..B; default: none",
        check="valgrind: only check the meter, by counting three benchmarks (or --only) natively with callgrind; "
        "default: off",
        detail="functions, uops or accesses: only show where the instructions of the warm call go, of benchmarks named "
        "with --only; uops needs 3.15 or later; default: off",
        noise=f"with --by time: how far a build may be from itself on this machine; default: {NOISE}",
        markdown="also write a summary for a CI job to this file, - for stdout; default: none",
    ),
)
def measure(
    context: Context,
    request: Request,
    against: str = "",
    only: list[str] | None = None,
    fast: bool = False,
    full: bool = False,
    fail_slower: str = "",
    repeat: str = "",
    by: str = "instructions",
    noise: str = "",
    history: str = "",
    commits: str = "",
    check: str = "",
    detail: str = "",
    html: str = "",
    markdown: str = "",
    json: bool = False,
) -> ExitCode:
    """Compare benchmarks with the JIT on to the same with the JIT off.

    Instructions are counted under QEMU, so no hardware of the architecture is needed. A count says whether the code
    changed, not whether it is faster: hardware decides that. Untouched benchmarks, in which no JIT code ran, are named
    apart.
    """
    from crossjit.measure import benchmarks

    others = any((fast, full, against, fail_slower, repeat, noise, html, markdown, by != "instructions"))
    if check or detail:
        if others or history or commits or (check and detail):
            raise _alone("--check" if check else "--detail", "--only")
        mode = measure_check.run if check else measure_detail.run
        return mode(request, check or detail, words(only), json=json)
    if history or commits:
        if others or request.python:
            raise _alone("--history", "--only, --commits")
        return measure_history.run(request, words(only), history, commits, json=json)
    chosen = benchmarks.select(benchmarks.load(), words(only), fast=fast, full=full)
    limit = percentage("fail-slower", fail_slower) if fail_slower else None
    files = report.places(json=json, html=html, markdown=markdown)
    method = _method(by, repeat, noise)
    request = _with_variants(request, against)
    with opened(request, looks=True) as run:
        found = tuple(_measure(run, chosen, against, method))
        code = _code(found, limit)
        run.record.finish(code)
    _report(run.record.run, found, files, json=json)
    if limit is not None:
        _note_slower(found, limit)
    return code


def _alone(option: str, partners: str) -> UserError:
    return UserError(
        f"{option} can be combined with {partners} and the options of a build only", hint="leave the others out"
    )


@dataclass(frozen=True)
class Method:
    """How benchmarks are measured; `noise` is the accepted one, as a part of 1."""

    by_time: bool
    repeat: int
    noise: float


def _method(by: str, repeat: str, noise: str) -> Method:
    """Parse --by, --repeat and --noise. Raises UserError."""
    if by not in ("instructions", "time"):
        raise UserError(f"invalid --by {by!r}: expected instructions or time", hint="instructions need no hardware")
    by_time = by == "time"
    if by_time and repeat:
        raise UserError("--repeat is for --by instructions", hint="times are always taken several times")
    if noise and not by_time:
        raise UserError("--noise is for --by time", hint="instructions have none")
    return Method(by_time, number("repeat", repeat or "1", at_least=1), percentage("noise", noise or NOISE) / 100)


def _with_variants(request: Request, against: str) -> Request:
    """Return the request with all variants that take part. Raises UserError for those that cannot be compared."""
    if against and request.python:
        raise UserError("--against cannot be combined with --python", hint="it is compared with itself, JIT off")
    request = request.with_jit()
    if against and against in request.variants:
        raise UserError(
            f"{against} cannot be compared with itself", hint="leave --against out to compare JIT on and off"
        )
    return replace(request, variants=(*request.variants, against)) if against else request


def _measure(run: RunSession, chosen: Sequence[Benchmark], against: str, method: Method) -> Iterator[CellMeasurement]:
    """Build what is missing, then measure cell by cell, and record each."""
    from crossjit.measure import benchmarks, cell, model, packages

    more = [packages.PYPERF] if method.by_time else []
    contents = benchmarks.contents(chosen, run.ctx.settings.home, run.ctx.progress, *more)
    require = partial(cell.require_hardware, run.ctx) if method.by_time else None
    built = {each[0].cell: each for each in measure_builds.built(run, require)}
    for measured in built:
        if measured.variant == against:
            continue
        other = _other(measured, against, built) if against else None
        sides = cell.sides(built[measured], other)
        if reason := cell.vacuous(sides[0]):
            result = cell.nothing(*sides, reason)
        elif method.by_time:
            folder = run.record.cell_folder(measured) / "results"
            result = cell.measure_time(run.ctx, *sides, chosen, contents, folder, limit=method.noise)
        else:
            result = cell.measure(run.ctx, *sides, chosen, contents, repeat=method.repeat)
        model.save(run.record.cell_folder(measured), result)
        yield result


def _other(measured: Cell, against: str, built: Mapping[Cell, Built]) -> Built:
    """Return the build to compare with. Raises UserError if there is none."""
    other = replace(measured, variant=against)
    if other not in built:
        raise UserError(f"there is no {other} to compare with", hint="choose an --against that this arch has")
    return built[other]


def _code(found: Sequence[CellMeasurement], limit: float | None) -> ExitCode:
    """Return the exit code: for a benchmark that failed or is too slow, or whose counts differ, or a vacuous cell."""
    from crossjit.measure import statistics
    from crossjit.runs.model import exit_code_of

    verdicts = set()
    for measurement in found:
        rows = statistics.rows(measurement)
        figures = statistics.summary(rows)
        if figures.failed or (limit is not None and statistics.too_slow(rows, limit)):
            verdicts.add(Verdict.FAIL)
        if figures.unreliable:
            verdicts.add(Verdict.INFRA)
        if measurement.vacuous:
            verdicts.add(Verdict.VACUOUS)
    return exit_code_of(verdicts)


def _report(record: Run, found: Sequence[CellMeasurement], files: Mapping[str, str], *, json: bool) -> None:
    """Show what was measured, and write the reports that have a file."""
    if report.STDOUT not in files.values():
        _show(record, found, json=json)
    for kind, place in files.items():
        report.write(place, report.measured(kind, found, run=record.id, reproduce=record.reproduce))


def _show(record: Run, found: Sequence[CellMeasurement], *, json: bool) -> None:
    from crossjit.measure.model import Metric
    from crossjit.report import measure as as_report

    if json:
        show_json(as_report.document(found, run=record.id, reproduce=record.reproduce))
        return
    show(as_report.as_text(found, terminal_style.style_of(sys.stdout)))
    if any(measurement.metric is Metric.INSTRUCTIONS for measurement in found):
        show(f"\n{as_report.NOT_TIMES}")
    show(f"\nrun:       {record.id}\nreproduce: {record.reproduce}")


def _note_slower(found: Sequence[CellMeasurement], limit: float) -> None:
    """Say which benchmarks are slower than is allowed."""
    from crossjit.measure import statistics

    for measurement in found:
        for row in statistics.too_slow(statistics.rows(measurement), limit):
            by = ((row.ratio or 0) - 1) * 100
            note(f"{measurement.cell}: {row.name} is slower by {by:.2f} %, and --fail-slower allows {limit:g} %")
