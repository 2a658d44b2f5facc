"""A cross build's own Python: a native cell's, or one that is built once."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from crossjit.build import build_python, execute, layout
from crossjit.build.container import populate
from crossjit.engine.base import Container
from crossjit.pipeline.build_steps import build_container, make_manifest, on_wait, pack_tree, run_logged
from crossjit.pipeline.context import BuildContext, PreparedBuild
from crossjit.stash.artifact import INSTALL, Artifact
from crossjit.stash.manifest import ArtifactKind
from crossjit.stash.store import Store


def put_build_python(container: Container, python: Artifact) -> None:
    """Unpack a build Python into a cross build's container."""
    with python.open() as tar:
        container.put(tar, layout.BUILD_PYTHON)


def ensure_build_python(ctx: BuildContext, prepared: PreparedBuild, log: Path) -> Artifact | None:
    """Return the Python that runs CPython's own tools in a cross build, built if the stash has none; else None."""
    if prepared.build_python is None:
        return None
    if artifact := _find_and_report(ctx, prepared):
        return artifact
    spec = prepared.build_python.own
    subject = f"build Python {prepared.source.version}"
    with ctx.store.lock(spec.key, on_wait=on_wait(ctx, subject)):
        if artifact := _find_and_report(ctx, prepared):
            return artifact
        if ctx.shared and (artifact := ctx.shared.find(ctx.store, spec.key, ArtifactKind.BUILD_PYTHON, subject)):
            return artifact
        own_log = log.with_name("build-python.log")
        with (
            build_container(ctx, prepared, spec, f"build-{subject}") as container,
            ctx.store.staging(spec.key) as staging,
        ):
            unpack = partial(populate, container, spec, prepared.source)
            built = run_logged(ctx, container, spec, execute.run_build, unpack, subject, own_log)
            with ctx.progress.step("pack", subject):
                pack_tree(container, staging, INSTALL, layout.INSTALL, below=layout.PREFIX)
            return staging.commit(
                replace(
                    make_manifest(ctx, prepared, spec, ArtifactKind.BUILD_PYTHON, built),
                    images={"toolchain": prepared.toolchain.facts()},
                )
            )


def find_build_python(store: Store, prepared: PreparedBuild) -> Artifact | None:
    """Return the stash's Python for a cross build, of its own trust domain or of the recipes' own sources."""
    artifact = build_python.find(store, prepared.build_python) if prepared.build_python else None
    return artifact or (find_build_python(store, prepared.trusted) if prepared.trusted else None)


def _find_and_report(ctx: BuildContext, prepared: PreparedBuild) -> Artifact | None:
    artifact = find_build_python(ctx.store, prepared)
    if artifact is not None and artifact.manifest.kind is ArtifactKind.CELL:
        ctx.progress.say(f"{prepared.cell}: {artifact.manifest.subject} ({artifact.id}) is its build Python")
    return artifact
