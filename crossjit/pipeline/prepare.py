"""Preparing requests: resolving the source, making the toolchain image, specifying the build."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from crossjit import images, sources
from crossjit.build import build_python
from crossjit.build.spec import make_spec
from crossjit.errors import Interrupted, UserError
from crossjit.images import Image, ImageSpec, Role
from crossjit.model import Arch, CellResult, Strategy, Verdict
from crossjit.pipeline import installed, named_tests, on_host
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedBuild, PreparedCell
from crossjit.runs import bug_report
from crossjit.sources import Source, trust
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store


def resolve(ctx: BuildContext, request: CellRequest) -> Source:
    """Get the request's source: a pinned one, the user's, or the recipe's.

    Raises SourceError, DownloadError, and UserError for one that is not trusted where nothing isolates it.
    """
    on_host.require_trust(ctx.facts, request)
    if request.wanted in ctx.pinned:
        return ctx.pinned[request.wanted]
    return sources.resolve(
        request.built_from,
        ctx.settings,
        progress=ctx.progress,
        pool_mirrors=sources.host_pool_mirrors,
    )


def choose_image(specs: tuple[ImageSpec, ...], request: CellRequest, source: Source) -> ImageSpec:
    """Choose the image by the source's LLVM version. Raises UserError if a variant needs it and no image has it.

    A variant without LLVM is built in the same image as the others, for comparison.
    """
    llvm = source.llvm
    if request.variant.configures_jit and llvm is None:
        raise UserError(
            f"{request.cell}: {source.version} has no JIT: its configure has no --enable-experimental-jit",
            hint="choose a variant without the JIT (nojit, ft), or a source of 3.13 or later that has it",
        )
    if not request.variant.needs_llvm and not any(llvm in spec.llvm for spec in specs):
        llvm = None
    return images.spec_for(llvm, specs, name=request.image).having(request.variant.packages)


def prepare(ctx: BuildContext, requests: Sequence[CellRequest]) -> tuple[PreparedCell, ...]:
    """Get the requests' sources and toolchain images, each once, and specify the builds."""
    resolved: dict[object, Source] = {}
    for request in requests:
        if request.strategy is not Strategy.INSTALLED and request.wanted not in resolved:
            resolved[request.wanted] = resolve(ctx, request)
    _require_tests(requests, resolved.values())
    return tuple(_prepare_either(ctx, request, resolved) for request in requests)


def _require_tests(requests: Sequence[CellRequest], resolved: Collection[Source]) -> None:
    """Raise UserError for requested tests that cannot exist in any of the sources."""
    if not resolved:
        return
    suites = [suite for request in requests for suite in request.suites]
    for selection in dict.fromkeys(request.selection for request in requests):
        named_tests.require_modules(selection.tests, suites, resolved)


@dataclass(frozen=True)
class Resolved:
    """The sources of several requests by `CellRequest.wanted`, and why others could not be had."""

    sources: Mapping[object, Source] = field(default_factory=dict)
    failures: Mapping[object, Exception] = field(default_factory=dict)


def resolve_each(ctx: BuildContext, requests: Sequence[CellRequest]) -> Resolved:
    """Get the requests' sources, each once; failures are returned.

    Raises UserError for an invalid source or image of any request, before hours are spent on the others.
    """
    found: dict[object, Source] = {}
    failures: dict[object, Exception] = {}
    for request in requests:
        try:
            if request.strategy is not Strategy.INSTALLED and request.wanted not in {*found, *failures}:
                found[request.wanted] = resolve(ctx, request)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[request.wanted] = error
    _require_tests(requests, found.values())
    for request in requests:
        if request.wanted in found:
            choose_image(ctx.images, request, found[request.wanted])
    return Resolved(found, failures)


def prepare_each(
    ctx: BuildContext, requests: Sequence[CellRequest], resolved: Resolved
) -> tuple[PreparedCell | CellResult, ...]:
    """Prepare the requests as `prepare` does, but failures become the results of the requests that they affect.

    Raises only Interrupted and UserError.
    """
    failures = dict(resolved.failures)
    done: list[PreparedCell | CellResult] = []
    for request in requests:
        common = (request.wanted, compiler_arch(request, ctx.facts.arch))
        try:
            if failure := failures.get(request.wanted) or failures.get(common):
                raise failure
            done.append(_prepare_either(ctx, request, resolved.sources))
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[common] = error
            result = CellResult(request.cell, Verdict.INFRA, (), strategy=request.strategy)
            done.append(bug_report.result_of(ctx.settings.home, result, error))
    return tuple(done)


def compiler_arch(request: CellRequest, host_arch: Arch) -> Arch:
    """Return the arch of a cell's compilers, or of its only programs if it is not built."""
    return request.cell.arch if request.strategy in (Strategy.EMULATE, Strategy.INSTALLED) else host_arch


def _prepare_either(ctx: BuildContext, request: CellRequest, resolved: Mapping[object, Source]) -> PreparedCell:
    if request.strategy is Strategy.INSTALLED:
        return installed.prepare(ctx, request)
    return _prepare(ctx, request, resolved[request.wanted])


def _prepare(ctx: BuildContext, request: CellRequest, source: Source) -> PreparedBuild:
    image = choose_image(ctx.images, request, source)
    toolchain = ctx.ensure_image(image, Role.TOOLCHAIN, compiler_arch(request, ctx.facts.arch))
    return make_prepared(request, source, image, toolchain, ctx.facts.arch, _emulator(ctx, request))


def _emulator(ctx: BuildContext, request: CellRequest) -> str:
    """Describe the QEMU of an emulated build's compilers, with its CPU model."""
    arch = request.cell.arch
    return f"QEMU {ctx.qemu_version(arch)} as {ctx.emulation(arch, request.cpu).get('QEMU_CPU')}"


def make_prepared(
    request: CellRequest, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str = ""
) -> PreparedBuild:
    """Specify the cell's build in each trust domain that it can use."""
    domains = trust.serving(trust.domain_of(request.built_from))
    own, *below = (_in_domain(domain, request, source, image, toolchain, host_arch, emulator) for domain in domains)
    return replace(own, trusted=below[0]) if below else own


def _in_domain(
    domain: str,
    request: CellRequest,
    source: Source,
    image: ImageSpec,
    toolchain: Image,
    host_arch: Arch,
    emulator: str,
) -> PreparedBuild:
    own_python = None
    if request.strategy is Strategy.CROSS:
        own_python = build_python.make_spec(request.recipe, source, host_arch, toolchain, domain)
    spec = make_spec(
        source,
        request.variant,
        request.cell.arch,
        request.strategy,
        toolchain,
        build_python=own_python.own.key if own_python else None,
        domain=domain,
        emulator=emulator,
    )
    return PreparedBuild(request, source, image, toolchain, spec, own_python)


def stashed(store: Store, prepared: PreparedBuild) -> Artifact | None:
    """Return a cell's intact artifact in the stash, of its own trust domain or of the recipes' own sources."""
    artifact = store.find_intact(prepared.key)
    return artifact or (stashed(store, prepared.trusted) if prepared.trusted else None)
