"""`debug`: a program of a cell under gdb, at its beginning or where it crashes."""

from __future__ import annotations

import json as documents
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.config.test_selection import ALL_TESTS
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.model import CellResult, Outcome
from crossjit.tasks.framework import note, show, show_json, words_after_dashes
from crossjit.tasks.options import MAKING, Request, cell_command, describe, from_record, number, of_cell
from crossjit.tasks.runs import RUN
from crossjit.tasks.session import opened

if TYPE_CHECKING:
    from crossjit.debugger.session import DebugTarget, Program
    from crossjit.runs.model import Run

JSON = "debug.json"  # in a cell's folder of the run record


@dataclass(frozen=True)
class Wanted:
    """What is to be looked at: a cell's result in an earlier run, a test, arguments for the cell's Python."""

    request: Request
    before: Run | None = None
    result: CellResult | None = None
    test: str = ""
    arguments: tuple[str, ...] = ()


@cell_command(
    *MAKING,
    iterable=["run"],
    rest="run",
    words=True,
    help=describe(
        run=f"{RUN}, whose first crashed test to look at; can be given without --run; default: last",
        cell=(
            "a cell, such as 3.15/aarch64/jit, together with --test, or with arguments for its Python after --; "
            "default: the cell of the crash"
        ),
        test="the name of the test or module to run; default: the first test of the run that crashed",
        batch="run to the crash, record what gdb sees there, and exit; default: gdb's prompt",
        seconds="with --batch, how long the program may run before it is interrupted; default: its suite's limit",
        json="with --batch, print JSON instead of text; default: off",
    ),
)
def debug(
    context: Context,
    request: Request,
    run: list[str] | None = None,
    cell: str = "",
    test: str = "",
    batch: bool = False,
    seconds: str = "",
    json: bool = False,
) -> int:
    """Look at a crash with gdb: `debug [RUN]`, or `debug --cell CELL --test TEST`, or `debug --cell CELL -- ARGUMENTS`.

    For a run, its first test that crashed or hung runs again, and gdb stops at the faulting instruction, with the
    artifact's symbols and CPython's helper (`py-bt`). For a cell, gdb stops at the beginning of the program. In an
    emulated cell, gdb talks to QEMU.
    """
    arguments = words_after_dashes(context)
    if json and not batch:
        raise UserError("--json goes with --batch", hint="gdb's prompt is for people")
    if seconds and not batch:
        raise UserError("--seconds goes with --batch", hint="at gdb's prompt, Ctrl-C interrupts the program")
    limit = number("seconds", seconds, at_least=1) if seconds else None
    if cell:
        if run:
            raise UserError("--cell cannot be combined with a run id", hint="give a run or a cell, not both")
        if bool(test) == bool(arguments):
            raise UserError("--cell needs either --test, or arguments for its Python after --", hint="give one of them")
        wanted = Wanted(of_cell(request, cell), test=test, arguments=arguments)
    else:
        if not request.leaves_all_open:
            raise UserError("build options are taken from the run", hint="drop them or use --cell")
        if arguments:
            raise UserError("the crashed test is taken from the run", hint="arguments for Python go with --cell")
        wanted = of_run(run or ["last"], test)
        wanted = replace(wanted, request=replace(wanted.request, jobs=request.jobs))
    return _debug(wanted, batch=batch, seconds=limit, json=json)


def of_run(names: Sequence[str], test: str) -> Wanted:
    """Choose the cell of a run, and the test. Raises UserError for a run in which nothing crashed."""
    from crossjit import settings
    from crossjit.runs import history

    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    loaded = settings.load()
    # the last that came to a result: one that only looked at something, as this one will, is not meant
    ended = (run.id for run in history.list_runs(loaded) if any(run.result(cell) for cell in run.cells))
    found = history.load(loaded, next(ended, "last") if names[0] == "last" else names[0])
    request = replace(from_record(found), selection=ALL_TESTS)
    ranked = [
        (rank, result, name)
        for result in found.results()
        for name, rank in _candidates(result, test)
        if rank is not None
    ]
    if not ranked:
        raise UserError(
            f"run {found.id} has no test {test!r}" if test else f"no test of run {found.id} crashed or hung",
            hint=f"`{PROGRAM} runs show` has the names; --cell with --test runs any test of a cell",
        )
    _, result, name = min(ranked, key=lambda each: each[0])
    return Wanted(request, found, result, name)


_RANKS = {Outcome.CRASHED: 1, Outcome.TIMED_OUT: 2}


def _candidates(result: CellResult, test: str) -> Iterator[tuple[str, int | None]]:
    """Yield names of what may be looked at in a cell, the probe's empty one first; the lowest rank is to be taken."""
    if "crashed" in result.probe and not test:
        yield "", 0
    for suite in result.suites:
        for each in suite.results:
            if test:
                bare = each.name if "[" in test else each.name.partition(" [")[0]
                yield each.name, 0 if bare.removeprefix("test.") == test.removeprefix("test.") else None
            elif each.known is None:
                yield each.name, _RANKS.get(each.outcome)


def _debug(wanted: Wanted, *, batch: bool, seconds: int | None, json: bool) -> int:
    """Open a run of its own, and look."""
    from crossjit.debugger import session
    from crossjit.pipeline import build_cell, earlier, prepare
    from crossjit.report import gdb
    from crossjit.util import files as files_module

    with opened(wanted.request, looks=True) as run:
        cell = wanted.result.cell if wanted.result is not None else None
        orders = [order for order in run.orders if cell in (None, order.cell)]
        run.record.set_cells([order.cell for order in orders])
        then = earlier.as_it_was(run.ctx, orders, wanted.before) if wanted.before else None
        ctx = then.ctx if then else run.ctx
        (prepared,) = prepare.prepare(ctx, orders)
        folder = run.record.cell_folder(prepared.cell)
        log = folder / "build.log"
        built = then.built(prepared, log) if then else build_cell.build_cell(ctx, prepared, log=log)
        bench = session.bench(ctx, prepared, built)
        programs = _programs(bench, wanted)
        if not batch:
            note(f"{prepared.cell}: {programs[0].about}")
            status = session.prompt(bench, programs, go=wanted.before is not None)
            run.record.finish(ExitCode.PASS)
            return status
        if seconds is not None:
            programs = [replace(program, seconds=seconds) for program in programs]
        with run.ctx.progress.step("debug", str(prepared.cell)) as step:
            found = session.batch(bench, programs, folder=folder, step=step)
        said = _read(folder / session.PROGRAM_LOG)
        told = {"run": run.record.id, **gdb.as_json(prepared.cell, found, program_log=said)}
        text = gdb.written(prepared.cell, found, program_log=said)
        folders = [folder, *([wanted.before.cell_folder(prepared.cell)] if wanted.before else [])]
        files = [each / gdb.SEEN for each in folders]
        for file in files:
            with files_module.translate_os_errors(InfrastructureError, "cannot write gdb's report", file.parent):
                files_module.replace(file, text.encode("utf-8", "replace"))
        files_module.replace(folder / JSON, (documents.dumps(told, indent=2) + "\n").encode())
        code = ExitCode.PASS if found.stop is not None else ExitCode.VACUOUS
        run.record.finish(code)
    if json:
        show_json(told)
    else:
        show(gdb.shown(prepared.cell, found, program_log=said))
        show("\n".join(["", f"run:       {run.record.id}", *(f"written:   {file}" for file in files)]))
    return code


def _programs(bench: DebugTarget, wanted: Wanted) -> list[Program]:
    """Say what is to be run, in the order in which it is tried."""
    from crossjit.debugger import session
    from crossjit.triage import rerun

    where = bench.target.conditions
    if wanted.arguments:
        return [session.of_arguments(wanted.arguments, where)]
    if wanted.result is None:
        trial = session.find(wanted.test, bench.artifact, where, bench.target.variant.suites)
        return list(session.of_trial(trial, where)[:1])
    if not wanted.test:
        told = wanted.result.probe.get("told")
        return [session.of_probe(told if isinstance(told, dict) else {})]
    for suite in wanted.result.suites:
        for trial in rerun.of_results(suite, where, [wanted.test]):
            return list(session.of_trial(trial, where))
    raise UserError(f"{wanted.test} can no longer be run", hint="the suites have changed since that run")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
