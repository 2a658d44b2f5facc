"""One engine's part in a run: preparing and running the cells that come to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crossjit.errors import EngineError, InfrastructureError
from crossjit.model import Cell, CellResult, Verdict
from crossjit.pipeline import prepare, validate_cell
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedCell
from crossjit.pipeline.dispatch import Attempt
from crossjit.pipeline.prepare import Resolved
from crossjit.runs import bug_report
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord


@dataclass(frozen=True)
class EnginePost:
    """Runs cells on an engine; implements `dispatch.Post`. `before` is the run that is resumed.

    `request_of` makes the request of a cell for this engine.
    """

    name: str
    ctx: BuildContext
    record: RunRecord
    request_of: Callable[[Cell], CellRequest]
    resolved: Resolved
    validate: bool
    rebuild: bool = False
    before: Run | None = None
    _prepared: dict[Cell, PreparedCell | CellResult] = field(default_factory=dict)

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Make what cells need that is likely to come here, so that errors in an image show early."""
        requests = [self.request_of(cell) for cell in cells]
        prepared = prepare.prepare_each(self.ctx, requests, self.resolved)
        self._prepared.update(zip(cells, prepared, strict=True))

    def run(self, cell: Cell) -> Attempt:
        """Run a cell."""
        if cell not in self._prepared:
            self.prepare([cell])
        prepared = self._prepared[cell]
        if isinstance(prepared, CellResult):
            failed = replace(prepared, engine=self.ctx.engine_name)
            return Attempt(failed, lost=self.request_of(cell).wanted not in self.resolved.failures)
        result = self._run(prepared)
        return Attempt(result, lost=result.verdict is Verdict.INFRA and self._is_gone())

    def stop(self) -> None:
        """Stop what runs in another thread."""
        self.ctx.engine.stop()

    def say(self, text: str) -> None:
        """Report a message."""
        self.ctx.progress.say(text)

    def _run(self, prepared: PreparedCell) -> CellResult:
        cell, earlier = prepared.cell, None
        try:
            if self.before is not None:
                finished = self.before.result(cell)
                if finished is not None and finished.build_key == prepared.key and is_final(finished):
                    self.ctx.progress.say(f"{cell}: {finished.verdict} in run {self.before.id}")
                    self.record.adopt(self.before, cell)
                    return finished
                earlier = self.before.cell_folder(cell)
            folder = self.record.cell_folder(cell)
        except (OSError, InfrastructureError) as error:
            return bug_report.result_of(self.ctx.settings.home, CellResult(cell, Verdict.INFRA, ()), error)
        result = validate_cell.run_cell(
            self.ctx, prepared, folder=folder, validate=self.validate, rebuild=self.rebuild, earlier=earlier
        )
        return replace(result, engine=self.ctx.engine_name)

    def _is_gone(self) -> bool:
        """Whether the engine does not answer any more."""
        try:
            self.ctx.engine.facts()
        except EngineError:
            return True
        return False


def is_final(finished: CellResult) -> bool:
    """Whether a cell need not be resumed.

    Failed suites are resumed, because the known failures may have changed. Their finished modules do not run again,
    except those cut short by a crash or hang that is ignored now.
    """
    if finished.verdict is Verdict.FAIL:
        return not finished.suites
    return finished.verdict in (Verdict.PASS, Verdict.VACUOUS)
