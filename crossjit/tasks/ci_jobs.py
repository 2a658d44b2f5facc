"""The jobs of CPython's CI as requests for cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from crossjit.errors import SourceError, UserError
from crossjit.tasks.options import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crossjit.settings import Settings
    from crossjit.upstream.jobs import UpstreamJob
    from crossjit.upstream.variant import JobVariant

CPYTHON = "https://github.com/python/cpython"


def jobs_of(request: Request, settings: Settings, names: Sequence[str] = ()) -> tuple[UpstreamJob, ...]:
    """Read the jobs of the request's source. Raises SourceError for a source without workflows."""
    from crossjit.report.terminal import Terminal
    from crossjit.sources import folder
    from crossjit.upstream import jobs, workflows

    if request.source is None:
        raise UserError(
            "--source is missing: the recipe's release archive has no workflows",
            hint="give a branch, a commit or a checkout, such as https://github.com/python/cpython#3.15",
        )
    with Terminal() as terminal:
        files = folder.read(request.source, settings, workflows.FOLDER, progress=terminal)
    found = jobs.read(files, names or jobs.FILES)
    if not found:
        raise SourceError(
            f"{request.source} has no workflow that is known: {', '.join(jobs.FILES)}",
            hint="release archives have none: give a branch, a commit or a checkout",
        )
    return found


def cells_of(request: Request, variants: Sequence[JobVariant], settings: Settings) -> Request:
    """Write the recipe of these variants into the state folder; return a request for its cells."""
    from crossjit.config.recipes import Git
    from crossjit.settings import make_home
    from crossjit.upstream.variant import recipe_name, recipe_text
    from crossjit.util import files

    make_home(settings)
    text = recipe_text(variants, Git(CPYTHON, "main"))
    folder = settings.home / "upstream"
    folder.mkdir(exist_ok=True)
    path = folder / f"{recipe_name(text)}.toml"
    files.replace(path, text.encode())
    arches = dict.fromkeys(variant.job.arch for variant in variants if variant.job.arch)
    return replace(
        request, recipes=(str(path),), arches=tuple(arches), variants=tuple(variant.name for variant in variants)
    )


def all_jobs(request: Request) -> Request:
    """Return a request for all Linux jobs of the JIT's workflow; `--arch` leaves out those of other architectures.

    Raises UserError if recipes or variants are asked for as well.
    """
    from crossjit import settings
    from crossjit.upstream.variant import variant_of

    if request.recipes or request.variants:
        raise UserError(
            "--upstream cannot be combined with --recipe or --variant",
            hint="the jobs of the source's own jit.yml take their place",
        )
    loaded = settings.load()
    jobs = [job for job in jobs_of(request, loaded, ("jit.yml",)) if job.arch and not job.obstacle]
    wanted = [job for job in jobs if not request.arches or job.arch in request.arches]
    if not wanted:
        raise UserError(
            f"{request.source} has no job for {', '.join(request.arches)} that a container can run",
            hint="`reproduce --list` shows the jobs",
        )
    return cells_of(request, [variant_of(job) for job in wanted], loaded)


def facts(job: UpstreamJob) -> Mapping[str, str]:
    """Return what is shown of a job."""
    from crossjit.tasks.session import host_arch
    from crossjit.upstream.expressions import UNKNOWN_TEXT

    if job.arch is None or job.obstacle:
        here = f"no: {job.obstacle or f'{job.runner} is not supported'}"
    else:
        here = "natively" if job.arch is host_arch() else f"cross, tests under QEMU ({job.arch})"
    return {
        "job": job.name,
        "runner": job.runner,
        "defined": job.place,
        "here": here,
        "configure": " ".join(job.configure).replace(UNKNOWN_TEXT, "…"),
    }
