"""`debug`: a program of a cell under gdb, at its start or where it crashes."""

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
from crossjit.model import Arch, CellResult, Outcome
from crossjit.tasks.framework import note, show, show_json, words_after_dashes
from crossjit.tasks.options import MAKING, Request, cell_command, describe, from_record, number, of_cell
from crossjit.tasks.runs import RUN
from crossjit.tasks.session import opened

if TYPE_CHECKING:
    from crossjit.debugger.session import DebugTarget, Program
    from crossjit.runs.model import Run

JSON = "debug.json"  # in a cell's folder of the run record


@dataclass(frozen=True)
class DebugRequest:
    """What to debug: a cell's result in an earlier run, a test, or arguments for the cell's Python."""

    request: Request
    before: Run | None = None
    result: CellResult | None = None
    test: str = ""
    arguments: tuple[str, ...] = ()


@cell_command(
    *MAKING,
    *("arch", "python"),
    iterable=["run"],
    rest="run",
    words=True,
    help=describe(
        run=f"{RUN}, whose first crashed test to look at; can be given without --run; default: last",
        cell=(
            "a cell, such as 3.15/aarch64/jit, together with --test, or with arguments for its Python after --; "
            "default: the cell of the crash"
        ),
        arch=f"the architecture of the Python that --python names: {', '.join(Arch)}; default: the engine's own",
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
    if cell or request.python:
        option = "--cell" if cell else "--python"
        if run or (cell and (request.python or request.arches)):
            other = "a run id" if run else "--python or --arch"
            raise UserError(f"{option} cannot be combined with {other}", hint="give a run, a cell, or a Python")
        if bool(test) == bool(arguments):
            raise UserError(
                f"{option} needs either --test, or arguments for its Python after --", hint="give one of them"
            )
        wanted = DebugRequest(of_cell(request, cell) if cell else request, test=test, arguments=arguments)
    else:
        if not request.leaves_all_open:
            raise UserError("build options are taken from the run", hint="drop them or use --cell")
        if arguments:
            raise UserError("the crashed test is taken from the run", hint="arguments for Python go with --cell")
        wanted = of_run(run or ["last"], test)
        wanted = replace(wanted, request=replace(wanted.request, jobs=request.jobs))
    return _debug(wanted, batch=batch, seconds=limit, json=json)


def of_run(names: Sequence[str], test: str) -> DebugRequest:
    """Choose the cell of a run, and the test. Raises UserError for a run in which nothing crashed."""
    from crossjit import settings
    from crossjit.runs import history

    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    loaded = settings.load()
    # the last run with a result; runs such as this one have none
    with_results = (run.id for run in history.list_runs(loaded) if any(run.result(cell) for cell in run.cells))
    run = history.load(loaded, next(with_results, "last") if names[0] == "last" else names[0])
    request = replace(from_record(run), selection=ALL_TESTS)
    ranked = [
        (rank, result, name) for result in run.results() for name, rank in _candidates(result, test) if rank is not None
    ]
    if not ranked:
        raise UserError(
            f"run {run.id} has no test {test!r}" if test else f"no test of run {run.id} crashed or hung",
            hint=f"`{PROGRAM} runs show` has the names; --cell with --test runs any test of a cell",
        )
    _, result, name = min(ranked, key=lambda candidate: candidate[0])
    return DebugRequest(request, run, result, name)


_RANKS = {Outcome.CRASHED: 1, Outcome.TIMED_OUT: 2}


def _candidates(result: CellResult, test: str) -> Iterator[tuple[str, int | None]]:
    """Yield the names of a cell's tests to debug, empty for the probe, with a rank: the lowest comes first."""
    if "crashed" in result.probe and not test:
        yield "", 0
    for suite in result.suites:
        for tested in suite.results:
            if test:
                bare = tested.name if "[" in test else tested.name.partition(" [")[0]
                yield tested.name, 0 if bare.removeprefix("test.") == test.removeprefix("test.") else None
            elif tested.known is None:
                yield tested.name, _RANKS.get(tested.outcome)


def _debug(wanted: DebugRequest, *, batch: bool, seconds: int | None, json: bool) -> int:
    """Open a run, and debug in it."""
    from crossjit.debugger import session
    from crossjit.pipeline import build_cell, earlier, prepare
    from crossjit.report import gdb
    from crossjit.util import files as files_module

    with opened(wanted.request, one=wanted.before is None, looks=True) as run:
        cell = wanted.result.cell if wanted.result is not None else None
        requests = [request for request in run.requests if cell in (None, request.cell)]
        run.record.set_cells([request.cell for request in requests])
        then = earlier.as_it_was(run.ctx, requests, wanted.before) if wanted.before else None
        ctx = then.ctx if then else run.ctx
        (prepared,) = prepare.prepare(ctx, requests)
        folder = run.record.cell_folder(prepared.cell)
        log = folder / "build.log"
        built = then.built(prepared, log) if then else build_cell.build_cell(ctx, prepared, log=log)
        bench = session.debug_target(ctx, prepared, built)
        programs = _programs(bench, wanted)
        if not batch:
            note(f"{prepared.cell}: {programs[0].about}")
            status = session.prompt(bench, programs, go=wanted.before is not None)
            run.record.finish(ExitCode.PASS)
            return status
        if seconds is not None:
            programs = [replace(program, seconds=seconds) for program in programs]
        with run.ctx.progress.step("debug", str(prepared.cell)) as step:
            result = session.batch(bench, programs, folder=folder, step=step)
        output = _read(folder / session.PROGRAM_LOG)
        document = {"run": run.record.id, **gdb.as_json(prepared.cell, result, program_log=output)}
        text = gdb.written(prepared.cell, result, program_log=output)
        folders = [folder, *([wanted.before.cell_folder(prepared.cell)] if wanted.before else [])]
        files = [place / gdb.SEEN for place in folders]
        for file in files:
            with files_module.translate_os_errors(InfrastructureError, "cannot write gdb's report", file.parent):
                files_module.replace(file, text.encode("utf-8", "replace"))
        files_module.replace(folder / JSON, (documents.dumps(document, indent=2) + "\n").encode())
        code = ExitCode.PASS if result.stop is not None else ExitCode.VACUOUS
        run.record.finish(code)
    if json:
        show_json(document)
    else:
        show(gdb.shown(prepared.cell, result, program_log=output))
        show("\n".join(["", f"run:       {run.record.id}", *(f"written:   {file}" for file in files)]))
    return code


def _programs(bench: DebugTarget, wanted: DebugRequest) -> list[Program]:
    """Return the programs to run, in the order in which they are tried."""
    from crossjit.debugger import session
    from crossjit.triage import rerun

    env = bench.target.conditions
    if wanted.arguments:
        return [session.of_arguments(wanted.arguments, env)]
    if wanted.result is None:
        test = session.find(wanted.test, bench.artifact, env, bench.target.variant.suites)
        return list(session.of_rerun(test, env)[:1])
    if not wanted.test:
        settings = wanted.result.probe.get("told")
        return [session.of_probe(settings if isinstance(settings, dict) else {})]
    for suite in wanted.result.suites:
        for test in rerun.of_results(suite, env, [wanted.test]):
            return list(session.of_rerun(test, env))
    raise UserError(f"{wanted.test} can no longer be run", hint="the suites have changed since that run")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
