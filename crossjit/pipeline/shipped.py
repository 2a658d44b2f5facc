"""A build that gets stencils which were made before, as some distributors do, and makes none. All else is as usual."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from crossjit.build import execute, layout
from crossjit.build.container import cache_report, populate
from crossjit.build.spec import Phase
from crossjit.engine.base import Container
from crossjit.images import Role
from crossjit.pipeline.build_cell import BuildMethod, CellBuild
from crossjit.pipeline.build_steps import on_wait, pack_trees
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedBuild
from crossjit.pipeline.stencils import StencilFiles
from crossjit.util.tar import packed

_FOLDER = f"{layout.TOOLS}/shipped"


def prepare(own: PreparedBuild, made: PreparedBuild, stencils: StencilFiles) -> PreparedBuild:
    """Return the build of a cell in its own image, with the stencils that another LLVM made. Pure."""
    # They are new, so make leaves them alone; if it did not, it would fail, as this LLVM is not in the image.
    take = ("sh", "-c", f"cp {_FOLDER}/* . && touch .jit-stamp && : stencils {stencils.digest}")
    commands = tuple(
        replace(each, before=take, after=()) if each.phase is Phase.MAKE else each for each in own.spec.commands
    )
    spec = replace(own.spec, commands=commands, llvm=made.spec.llvm, core="")
    return replace(own, request=made.request, spec=spec, trusted=None)


def build(ctx: BuildContext, prepared: PreparedBuild, stencils: StencilFiles, *, log: Path) -> BuiltCell:
    """Take such a cell from the stash, or build it. Raises BuildError, EngineError, StashError."""
    if artifact := ctx.store.find_intact(prepared.key):
        return BuiltCell(artifact, from_stash=True)
    with ctx.store.lock(prepared.key, on_wait=on_wait(ctx, str(prepared.cell))):
        if artifact := ctx.store.find_intact(prepared.key):
            return BuiltCell(artifact, from_stash=True)
        ctx.require_emulator(prepared.cell.arch)
        target = ctx.ensure_image(prepared.image, Role.TARGET, prepared.cell.arch)

        def fill(container: Container) -> None:
            populate(container, prepared.spec, prepared.source)
            files = {f"{_FOLDER}/{name}": content for name, content in stencils.files.items()}
            container.put(packed(files, {_FOLDER: layout.BUILDER}, owner=layout.BUILDER), "/")

        method = BuildMethod(fill, execute.run_build, pack_trees, cache_report)
        return CellBuild(ctx, prepared, method, target, log).run()
