"""`reproduce` and `recipes check`: the jobs of CPython's CI on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode, UserError
from crossjit.tasks import build, ci_jobs
from crossjit.tasks.framework import command, note, show, show_json, show_table
from crossjit.tasks.options import describe, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossjit.upstream.jobs import UpstreamJob

LARGEST_LOG = 200 << 20  # bytes


@command(
    help=describe(
        "source",
        "strategy",
        "jobs",
        "json",
        job="the job's name as GitHub shows it, with or without its workflow's; required without --list",
        list="list the jobs and whether they can be run here; default: off",
        log="a file with the job's log: only the tests that failed there run; default: all tests",
    )
)
def reproduce(
    context: Context,
    job: str = "",
    list: bool = False,
    log: str = "",
    source: str = "",
    strategy: str = "auto",
    jobs: str = "",
    json: bool = False,
) -> ExitCode:
    """Run a job of CPython's CI: with its configure line, its environment and its tests, on its architecture.

    The job is taken from the workflows of the source itself.
    """
    from crossjit import settings
    from crossjit.upstream.jobs import find
    from crossjit.upstream.variant import variant_of

    request = read(source=source, strategy=strategy, jobs=jobs)
    if list is bool(job):
        raise UserError("reproduce needs either --job or --list", hint="--list shows the jobs of a source")
    loaded = settings.load()
    found = ci_jobs.jobs_of(request, loaded)
    if list:
        _show_jobs(found, json=json)
        return ExitCode.PASS
    chosen = variant_of(find(found, job))
    tests = _failed(Path(log)) if log else ()
    for difference in chosen.differences:
        note(f"unlike upstream: {difference}")
    request = ci_jobs.cells_of(request, [chosen], loaded)
    request = replace(request, selection=replace(request.selection, tests=tests))
    return build.run_cells(request, validate=True, rebuild=False, json=json)


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
