"""A run as one HTML page that needs nothing else: no network, no script, no file beside it."""

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
    from jinja2 import Template


def page(run: Run, results: Sequence[CellResult]) -> str:
    """Return the page for a run and its cells' results: what went wrong first, what passed as counts.

    The size is bounded: what there is no room for is counted, and the page says where all of it is.
    """
    verdicts = [result.verdict for result in results]
    views = cells.of(run, results)
    text = _template().render(
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


# the top


def _headline(run: Run, verdicts: Sequence[Verdict]) -> str:
    said = headline(verdicts)
    if run.state is RunState.RUNNING:
        done = f"{len(verdicts)} of {pluralize(len(run.cells), 'cell')} done so far"
        said = f"{done}: {said}" if verdicts else "still running"
    elif not verdicts and run.error:
        said = "the run ended before any cell"
    return said[:1].upper() + said[1:]


def _worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    order = (Verdict.FAIL, Verdict.INFRA, Verdict.ABORTED, Verdict.VACUOUS, Verdict.PASS)
    return next((verdict for verdict in order if verdict in verdicts), None)


def _totals(results: Sequence[CellResult]) -> tuple[tuple[str, int, str], ...]:
    """Return the numbers at the top: name, count, and the class that colours it."""
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
    """A recipe's cells: a row for each variant, a place for each arch, None where that was not asked for."""

    recipe: str
    arches: tuple[Arch, ...]
    rows: tuple[tuple[str, tuple[Place | None, ...]], ...]


@dataclass(frozen=True)
class Place:
    """A cell in its grid; no verdict while the run is still on its way to it."""

    cell: Cell
    anchor: str
    verdict: Verdict | None
    counts: tuple[str, ...]


def _grids(run: Run, results: Sequence[CellResult]) -> tuple[Grid, ...]:
    by_cell = {result.cell: result for result in results}
    asked = tuple(dict.fromkeys((*run.cells, *by_cell)))
    arches = tuple(arch for arch in Arch if any(cell.arch is arch for cell in asked))
    grids = []
    for recipe in dict.fromkeys(cell.recipe for cell in asked):
        variants = dict.fromkeys(cell.variant for cell in asked if cell.recipe == recipe)
        rows = tuple(
            (variant, tuple(_place(Cell(recipe, arch, variant), asked, by_cell) for arch in arches))
            for variant in variants
        )
        grids.append(Grid(recipe, arches, rows))
    return tuple(grids)


def _place(cell: Cell, asked: Sequence[Cell], by_cell: Mapping[Cell, CellResult]) -> Place | None:
    if cell not in asked:
        return None
    result = by_cell.get(cell)
    if result is None:
        return Place(cell, "", None, ())
    count = Counter(cells.kind(test) for suite in result.suites for test in suite.results)
    run = sum(suite.tests_run for suite in result.suites)
    said = [f"{run:,} run"] if result.suites else ["no suite ran"]
    said += [f"{count['went wrong']:,} went wrong"] if count["went wrong"] else []
    said += [f"{count['known']:,} known"] if count["known"] else []
    said += [f"{count['unexpected']:,} unexpected"] if count["unexpected"] else []
    return Place(cell, cells.anchor(cell), result.verdict, tuple(said))


# the template


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def fit(value: object) -> object:
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=fit,
        undefined=StrictUndefined,
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
    return environment.get_template("page.html.j2")
