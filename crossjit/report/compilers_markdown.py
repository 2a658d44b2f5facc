"""The stencils of several LLVMs as Markdown, for a comment on a pull request: less than 60 lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from crossjit.effect.compilers import Compilers
from crossjit.report import compilers as text
from crossjit.report import output
from crossjit.report.effect import side_text
from crossjit.report.markdown import code, escaped, preformatted
from crossjit.report.size_budget import LINE
from crossjit.util.text import shortened

PROBLEMS, SUITES = 4, 4
ROWS, SAME = 12, 6  # of the table, and of those with how many stencils are the same


def as_markdown(found: Compilers, *, run: str, reproduce: str) -> str:
    """Return the answer, the table, how many stencils are the same, and what this cannot tell."""
    blocks = [f"## crossjit: {escaped(text.headline(found))}"]
    blocks.append(f"{escaped(side_text(found.source))}, which wants LLVM {escaped(found.own)}.")
    blocks += [f"**{escaped(sentence)}**" for sentence, _ in text.problems(found)[:PROBLEMS]]
    blocks.append("\n".join(_table(text.HEADERS, text.rows(found)[:ROWS])))
    for cell in found.cells[:2]:
        if same := text.matrix(cell):
            headers = text.matrix_headers(cell)
            blocks.append("\n".join(_table((f"same stencils, {headers[0]}", *headers[1:]), same[:SAME])))
    told = [f"- {escaped(f'{where}: {what}')}" for where, what in text.suites(found)[:SUITES]]
    blocks += ["\n".join(told)] if told else []
    blocks += [escaped(each) for each in text.remarks(found)]
    blocks.append(f"Not told by this: {escaped('; '.join(found.unknown), limit=4 * LINE)}.")
    blocks.append(f"Run {code(run)}. The same again:\n\n{preformatted(shortened(reproduce, 4 * LINE))}")
    return output.markup("\n\n".join(blocks)) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(escaped, headers))} |"
    yield f"|{'---|' * len(headers)}"
    yield from (f"| {' | '.join(escaped(value) for value in row)} |" for row in rows)
