"""Building a cell in a toolchain container: build, pack, probe, stash."""

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
    probe_conditions,
    run_logged,
)
from crossjit.pipeline.context import BuildContext, BuiltCell, PreparedBuild, PreparedCell, PreparedPython
from crossjit.pipeline.prepare import stashed
from crossjit.pipeline.shared import shared_cell
from crossjit.stash import packing
from crossjit.stash.artifact import SUPPORT, Artifact
from crossjit.stash.manifest import ArtifactKind, Manifest
from crossjit.stash.store import Packed, Staging
from crossjit.validation import probe


def build_cell(ctx: BuildContext, prepared: PreparedCell, *, log: Path, rebuild: bool = False) -> BuiltCell:
    """Take the cell from the stash or the shared one, or build, probe and stash it. `log` gets the build's output.

    A Python that was built elsewhere is in the stash already.

    If only the tests differ from an artifact in the stash, the cell is derived from it, unless with `rebuild` or
    without caches. Concurrent processes build the same cell once.

    Raises BuildError, EngineError, StashError.
    """
    if isinstance(prepared, PreparedPython):
        return BuiltCell(prepared.artifact, prepared.from_stash)
    artifact = None if rebuild else stashed(ctx.store, prepared)
    if artifact is not None:
        return _found(ctx, prepared, artifact)
    with ctx.store.lock(prepared.key, on_wait=on_wait(ctx, str(prepared.cell))):
        artifact = None if rebuild else stashed(ctx.store, prepared) or shared_cell(ctx, prepared)
        if artifact is not None:
            return _found(ctx, prepared, artifact)
        ctx.require_emulator(prepared.cell.arch)
        target = ctx.ensure_image(prepared.image, Role.TARGET, prepared.cell.arch)
        if ctx.cached and not rebuild and (sibling := _sibling(ctx, prepared)):
            try:
                return CellBuild(ctx, prepared, _derivation(ctx, prepared, sibling), target, log).run()
            except test_overlay.UnfitError as reason:
                ctx.progress.say(f"{prepared.cell}: {sibling.id} cannot be reused, so it is built: {reason}")
        return CellBuild(ctx, prepared, _full_build(ctx, prepared), target, log).run()


def _found(ctx: BuildContext, prepared: PreparedBuild, artifact: Artifact) -> BuiltCell:
    if remark := _other_source(artifact.manifest, prepared):
        ctx.progress.say(remark)
    return BuiltCell(artifact, from_stash=True)


def _sibling(ctx: BuildContext, prepared: PreparedBuild) -> Artifact | None:
    """Return an artifact whose source differs only in its tests, if there is one."""
    sibling = ctx.store.find_by_base_key(prepared.spec.base_key) if prepared.spec.base_key else None
    return sibling or (_sibling(ctx, prepared.trusted) if prepared.trusted else None)


@dataclass(frozen=True)
class BuildMethod:
    """How a cell is made in a toolchain container.

    `fill` populates a fresh one, except for a cross build's own Python; `make` has the signature of
    `execute.run_build`; `pack` packs the trees and returns the install tree; `report` returns the caches' hits and
    misses. `derived_from` is the artifact from which the cell is derived, if it is.
    """

    fill: Callable[[Container], None]
    make: Callable[..., BuildResult]
    pack: Callable[[Container, Staging], Packed]
    report: Callable[[Container], Mapping[str, tuple[int, int]]] = lambda container: {}
    derived_from: Artifact | None = None


def _full_build(ctx: BuildContext, prepared: PreparedBuild) -> BuildMethod:
    """Return the method that builds a cell from its source."""
    fill = partial(populate, spec=prepared.spec, source=prepared.source)
    report = partial(cache_report, remark=lambda message: ctx.progress.say(f"{prepared.cell}: {message}"))
    return BuildMethod(fill, execute.run_build, pack_trees, report)


def _derivation(ctx: BuildContext, prepared: PreparedBuild, sibling: Artifact) -> BuildMethod:
    """Return the method that derives a cell from an artifact that differs only in its tests. Raises UnfitError."""
    base = test_overlay.open_base(sibling, prepared.spec, prepared.source)
    ctx.progress.say(f"{prepared.cell}: only tests differ from {sibling.id}, so it is derived from that")
    fill = partial(test_overlay.fill, source=prepared.source, base=base)
    return BuildMethod(
        fill, partial(test_overlay.make, base=base), partial(test_overlay.pack, base=base), derived_from=sibling
    )


@dataclass(frozen=True)
class CellBuild:
    """Makes a cell in a toolchain container: builds, packs, probes and stashes it.

    Starting and removing a container, and counting cache hits, take a second each, so they run in threads during
    the next step. The thread pool ends before the exit stacks, which then close everything that was entered.
    """

    ctx: BuildContext
    prepared: PreparedBuild
    method: BuildMethod
    target: Image
    log: Path

    @property
    def subject(self) -> str:
        """The subject of the progress steps."""
        return str(self.prepared.cell)

    @property
    def emulation(self) -> Mapping[str, str]:
        """The variables that emulation needs in the target's environment."""
        return self.ctx.emulation(self.prepared.cell.arch, self.prepared.request.cpu)

    def run(self) -> BuiltCell:
        """Make the cell. Raises BuildError, EngineError, StashError, and UnfitError if a derivation is impossible."""
        with contextlib.ExitStack() as building:
            container, python, built = self._build(building)
            with (
                self.ctx.store.staging(self.prepared.key) as staging,
                contextlib.ExitStack() as probing,
                ThreadPoolExecutor(2) as pool,
            ):
                opening = pool.submit(probing.enter_context, self._probe_container())
                reporting = pool.submit(self._report, container)
                started = time.monotonic()
                with self.ctx.progress.step("pack", self.subject):
                    packed = self.method.pack(container, staging)
                    caches = reporting.result()
                closing = [pool.submit(building.close)]
                built = built.after("pack", time.monotonic() - started)
                started = time.monotonic()
                facts = self._probe(opening.result(), packed, staging)
                closing.append(pool.submit(probing.close))
                built = built.after("probe", time.monotonic() - started)
                with self.ctx.progress.step("stash", self.subject):
                    artifact = staging.commit(self._manifest(built, python, facts))
                for future in closing:
                    future.result()
        return BuiltCell(artifact, from_stash=False, seconds=built.seconds, caches=caches)

    def _build(self, building: contextlib.ExitStack) -> tuple[Container, Artifact | None, BuildResult]:
        """Start the container in the stack and build there; return it with the build Python, if there is one."""
        pool = building.enter_context(ThreadPoolExecutor(1))
        container = building.enter_context(
            build_container(self.ctx, self.prepared, self.prepared.spec, f"build-{self.subject}")
        )
        populating = pool.submit(self.method.fill, container)  # ends with its container if it is not awaited
        python = ensure_build_python(self.ctx, self.prepared, self.log)

        def unpack() -> None:
            populating.result()
            if python is not None:
                put_build_python(container, python)

        built = run_logged(self.ctx, container, self.prepared.spec, self.method.make, unpack, self.subject, self.log)
        return container, python, built

    def _report(self, container: Container) -> Mapping[str, tuple[int, int]]:
        return self.ctx.optional("counting cache hits", self.method.report, container) or {}

    def _probe_container(self) -> contextlib.AbstractContextManager[Container]:
        return probe.probing(
            self.ctx.engine,
            self.ctx.facts,
            self.target,
            variant=self.prepared.request.variant,
            emulation=self.emulation,
            name=container_name(f"probe-{self.prepared.cell.slug}", self.ctx.run),
            labels=self.ctx.labels,
        )

    def _probe(self, container: Container, packed: Packed, staging: Staging) -> Mapping[str, object]:
        return probe.probe(
            container,
            lambda: packing.unpack_stream(packed.path),
            cell=self.prepared.cell,
            variant=self.prepared.request.variant,
            emulation=self.emulation,
            progress=self.ctx.progress,
            support=partial(staging.open, SUPPORT),
            packages=self.prepared.toolchain.packages,
        )

    def _manifest(self, built: BuildResult, python: Artifact | None, facts: Mapping[str, object]) -> Manifest:
        prepared, derived_from = self.prepared, self.method.derived_from
        return replace(
            make_manifest(self.ctx, prepared, prepared.spec, ArtifactKind.CELL, built),
            cell=prepared.cell,
            recipe=prepared.request.recipe.name,
            variant=prepared.request.variant.name,
            images={"toolchain": prepared.toolchain.facts(), "target": self.target.facts()},
            build_python=python.full_id if python else None,
            derived_from=derived_from.full_id if derived_from else None,
            qemu=self.ctx.qemu_version(prepared.cell.arch),
            cpu=self.emulation.get("QEMU_CPU"),
            probe=dict(facts),
            probed_in=probe_conditions(self.ctx, prepared.request, self.target),
        )


def _other_source(manifest: Manifest, prepared: PreparedBuild) -> str | None:
    """Return a remark if an artifact was built from another commit or other changes with the same build inputs."""
    source = prepared.source
    if (manifest.source.commit, manifest.source.diff_digest) == (source.commit, source.diff_digest):
        return None
    other = f"commit {manifest.source.commit[:12]}" if manifest.source.commit else manifest.source.origin
    if manifest.source.diff_digest:
        other += " with changes"
    return f"{prepared.cell}: reusing the artifact of {other}: no build input differs"
