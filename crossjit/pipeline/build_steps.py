"""Steps shared by the builds of cells and of build Pythons."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import crossjit
from crossjit.build import cache_volume, layout
from crossjit.build.container import container_name, open_container
from crossjit.build.execute import BuildResult
from crossjit.build.spec import BuildSpec
from crossjit.engine.base import Container
from crossjit.images import Image
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedBuild
from crossjit.pipeline.pace import Paced
from crossjit.sources import Source, trust
from crossjit.stash.artifact import GENERATED, INSTALL, SUPPORT
from crossjit.stash.manifest import ArtifactKind, Manifest, SourceFacts
from crossjit.stash.store import Packed, Staging
from crossjit.validation import evidence
from crossjit.validation import target as target_module


def run_logged(
    ctx: BuildContext,
    container: Container,
    spec: BuildSpec,
    make: Callable[..., BuildResult],
    unpack: Callable[[], None],
    subject: str,
    log: Path,
) -> BuildResult:
    """Call `make`, which has the signature of `execute.run_build`, with its whole output in `log`."""
    progress = Paced(ctx.progress, ctx.settings.engine_home, f"{subject} {spec.strategy}")
    with log.open("w", encoding="utf-8", buffering=1) as output:
        built = make(container, spec, unpack=unpack, subject=subject, jobs=ctx.jobs, log=output, progress=progress)
    ctx.optional("recording build times", progress.record)
    return built


def pack_trees(container: Container, staging: Staging) -> Packed:
    """Pack the trees of a finished build; return the install tree."""
    packed = pack_tree(container, staging, INSTALL, layout.INSTALL, below=layout.PREFIX)
    for name, folder in ((SUPPORT, layout.SUPPORT), (GENERATED, layout.GENERATED)):
        pack_tree(container, staging, name, folder)
    return packed


def pack_tree(container: Container, staging: Staging, name: str, folder: str, *, below: str = "") -> Packed:
    """Pack one tree of a container."""
    with container.get(folder) as tar:
        return staging.add(name, tar, below=below)


def probe_conditions(ctx: BuildContext, request: CellRequest, image: Image) -> evidence.Conditions:
    """Return the conditions in which a probe of a cell would run now."""
    arch = request.cell.arch
    environment = target_module.environment(request.variant, ctx.emulation(arch, request.cpu))
    return evidence.conditions(image, environment, ctx.qemu_version(arch), ctx.facts)


@contextlib.contextmanager
def build_container(ctx: BuildContext, prepared: PreparedBuild, spec: BuildSpec, purpose: str) -> Iterator[Container]:
    """Start the container of a build with its trust domain's caches; a stranger's cache is trimmed after the build."""
    cache = below = mark = None
    if ctx.cached:
        if trust.is_stranger(spec.domain):
            mark = cache_volume.mark(ctx.settings, spec.domain, ctx.run)
        cache, *lower = (
            cache_volume.ensure(
                ctx.engine, ctx.settings, domain, prepared.source.origin if domain == spec.domain else ""
            )
            for domain in trust.serving(spec.domain)
        )
        below = lower[0] if lower else None
    with (
        contextlib.ExitStack() as after,
        open_container(
            ctx.engine,
            prepared.toolchain,
            spec,
            facts=ctx.facts,
            name=container_name(purpose, ctx.run),
            labels=ctx.labels,
            emulation=ctx.emulation(prepared.toolchain.arch, prepared.request.cpu),
            cache=cache,
            below=below,
        ) as container,
    ):
        if cache is not None and mark is not None:
            after.push(partial(_trim, ctx, prepared.toolchain, cache, spec.domain, mark))
        yield container


def _trim(
    ctx: BuildContext, image: Image, volume: str, domain: str, mark: Path, kind: type[BaseException] | None, *_: object
) -> None:
    """Trim a stranger's cache after its build, unless the build was interrupted: then the next command removes it."""
    if kind is None or issubclass(kind, Exception):
        name = container_name("cache", ctx.run)
        arguments = (ctx.engine, image, volume, domain, name, ctx.labels, mark)
        ctx.optional(f"bounding {volume}", partial(cache_volume.bound, *arguments))


def source_facts(source: Source) -> SourceFacts:
    """Return what a manifest says of a source."""
    return SourceFacts(
        kind=str(source.kind),
        digest=source.digest,
        origin=source.origin,
        commit=source.commit,
        diff_digest=source.diff_digest,
        llvm=source.llvm,
        regenerate=source.regenerate,
    )


def make_manifest(
    ctx: BuildContext, prepared: PreparedBuild, spec: BuildSpec, kind: ArtifactKind, built: BuildResult
) -> Manifest:
    """Make the manifest's part that the build determines."""
    source = prepared.source
    return Manifest(
        kind=kind,
        build_key=spec.key,
        version=source.version,
        arch=spec.arch,
        source=source_facts(source),
        strategy=spec.strategy,
        configure=spec.configure_line,
        llvm=prepared.toolchain.llvm_version(spec.llvm) if spec.llvm else None,
        compiler=built.compiler,
        base_key=spec.base_key,
        domain=spec.domain,
        inputs=recorded_inputs(spec),
        seconds={name: round(value, 3) for name, value in built.seconds.items()},
        crossjit=crossjit.__version__,
    )


def recorded_inputs(spec: BuildSpec) -> dict[str, object]:
    """Return the inputs of a build as JSON values, from which anyone can compute its keys again."""
    inputs = asdict(spec)
    del inputs["ahead"]
    values: dict[str, object] = json.loads(json.dumps(inputs))
    return values


def on_wait(ctx: BuildContext, subject: str) -> Callable[[], None]:
    """Return a function that reports that another process is building the subject."""
    return lambda: ctx.progress.say(f"{subject}: another process is building it; waiting to use its result")
