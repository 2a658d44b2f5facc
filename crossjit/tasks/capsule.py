"""`capsule` and `replay`: one file with a failure, and whether the same happens on another machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, UserError
from crossjit.report import terminal_style
from crossjit.tasks.framework import Notes, command, show, show_json, words_after_dashes
from crossjit.tasks.options import MAKING, Request, cell_command, describe, from_record, of_cell
from crossjit.tasks.runs import RUN
from crossjit.tasks.scripts import SCRIPT_HELP, read_script, require_free
from crossjit.tasks.session import looking, opened
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.capsule.collect import Subject
    from crossjit.capsule.document import CapsuleDocument
    from crossjit.capsule.replay import Difference, Replayed
    from crossjit.config.recipes import Recipe
    from crossjit.runs.model import Run
    from crossjit.settings import Settings
    from crossjit.stash.artifact import Artifact
    from crossjit.triage.user_script import Script


@cell_command(
    *MAKING,
    iterable=["run", "with_"],
    rest="run",
    words=True,
    short={"output": "o"},
    help=describe(
        "json",
        run=f"{RUN}, in which a test or a script failed; can be given without --run; default: last",
        cell=(
            "the cell of the run whose failure to take; with --script or --test, a cell to run that in, such as "
            "3.15/aarch64/jit; default: the only one that failed"
        ),
        script="with --cell, a Python file that fails there, with its arguments after --; default: take a run",
        test="with --cell, a test or module that fails there; default: take a run",
        **SCRIPT_HELP,
        output="the capsule's file; required",
        force="replace the file if it exists; default: off",
        without_artifact="leave out the build: who replays the capsule builds it again; default: off",
    ),
)
def capsule(
    context: Context,
    request: Request,
    run: list[str] | None = None,
    cell: str = "",
    script: str = "",
    test: str = "",
    expect: str = "",
    expect_status: str = "",
    seconds: str = "",
    with_: list[str] | None = None,
    output: str = "",
    force: bool = False,
    without_artifact: bool = False,
    json: bool = False,
) -> ExitCode:
    """Write a failure with all that it takes to see it again into one file: `capsule [RUN] -o FILE`.

    It holds the script or the tests, the recipe, the source, the configure line, the images' packages, QEMU's version
    and CPU model, what was seen, and the build. `replay` says whether the same happens on another machine.
    """
    arguments = words_after_dashes(context)
    if not output:
        raise UserError("-o is missing: the file to write", hint=f"such as {PROGRAM} capsule -o bug.capsule")
    path = full_path(output)
    require_free(path, force=force)
    if script and test:
        raise UserError("--script cannot be combined with --test", hint="give one of them")
    if script or test:
        if not cell or run:
            raise UserError(
                "--script and --test go with --cell, and not with a run", hint="such as --cell 3.15/aarch64/jit"
            )
        bug = None
        if script:
            bug = read_script(
                [script], arguments, expect=expect, expect_status=expect_status, seconds=seconds, with_=with_
            )
        found = _seen_now(of_cell(request, cell), bug, test)
    else:
        if arguments or expect or expect_status or seconds or with_ or not request.leaves_all_open:
            raise UserError("these options are about a script or a test", hint="give --cell with --script or --test")
        found = _of_run(run or ["last"], cell)
    return _write(*found, path, with_artifact=not without_artifact, json=json)


@command(
    name="replay",
    help=describe("json", file="the capsule; can be given without --file; required"),
)
def replay(context: Context, file: str, json: bool = False) -> ExitCode:
    """Say whether what is in a capsule happens on this machine as well: `replay FILE`.

    Ends with 0 if all failures are the same here, and with 1 if not. What is different here is listed.
    """
    from crossjit import settings
    from crossjit.capsule import archive, replay

    loaded = settings.load()
    settings.make_home(loaded)
    with (
        archive.opened(full_path(file), loaded.home) as unpacked,
        looking(loaded, (unpacked.document.arch,)) as ctx,
    ):
        found = list(replay.replay(ctx, unpacked, loaded.runs / ctx.run / "replay"))
    return _show_replay(unpacked.document, found, json=json)


def _of_run(names: Sequence[str], cell: str) -> tuple[Subject, Artifact, Recipe, Settings]:
    """Take a failure of a run. Raises UserError if there is none, or its build is gone."""
    from crossjit import settings
    from crossjit.capsule import collect
    from crossjit.pipeline.plan import parse_cell
    from crossjit.runs import history

    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    loaded = settings.load()
    if names[0] == history.LAST:
        built = (run for run in history.list_runs(loaded) if not run.request.get("python"))
        failed = (run for run in built if any(_subjects(run)))
        run = next(failed, None) or history.load(loaded)
    else:
        run = history.load(loaded, names[0])
    subject = collect.choose(list(_subjects(run)), parse_cell(cell) if cell else None, run.id)
    return subject, _artifact(subject, loaded), _recipe(run, subject.cell.recipe), loaded


def _subjects(run: Run) -> Iterator[Subject]:
    """Yield the failures of a run, one for each cell."""
    from crossjit.capsule import collect

    for cell in run.cells:
        if subject := collect.recorded(run.cell_folder(cell), cell):
            yield subject
        elif (result := run.result(cell)) and any(suite.results for suite in result.suites):
            recipe = _recipe(run, cell.recipe)
            if cell.variant in recipe.variants and (
                subject := collect.of_result(result, recipe.variants[cell.variant])
            ):
                yield subject


def _recipe(run: Run, name: str) -> Recipe:
    """Read the recipe of a run's cells. Raises UserError if it is gone."""
    from crossjit import PROJECT
    from crossjit.config import recipes

    request = from_record(run)
    if request.python:
        raise UserError(
            f"run {run.id} is of a Python that was built elsewhere, {request.python}",
            hint="a capsule holds a build of crossjit's: see whether a cell of a recipe fails as well",
        )
    known = recipes.gather(request.recipes, PROJECT / "recipes")
    if name not in known:
        raise recipes.unknown_recipe(name, known)
    return known[name]


def _artifact(subject: Subject, settings: Settings) -> Artifact:
    """Find the build in the stash. Raises UserError if it is gone."""
    from crossjit.stash.store import Store

    artifacts = Store(settings.stash, progress=Notes()).artifacts()
    found = next((each for each in artifacts if each.id == subject.artifact and each.is_intact()), None)
    if found is None:
        raise UserError(
            f"the build of {subject.cell}, {subject.artifact}, is no longer in the stash", hint="do the run again"
        )
    return found


def _seen_now(request: Request, script: Script | None, test: str) -> tuple[Subject, Artifact, Recipe, Settings]:
    """Run a script or a test in a cell, and take its failure. Raises UserError if it passes."""
    from crossjit.capsule import collect
    from crossjit.capsule.document import SeenTest
    from crossjit.debugger import session
    from crossjit.pipeline import build_cell, prepare
    from crossjit.pipeline.packages import ScriptPackages
    from crossjit.reduction.script import first_failure
    from crossjit.triage.decide import Experiment, Next
    from crossjit.triage.experiments import Experiments
    from crossjit.triage.odds import REPEATS_STABLE

    with opened(request, one=True, looks=True) as run:
        (prepared,) = prepare.prepare(run.ctx, run.requests)
        cell, folder = prepared.cell, run.record.cell_folder(prepared.cell)
        packages = ScriptPackages(run.ctx, script.requirements if script else ())
        packages.files(prepared)
        built = build_cell.build_cell(run.ctx, prepared, log=folder / "build.log")
        files = script.files if script else {}
        experiments = Experiments(run.ctx, prepared, built, folder, builds=False, files=files, packages=packages)
        env, artifact = experiments.env, built.artifact
        subject = collect.Subject(cell, artifact.id, env.qemu, env.cpu)
        if script is not None:
            failing = first_failure(experiments, cell, script)
            seen = collect.seen_script(script, failing.test, failing.result, packages, cell.arch)
            subject = replace(subject, script=seen, content=script.content)
        else:
            rerun = session.find(test, artifact, env, prepared.request.variant.suites)
            (result,) = experiments.run([rerun], Next(Experiment.AGAIN, REPEATS_STABLE)).values()
            seen_test = collect.seen_of(result)
            if seen_test is None:
                raise UserError(f"{rerun} passes in {cell}: {result.count}", hint="give the cell in which it fails")
            subject = replace(subject, tests=(SeenTest.of(rerun, seen_test),))
        run.record.finish(ExitCode.PASS)
        return subject, artifact, prepared.request.recipe, run.ctx.settings


def _write(
    subject: Subject,
    artifact: Artifact,
    recipe: Recipe,
    settings: Settings,
    path: Path,
    *,
    with_artifact: bool,
    json: bool,
) -> ExitCode:
    from crossjit import PROJECT
    from crossjit.capsule import archive, collect
    from crossjit.report import capsule as report
    from crossjit.stash.artifact import file_sha256

    shared = PROJECT / "recipes"
    document, members = collect.describe(
        subject, artifact, recipe, settings.home, shared=shared, with_artifact=with_artifact
    )
    document = archive.write(path, document, members)
    digest = file_sha256(path)
    if json:
        show_json(report.made_as_json(document, path, digest))
    else:
        show(report.made_as_text(document, path, digest))
    return ExitCode.PASS


def _show_replay(document: CapsuleDocument, found: Sequence[Difference | Replayed], *, json: bool) -> ExitCode:
    from crossjit.capsule.replay import Answer, Difference, Replayed
    from crossjit.report import capsule as report

    results = [each for each in found if isinstance(each, Replayed)]
    differences = [each for each in found if isinstance(each, Difference)]
    if json:
        show_json(report.replayed_as_json(document, results, differences))
    else:
        style = terminal_style.style_of(sys.stdout)
        show(report.replayed_as_text(document, results, differences, style=style))
    return ExitCode.PASS if all(each.answer is Answer.SAME for each in results) else ExitCode.PRODUCT
