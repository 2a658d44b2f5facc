"""Taking a cell, or a build Python, from the stash that machines share."""

from __future__ import annotations

from crossjit.pipeline.build_steps import on_wait
from crossjit.pipeline.context import BuildContext, PreparedBuild
from crossjit.pipeline.prepare import stashed
from crossjit.stash.artifact import Artifact
from crossjit.stash.manifest import ArtifactKind


def shared_cell(ctx: BuildContext, prepared: PreparedBuild) -> Artifact | None:
    """Take a cell from the shared stash, of its own trust domain or of the recipes' own sources; None if none is there.

    The caller holds the lock of the cell's key, and has looked in the stash. Raises StashError.
    """
    if ctx.shared is None:
        return None
    artifact = ctx.shared.find(ctx.store, prepared.key, ArtifactKind.CELL, str(prepared.cell))
    if artifact is None and (trusted := prepared.trusted) is not None:
        with ctx.store.lock(trusted.key, on_wait=on_wait(ctx, str(trusted.cell))):
            artifact = stashed(ctx.store, trusted) or shared_cell(ctx, trusted)
    return artifact
