"""What a change does as Markdown, for a comment on a pull request: less than 60 lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossjit.effect.model import Effect
from crossjit.report import effect_work, output
from crossjit.report.effect import (
    BUILDS,
    TOTALS,
    Line,
    builds,
    figures,
    headline,
    lines,
    problem_text,
    side_text,
    suite_lines,
    totals,
)
from crossjit.report.markdown import code, escaped, preformatted
from crossjit.report.size_budget import LINE
from crossjit.util.text import one_line, pluralize, shortened

WORST = 8  # uops in the table
PROGRAMS = 4  # rows of the tables of what is executed
LINES = 58  # in all
TESTS = 4  # lines of what tests say
PROBLEMS = 4
DETAILED, DETAILS = 2, 3  # problems with lines of a failed build's log, and how many each


def as_markdown(effect: Effect, *, run: str, reproduce: str) -> str:
    """Return the answer, what changed the most, the totals, and what this cannot tell.

    Blocks are left out, the least important first, where the whole would be too long.
    """
    first = [
        f"## crossjit: {escaped(headline(effect))}",
        f"{escaped(side_text(effect.change))}, compared with {escaped(side_text(effect.base))}.",
    ]
    last = [
        f"Not told by this: {escaped('; '.join(effect.unknown), limit=4 * LINE)}.",
        f"Run {code(run)}. The same again:\n\n{preformatted(shortened(reproduce, 4 * LINE))}",
    ]
    room = LINES - sum(map(_lines, [*first, *last]))
    shown = []
    for block in _blocks(effect):
        if (lines := _lines(block)) <= room:
            shown.append(block)
            room -= lines
    return output.markup("\n\n".join([*first, *shown, *last])) + "\n"


def _lines(block: str) -> int:
    """Return how many lines a block takes, with the empty one after it."""
    return block.count("\n") + 2


def _blocks(effect: Effect) -> Iterator[str]:
    """Yield what there is room for, the most important first."""
    if any(each.problems for each in effect.cells):
        yield _problems(effect)
    if tested := list(suite_lines(effect))[:TESTS]:
        yield "\n".join(f"- {escaped(line)}" for line in tested)
    if found := lines(effect):
        yield "\n".join(_uops(effect, found))
    for table in effect_work.tables(effect, PROGRAMS):
        rows = [tuple(map(escaped, row)) for row in table.rows]
        more = [f"\nAnd {table.more:,} more."] if table.more else []
        yield "\n".join([*_table((table.title, *table.headers[1:]), rows), *more])
    for title, headers, sizes in (("stencils", TOTALS, totals(effect)), ("builds", BUILDS, builds(effect))):
        if sizes:
            yield "\n".join(_table((f"all {title}", *headers[1:]), sizes))


def _uops(effect: Effect, found: Sequence[Line]) -> Iterator[str]:
    arches = effect.arches
    names = ("instructions", "bytes")
    headers = ("worst first", "what", *(f"{name}, {arch}" for arch in arches for name in names))
    rows = [
        (code(line.name), escaped(line.what), *(text for uop in line.uops for text in figures(uop)[: len(names)]))
        for line in found[:WORST]
    ]
    yield from _table(headers, rows)
    if len(found) > WORST:
        yield f"\nAnd {pluralize(len(found) - WORST, 'uop')} more."


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"|{'---|' * len(headers)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _problems(effect: Effect) -> str:
    """Return what is wrong with sides of cells; there are at most two of each."""
    parts = []
    found = [(each, problem) for each in effect.cells for problem in each.problems]
    for number, (each, problem) in enumerate(found[:PROBLEMS]):
        details = [shortened(one_line(detail), LINE) for detail in problem.details[-DETAILS:]]
        parts.append(f"**{escaped(problem_text(each, problem))}**")
        parts += [preformatted("\n".join(details))] if details and number < DETAILED else []
    return "\n\n".join(parts)
