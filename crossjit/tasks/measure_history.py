"""`measure --history`: a benchmark's instructions at each commit of a line, on each architecture."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from crossjit import PROGRAM
from crossjit.errors import ExitCode, UserError
from crossjit.report import terminal_style
from crossjit.tasks.framework import show, show_json
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession, opened, recipes_of
from crossjit.util.paths import full_path

if TYPE_CHECKING:
    from crossjit.bisect.history import History
    from crossjit.bisect.walk import Point
    from crossjit.config.recipes import Recipe

MOST = 500  # commits


def run(request: Request, names: Sequence[str], repository: str, commits: str, *, json: bool) -> ExitCode:
    """Count one benchmark at each commit, and show how it moved. Raises UserError for options without a sense."""
    from crossjit.measure import benchmarks
    from crossjit.report import answers
    from crossjit.report import measure_history as report

    if len(names) != 1:
        raise UserError("--history needs one benchmark", hint="such as --only nbody")
    benchmarks.select(benchmarks.load(), names)
    line = _line(repository, commits)
    recipes = recipes_of(request)
    with opened(_completed(request, line, recipes), looks=True) as session:
        points = _walk(session, names[0], line, recipes)
        record = session.record
        about = {"run": record.run.id, "reproduce": record.run.reproduce}
        answers.write(record.folder, answers.HISTORY, report.documents(names[0], points, **about))
        code = ExitCode.PASS if any(point.instructions for point in points) else ExitCode.INFRASTRUCTURE
        record.finish(code)
    if json:
        show_json(report.as_json(names[0], points, **about))
        return code
    show(report.as_text(names[0], points, terminal_style.style_of(sys.stdout)))
    chart = f"{PROGRAM} report {about['run']} --html FILE"
    show(f"\nrun:       {about['run']}\nchart:     {chart}\nreproduce: {about['reproduce']}")
    return code


def _line(repository: str, commits: str) -> History:
    """Return the commits from the first to the last. Raises UserError, SourceError."""
    from crossjit.bisect import history

    hint = "such as --history ~/cpython --commits v3.15.0rc1..v3.15.0rc2"
    first, _, last = commits.partition("..")
    if not commits:
        raise UserError("--history needs --commits", hint=hint)
    if not repository:
        raise UserError(f"invalid --commits {commits!r}: --history says of which repository", hint=hint)
    if not (first and last.strip(".")):
        raise UserError(f"invalid --commits {commits!r}: expected A..B", hint=hint)
    line = history.read(full_path(repository), first, last.strip("."))
    if len(line.commits) > MOST:
        raise UserError(
            f"{commits} are {len(line.commits):,} commits, at most {MOST} can be counted",
            hint="choose a shorter range, or look for one change with bisect --measure",
        )
    return line


def _completed(request: Request, line: History, recipes: Mapping[str, Recipe]) -> Request:
    """Return the request with the variant, and the recipe of the newest commit if none is named."""
    from crossjit.bisect import history
    from crossjit.bisect.trial import recipe_for

    if len(request.variants) > 1 or len(request.recipes) > 1:
        raise UserError("--history takes one variant and one recipe", hint="name one, or leave them out")
    named = request.recipes or (recipe_for(history.version(line.path, line.commits[-1]), recipes).name,)
    return replace(request, recipes=named).with_jit()


def _walk(session: RunSession, name: str, line: History, recipes: Mapping[str, Recipe]) -> tuple[Point, ...]:
    """Count the benchmark at each commit on each arch of the request."""
    from crossjit.bisect import walk
    from crossjit.bisect.journal import Plan
    from crossjit.bisect.trial import Trials

    with contextlib.ExitStack() as ahead:
        counters = {}
        for base in session.requests:
            plan = Plan(
                repo=str(line.path),
                bad=line.commits[-1],
                bad_ref=line.commits[-1],
                arch=str(base.cell.arch),
                variant=base.cell.variant,
                benchmark=name,
            )
            trials = Trials(session.ctx, plan, recipes, base, session.record.cell_folder(base.cell))
            ahead.enter_context(trials.ahead)
            counters[base.cell.arch] = trials
        return tuple(walk.walk(line, counters, session.ctx.progress))
