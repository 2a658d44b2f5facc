"""From a request to a build key: its source, its toolchain image, its build specification."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from crossjit import images, sources
from crossjit.build import build_python
from crossjit.build.spec import make_spec
from crossjit.errors import Interrupted, UserError
from crossjit.images import Image, ImageSpec, Role
from crossjit.model import Arch, CellResult, Strategy, Verdict
from crossjit.pipeline import named_tests
from crossjit.pipeline.context import BuildContext, CellRequest, PreparedCell
from crossjit.runs import bug_report
from crossjit.sources import Source, trust
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store


def resolve(ctx: BuildContext, request: CellRequest) -> Source:
    """Get the request's source: what the user asked for, or the recipe's. Raises SourceError, DownloadError."""
    if request.wanted in ctx.pinned:
        return ctx.pinned[request.wanted]
    return sources.resolve(
        request.wanted,
        ctx.settings,
        progress=ctx.progress,
        pool_mirrors=sources.host_pool_mirrors,
    )


def choose_image(specs: tuple[ImageSpec, ...], request: CellRequest, source: Source) -> ImageSpec:
    """Choose the image by the LLVM that the source names. Raises UserError where a variant needs it and none has it.

    A variant without LLVM is built in the same image as its siblings, so that they can be compared.
    """
    llvm = source.llvm
    if request.variant.needs_llvm:
        if llvm is None:
            raise UserError(
                f"{request.cell}: {source.version} has no JIT: it has no Tools/jit/_llvm.py",
                hint="choose a variant without the JIT (nojit, ft), or a source of 3.13 or later",
            )
    elif not any(llvm in spec.llvm for spec in specs):
        llvm = None
    return images.spec_for(llvm, specs, name=request.image).having(request.variant.packages)


def prepare(ctx: BuildContext, requests: Sequence[CellRequest]) -> tuple[PreparedCell, ...]:
    """Get the requests' sources and toolchain images, each once, and say how each cell is built."""
    resolved: dict[object, Source] = {}
    for request in requests:
        if request.wanted not in resolved:
            resolved[request.wanted] = resolve(ctx, request)
    _require_tests(requests, resolved.values())
    return tuple(_prepare(ctx, request, resolved[request.wanted]) for request in requests)


def _require_tests(requests: Sequence[CellRequest], resolved: Collection[Source]) -> None:
    """Raise UserError for tests that are asked for by names which nothing can have."""
    suites = [suite for request in requests for suite in request.suites]
    for selection in dict.fromkeys(request.selection for request in requests):
        named_tests.require_modules(selection.tests, suites, resolved)


def prepare_each(ctx: BuildContext, requests: Sequence[CellRequest]) -> tuple[PreparedCell | CellResult, ...]:
    """Prepare the requests as `prepare` does. What is ours and goes wrong on the way is the result of those it befalls.

    Raises UserError where a request's source or image is wrong: before hours go into others.
    """
    sources_of: dict[object, Source] = {}
    failures: dict[object, Exception] = {}
    done: list[PreparedCell | CellResult] = []
    for request in requests:
        try:
            if request.wanted not in {*sources_of, *failures}:
                sources_of[request.wanted] = resolve(ctx, request)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[request.wanted] = error
    _require_tests(requests, sources_of.values())
    for request in requests:
        common = (request.wanted, compiler_arch(request, ctx.facts.arch))
        try:
            if failure := failures.get(request.wanted) or failures.get(common):
                raise failure
            done.append(_prepare(ctx, request, sources_of[request.wanted]))
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[common] = error
            result = CellResult(request.cell, Verdict.INFRA, (), strategy=request.strategy)
            done.append(bug_report.result_of(ctx.settings.home, result, error))
    return tuple(done)


def compiler_arch(request: CellRequest, host_arch: Arch) -> Arch:
    """Return the arch that a cell's compilers run as."""
    return request.cell.arch if request.strategy is Strategy.EMULATE else host_arch


def _prepare(ctx: BuildContext, request: CellRequest, source: Source) -> PreparedCell:
    image = choose_image(ctx.images, request, source)
    toolchain = ctx.ensure_image(image, Role.TOOLCHAIN, compiler_arch(request, ctx.facts.arch))
    return make_prepared(request, source, image, toolchain, ctx.facts.arch, _emulator(ctx, request))


def _emulator(ctx: BuildContext, request: CellRequest) -> str:
    """Say which QEMU the compilers of an emulated build run under, and as which CPU model."""
    arch = request.cell.arch
    return f"QEMU {ctx.qemu_version(arch)} as {ctx.emulation(arch, request.cpu).get('QEMU_CPU')}"


def make_prepared(
    request: CellRequest, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str = ""
) -> PreparedCell:
    """Say how the cell is built, now that its source and its toolchain are there."""
    domains = trust.serving(trust.domain_of(request.wanted))
    own, *below = (_in_domain(each, request, source, image, toolchain, host_arch, emulator) for each in domains)
    return replace(own, trusted=below[0]) if below else own


def _in_domain(
    domain: str,
    request: CellRequest,
    source: Source,
    image: ImageSpec,
    toolchain: Image,
    host_arch: Arch,
    emulator: str,
) -> PreparedCell:
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
    return PreparedCell(request, source, image, toolchain, spec, own_python)


def stashed(store: Store, prepared: PreparedCell) -> Artifact | None:
    """Return what the stash has for a cell, intact: of its own trust domain, or of the recipes' own sources."""
    found = store.find_intact(prepared.key)
    return found or (stashed(store, prepared.trusted) if prepared.trusted else None)
