"""`reproduce` and `recipes check`: scripts from bug reports, and the jobs of CPython's CI."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.config.test_selection import ALL_TESTS
from crossjit.errors import ExitCode, UserError
from crossjit.model import Arch
from crossjit.report import terminal_style
from crossjit.tasks import build, ci_jobs
from crossjit.tasks.framework import command, note, show, show_json, show_table, words_after_dashes
from crossjit.tasks.options import MAKING, REPEATABLE, VARIANTS, Request, cell_command, describe, read
from crossjit.tasks.scripts import SCRIPT_HELP, read_script
from crossjit.tasks.session import opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossjit.triage.user_script import Script
    from crossjit.upstream.jobs import UpstreamJob

LARGEST_LOG = 200 << 20  # bytes


@cell_command(
    "arch",
    "recipe",
    "variant",
    *MAKING,
    *("python", "suite", "shard", "tests"),
    iterable=["script", "with_"],
    rest="script",
    words=True,
    help=describe(
        "json",
        arch=f"with a script, {', '.join(Arch)} or all; {REPEATABLE}; default: all",
        variant=f"with a script, {VARIANTS}, or all; {REPEATABLE}; default: jit",
        script=(
            "the Python file to run, with its arguments after --; can be given without --script; "
            "required without --job and --list"
        ),
        **SCRIPT_HELP,
        job="run a job of CPython's CI instead: its name as GitHub shows it; default: run a script",
        list="list the jobs of the source's CI and whether they can be run here; default: off",
        log="with --job, a file with the job's log: only the tests that failed there run; default: all tests",
    ),
)
def reproduce(
    context: Context,
    request: Request,
    script: list[str] | None = None,
    expect: str = "",
    expect_status: str = "",
    seconds: str = "",
    with_: list[str] | None = None,
    job: str = "",
    list: bool = False,
    log: str = "",
    json: bool = False,
) -> ExitCode:
    """Run a script from a bug report, or a job of CPython's CI, on both architectures or those asked for.

    A script runs with the JIT on, under stress, with low thresholds and with the JIT off, five times each. Where it
    fails, triage names the layer. A job runs with its configure line, its environment and its tests, on its
    architecture; it is taken from the workflows of the source itself.
    """
    if bool(script) + bool(job) + list != 1:
        raise UserError(
            "reproduce needs either a script, --job or --list",
            hint=f"such as {PROGRAM} reproduce bug.py, or {PROGRAM} reproduce --list --source ~/cpython",
        )
    if not job and request.selection != ALL_TESTS:
        raise UserError("--suite, --shard and --tests are about a job", hint="leave them out, or name a --job")
    if script:
        arguments = words_after_dashes(context)
        bug = read_script(script, arguments, expect=expect, expect_status=expect_status, seconds=seconds, with_=with_)
        return _reproduce_script(request, bug, json=json)
    if expect or expect_status or seconds or with_:
        raise UserError("--expect, --expect-status, --seconds and --with are about a script", hint="leave them out")
    return _reproduce_job(request, job, Path(log) if log else None, json=json)


def _reproduce_job(request: Request, job: str, log: Path | None, *, json: bool) -> ExitCode:
    """Run a job, or without a name list the jobs."""
    from crossjit import settings
    from crossjit.upstream.jobs import find
    from crossjit.upstream.variant import variant_of

    if request.arches or request.recipes or request.variants or request.python:
        raise UserError(
            "--arch, --recipe, --variant and --python are about a script: a job has its own", hint="leave them out"
        )
    if log and request.selection.tests:
        raise UserError("--log and --tests both choose tests", hint="leave one of them out")
    loaded = settings.load()
    jobs = ci_jobs.jobs_of(request, loaded)
    if not job:
        _show_jobs(jobs, json=json)
        return ExitCode.PASS
    chosen = variant_of(find(jobs, job))
    tests = _failed(log) if log else ()
    for difference in chosen.differences:
        note(f"unlike upstream: {difference}")
    request = ci_jobs.cells_of(request, [chosen], loaded)
    if tests:
        request = replace(request, selection=replace(request.selection, tests=tests))
    return build.run_cells(request, validate=True, rebuild=False, json=json)


def _reproduce_script(request: Request, script: Script, *, json: bool) -> ExitCode:
    from crossjit.capsule import collect
    from crossjit.pipeline import build_cell, prepare
    from crossjit.pipeline.packages import ScriptPackages
    from crossjit.report import user_script as report
    from crossjit.triage import user_script
    from crossjit.triage.experiments import Experiments

    variants = () if request.python else ("jit",)
    request = replace(request, arches=request.arches or tuple(Arch), variants=request.variants or variants)
    reproductions: list[user_script.Reproduction] = []
    with opened(request, looks=True) as run:
        packages = ScriptPackages(run.ctx, script.requirements)
        prepared_cells = prepare.prepare(run.ctx, run.requests)
        for prepared in prepared_cells:
            packages.files(prepared)  # before hours are spent on builds
        for prepared in prepared_cells:
            folder = run.record.cell_folder(prepared.cell)
            built = build_cell.build_cell(run.ctx, prepared, log=folder / "build.log")
            experiments = Experiments(
                run.ctx, prepared, built, folder, builds=True, files=script.files, packages=packages
            )
            limited = script.within(experiments.env)
            found = user_script.reproduce(experiments, prepared.cell, limited)
            collect.record_reproduction(folder, found, limited, built.artifact.id, experiments.env, packages)
            reproductions.append(found)
        run.record.finish(ExitCode.PASS)
    if json:
        document = {"run": run.record.id, "cells": report.as_json(reproductions)}
        show_json(document | {"packages": report.packages_as_json(packages.wheels())})
    else:
        show(report.as_text(reproductions, style=terminal_style.style_of(sys.stdout)))
        show(f"\nrun:       {run.record.id}")
    return ExitCode.PRODUCT if any(each.failed for each in reproductions) else ExitCode.PASS


@command(
    name="check",
    help=describe(
        "json",
        recipe="the recipe whose variants are compared: its name or its file's path; default: 3.15",
        source="the source whose workflows are read; default: the recipe's branch on GitHub",
    ),
)
def check_recipes(context: Context, recipe: str = "", source: str = "", json: bool = False) -> None:
    """Compare a recipe's variants with the jobs of CPython's CI that can be run in a container."""
    from crossjit import PROJECT, settings
    from crossjit.config import recipes, suites
    from crossjit.upstream import coverage

    every = recipes.gather([recipe] if recipe else [], PROJECT / "recipes", suites=suites.names())
    name = recipes.name_of(recipe) if recipe else next(each.name for each in every.values() if each.default)
    if name not in every:
        raise recipes.unknown_recipe(name, every)
    request = read(source=source or f"{ci_jobs.CPYTHON}#{name}")
    found = coverage.compare(ci_jobs.jobs_of(request, settings.load()), every[name].variants)
    if json:
        show_json(
            {
                "jobs": [{**ci_jobs.facts(job), "variant": variant} for job, variant in found.jobs],
                "variants_without_job": list(found.unmatched),
            }
        )
        return
    show_table(
        ("job", "variant", "configure"),
        [(job.name, variant or "-", ci_jobs.facts(job)["configure"]) for job, variant in found.jobs],
    )
    show(f"variants that no job configures: {', '.join(found.unmatched) or 'none'}")


def _failed(path: Path) -> tuple[str, ...]:
    from crossjit.upstream.failures import failed_tests

    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_LOG)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="give the file of a job's log") from error
    tests = failed_tests(content.decode("utf-8", "replace"))
    if not tests:
        raise UserError(f"{path} has no failed test of regrtest", hint="give the whole log of the job's test step")
    return tests


def _show_jobs(jobs: Sequence[UpstreamJob], *, json: bool) -> None:
    if json:
        show_json([ci_jobs.facts(job) for job in jobs])
        return
    rows = [(facts["job"], facts["here"], facts["configure"]) for facts in map(ci_jobs.facts, jobs)]
    show_table(("job", "here", "configure"), rows)
