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

NAMED = 10  # tests that passed and are looked into all the same, because they were named


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
    tier-2 interpreter, one with assertions, the other arch, the recipe's own source. It stops when the answer is
    settled. A test that passes alone is tried with the rest of its module. Reports of the run show the conclusion.
    """
    from crossjit.report import diagnoses as told
    from crossjit.triage import diagnosis

    before = None
    if cell:
        if run:
            raise UserError("--cell cannot be combined with a run id", hint="give a run or a cell, not both")
        if not words(tests):
            raise UserError("--cell needs --tests", hint="such as --tests test.test_dis.DisTests.test_opmap")
        record, found = _triage(of_cell(request, cell, tests=words(tests)), None, (), builds=not no_builds)
    else:
        if not request.leaves_all_open:
            raise UserError("build options are taken from the run", hint="drop them or use --cell")
        before = _failed(run or ["last"])
        again = replace(from_record(before), selection=ALL_TESTS, jobs=request.jobs)
        record, found = _triage(again, before, words(tests), builds=not no_builds)
    if json:
        show_json({"run": record, "diagnoses": [diagnosis.as_json(each) for each in found]})
    else:
        show(told.as_text(found, style=terminal_style.style_of(sys.stdout)))
        show("\n".join(["", f"run:       {record}", *([f"report:    {PROGRAM} report {before.id}"] if before else [])]))
    return ExitCode.PASS


def _failed(names: Sequence[str]) -> Run:
    """Load the run to look into. Raises UserError for one without a failing test."""
    from crossjit import settings
    from crossjit.runs import history

    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    found = history.load(settings.load(), names[0])
    if not any(_bad(result) for result in found.results()):
        raise UserError(
            f"no test of run {found.id} failed", hint=f"`{PROGRAM} runs list` shows the runs and their verdicts"
        )
    return found


def _bad(result: CellResult) -> set[str]:
    return {each.name for suite in result.suites for each in suite.results if each.failed}


def _triage(
    request: Request, before: Run | None, patterns: tuple[str, ...], *, builds: bool
) -> tuple[str, list[Diagnosis]]:
    """Open a run of its own and climb for each cell that has failing tests."""
    from crossjit.pipeline import build_cell, earlier, prepare, validate_cell
    from crossjit.triage import experiments

    diagnoses: list[Diagnosis] = []
    with opened(request, looks=True) as run:
        orders, ctx, then = run.orders, run.ctx, None
        if before is not None:
            failing = {result.cell for result in before.results() if _bad(result)}
            orders = tuple(order for order in orders if order.cell in failing)
            run.record.set_cells([order.cell for order in orders])
            then = earlier.as_it_was(ctx, orders, before)
            ctx, builds = then.ctx, builds and then.builds
        for prepared in prepare.prepare(ctx, orders):
            folder = run.record.cell_folder(prepared.cell)
            log = folder / "build.log"
            built = then.built(prepared, log) if then else build_cell.build_cell(ctx, prepared, log=log)
            found = before.result(prepared.cell) if before else None
            results = found.suites if found else validate_cell.validate_cell(ctx, prepared, built, folder=folder)
            rungs = experiments.Experiments(ctx, prepared, built, folder, builds=builds)
            wanted = _trials(prepared.cell, rungs, results, patterns)
            folders = [folder, *([before.cell_folder(prepared.cell)] if before else [])]
            concluded: list[Diagnosis] = []
            for each in experiments.diagnose(rungs, prepared.cell, wanted):
                concluded.append(each)
                _keep(folders, run.record.id, concluded)
            diagnoses += concluded
        run.record.finish(ExitCode.PASS)
    return run.record.id, diagnoses


def _keep(folders: Sequence[Path], run: str, concluded: Sequence[Diagnosis]) -> None:
    """Write what is concluded of a cell by now into this run's record, and into that of the run it is about."""
    from crossjit.triage import diagnosis
    from crossjit.util import files

    for folder in folders:
        with files.translate_os_errors(InfrastructureError, "cannot write the conclusions", folder):
            try:
                diagnosis.keep(folder, run, concluded)
            except FileNotFoundError:
                note(f"{folder} is gone: the conclusions are only in the record of run {run}")


def _trials(
    cell: Cell, ladder: Experiments, results: Sequence[SuiteResult], patterns: tuple[str, ...]
) -> dict[TestRerun, bool]:
    """Choose what to look into, and whether it failed: the tests that did; where none did, the few that were named."""
    from crossjit.triage import rerun

    found: list[TestRerun] = []
    ran: list[TestRerun] = []
    for suite in results:
        bad = [each.name for each in suite.results if each.failed]
        meant = [name for name in bad if not patterns or any(_matches(name, pattern) for pattern in patterns)]
        found += rerun.of_results(suite, ladder.where, meant)
        ran += rerun.of_results(
            suite, ladder.where, [each.name for each in suite.results if not each.outcome.is_failure]
        )
    if found:
        return dict.fromkeys(found, True)
    if patterns or not 0 < len(ran) <= NAMED:
        raise UserError(
            f"{cell}: none of the selected tests failed",
            hint=f"`{PROGRAM} runs show` names the failed ones; use --cell for a test that passes at times",
        )
    return dict.fromkeys(ran, False)


def _matches(name: str, pattern: str) -> bool:
    """Whether a full name is meant by a pattern, which may lack the first word and the end of it."""
    bare = name.partition(" [")[0]
    candidates = (pattern, f"test.{pattern}", f"{pattern}.*", f"test.{pattern}.*")
    return any(fnmatch.fnmatchcase(bare, each) for each in candidates)
