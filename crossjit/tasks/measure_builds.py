"""The builds of the cells that a command measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from crossjit.tasks.session import RunSession

if TYPE_CHECKING:
    from crossjit.measure.cell import Built
    from crossjit.pipeline.context import PreparedCell


def built(session: RunSession, require: Callable[[PreparedCell], None] | None = None) -> Iterator[Built]:
    """Yield each cell's build; those that are missing are built. Raises what `require` does, before any is."""
    from crossjit.pipeline import build_cell, prepare

    prepared_cells = prepare.prepare(session.ctx, session.requests)
    if require:
        for prepared in prepared_cells:
            require(prepared)
    for prepared in prepared_cells:
        log = session.record.cell_folder(prepared.cell) / "build.log"
        yield prepared, build_cell.build_cell(session.ctx, prepared, log=log)
