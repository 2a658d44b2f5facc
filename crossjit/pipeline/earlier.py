"""The artifacts and sources of an earlier run, even if its paths and refs have changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from crossjit import sources
from crossjit.errors import SourceError, UserError
from crossjit.model import Cell, CellResult, Strategy
from crossjit.pipeline import build_cell, prepare
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell
from crossjit.runs.model import Run
from crossjit.sources import request as source_request
from crossjit.stash.artifact import Artifact


@dataclass(frozen=True)
class Earlier:
    """The artifacts of an earlier run by cell; `ctx` builds other cells from the same sources.

    `builds` is false if such a source is gone, so that nothing can be built for comparison.
    """

    run: Run
    ctx: BuildContext
    artifacts: dict[Cell, Artifact] = field(default_factory=dict)
    builds: bool = True

    def built(self, prepared: PreparedCell, log: Path) -> BuiltCell:
        """Return a cell's artifact. If it is gone, it is built again with the same build key.

        Raises UserError if the build key has changed: findings about another build must not be reported for this run.
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


def as_it_was(ctx: BuildContext, requests: Sequence[CellRequest], run: Run) -> Earlier:
    """Find the artifacts that a run built, and their sources; sources that have changed since are reported."""
    artifacts: dict[Cell, Artifact] = {}
    pinned: dict[object, sources.Source] = {}
    builds = True
    for request in requests:
        artifact = _artifact(ctx, run.result(request.cell))
        if artifact is None:
            continue
        artifacts[request.cell] = artifact
        if request.strategy is Strategy.INSTALLED or request.wanted in pinned:
            continue
        source = sources.kept(artifact.manifest.source, ctx.settings)
        remark = _changed(ctx, request, artifact.manifest.source.digest)
        if source is not None:
            pinned[request.wanted] = source
        elif remark:
            builds = False
            remark += ", and its old state is gone: no different build can be compared with it"
        if remark:
            ctx.progress.say(f"{remark}; using the artifact {artifact.id} of run {run.id}")
    pythons = {request.cell: artifacts[request.cell] for request in requests if _is_kept(request, artifacts)}
    return Earlier(run, replace(ctx, pinned={**ctx.pinned, **pinned}, pythons=pythons), artifacts, builds)


def _is_kept(request: CellRequest, artifacts: Mapping[Cell, Artifact]) -> bool:
    """Whether a request is for an installed Python, which the run left in the stash."""
    return request.strategy is Strategy.INSTALLED and request.cell in artifacts


def _artifact(ctx: BuildContext, result: CellResult | None) -> Artifact | None:
    if result is None or result.artifact is None:
        return None
    matches = (artifact for artifact in ctx.store.artifacts() if artifact.id == result.artifact)
    return next((artifact for artifact in matches if artifact.is_intact()), None)


def _changed(ctx: BuildContext, request: CellRequest, digest: str) -> str:
    """Return a remark if the request's local source has changed since it was built; remote sources are not checked."""
    local_kinds = (source_request.Checkout, source_request.ArchiveFile, source_request.LocalRepository)
    try:
        local = request.source is not None and isinstance(source_request.parse(request.source), local_kinds)
        if not local or prepare.resolve(ctx, request).digest == digest:
            return ""
        return f"{request.source} has changed since"
    except SourceError as error:
        return f"{request.source} cannot be read any more ({error.message})"
