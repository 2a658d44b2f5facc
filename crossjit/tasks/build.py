"""`build`, `validate`, `plan`, `shell`: the main job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.model import CellResult, Verdict
from crossjit.report import tables, terminal_style
from crossjit.tasks import ci_jobs
from crossjit.tasks.framework import note, show, show_json, show_table
from crossjit.tasks.options import SELECTORS, Request, cell_command, describe, from_record
from crossjit.tasks.session import Forecast, RunSession, forecast_cells, opened

if TYPE_CHECKING:
    from crossjit.pipeline.plan import PlannedStep
    from crossjit.runs.model import Run

_REBUILD = "build even if the artifact is in the stash; default: use the stashed one"


@cell_command(*SELECTORS, "no_cache", help=describe("json", rebuild=_REBUILD))
def build(context: Context, request: Request, rebuild: bool = False, json: bool = False) -> ExitCode:
    """Build cells, probe whether they really run JIT code, and stash them."""
    return run_cells(request, validate=False, rebuild=rebuild, json=json)


@cell_command(*SELECTORS, "no_cache", "python", help=describe("json"))
def probe(context: Context, request: Request, json: bool = False) -> ExitCode:
    """Say whether the JIT of cells, or of a Python that was built elsewhere, makes machine code.

    Cells that are not in the stash are built first.
    """
    return run_cells(request, validate=False, rebuild=False, json=json)


@cell_command(
    *SELECTORS,
    *("no_cache", "python", "suite", "shard", "tests"),
    help=describe(
        "json",
        rebuild=_REBUILD,
        resume=(
            "continue a run that was interrupted, or judge a failed one again by the current known failures: its id, "
            "the beginning of its id, or last; all other options come from that run; default: start a new run"
        ),
        upstream="validate the Linux jobs of the source's own jit.yml instead of variants; default: off",
    ),
)
def validate(
    context: Context,
    request: Request,
    resume: str = "",
    upstream: bool = False,
    rebuild: bool = False,
    json: bool = False,
) -> ExitCode:
    """Build what is missing, run the variants' suites in the target image, and give each cell a verdict."""
    if not resume:
        if request.python and (upstream or rebuild):
            raise UserError(
                f"--python cannot be combined with --{'upstream' if upstream else 'rebuild'}",
                hint="it names a Python that was built elsewhere; leave the other option out",
            )
        if upstream:
            request = ci_jobs.all_jobs(request)
        return run_cells(request, validate=True, rebuild=rebuild, json=json)
    before = _interrupted(resume)
    if rebuild or upstream or not request.leaves_all_open:
        raise UserError(
            "--resume cannot be combined with other options: they are taken from the run",
            hint="leave the other options out",
        )
    return run_cells(
        replace(from_record(before), jobs=request.jobs), validate=True, rebuild=False, json=json, before=before
    )


def _interrupted(name: str) -> Run:
    """Load a run to resume. Raises UserError for one that is still running."""
    from crossjit import settings
    from crossjit.runs import history, model

    run = history.load(settings.load(), name)
    if run.state is model.RunState.RUNNING:
        raise UserError(f"run {run.id} is still running", hint="wait for it, or stop it with Ctrl-C first")
    return run


def run_cells(request: Request, *, validate: bool, rebuild: bool, json: bool, before: Run | None = None) -> ExitCode:
    """Run a request's cells, and show the results. `before` is the run that is resumed."""
    from crossjit.runs.model import exit_code

    run: RunSession | None = None
    results: list[CellResult] = []
    try:
        with opened(request, reproduce=before.reproduce if before else None, spread=True) as run:
            _run_cells(run, results, validate=validate, rebuild=rebuild, before=before)
            run.record.finish(exit_code(results))
    except KeyboardInterrupt:
        if run is not None:
            finished = {result.cell for result in results}
            cells = [request.cell for request in run.requests if request.cell not in finished]
            results += (CellResult(cell, Verdict.ABORTED, ("interrupted before its end",)) for cell in cells)
            _show(run, results, json=json)
        raise
    except InfrastructureError as error:
        if run is None or len(results) < len(run.requests):
            raise
        note(tables.error_text(error))  # the record cannot be finished, but all results are known
    _show(run, results, json=json)
    return exit_code(results)


def _run_cells(
    run: RunSession, results: list[CellResult], *, validate: bool, rebuild: bool, before: Run | None
) -> None:
    """Add each cell's result when it is known and recorded. An error in one cell is its result; the others go on."""
    from crossjit.pipeline import prepare
    from crossjit.pipeline.dispatch import Dispatch
    from crossjit.pipeline.post import EnginePost

    def deliver(result: CellResult) -> None:
        try:
            run.record.set_cell(result)
        except InfrastructureError as error:
            verdict = result.verdict if result.verdict is Verdict.FAIL else Verdict.INFRA
            result = replace(result, verdict=verdict, reasons=(*result.reasons, error.message, f"hint: {error.hint}"))
        results.append(result)

    # All sources first, so that errors in them show before hours are spent on a different cell.
    resolved = prepare.resolve_each(run.ctx, run.requests)
    cells = [request.cell for request in run.requests]
    posts = [
        EnginePost(name, ctx, run.record, run.requests_on(name), resolved, validate, rebuild, before)
        for name, ctx in run.contexts.items()
    ]
    Dispatch(posts, run.schedule(cells), deliver).run()
    results.sort(key=lambda result: cells.index(result.cell))


def _show(run: RunSession, results: Sequence[CellResult], *, json: bool) -> None:
    """Print the cells' results, and the command that repeats the run."""
    record = run.record.run
    if json:
        show_json(tables.results_json(results, run=record.id, reproduce=record.reproduce))
    else:
        show(
            tables.results_text(
                results, run=record.id, reproduce=record.reproduce, style=terminal_style.style_of(sys.stdout)
            )
        )


@cell_command(*SELECTORS, help=describe("json", build_only="leave out the suites, as `build` does; default: off"))
def plan(context: Context, request: Request, build_only: bool = False, json: bool = False) -> None:
    """Say what `validate` would do for each cell, on which engine, and what is in the stash already; starts nothing.

    Only an engine on a different machine is asked with a tiny program of each architecture what it can run.
    """
    from crossjit.pipeline.plan import steps as list_steps

    forecasts = forecast_cells(request)
    steps = {
        each.cell: list_steps(
            each.cell,
            each.request.variant,
            each.request.strategy,
            each.ability,
            each.planned.known,
            validate=not build_only,
        )
        for each in forecasts
    }
    if json:
        show_json([_planned_json(each, steps[each.cell]) for each in forecasts])
        return
    several = any(each.engines > 1 for each in forecasts)
    headers = ("cell", *(["engine"] if several else []), "strategy", "image", "in the stash", "build key", "to do")
    show_table(headers, [_planned_row(each, steps[each.cell], several) for each in forecasts])
    for each in forecasts:
        if several:
            show(f"{each.cell}: {' or '.join(each.placement.engines)}: {each.placement.reason}")
        for obstacle in dict.fromkeys(step.obstacle for step in steps[each.cell] if step.obstacle):
            show(f"{each.cell}: {obstacle}" + (f"; {PROGRAM} setup fixes it" if each.ability.local else ""))
        for step in steps[each.cell]:
            if step.by:
                show(f"{each.cell}: its {step.name} is {step.by}")


def _planned_row(forecast: Forecast, steps: Sequence[PlannedStep], several: bool) -> tuple[str, ...]:
    planned = forecast.planned
    to_do = [f"{step.name} (emulated)" if step.emulated else step.name for step in steps if not step.satisfied]
    return (
        str(forecast.cell),
        *([" or ".join(forecast.placement.engines)] if several else []),
        forecast.request.strategy.value,
        planned.image.name if planned.image else "known with the source",
        planned.artifact.id if planned.artifact else "no",
        planned.key[:12] if planned.key else "known with the toolchain",
        ", ".join(to_do) or "nothing",
    )


def _planned_json(forecast: Forecast, steps: Sequence[PlannedStep]) -> dict[str, object]:
    planned = forecast.planned
    return {
        "cell": str(forecast.cell),
        "engines": list(forecast.placement.engines),
        "why": forecast.placement.reason,
        "strategy": forecast.request.strategy.value,
        "source": planned.source.version if planned.source else None,
        "llvm": planned.source.llvm if planned.source else None,
        "image": planned.image.name if planned.image else None,
        "build_key": planned.key,
        "artifact": planned.artifact.id if planned.artifact else None,
        "steps": [
            {
                "name": step.name,
                "arch": step.arch.value,
                "satisfied": step.satisfied,
                "emulated": step.emulated,
                "obstacle": step.obstacle,
                "by": step.by,
            }
            for step in steps
        ],
    }


@cell_command(
    *SELECTORS,
    "python",
    help={"toolchain": "the toolchain image with the source and the build's environment; default: the target image"},
)
def shell(context: Context, request: Request, toolchain: bool = False) -> int:
    """Open a shell in a cell's target image, with its artifact installed; builds it if it is not in the stash.

    With `--toolchain` it is the toolchain image, with the source unpacked and nothing built; the configure line to type
    is shown. What is done inside is lost when the shell ends.
    """
    from crossjit.pipeline import build_cell, prepare
    from crossjit.pipeline.context import PreparedBuild
    from crossjit.pipeline.shell import target_shell, toolchain_shell

    if toolchain and request.python:
        raise UserError(
            "--toolchain cannot be combined with --python", hint="nothing is built; leave one of the options out"
        )
    with opened(request, one=True, looks=True) as run:
        (prepared,) = prepare.prepare(run.ctx, run.requests)
        if toolchain and isinstance(prepared, PreparedBuild):
            note(f"configure is called here as: {prepared.spec.configure_line}")
            status = toolchain_shell(run.ctx, prepared)
        else:
            folder = run.record.cell_folder(prepared.cell)
            built = build_cell.build_cell(run.ctx, prepared, log=folder / "build.log")
            status = target_shell(run.ctx, prepared, built)
        run.record.finish(ExitCode.PASS)
    return status
