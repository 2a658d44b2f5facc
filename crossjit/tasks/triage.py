"""`triage`: which layer the failing tests of a run are about."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.config.test_selection import ALL_TESTS
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.report import terminal_style
from crossjit.tasks.framework import note, show, show_json
from crossjit.tasks.options import MAKING, Request, cell_command, describe, from_record, of_cell, words
from crossjit.tasks.runs import RUN
from crossjit.tasks.session import opened

if TYPE_CHECKING:
    from crossjit.model import Cell, CellResult, SuiteResult
    from crossjit.runs.model import Run
    from crossjit.triage.diagnosis import Diagnosis
    from crossjit.triage.experiments import Experiments
    from crossjit.triage.rerun import TestRerun

NAMED = 10  # passed tests that are examined because they were named, at most


@cell_command(
    *MAKING,
    iterable=["run", "tests"],
    rest="run",
    help=describe(
        "json",
        run=f"{RUN}, whose failing tests to look into; can be given without --run; default: last",
        cell="a cell, such as 3.15/aarch64/jit, instead of a run; requires --tests; default: the run's cells",
        tests="the tests to look into, named as for validate; default: all failing tests of the run",
        no_builds="use only builds that are in the stash; default: build what an experiment needs",
    ),
)
def triage(
    context: Context,
    request: Request,
    run: list[str] | None = None,
    cell: str = "",
    tests: list[str] | None = None,
    no_builds: bool = False,
    json: bool = False,
) -> ExitCode:
    """Run failing tests again under controlled changes, and name the layer that each failure is about.

    First in the same build: once more as it is, the JIT off, the optimizer off, another CPU model. Then in others: the
    tier-2 interpreter, one with assertions, the other arch, the recipe's own source, Debian's. It stops when the answer
    is settled. A test that passes alone is tried with the rest of its module. Reports of the run show the conclusion.
    """
    from crossjit.report import diagnoses as report
    from crossjit.triage import diagnosis

    before = None
    if cell:
        if run:
            raise UserError("--cell cannot be combined with a run id", hint="give a run or a cell, not both")
        if not words(tests):
            raise UserError("--cell needs --tests", hint="such as --tests test.test_dis.DisTests.test_opmap")
        record, diagnoses = _triage(of_cell(request, cell, tests=words(tests)), None, (), builds=not no_builds)
    else:
        if not request.leaves_all_open:
            raise UserError("build options are taken from the run", hint="drop them or use --cell")
        before = _failed(run or ["last"])
        again = replace(from_record(before), selection=ALL_TESTS, jobs=request.jobs)
        record, diagnoses = _triage(again, before, words(tests), builds=not no_builds)
    if json:
        show_json({"run": record, "diagnoses": [diagnosis.as_json(value) for value in diagnoses]})
    else:
        show(report.as_text(diagnoses, style=terminal_style.style_of(sys.stdout)))
        show("\n".join(["", f"run:       {record}", *([f"report:    {PROGRAM} report {before.id}"] if before else [])]))
    return ExitCode.PASS


def _failed(names: Sequence[str]) -> Run:
    """Load the run to examine. Raises UserError for one without a failed test."""
    from crossjit import settings
    from crossjit.runs import history

    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    run = history.load(settings.load(), names[0])
    if not any(_bad(result) for result in run.results()):
        raise UserError(
            f"no test of run {run.id} failed", hint=f"`{PROGRAM} runs list` shows the runs and their verdicts"
        )
    return run


def _bad(result: CellResult) -> set[str]:
    return {test.name for suite in result.suites for test in suite.results if test.failed}


def _triage(
    request: Request, before: Run | None, patterns: tuple[str, ...], *, builds: bool
) -> tuple[str, list[Diagnosis]]:
    """Open a run, and diagnose the failed tests of each cell."""
    from crossjit.pipeline import build_cell, earlier, prepare, validate_cell
    from crossjit.triage import experiments

    diagnoses: list[Diagnosis] = []
    with opened(request, looks=True) as run:
        requests, ctx, then = run.requests, run.ctx, None
        if before is not None:
            failing = {result.cell for result in before.results() if _bad(result)}
            requests = tuple(request for request in requests if request.cell in failing)
            run.record.set_cells([request.cell for request in requests])
            then = earlier.as_it_was(ctx, requests, before)
            ctx, builds = then.ctx, builds and then.builds
        for prepared in prepare.prepare(ctx, requests):
            folder = run.record.cell_folder(prepared.cell)
            log = folder / "build.log"
            built = then.built(prepared, log) if then else build_cell.build_cell(ctx, prepared, log=log)
            result = before.result(prepared.cell) if before else None
            results = result.suites if result else validate_cell.validate_cell(ctx, prepared, built, folder=folder)
            runner = experiments.Experiments(ctx, prepared, built, folder, builds=builds)
            tests = _reruns(prepared.cell, runner, results, patterns)
            folders = [folder, *([before.cell_folder(prepared.cell)] if before else [])]
            concluded: list[Diagnosis] = []
            for diagnosis in experiments.diagnose(runner, prepared.cell, tests):
                concluded.append(diagnosis)
                _keep(folders, run.record.id, concluded)
            diagnoses += concluded
        run.record.finish(ExitCode.PASS)
    return run.record.id, diagnoses


def _keep(folders: Sequence[Path], run: str, concluded: Sequence[Diagnosis]) -> None:
    """Write a cell's diagnoses so far into this run's record, and into that of the examined run."""
    from crossjit.triage import diagnosis
    from crossjit.util import files

    for folder in folders:
        with files.translate_os_errors(InfrastructureError, "cannot write the conclusions", folder):
            try:
                diagnosis.save(folder, run, concluded)
            except FileNotFoundError:
                note(f"{folder} is gone: the conclusions are only in the record of run {run}")


def _reruns(
    cell: Cell, experiments: Experiments, results: Sequence[SuiteResult], patterns: tuple[str, ...]
) -> dict[TestRerun, bool]:
    """Choose the tests to examine, and whether they failed: the failed ones; if there are none, the few named ones."""
    from crossjit.triage import rerun

    failed: list[TestRerun] = []
    passed: list[TestRerun] = []
    for suite in results:
        names = [test.name for test in suite.results if test.failed]
        selected = [name for name in names if not patterns or any(_matches(name, pattern) for pattern in patterns)]
        failed += rerun.of_results(suite, experiments.env, selected)
        passing = [test.name for test in suite.results if not test.outcome.is_failure]
        passed += rerun.of_results(suite, experiments.env, passing)
    if failed:
        return dict.fromkeys(failed, True)
    if patterns or not 0 < len(passed) <= NAMED:
        raise UserError(
            f"{cell}: none of the selected tests failed",
            hint=f"`{PROGRAM} runs show` names the failed ones; use --cell for a test that passes at times",
        )
    return dict.fromkeys(passed, False)


def _matches(name: str, pattern: str) -> bool:
    """Whether a full name matches a pattern, which may lack the name's first part and its last parts."""
    bare = name.partition(" [")[0]
    candidates = (pattern, f"test.{pattern}", f"{pattern}.*", f"test.{pattern}.*")
    return any(fnmatch.fnmatchcase(bare, candidate) for candidate in candidates)
