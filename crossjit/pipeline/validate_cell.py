"""Validating a built cell: its suites and its verdict."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from crossjit.build.container import container_name
from crossjit.config import suites
from crossjit.errors import Interrupted, UserError
from crossjit.images import Role
from crossjit.model import CellResult, SuiteResult, Verdict
from crossjit.pipeline import on_host
from crossjit.pipeline.build_cell import build_cell
from crossjit.pipeline.build_steps import probe_conditions
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedCell
from crossjit.runs import bug_report
from crossjit.stash.artifact import SUPPORT
from crossjit.validation import durations, evidence, run_suite
from crossjit.validation import target as target_module
from crossjit.validation.verdict import judge


def validate_cell(
    ctx: BuildContext, prepared: PreparedCell, built: BuiltCell, *, folder: Path, earlier: Path | None = None
) -> tuple[SuiteResult, ...]:
    """Run the requested suites on a built cell, in order. `folder` gets the files of the suites.

    `earlier` is the cell's folder in a run that died; modules that it completed are not run again.
    """
    selection = prepared.request.selection
    results = []
    for name in prepared.request.suites:
        if (impossible := _without_tests(prepared, name)) is not None:
            results.append(impossible)
            continue
        target = target_of(ctx, prepared, built, name)
        result = run_suite.run_suite(
            ctx.engine,
            target,
            name,
            jobs=ctx.jobs,
            folder=folder,
            progress=ctx.progress,
            selection=selection,
            earlier=earlier,
            durations=durations.load(ctx.settings.engine_home, name, target.conditions),
        )
        if not selection.tests:
            arguments = (ctx.settings.engine_home, name, target.conditions, result.modules)
            ctx.optional("recording module times", durations.record, *arguments)
        results.append(result)
    return tuple(results)


def _without_tests(prepared: PreparedCell, name: str) -> SuiteResult | None:
    """Return the result of a suite of test modules for a Python that comes without the `test` package; else None."""
    if not suites.load(name).groups or prepared.has_tests:
        return None
    why = "this Python comes without CPython's tests (the package `test`), so the suite cannot run"
    return SuiteResult(name, (), 0.0, unproved=(why,))


def target_of(ctx: BuildContext, prepared: PreparedCell, built: BuiltCell, purpose: str) -> target_module.Target:
    """Return the target of a built cell, whose image is made if it is missing. `purpose` names the container."""
    ctx.require_emulator(prepared.cell.arch)
    return target_module.Target(
        image=ctx.ensure_image(prepared.image, Role.TARGET, prepared.cell.arch),
        artifact=built.artifact.full_id,
        tree=built.artifact.open,
        cell=prepared.cell,
        variant=prepared.request.variant,
        python=prepared.python,
        name=container_name(f"{purpose}-{prepared.cell.slug}", ctx.run),
        labels=ctx.labels,
        support=partial(built.artifact.open, SUPPORT) if SUPPORT in built.artifact.objects else None,
        emulation=ctx.emulation(prepared.cell.arch, prepared.request.cpu),
        qemu=ctx.qemu_version(prepared.cell.arch),
        packages=prepared.packages,
    )


def run_cell(
    ctx: BuildContext,
    prepared: PreparedCell,
    *,
    folder: Path,
    validate: bool,
    rebuild: bool = False,
    earlier: Path | None = None,
) -> CellResult:
    """Build and validate one cell; failures become its verdict, with the reason.

    A failed build counts as CPython's failure, all other errors as crossjit's or the machine's. Raises only Interrupted
    and UserError (for an earlier run that cannot be resumed).
    """
    cell = prepared.cell
    result = CellResult(cell, Verdict.INFRA, (), build_key=prepared.key, strategy=prepared.request.strategy)
    seconds: dict[str, float] = {}
    try:
        built = build_cell(ctx, prepared, log=folder / "build.log", rebuild=rebuild)
        seconds.update(built.seconds)
        manifest = built.artifact.manifest
        probe = _current_probe(ctx, prepared, built)
        result = replace(
            result,
            artifact=built.artifact.id,
            from_stash=built.from_stash,
            strategy=manifest.strategy,
            probe=probe,
            seconds=seconds,
            caches=dict(built.caches),
            derived_from=manifest.derived_from,
        )
        suite_results: tuple[SuiteResult, ...] = ()
        if validate:
            suite_results = validate_cell(ctx, prepared, built, folder=folder, earlier=earlier)
            seconds.update({suite.suite: suite.seconds for suite in suite_results})
        verdict, reasons = judge(cell, prepared.request.variant, probe, suite_results)
        reasons = (*reasons, *on_host.remarks(ctx.facts))
        return replace(result, verdict=verdict, reasons=reasons, suites=suite_results, seconds=seconds)
    except (Interrupted, UserError):
        raise
    except Exception as error:
        return replace(bug_report.result_of(ctx.settings.home, result, error), seconds=seconds)


def _current_probe(ctx: BuildContext, prepared: PreparedCell, built: BuiltCell) -> dict[str, object]:
    """Return the facts of a probe in the current conditions: the build's probe, or a new one."""
    manifest = built.artifact.manifest
    if not built.from_stash:
        return manifest.probe
    target = target_of(ctx, prepared, built, "probe")
    conditions = probe_conditions(ctx, prepared.request, target.image)
    changed = evidence.changed(manifest.probed_in, conditions)
    if not changed and "unfinished" not in manifest.probe:
        return manifest.probe
    ctx.progress.say(f"{prepared.cell}: probing it again ({changed or 'it did not finish'})")
    return evidence.probe(ctx.engine, ctx.facts, target, prepared.packages, ctx.progress)
