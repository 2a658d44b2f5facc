"""`reproduce`: a job of CPython's CI on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode, UserError
from crossjit.tasks import build
from crossjit.tasks.framework import command, note, show_json, show_table
from crossjit.tasks.options import Request, describe, read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crossjit.settings import Settings
    from crossjit.upstream.jobs import UpstreamJob
    from crossjit.upstream.variant import JobVariant

LARGEST_LOG = 200 << 20  # bytes


@command(
    help=describe(
        "source",
        "strategy",
        "jobs",
        "json",
        job="the job's name as GitHub shows it; the workflow's name before it may be left out",
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
    found = _jobs(request, loaded)
    if list:
        _show_jobs(found, json=json)
        return ExitCode.PASS
    chosen = variant_of(find(found, job))
    tests = _failed(Path(log)) if log else ()
    for difference in chosen.differences:
        note(f"unlike upstream: {difference}")
    request = _request(request, [chosen], loaded)
    request = replace(request, selection=replace(request.selection, tests=tests))
    return build.run_cells(request, validate=True, rebuild=False, json=json)


def _jobs(request: Request, settings: Settings) -> tuple[UpstreamJob, ...]:
    """Read the jobs of the request's source. Raises SourceError for a source without workflows."""
    from crossjit.errors import SourceError
    from crossjit.report.terminal import Terminal
    from crossjit.sources import folder
    from crossjit.upstream import jobs, workflows

    if request.source is None:
        raise UserError(
            "reproduce needs --source: a release archive has no workflows",
            hint="give a branch, a commit or a checkout, such as https://github.com/python/cpython#3.15",
        )
    with Terminal() as terminal:
        files = folder.read(request.source, settings, workflows.FOLDER, progress=terminal)
    found = jobs.read(files)
    if not found:
        raise SourceError(
            f"{request.source} has no workflow that is known: {', '.join(jobs.FILES)}",
            hint="release archives have none: give a branch, a commit or a checkout",
        )
    return found


def _request(request: Request, variants: Sequence[JobVariant], settings: Settings) -> Request:
    """Write the recipe of these variants into the state folder; return a request for its cells."""
    from crossjit.config.recipes import Git
    from crossjit.settings import make_home
    from crossjit.upstream.variant import recipe_name, recipe_text
    from crossjit.util import files

    make_home(settings)
    text = recipe_text(variants, Git("https://github.com/python/cpython", "main"))
    folder = settings.home / "upstream"
    folder.mkdir(exist_ok=True)
    path = folder / f"{recipe_name(text)}.toml"
    files.replace(path, text.encode())
    arches = dict.fromkeys(variant.job.arch for variant in variants if variant.job.arch)
    return replace(
        request, recipes=(str(path),), arches=tuple(arches), variants=tuple(variant.name for variant in variants)
    )


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
        show_json([_facts(job) for job in jobs])
        return
    rows = [(facts["job"], facts["here"], facts["configure"]) for facts in map(_facts, jobs)]
    show_table(("job", "here", "configure"), rows)


def _facts(job: UpstreamJob) -> Mapping[str, str]:
    from crossjit.tasks.session import host_arch

    if job.arch is None or job.obstacle:
        here = f"no: {job.obstacle or f'{job.runner} is not supported'}"
    else:
        here = "natively" if job.arch is host_arch() else f"cross, tests under QEMU ({job.arch})"
    return {
        "job": job.name,
        "runner": job.runner,
        "defined": job.place,
        "here": here,
        "configure": " ".join(job.configure),
    }
