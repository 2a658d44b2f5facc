"""`triage`: which layer the failing tests of a run are about."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.portion import WHOLE
from crossjit.report import tables
from crossjit.tasks.framework import note, show, show_json
from crossjit.tasks.options import MAKING, Request, describe, of_cell, recalled, requesting, words
from crossjit.tasks.runs import RUN
from crossjit.tasks.workshop import opened

if TYPE_CHECKING:
    from crossjit.diagnosis import Diagnosis
    from crossjit.ladder import Ladder
    from crossjit.model import Cell, CellResult, SuiteResult
    from crossjit.runs import Run
    from crossjit.trials import Trial

NAMED = 10  # tests that passed and are looked into all the same, because they were named


@requesting(
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
    from crossjit import diagnosis
    from crossjit.report import diagnoses as told

    before = None
    if cell:
        if run:
            raise UserError("--cell stands for itself", hint="give a run or a cell, not both")
        if not words(tests):
            raise UserError("--cell wants --tests", hint="such as --tests test.test_dis.DisTests.test_opmap")
        record, found = _triage(of_cell(request, cell, tests=words(tests)), None, (), builds=not no_builds)
    else:
        if not request.leaves_all_open:
            raise UserError("a run says itself how its cells are built", hint="these options are for --cell")
        before = _failed(run or ["last"])
        again = replace(recalled(before), portion=WHOLE, jobs=request.jobs)
        record, found = _triage(again, before, words(tests), builds=not no_builds)
    if json:
        show_json({"run": record, "diagnoses": [diagnosis.as_json(each) for each in found]})
    else:
        show(told.as_text(found, look=tables.look_of(sys.stdout)))
        show("\n".join(["", f"run:       {record}", *([f"told by:   ./inv report {before.id}"] if before else [])]))
    return ExitCode.PASS


def _failed(names: Sequence[str]) -> Run:
    """Load the run to look into. Raises UserError for one without a failing test."""
    from crossjit import runs, settings

    if len(names) > 1:
        raise UserError("one run at a time, please", hint="`./inv runs list` shows many")
    found = runs.load(settings.load(), names[0])
    if not any(_bad(result) for result in found.results()):
        raise UserError(f"no test of run {found.id} failed", hint="`./inv runs list` shows the runs and their verdicts")
    return found


def _bad(result: CellResult) -> set[str]:
    return {each.name for suite in result.suites for each in suite.results if each.went_wrong}


def _triage(
    request: Request, before: Run | None, patterns: tuple[str, ...], *, builds: bool
) -> tuple[str, list[Diagnosis]]:
    """Open a run of its own and climb for each cell that has failing tests."""
    from crossjit import earlier, flow, ladder

    diagnoses: list[Diagnosis] = []
    with opened(request, looks=True) as run:
        orders, shop, then = run.orders, run.shop, None
        if before is not None:
            failing = {result.cell for result in before.results() if _bad(result)}
            orders = tuple(order for order in orders if order.cell in failing)
            run.record.set_cells([order.cell for order in orders])
            then = earlier.as_it_was(shop, orders, before)
            shop, builds = then.shop, builds and then.builds
        for prepared in flow.prepare(shop, orders):
            folder = run.record.cell_folder(prepared.cell)
            log = folder / "build.log"
            built = then.built(prepared, log) if then else flow.build_cell(shop, prepared, log=log)
            found = before.result(prepared.cell) if before else None
            results = found.suites if found else flow.validate_cell(shop, prepared, built, folder=folder)
            rungs = ladder.Ladder(shop, prepared, built, folder, builds=builds)
            wanted = _trials(prepared.cell, rungs, results, patterns)
            folders = [folder, *([before.cell_folder(prepared.cell)] if before else [])]
            concluded: list[Diagnosis] = []
            for each in ladder.diagnose(rungs, prepared.cell, wanted):
                concluded.append(each)
                _keep(folders, run.record.id, concluded)
            diagnoses += concluded
        run.record.finish(ExitCode.PASS)
    return run.record.id, diagnoses


def _keep(folders: Sequence[Path], run: str, concluded: Sequence[Diagnosis]) -> None:
    """Write what is concluded of a cell by now into this run's record, and into that of the run it is about."""
    from crossjit import diagnosis, durable

    for folder in folders:
        with durable.explained(InfrastructureError, "cannot write what was concluded", folder):
            try:
                diagnosis.keep(folder, run, concluded)
            except FileNotFoundError:
                note(f"{folder} is gone: what was concluded is in the record of run {run} alone")


def _trials(cell: Cell, ladder: Ladder, results: Sequence[SuiteResult], patterns: tuple[str, ...]) -> dict[Trial, bool]:
    """Choose what to look into, and whether it failed: the tests that did; where none did, the few that were named."""
    from crossjit import trials

    found: list[Trial] = []
    ran: list[Trial] = []
    for suite in results:
        bad = [each.name for each in suite.results if each.went_wrong]
        meant = [name for name in bad if not patterns or any(_matches(name, pattern) for pattern in patterns)]
        found += trials.of_results(suite, ladder.where, meant)
        ran += trials.of_results(suite, ladder.where, [each.name for each in suite.results if not each.outcome.is_bad])
    if found:
        return dict.fromkeys(found, True)
    if patterns or not 0 < len(ran) <= NAMED:
        raise UserError(
            f"{cell}: none of the tests that are meant failed",
            hint="`./inv runs show` has the names of those that did; with --cell, name a test that passes at times",
        )
    return dict.fromkeys(ran, False)


def _matches(name: str, pattern: str) -> bool:
    """Whether a full name is meant by a pattern, which may lack the first word and the end of it."""
    bare = name.partition(" [")[0]
    candidates = (pattern, f"test.{pattern}", f"{pattern}.*", f"test.{pattern}.*")
    return any(fnmatch.fnmatchcase(bare, each) for each in candidates)
