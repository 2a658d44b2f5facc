"""The stencils of several LLVMs as Markdown, for a comment on a pull request: less than 60 lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossjit.effect.compilers import Compilers
from crossjit.report import compilers as text
from crossjit.report import output
from crossjit.report.effect import side_text
from crossjit.report.markdown import code, escaped, preformatted
from crossjit.report.size_budget import LINE
from crossjit.util.text import one_line, shortened

PROBLEMS, DETAILS = 4, 3  # problems, and how many lines of a log each
SUITES = 8
ROWS = 12


def as_markdown(found: Compilers, *, run: str, reproduce: str) -> str:
    """Return the answer, the table, how many stencils are the same, and what this cannot tell."""
    blocks = [f"## crossjit: {escaped(text.headline(found))}"]
    blocks.append(f"{escaped(side_text(found.source))}, which wants LLVM {escaped(found.own)}.")
    for sentence, problem in text.problems(found)[:PROBLEMS]:
        blocks.append(f"**{escaped(sentence)}**")
        if details := [shortened(one_line(detail), LINE) for detail in problem.details[-DETAILS:]]:
            blocks.append(preformatted("\n".join(details)))
    blocks.append("\n".join(_table(text.HEADERS, text.rows(found)[:ROWS])))
    for cell in found.cells[:2]:
        if same := text.matrix(cell):
            headers = text.matrix_headers(cell)
            blocks.append("\n".join(_table((f"same stencils, {headers[0]}", *headers[1:]), same)))
    blocks += [f"- {escaped(f'{where}: {what}')}" for where, what in text.suites(found)[:SUITES]]
    blocks += [escaped(each) for each in text.remarks(found)]
    blocks.append(f"Not told by this: {escaped('; '.join(found.unknown), limit=4 * LINE)}.")
    blocks.append(f"Run {code(run)}. The same again:\n\n{preformatted(shortened(reproduce, 4 * LINE))}")
    return output.markup("\n\n".join(blocks)) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headers)} |"
    yield f"|{'---|' * len(headers)}"
    yield from (f"| {' | '.join(escaped(value) for value in row)} |" for row in rows)
