"""The stencils of several LLVMs as one self-contained HTML page."""

from __future__ import annotations

from crossjit.effect.compilers import Compilers
from crossjit.report import compilers as text
from crossjit.report import html, output
from crossjit.report.effect import side_text

UOPS = 60  # of each pair


def page(found: Compilers, *, run: str, reproduce: str) -> str:
    """Return the page: the table, how many stencils are the same, and the uops that differ the most."""
    rendered = html.template("compilers.html.j2").render(
        run=run,
        reproduce=reproduce,
        headline=text.headline(found),
        found=found,
        text=text,
        source=side_text(found.source),
        most=UOPS,
    )
    return output.markup(rendered) + "\n"
