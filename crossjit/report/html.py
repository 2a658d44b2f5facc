"""A run as one self-contained HTML page: no network, no script, no other file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from crossjit import PROGRAM
from crossjit.model import Arch, Cell, CellResult, Verdict
from crossjit.report import cells, facts, failures, output
from crossjit.report.size_budget import LINE
from crossjit.report.text import VERDICT_MEANINGS, VERDICT_SIGNS, headline
from crossjit.runs.model import Run, RunState
from crossjit.util.text import duration, pluralize, printable, shortened

if TYPE_CHECKING:
    from jinja2 import Environment, Template


def page(run: Run, results: Sequence[CellResult]) -> str:
    """Return the page for a run and its cells' results: failures first, passed tests as counts.

    Its size is limited: the page has the number of omitted items, and says where all of them are.
    """
    verdicts = [result.verdict for result in results]
    views = cells.of(run, results)
    text = template("page.html.j2").render(
        run=run,
        results=results,
        headline=_headline(run, verdicts),
        worst=_worst(verdicts),
        signs=VERDICT_SIGNS,
        meanings={verdict: VERDICT_MEANINGS[verdict] for verdict in Verdict if verdict in verdicts},
        totals=_totals(results),
        grids=_grids(run, results),
        broken=[view for view in views if view.result.verdict is not Verdict.PASS],
        failures=failures.of(run, results),
        known=failures.by_reason(results, lambda test: test.xfailed),
        unexpected=failures.by_reason(results, lambda test: test.xpassed),
        caveats=failures.caveats(results),
        phases=cells.phases(results),
        timings=cells.timings(results),
        cells=views,
        host=facts.of_run(run.facts),
    )
    return output.markup(text) + "\n"


# The top


def _headline(run: Run, verdicts: Sequence[Verdict]) -> str:
    text = headline(verdicts)
    if run.state is RunState.RUNNING:
        progress = f"{len(verdicts)} of {pluralize(len(run.cells), 'cell')} done so far"
        text = f"{progress}: {text}" if verdicts else "still running"
    elif not verdicts and run.error:
        text = "the run ended before any cell"
    return text[:1].upper() + text[1:]


def _worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    worst_first = (Verdict.FAIL, Verdict.INFRA, Verdict.ABORTED, Verdict.VACUOUS, Verdict.PASS)
    return next((verdict for verdict in worst_first if verdict in verdicts), None)


def _totals(results: Sequence[CellResult]) -> tuple[tuple[str, int, str], ...]:
    """Return the numbers at the top: name, count, and CSS class."""
    suites = [suite for result in results for suite in result.suites]
    count = Counter(cells.kind(test) for suite in suites for test in suite.results)
    return (
        ("run", sum(suite.tests_run for suite in suites), ""),
        ("passed", count["passed"], ""),
        ("went wrong", count["went wrong"], "fail" if count["went wrong"] else ""),
        ("failed as expected", count["known"], ""),
        ("passed unexpectedly", count["unexpected"], "vacuous" if count["unexpected"] else ""),
        ("skipped", count["skipped"], ""),
    )


@dataclass(frozen=True)
class Grid:
    """A recipe's cells: a row for each variant, a place for each arch, None for a cell that was not requested."""

    recipe: str
    arches: tuple[Arch, ...]
    rows: tuple[tuple[str, tuple[Place | None, ...]], ...]


@dataclass(frozen=True)
class Place:
    """A cell in its grid; no verdict until the run has finished it."""

    cell: Cell
    anchor: str
    verdict: Verdict | None
    counts: tuple[str, ...]


def _grids(run: Run, results: Sequence[CellResult]) -> tuple[Grid, ...]:
    by_cell = {result.cell: result for result in results}
    requested = tuple(dict.fromkeys((*run.cells, *by_cell)))
    arches = tuple(arch for arch in Arch if any(cell.arch is arch for cell in requested))
    grids = []
    for recipe in dict.fromkeys(cell.recipe for cell in requested):
        variants = dict.fromkeys(cell.variant for cell in requested if cell.recipe == recipe)
        rows = tuple(
            (variant, tuple(_place(Cell(recipe, arch, variant), requested, by_cell) for arch in arches))
            for variant in variants
        )
        grids.append(Grid(recipe, arches, rows))
    return tuple(grids)


def _place(cell: Cell, requested: Sequence[Cell], by_cell: Mapping[Cell, CellResult]) -> Place | None:
    if cell not in requested:
        return None
    result = by_cell.get(cell)
    if result is None:
        return Place(cell, "", None, ())
    count = Counter(cells.kind(test) for suite in result.suites for test in suite.results)
    run = sum(suite.tests_run for suite in result.suites)
    counts = [f"{run:,} run"] if result.suites else ["no suite ran"]
    counts += [f"{count['went wrong']:,} went wrong"] if count["went wrong"] else []
    counts += [f"{count['known']:,} known"] if count["known"] else []
    counts += [f"{count['unexpected']:,} unexpected"] if count["unexpected"] else []
    return Place(cell, cells.anchor(cell), result.verdict, tuple(counts))


# The templates


def template(name: str) -> Template:
    """Return a template of this folder, whose values are escaped."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    import jinja2
    from markupsafe import Markup

    def fit(value: object) -> object:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=fit,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["program"] = PROGRAM
    environment.filters |= {
        "anchor": cells.anchor,
        "duration": duration,
        "line": partial(shortened, limit=LINE),
        "number": "{:,}".format,
        "counted": pluralize,
    }
    return environment
