"""`reduce`: the smallest script, or the fewest tests, that fail in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, InfrastructureError, UserError, did_you_mean
from crossjit.tasks.framework import show, show_json, words_after_dashes
from crossjit.tasks.options import SELECTORS, Request, cell_command, describe, number, of_cell, words
from crossjit.tasks.scripts import SCRIPT_HELP, read_script, require_free
from crossjit.tasks.session import opened
from crossjit.util.paths import full_path

MINUTES = 30

if TYPE_CHECKING:
    from crossjit.triage.user_script import Script


@cell_command(
    *SELECTORS,
    iterable=["script", "with_", "tests"],
    rest="script",
    words=True,
    short={"output": "o"},
    help=describe(
        "json",
        script=(
            "the Python file that fails, with its arguments after --; can be given without --script; "
            "required without --tests"
        ),
        tests=(
            "instead of a script, test modules that fail in this order in one process (test_a,test_b): leave out "
            "tests for as long as they fail; can be repeated, or given as A,B; default: none"
        ),
        cell="the cell in which it fails, such as 3.15/aarch64/jit; default: the first of --arch, --recipe, --variant",
        **SCRIPT_HELP,
        minutes="how long to go on; then the smallest script so far is written; default: 30",
        output="the file to write; default: FILE.reduced.py beside FILE.py, and none for --tests",
        force="replace the file if it exists; default: off",
    ),
)
def reduce(
    context: Context,
    request: Request,
    script: list[str] | None = None,
    cell: str = "",
    tests: list[str] | None = None,
    expect: str = "",
    expect_status: str = "",
    seconds: str = "",
    with_: list[str] | None = None,
    minutes: str = "",
    output: str = "",
    force: bool = False,
    json: bool = False,
) -> ExitCode:
    """Shrink a script, or a list of tests, for as long as it fails in the same way: `reduce FILE.py --cell CELL`.

    The smaller script ends as the original, for the same kind of reason, and passes where the original passes: with the
    JIT off, or else natively. Ctrl-C ends it early, with the smallest script so far. With --tests, CPython's
    test.bisect_cmd finds the tests that fail together.
    """
    if bool(script) == bool(tests):
        raise UserError(
            "reduce needs either a script or --tests", hint=f"such as {PROGRAM} reduce bug.py --cell 3.15/aarch64/jit"
        )
    arguments = words_after_dashes(context)
    path = full_path(output) if output else None
    bug = None
    if script:
        bug = read_script(script, arguments, expect=expect, expect_status=expect_status, seconds=seconds, with_=with_)
        path = path or full_path(script[0]).with_suffix(".reduced.py")
    elif arguments or expect or expect_status or seconds or with_:
        raise UserError("--expect, --expect-status, --seconds and --with are about a script", hint="leave them out")
    if path:
        require_free(path, force=force)
    if cell:
        if request.arches or request.recipes or request.variants:
            raise UserError("--cell cannot be combined with --arch, --recipe or --variant", hint="give one of them")
        request = of_cell(request, cell)
    limit = number("minutes", minutes, at_least=1) if minutes else MINUTES
    request = request.with_jit()
    if bug and path:
        return _reduce(request, bug, path, minutes=limit, json=json)
    return _reduce_tests(request, words(tests), path, minutes=limit, json=json)


def _reduce(request: Request, script: Script, path: Path, *, minutes: int, json: bool) -> ExitCode:
    from crossjit.pipeline import build_cell, prepare
    from crossjit.pipeline.packages import ScriptPackages
    from crossjit.reduction import script as reduction
    from crossjit.report import reduction as report
    from crossjit.triage.experiments import Experiments
    from crossjit.util import files

    with opened(request, one=True, looks=True) as run:
        (prepared,) = prepare.prepare(run.ctx, run.requests)
        packages = ScriptPackages(run.ctx, script.requirements)
        packages.files(prepared)
        folder = run.record.cell_folder(prepared.cell)
        built = build_cell.build_cell(run.ctx, prepared, log=folder / "build.log")

        def make(script: Script, builds: bool) -> Experiments:
            return Experiments(run.ctx, prepared, built, folder, builds=builds, files=script.files, packages=packages)

        done = reduction.reduce(run.ctx, prepared, script, make, minutes=minutes)
        files.replace(folder / "reduced.py", done.after.content)  # it is not lost if it cannot be verified
        if done.end is not reduction.End.INTERRUPTED:
            done = reduction.verify(done, make(done.after, True))
        with files.translate_os_errors(InfrastructureError, "cannot write the smaller script", path.parent):
            files.replace(path, done.after.content)
        code = ExitCode.INTERRUPTED if done.end is reduction.End.INTERRUPTED else ExitCode.PASS
        run.record.finish(code)
    if json:
        show_json({"run": run.record.id, "file": str(path), **report.as_json(done)})
    else:
        show(report.as_text(done, path))
        show(f"run:       {run.record.id}")
    return code


def _reduce_tests(request: Request, modules: Sequence[str], path: Path | None, *, minutes: int, json: bool) -> ExitCode:
    from crossjit.debugger.session import modules_of
    from crossjit.pipeline import build_cell, prepare, validate_cell
    from crossjit.reduction import test_list
    from crossjit.reduction.script import End
    from crossjit.report import reduction as report
    from crossjit.stash.artifact import INSTALL
    from crossjit.util import files

    with opened(request, one=True, looks=True) as run:
        (prepared,) = prepare.prepare(run.ctx, run.requests)
        folder = run.record.cell_folder(prepared.cell)
        built = build_cell.build_cell(run.ctx, prepared, log=folder / "build.log")
        known = modules_of(built.artifact.files()[INSTALL])
        for module in modules:
            if module not in known:
                raise UserError(
                    f"this CPython has no test module {module!r}{did_you_mean(module, known)}",
                    hint="give names of modules, such as test_dict",
                )
        target = validate_cell.target_of(run.ctx, prepared, built, "reduce")
        done = test_list.reduce(run.ctx, target, modules, minutes=minutes)
        if path:
            with files.translate_os_errors(InfrastructureError, "cannot write the tests", path.parent):
                files.replace(path, "".join(f"{test}\n" for test in done.tests).encode())
        code = ExitCode.INTERRUPTED if done.end is End.INTERRUPTED else ExitCode.PASS
        run.record.finish(code)
    if json:
        show_json({"run": run.record.id, "file": str(path) if path else None, **report.tests_as_json(done)})
    else:
        show(report.tests_as_text(done, path))
        show(f"run:       {run.record.id}")
    return code
