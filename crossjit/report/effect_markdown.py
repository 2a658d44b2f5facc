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
PROGRAMS = 6  # rows of the tables of what is executed
TABLES = 3  # of these
TESTS = 4  # lines of what tests say
PROBLEMS = 4
DETAILED, DETAILS = 2, 3  # problems with lines of a failed build's log, and how many each


def as_markdown(effect: Effect, *, run: str, reproduce: str) -> str:
    """Return the answer, the uops that changed the most, the totals, and what this cannot tell."""
    blocks = [f"## crossjit: {escaped(headline(effect))}"]
    blocks.append(f"{escaped(side_text(effect.change))}, compared with {escaped(side_text(effect.base))}.")
    blocks += [_problems(effect)] if any(each.problems for each in effect.cells) else []
    if found := lines(effect):
        blocks.append("\n".join(_uops(effect, found)))
    for table in effect_work.tables(effect, PROGRAMS)[:TABLES]:
        told = [*_table((table.title, *table.headers[1:]), [tuple(map(escaped, row)) for row in table.rows])]
        told += [f"\nAnd {table.more:,} more."] if table.more else []
        blocks.append("\n".join(told))
    blocks += [f"- {escaped(line)}" for line in list(suite_lines(effect))[:TESTS]]
    for title, headers, rows in (("stencils", TOTALS, totals(effect)), ("builds", BUILDS, builds(effect))):
        if rows:
            blocks.append("\n".join(_table((f"all {title}", *headers[1:]), rows)))
    blocks.append(f"Not told by this: {escaped('; '.join(effect.unknown), limit=4 * LINE)}.")
    blocks.append(f"Run {code(run)}. The same again:\n\n{preformatted(shortened(reproduce, 4 * LINE))}")
    return output.markup("\n\n".join(blocks)) + "\n"


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
