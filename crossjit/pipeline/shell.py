"""Shells in target and toolchain containers."""

from __future__ import annotations

from crossjit.build import layout
from crossjit.build.container import cache_environment, container_name, populate
from crossjit.engine.base import Container, ContainerOptions
from crossjit.pipeline.build_python import ensure_build_python, put_build_python
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedBuild, PreparedCell
from crossjit.pipeline.validate_cell import target_of
from crossjit.validation import target as target_module


def target_shell(ctx: BuildContext, prepared: PreparedCell, built: BuiltCell) -> int:
    """Open a shell in the cell's target image with its artifact installed; return the shell's exit status."""
    target = target_of(ctx, prepared, built, "shell")
    return ctx.engine.shell(target.options(), target.install, ("bash",), cwd=target_module.HOME)


def toolchain_shell(ctx: BuildContext, prepared: PreparedBuild) -> int:
    """Open a shell in the toolchain image, with the source, the build Python and the build's environment in place.

    A build Python is built first if there is none in the stash. Returns the shell's exit status.
    """
    subject = str(prepared.cell)
    own_python = ensure_build_python(ctx, prepared, ctx.settings.runs / ctx.run / "build.log")

    def prepare(container: Container) -> None:
        populate(container, prepared.spec, prepared.source)
        if own_python is not None:
            put_build_python(container, own_python)

    options = ContainerOptions(
        prepared.toolchain.reference,
        arch=prepared.toolchain.arch,
        name=container_name(f"shell-{subject}", ctx.run),
        labels=ctx.labels,
        env={
            **prepared.spec.environment,
            **cache_environment(prepared.spec, cached=False),
            **ctx.emulation(prepared.toolchain.arch, prepared.request.cpu),
        },
        user=f"{layout.BUILDER}:{layout.BUILDER}",
        isolated=not prepared.toolchain.is_host,
    )
    return ctx.engine.shell(options, prepare, ("bash",), cwd=layout.BUILD)
