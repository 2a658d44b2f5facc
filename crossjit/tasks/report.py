"""`report` and `compare`: reports of a run for people and programs, and the comparison of two runs."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.report import tables
from crossjit.tasks.framework import command, note, show, show_bytes, show_json
from crossjit.tasks.options import describe
from crossjit.tasks.runs import RUN, concluded, described, looked_json, summary
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.measure.model import CellMeasurement
    from crossjit.model import CellResult
    from crossjit.runs.model import Run

STDOUT = "-"


@command(
    iterable=["run"],
    rest="run",
    help=describe(
        run=f"{RUN}; can be given without --run; default: last",
        html="write a self-contained HTML page to this file, - for stdout; default: none",
        junit="write JUnit XML to this file, - for stdout; default: none",
        markdown="write a summary for a CI job to this file, - for stdout; default: none",
        json="print everything as JSON, with every test; default: off",
    ),
)
def report(
    context: Context,
    run: list[str] | None = None,
    html: str = "",
    junit: str = "",
    markdown: str = "",
    json: bool = False,
) -> None:
    """Show a run, or write a report of it: `report [RUN] --html FILE`.

    Without a file it is text, as `runs show` has it.
    """
    from crossjit import settings
    from crossjit.runs import history

    names = run or ["last"]
    if len(names) > 1:
        raise UserError("only one run at a time can be given", hint=f"`{PROGRAM} compare RUN_A RUN_B` takes two")
    files = places(json=json, html=html, junit=junit, markdown=markdown)
    loaded = history.load(settings.load(), names[0])
    results = loaded.results()
    written = [(place, _render(kind, loaded, results)) for kind, place in files.items()]
    for place, content in written:
        write(place, content)
    if json:
        show_json(_whole(loaded, results))
    elif not files:
        show(described(loaded, steps=False))


def places(*, json: bool, **files: str) -> dict[str, str]:
    """Return the reports that have a file, by their kind. Raises UserError if several are for stdout."""
    found = {kind: place for kind, place in files.items() if place}
    if [*found.values()].count(STDOUT) + json > 1:
        raise UserError("only one report at a time can go to stdout", hint="give the others a file")
    return found


def write(place: str, content: bytes) -> None:
    """Write a report to a file, or to stdout. Raises UserError, InfrastructureError."""
    if place == STDOUT:
        show_bytes(content)
    else:
        _write(full_path(place), content)
        note(f"wrote {place}")


def write_all(files: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Write reports to their places; `texts` has them by their forms. Raises UserError, InfrastructureError."""
    for kind, place in files.items():
        write(place, texts[kind].encode("utf-8", "replace"))


def measured(kind: str, found: Sequence[CellMeasurement], *, run: str, reproduce: str) -> bytes:
    """Return a report of measurements."""
    from crossjit.report import measure_markdown, measure_page

    document = {"html": measure_page.page, "markdown": measure_markdown.as_markdown}[kind]
    return document(found, run=run, reproduce=reproduce).encode()


def _render(kind: str, run: Run, results: Sequence[CellResult]) -> bytes:
    from crossjit.measure import model
    from crossjit.report import answers

    if (answer := answers.recorded(run.folder, kind)) is not None:
        return answer
    if kind != "junit" and (found := model.recorded(run)):
        return measured(kind, found, run=run.id, reproduce=run.reproduce)
    if kind == "html":
        from crossjit.report import html

        return html.page(run, results).encode()
    if kind == "junit":
        from crossjit.report import junit

        return junit.document(run, results)
    from crossjit.report import markdown

    return markdown.summary(run, results).encode()


def _whole(run: Run, results: Sequence[CellResult]) -> dict[str, object]:
    from crossjit.report import reproduce

    return (
        summary(run)
        | looked_json(run)
        | {
            "cells": [
                tables.cell_json(result, whole=True)
                | concluded(run, result.cell)
                | {"line": reproduce.cell_line(run, result.cell), "logs": str(run.cell_folder(result.cell))}
                for result in results
            ]
        }
    )


def _write(path: Path, content: bytes) -> None:
    """Write a file atomically; one that is not regular, such as /dev/null or a pipe, is opened for writing."""
    from crossjit.util import files

    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                stream.write(content)
        else:
            files.replace(path.resolve(), content)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise InfrastructureError(f"cannot write {path}: {reason}", hint="give a file on another disk") from error
        raise UserError(f"cannot write {path}: {reason}", hint=_hint(path)) from error


def _hint(path: Path) -> str:
    if path.is_dir():
        return f"give a file, such as {path / 'report'}"
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}; make it first"
    return "give a file in a folder that this user may write to"


@command(
    help=describe(
        "json",
        before=f"the earlier run: {RUN}; can be given without --before; required",
        after="the later run, named likewise; can be given without --after; required",
    )
)
def compare(context: Context, before: str, after: str, json: bool = False) -> ExitCode:
    """Compare two runs: `compare RUN_A RUN_B`.

    Shows what newly fails, was fixed, became slow, was added or removed, and which facts changed. Ends with 1 if
    something newly fails or a cell no longer passes.
    """
    from crossjit import settings
    from crossjit.report import compare as comparing
    from crossjit.report import diagnoses
    from crossjit.runs import history

    loaded = settings.load()
    first, second = history.load(loaded, before), history.load(loaded, after)
    comparison = comparing.compare(
        first.results(),
        second.results(),
        facts_before=first.facts,
        facts_after=second.facts,
        diagnoses=diagnoses.of(second),
    )
    if not comparison.cells:
        raise UserError(
            "the two runs have no cell in common, so there is nothing to compare",
            hint=f"`{PROGRAM} runs list` shows which runs there are",
            details=tuple(f"{run.id}: {', '.join(map(str, run.cells)) or 'no cells'}" for run in (first, second)),
        )
    if json:
        show_json(comparing.as_json(comparison, before=first.id, after=second.id))
    else:
        show(comparing.as_text(comparison, before=first.id, after=second.id))
    return ExitCode.PRODUCT if comparison.is_worse else ExitCode.PASS
