"""Test lists of artifacts: finding a stored one, and making one in a container."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from crossjit import images
from crossjit.build.container import container_name
from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import CrossjitError, Interrupted, StashError
from crossjit.images import Role
from crossjit.known_failures import test_inventory
from crossjit.known_failures.test_inventory import Inventory
from crossjit.pipeline.context import BuildContext
from crossjit.stash import test_lists
from crossjit.stash.artifact import SUPPORT, Artifact
from crossjit.validation.list_tests import list_tests
from crossjit.validation.target import Target


def find(stash: Path, artifact: Artifact) -> Inventory | None:
    """Return the tests that an artifact listed earlier; None if there is none."""
    listed = test_lists.find(stash, artifact)
    return test_inventory.of_list(listed) if listed else None


def make(ctx: BuildContext, artifact: Artifact, env: TargetEnvironment) -> Inventory | None:
    """List an artifact's tests in its target image, and store the list; report a failure and return None."""
    try:
        ctx.require_emulator(artifact.manifest.arch)
        if not artifact.is_intact():
            raise StashError("it is damaged")
        listed = list_tests(ctx.engine, _target(ctx, artifact, env), ctx.progress)
    except Interrupted:
        raise
    except CrossjitError as error:
        ctx.progress.say(f"the tests of {artifact.manifest.subject} ({artifact.id}) are not listed: {error.message}")
        return None
    test_lists.keep(ctx.settings.stash, artifact, listed)
    return test_inventory.of_list(listed)


def _target(ctx: BuildContext, artifact: Artifact, env: TargetEnvironment) -> Target:
    """Return the target that the artifact's suites would run in."""
    cell, llvm = artifact.manifest.cell, artifact.manifest.source.llvm
    if cell is None:
        raise ValueError(f"{artifact.id} is not a cell's")
    spec = images.spec_for(llvm if any(llvm in image.llvm for image in ctx.images) else None, ctx.images)
    return Target(
        image=ctx.ensure_image(spec.having(env.variant.packages), Role.TARGET, env.arch),
        artifact=artifact.full_id,
        tree=artifact.open,
        cell=cell,
        variant=env.variant,
        python=env.python,
        name=container_name(f"list-{cell.slug}", ctx.run),
        labels=ctx.labels,
        support=partial(artifact.open, SUPPORT),
        emulation=ctx.emulation(env.arch, None),
        qemu=ctx.qemu_version(env.arch),
    )
