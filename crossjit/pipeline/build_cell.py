"""One direction: source, toolchain image, build, probe, stash, target image, suites, verdict; no step reaches back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from crossjit.build import execute, test_overlay
from crossjit.build.container import cache_report, container_name, populate
from crossjit.build.execute import BuildResult
from crossjit.engine.base import Container
from crossjit.images import Image, Role
from crossjit.pipeline.build_python import ensure_build_python, put_build_python
from crossjit.pipeline.build_steps import (
    build_container,
    make_manifest,
    on_wait,
    pack_trees,
    preconfigured,
    probe_conditions,
    run_logged,
)
from crossjit.pipeline.context import (
    BuildContext,
    BuiltCell,
    PreparedCell,
    ensure_image,
    optional_step,
    qemu_version,
    require_emulator,
)
from crossjit.pipeline.prepare import stashed
from crossjit.stash import packing
from crossjit.stash.artifact import SUPPORT, Artifact
from crossjit.stash.manifest import ArtifactKind, Manifest
from crossjit.stash.store import Packed, Staging
from crossjit.validation import probe


def build_cell(
    ctx: BuildContext,
    prepared: PreparedCell,
    *,
    log: Path,
    rebuild: bool = False,
    following: PreparedCell | None = None,
) -> BuiltCell:
    """Take the cell from the stash, or build, probe and stash it. `log` is where the build's whole output goes.

    Where only tests differ from what is in the stash, it is made of that, unless nothing kept is to be used. Two
    processes that want the same cell build it once. While one is built, configure answers for the `following` one.
    Raises BuildError, EngineError, StashError.
    """
    found = None if rebuild else stashed(ctx.store, prepared)
    if found is not None:
        if remark := _other_source(found.manifest, prepared):
            ctx.progress.say(remark)
        return BuiltCell(found, from_stash=True)
    require_emulator(ctx, prepared.cell.arch)
    with ctx.store.lock(prepared.key, on_wait=on_wait(ctx, str(prepared.cell))):
        found = None if rebuild else stashed(ctx.store, prepared)
        if found is not None:
            return BuiltCell(found, from_stash=True)
        target = ensure_image(ctx, prepared.image, Role.TARGET, prepared.cell.arch)
        if ctx.cached and not rebuild and (alike := _alike(ctx, prepared)):
            try:
                return _make(ctx, prepared, _renewing(ctx, prepared, alike), target, log)
            except test_overlay.UnfitError as reason:
                ctx.progress.say(f"{prepared.cell}: {alike.id} will not do, so it is built: {reason}")
        return _make(ctx, prepared, _building(ctx, prepared), target, log, following)


def _alike(ctx: BuildContext, prepared: PreparedCell) -> Artifact | None:
    """Return an artifact of a source that differs in its tests only, if there is one."""
    found = ctx.store.find_by_core(prepared.spec.base_key) if prepared.spec.base_key else None
    return found or (_alike(ctx, prepared.trusted) if prepared.trusted else None)


@dataclass(frozen=True)
class BuildMethod:
    """How a cell is made in a toolchain container.

    `fill` puts into a fresh one all but a cross build's own Python; `make` is called as `execute.run_build` is; `pack`
    takes the trees and returns the install tree; `report` asks how often the caches had an answer. `derived_from` is
    the artifact that most of it is taken from, if it is.
    """

    fill: Callable[[Container], None]
    make: Callable[..., BuildResult]
    pack: Callable[[Container, Staging], Packed]
    report: Callable[[Container], Mapping[str, tuple[int, int]]] = lambda container: {}
    derived_from: Artifact | None = None


def _building(ctx: BuildContext, prepared: PreparedCell) -> BuildMethod:
    """Build it from its source."""
    fill = partial(populate, spec=prepared.spec, source=prepared.source)
    report = partial(cache_report, remark=lambda said: ctx.progress.say(f"{prepared.cell}: {said}"))
    return BuildMethod(fill, execute.run_build, pack_trees, report)


def _renewing(ctx: BuildContext, prepared: PreparedCell, alike: Artifact) -> BuildMethod:
    """Make it of an artifact that differs in its tests only. Raises UnfitError."""
    base = test_overlay.open_base(alike, prepared.spec, prepared.source)
    ctx.progress.say(f"{prepared.cell}: nothing but tests differs from {alike.id}, so it is made of that")
    fill = partial(test_overlay.fill, source=prepared.source, base=base)
    return BuildMethod(
        fill, partial(test_overlay.make, base=base), partial(test_overlay.pack, base=base), derived_from=alike
    )


def _make(
    ctx: BuildContext,
    prepared: PreparedCell,
    way: BuildMethod,
    target: Image,
    log: Path,
    following: PreparedCell | None = None,
) -> BuiltCell:
    """Make the cell in a container, pack and probe what came of it, and put it into the stash.

    Raises UnfitError where the way is not a build.
    """
    order, subject = prepared.order, str(prepared.cell)
    emulation = ctx.emulation(prepared.cell.arch, order.cpu)
    with contextlib.ExitStack() as asking, contextlib.ExitStack() as building:
        beside = building.enter_context(ThreadPoolExecutor(1))
        container = building.enter_context(build_container(ctx, prepared, prepared.spec, f"build-{subject}"))
        filling = beside.submit(way.fill, container)  # ends with its container, if nobody waits for it
        own_python = ensure_build_python(ctx, prepared, log, following=prepared)

        def unpack() -> None:
            filling.result()
            if own_python is not None:
                put_build_python(container, own_python)

        asking.enter_context(preconfigured(ctx, following))
        built = run_logged(ctx, container, prepared.spec, way.make, unpack, subject, log)
        with (
            ctx.store.staging(prepared.key) as staging,
            contextlib.ExitStack() as probing,
            # Containers take a second to come and to go, and the caches to count. What is given to the threads has
            # ended before the stacks are left, which close what was entered even where no thread came to it.
            ThreadPoolExecutor(2) as aside,
        ):
            its_container = probe.probing(
                ctx.engine,
                ctx.facts,
                target,
                variant=order.variant,
                emulation=emulation,
                name=container_name(f"probe-{prepared.cell.slug}", ctx.run),
                labels=ctx.labels,
            )
            opening = aside.submit(probing.enter_context, its_container)
            reporting = aside.submit(optional_step, ctx, "counting what came from the caches", way.report, container)
            started = time.monotonic()
            with ctx.progress.step("pack", subject):
                packed = way.pack(container, staging)
                found = reporting.result() or {}
            leaving = [aside.submit(building.close)]
            built = built.after("pack", time.monotonic() - started)
            started = time.monotonic()
            facts = probe.probe(
                opening.result(),
                lambda: packing.unpack_stream(packed.path),
                cell=prepared.cell,
                variant=order.variant,
                emulation=emulation,
                progress=ctx.progress,
                support=partial(staging.open, SUPPORT),
                packages=prepared.toolchain.packages,
            )
            leaving.append(aside.submit(probing.close))
            built = built.after("probe", time.monotonic() - started)
            manifest = replace(
                make_manifest(ctx, prepared, prepared.spec, ArtifactKind.CELL, built),
                cell=prepared.cell,
                recipe=order.recipe.name,
                variant=order.variant.name,
                images={"toolchain": prepared.toolchain.facts(), "target": target.facts()},
                build_python=own_python.full_id if own_python else None,
                derived_from=way.derived_from.full_id if way.derived_from else None,
                qemu=qemu_version(ctx, prepared.cell.arch),
                cpu=emulation.get("QEMU_CPU"),
                probe=dict(facts),
                probed_in=probe_conditions(ctx, prepared, target),
            )
            with ctx.progress.step("stash", subject):
                artifact = staging.commit(manifest)
            for each in leaving:
                each.result()
    return BuiltCell(artifact, from_stash=False, seconds=built.seconds, caches=found)


def _other_source(manifest: Manifest, prepared: PreparedCell) -> str | None:
    """Say it where an artifact is of another commit or other changes, and still what this source would be built to."""
    source = prepared.source
    if (manifest.source.commit, manifest.source.diff_digest) == (source.commit, source.diff_digest):
        return None
    other = f"commit {manifest.source.commit[:12]}" if manifest.source.commit else manifest.source.origin
    if manifest.source.diff_digest:
        other += " with changes"
    return f"{prepared.cell}: built before, from {other}; it differs from this source in nothing that a build reads"
