"""`runs list|show|import|merge` and `clean`: the recorded runs, and removing what runs leave behind."""

from __future__ import annotations

import json as json_module
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, UserError
from crossjit.report import tables, terminal_style
from crossjit.tasks.framework import command, note, show, show_json, show_table
from crossjit.tasks.options import describe, number
from crossjit.util import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from crossjit.model import Cell
    from crossjit.runs.model import Run
    from crossjit.runs.transfer import Imported
    from crossjit.settings import Settings

RUN = "a run's id, the beginning of its id, or last"


@command(name="list", default=True, help=describe("json", last="only the newest N; 0 for all; default: 20"))
def list_runs(context: Context, last: str = "20", json: bool = False) -> None:
    """List the runs, newest first. See also `runs show`."""
    from crossjit import settings
    from crossjit.runs import history

    loaded = settings.load()
    recorded = history.list_runs(loaded)
    limit = number("last", last, at_least=0)
    recorded = recorded[:limit] if limit else recorded
    if json:
        show_json([summary(run) for run in recorded])
    elif recorded:
        show_table(("run", "state", "took", "verdicts", "command"), [_row(run) for run in recorded])
    else:
        note(f"there are no runs yet: {loaded.runs}")


@command(
    name="show",
    iterable=["run"],
    rest="run",
    help=describe(
        "json", run=f"{RUN}; can be given without --run; default: last", steps="list the steps; default: off"
    ),
)
def show_run(context: Context, run: list[str] | None = None, steps: bool = False, json: bool = False) -> None:
    """Show a run: `runs show [RUN]`.

    Prints its cells, verdicts and reasons, where its logs are, and the command that repeats it.
    """
    from crossjit import settings
    from crossjit.runs import history

    names = run or ["last"]
    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} runs list` shows many")
    loaded = history.load(settings.load(), names[0])
    if json:
        cells = [tables.cell_json(result) | concluded(loaded, result.cell) for result in loaded.results()]
        show_json(summary(loaded) | {"cells": cells} | looked_json(loaded))
    else:
        show(described(loaded, steps=steps))


@command(
    name="import",
    iterable=["path"],
    rest="path",
    help=describe(
        "json",
        path="a folder or a zip file with run records, as CI uploads them; can be given without --path; required",
    ),
)
def import_runs(context: Context, path: list[str] | None = None, json: bool = False) -> None:
    """Copy run records of another machine here: `runs import FOLDER|ZIP…`."""
    from crossjit import settings

    if not path:
        raise UserError("nothing to import", hint=f"such as {PROGRAM} runs import downloads/")
    imported = [found for word in path for found in _imported(settings.load(), word)]
    if json:
        show_json([summary(found.run) | {"new": found.is_new} for found in imported])
        return
    for found in imported:
        show(f"{found.run.id} {'imported' if found.is_new else 'is here already'}: {_verdicts(found.run)}")


@command(
    name="merge",
    iterable=["run"],
    rest="run",
    help=describe(
        "json",
        run="ids of runs, or folders and zip files to import first; can be given without --run; required",
        plan="the file of `cells --format github`: what it lists and no run has is infra; default: only what runs have",
    ),
)
def merge_runs(context: Context, run: list[str] | None = None, plan: str = "", json: bool = False) -> ExitCode:
    """Make one run of many: `runs merge RUN|FOLDER|ZIP…`.

    The shards of a cell are joined, a newer attempt of CI replaces an older one, and a missing shard makes its cell
    infra. Ends with the exit code of the worst verdict.
    """
    from crossjit import settings
    from crossjit.pipeline import merge
    from crossjit.runs import history
    from crossjit.runs.model import exit_code

    loaded = settings.load()
    expected = _planned(Path(plan)) if plan else {}
    if not run:
        raise UserError("nothing to merge", hint=f"such as {PROGRAM} runs merge downloads/")
    parts = {
        found.id: found
        for word in run
        for found in (
            [each.run for each in _imported(loaded, word)] if _is_path(word) else [history.load(loaded, word)]
        )
    }
    merged = merge.merge([*parts.values()], expected)
    results = [each.result for each in merged]
    with merge.recorded(loaded, [*parts.values()], merged) as record:
        record.finish(exit_code(results))
    if json:
        show_json(tables.results_json(results, run=record.id, reproduce=record.run.reproduce))
    else:
        style = terminal_style.style_of(sys.stdout)
        show(tables.results_text(results, run=record.id, reproduce=record.run.reproduce, style=style))
    return exit_code(results)


def _is_path(word: str) -> bool:
    return "/" in word or Path(word).exists()


def _imported(settings: Settings, word: str) -> Sequence[Imported]:
    from crossjit.runs import transfer

    return transfer.import_runs(settings, Path(word))


def _planned(path: Path) -> dict[Cell, int]:
    """Read the cells of a matrix, with their number of shards. Raises UserError."""
    from crossjit.pipeline import matrix

    try:
        return matrix.cells_of(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="give the output of cells") from error
    except ValueError as error:
        raise UserError(f"{path} is not a matrix: {error}", hint="give the output of cells --format github") from error


def _verdicts(run: Run) -> str:
    counts = Counter(run.verdicts.values())
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "-"


@command(
    help=describe(
        "json",
        keep_images="keep the images, which take minutes to make again; default: off",
        keep_runs="also remove all run records but the newest N; default: keep all records",
        dry_run="only list what would be removed; default: off",
    )
)
def clean(
    context: Context, keep_images: bool = False, keep_runs: str = "", dry_run: bool = False, json: bool = False
) -> None:
    """Remove what crossjit made in the engine, and what killed runs left on disk.

    Containers, volumes and images are found by label. What a running command uses stays, and so does the stash;
    `stash gc` is for that.
    """
    from crossjit import engine, settings
    from crossjit.pipeline import cleanup
    from crossjit.runs import history

    loaded = settings.load()
    keep = number("keep-runs", keep_runs, at_least=0) if keep_runs else None
    removed, skipped = [], []
    for each in loaded.each_engine:
        result = cleanup.clean(engine.connect(each), each, images=not keep_images, dry_run=dry_run)
        where = f" on {each.engine_name}" if len(loaded.engines) > 1 else ""
        removed += [f"{line}{where}" for line in result.lines]
        skipped += [f"{item.thing.kind} {item.thing.name}{where}: {item.reason}" for item in result.kept]
    records = () if keep is None else history.prune(loaded, keep=keep, dry_run=dry_run)
    removed += [f"run record {name}" for name in records]
    if json:
        show_json({"dry_run": dry_run, "removed": removed, "kept": skipped})
        return
    verb = "would remove" if dry_run else "removed"
    for line in removed:
        show(f"{verb} {line}")
    for line in skipped:
        show(f"kept {line}")
    if not removed and not skipped:
        show("crossjit has nothing in the engine")


def _row(run: Run) -> tuple[str, ...]:
    return (
        run.id,
        _state(run),
        _took(run),
        _verdicts(run),
        " ".join(run.argv[1:]) or "-",
    )


def _state(run: Run) -> str:
    """Return a run's state, and the step that a dead one died in."""
    from crossjit.runs.model import RunState

    died_in = run.open_steps() if run.state is RunState.ABORTED else ()
    return f"{run.state.value} in {died_in[-1].name}" if died_in else run.state.value


def _took(run: Run) -> str:
    from crossjit.runs.model import RunState

    if run.finished is not None:
        return text.duration((run.finished - run.started).total_seconds())
    if run.state is RunState.RUNNING:
        return text.duration((datetime.now(UTC) - run.started).total_seconds())
    return "-"


def summary(run: Run) -> dict[str, object]:
    """Return a run record without its cells' results as JSON values."""
    return {
        "id": run.id,
        "state": run.state.value,
        "started": run.started.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "exit_code": run.exit_code,
        "argv": list(run.argv),
        "reproduce": run.reproduce,
        "verdicts": {cell: verdict.value for cell, verdict in run.verdicts.items()},
        "error": run.error.message if run.error else None,
        "facts": run.facts,
        "folder": str(run.folder),
    }


def concluded(run: Run, cell: Cell) -> dict[str, object]:
    """Return the diagnoses of a cell's tests as JSON values."""
    from crossjit.triage import diagnosis

    return {"diagnoses": [diagnosis.as_json(value) for value in diagnosis.load(run.cell_folder(cell))]}


def described(run: Run, *, steps: bool) -> str:
    """Return a run as text."""
    from crossjit.measure import model
    from crossjit.report import diagnoses, measure
    from crossjit.report.crashes import crashes_text
    from crossjit.report.gdb import SEEN

    lines = [
        f"run:       {run.id}, {run.state.value}" + ("" if run.exit_code is None else f" with {run.exit_code}"),
        f"started:   {run.started.astimezone():%Y-%m-%d %H:%M:%S}, took {_took(run)}",
        f"folder:    {run.folder}",
    ]
    if run.error is not None:
        lines += [f"error:     {run.error.message}", *(f"           {line}" for line in run.error.details)]
    if steps:
        lines += ["", *_steps(run)]
    reports = [path for cell in run.cells if (path := run.cell_folder(cell) / SEEN).is_file()]
    lines += [f"gdb:       {path}" for path in reports]
    if reports and not any(run.result(cell) for cell in run.cells):  # a run of `debug`
        lines += [
            "",
            *(path.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0] for path in reports),
            "",
        ]
        return "\n".join([*lines, f"reproduce: {run.reproduce}"])
    if (answered := _answered(run)) is not None:
        return "\n".join([*lines, "", answered, "", f"reproduce: {run.reproduce}"])
    if found := model.recorded(run):
        shown = measure.as_text(found, terminal_style.style_of(sys.stdout))
        return "\n".join([*lines, "", shown, "", f"reproduce: {run.reproduce}"])
    style, diagnosed = terminal_style.style_of(sys.stdout), diagnoses.of(run)
    if diagnosed and not any(run.result(cell) for cell in run.cells):  # a run of `triage`
        return "\n".join(
            [*lines, "", diagnoses.as_text([*diagnosed.values()], style=style), "", f"reproduce: {run.reproduce}"]
        )
    results = run.results()
    if not results:
        return "\n".join([*lines, f"reproduce: {run.reproduce}"])
    crashed = crashes_text(run)
    shown = tables.results_text(
        results,
        run=run.id,
        reproduce=run.reproduce,
        style=style,
        about=lambda cell, test: diagnosed.get((cell, test.suite, test.name)),
    )
    return "\n".join([*lines, "", *([crashed, ""] if crashed else []), shown])


def _answered(run: Run) -> str | None:
    """Return the answer to a run's question, or how to go on with a bisection; None for other runs."""
    from crossjit.bisect import journal
    from crossjit.report import answers
    from crossjit.runs.model import RunState

    if (answer := answers.recorded(run.folder, "text")) is not None:
        return answer.decode("utf-8", "replace")
    if not journal.has_journal(run.folder):
        return None
    judged = text.pluralize(len(journal.load(run.folder)[1]), "judged commit")
    more = "" if run.state is RunState.RUNNING else f"; to go on: {PROGRAM} bisect --resume {run.id}"
    return f"bisection: {judged}{more}"


def looked_json(run: Run) -> dict[str, object]:
    """Return the answer to a run's question, or what was measured, as a JSON value; nothing for other runs."""
    from crossjit.measure import model
    from crossjit.report import answers, measure

    for question in answers.QUESTIONS:
        if (answer := answers.recorded(run.folder, "json", [question])) is not None:
            return {question: json_module.loads(answer)}
    found = model.recorded(run)
    return {"measure": measure.document(found, run=run.id, reproduce=run.reproduce)} if found else {}


def _steps(run: Run) -> list[str]:
    from crossjit.runs.model import EventKind

    return [
        f"  {datetime.fromtimestamp(event.at):%H:%M:%S}  "
        + (f"{event.name} {event.subject}".strip() if event.kind is EventKind.FINISH else event.text)
        + (f"  {text.duration(event.seconds)}" if event.seconds is not None else "")
        + (f"  {event.status}: {event.text}" if event.kind is EventKind.FINISH and event.text else "")
        for event in run.events()
        if event.kind in (EventKind.FINISH, EventKind.SAY)
    ]
