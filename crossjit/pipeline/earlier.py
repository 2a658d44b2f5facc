"""What an earlier run was about, as it was then, whatever its paths and refs name by now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossjit import sources
from crossjit.errors import SourceError, UserError
from crossjit.model import Cell, CellResult
from crossjit.pipeline import build_cell, prepare
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell
from crossjit.runs.model import Run
from crossjit.sources import request
from crossjit.stash.artifact import Artifact


@dataclass(frozen=True)
class Earlier:
    """The cells' artifacts of an earlier run; `ctx` builds others from the sources that these were built from.

    `builds` is false where such a source is no longer kept, so that nothing else can be built to compare with.
    """

    run: Run
    ctx: BuildContext
    artifacts: dict[Cell, Artifact] = field(default_factory=dict)
    builds: bool = True

    def built(self, prepared: PreparedCell, log: Path) -> BuiltCell:
        """Return a cell's artifact. Where the stash has it no more, it is built anew, if that gives the same.

        Raises UserError if not: what is found in another build must not be said of this run.
        """
        if (artifact := self.artifacts.get(prepared.cell)) is not None:
            return BuiltCell(artifact, from_stash=True)
        result = self.run.result(prepared.cell)
        if result is not None and result.build_key != prepared.key:
            raise UserError(
                f"{prepared.cell}: the artifact of run {self.run.id} is gone, and its source or crossjit has changed",
                hint="validate it again, and use that run",
            )
        return build_cell.build_cell(self.ctx, prepared, log=log)


def as_it_was(ctx: BuildContext, orders: Sequence[CellRequest], run: Run) -> Earlier:
    """Find what a run built, and from which sources; what has changed since is said."""
    artifacts: dict[Cell, Artifact] = {}
    pinned: dict[object, sources.Source] = {}
    builds = True
    for order in orders:
        artifact = _artifact(ctx, run.result(order.cell))
        if artifact is None:
            continue
        artifacts[order.cell] = artifact
        if order.wanted in pinned:
            continue
        source = sources.kept(artifact.manifest.source, ctx.settings)
        remark = _changed(ctx, order, artifact.manifest.source.digest)
        if source is not None:
            pinned[order.wanted] = source
        elif remark:
            builds = False
            remark += ", and its old state is gone: no different build can be compared with it"
        if remark:
            ctx.progress.say(f"{remark}; using the artifact {artifact.id} of run {run.id}")
    return Earlier(run, replace(ctx, pinned={**ctx.pinned, **pinned}), artifacts, builds)


def _artifact(ctx: BuildContext, result: CellResult | None) -> Artifact | None:
    if result is None or result.artifact is None:
        return None
    found = (artifact for artifact in ctx.store.artifacts() if artifact.id == result.artifact)
    return next((artifact for artifact in found if artifact.is_intact()), None)


def _changed(ctx: BuildContext, order: CellRequest, digest: str) -> str:
    """Say whether what is on this machine under the order's path is not what was built; nothing else is asked."""
    try:
        local = order.source is not None and isinstance(
            request.parse(order.source), (request.Checkout, request.ArchiveFile, request.LocalRepository)
        )
        if not local or prepare.resolve(ctx, order).digest == digest:
            return ""
        return f"{order.source} has changed since"
    except SourceError as error:
        return f"{order.source} cannot be read any more ({error.message})"
