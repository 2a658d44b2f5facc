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


def resolve(ctx: BuildContext, order: CellRequest) -> Source:
    """Get the order's source: what the user asked for, or the recipe's. Raises SourceError, DownloadError."""
    if order.wanted in ctx.pinned:
        return ctx.pinned[order.wanted]
    return sources.resolve(
        order.wanted,
        ctx.settings,
        progress=ctx.progress,
        pool_mirrors=sources.host_pool_mirrors,
    )


def choose_image(specs: tuple[ImageSpec, ...], order: CellRequest, source: Source) -> ImageSpec:
    """Choose the image by the LLVM that the source names. Raises UserError where a variant needs it and none has it.

    A variant without LLVM is built in the same image as its siblings, so that they can be compared.
    """
    llvm = source.llvm
    if order.variant.needs_llvm:
        if llvm is None:
            raise UserError(
                f"{order.cell}: {source.version} has no JIT: it has no Tools/jit/_llvm.py",
                hint="choose a variant without the JIT (nojit, ft), or a source of 3.13 or later",
            )
    elif not any(llvm in spec.llvm for spec in specs):
        llvm = None
    return images.spec_for(llvm, specs, name=order.image).having(order.variant.packages)


def prepare(ctx: BuildContext, orders: Sequence[CellRequest]) -> tuple[PreparedCell, ...]:
    """Get the orders' sources and toolchain images, each once, and say how each cell is built."""
    resolved: dict[object, Source] = {}
    for order in orders:
        if order.wanted not in resolved:
            resolved[order.wanted] = resolve(ctx, order)
    _require_tests(orders, resolved.values())
    return tuple(_prepare(ctx, order, resolved[order.wanted]) for order in orders)


def _require_tests(orders: Sequence[CellRequest], resolved: Collection[Source]) -> None:
    """Raise UserError for tests that are asked for by names which nothing can have."""
    suites = [suite for order in orders for suite in order.suites]
    for selection in dict.fromkeys(order.selection for order in orders):
        named_tests.require_modules(selection.tests, suites, resolved)


def prepare_each(ctx: BuildContext, orders: Sequence[CellRequest]) -> tuple[PreparedCell | CellResult, ...]:
    """Prepare the orders as `prepare` does. What is ours and goes wrong on the way is the result of those it befalls.

    Raises UserError where an order's source or image is wrong: before hours go into others.
    """
    sources_of: dict[object, Source] = {}
    failures: dict[object, Exception] = {}
    done: list[PreparedCell | CellResult] = []
    for order in orders:
        try:
            if order.wanted not in {*sources_of, *failures}:
                sources_of[order.wanted] = resolve(ctx, order)
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[order.wanted] = error
    _require_tests(orders, sources_of.values())
    for order in orders:
        common = (order.wanted, compiler_arch(order, ctx.facts.arch))
        try:
            if failure := failures.get(order.wanted) or failures.get(common):
                raise failure
            done.append(_prepare(ctx, order, sources_of[order.wanted]))
        except (Interrupted, UserError):
            raise
        except Exception as error:
            failures[common] = error
            result = CellResult(order.cell, Verdict.INFRA, (), strategy=order.strategy)
            done.append(bug_report.result_of(ctx.settings.home, result, error))
    return tuple(done)


def compiler_arch(order: CellRequest, host_arch: Arch) -> Arch:
    """Return the arch that a cell's compilers run as."""
    return order.cell.arch if order.strategy is Strategy.EMULATE else host_arch


def _prepare(ctx: BuildContext, order: CellRequest, source: Source) -> PreparedCell:
    image = choose_image(ctx.images, order, source)
    toolchain = ctx.ensure_image(image, Role.TOOLCHAIN, compiler_arch(order, ctx.facts.arch))
    return make_prepared(order, source, image, toolchain, ctx.facts.arch, _emulator(ctx, order))


def _emulator(ctx: BuildContext, order: CellRequest) -> str:
    """Say which QEMU the compilers of an emulated build run under, and as which CPU model."""
    arch = order.cell.arch
    return f"QEMU {ctx.qemu_version(arch)} as {ctx.emulation(arch, order.cpu).get('QEMU_CPU')}"


def make_prepared(
    order: CellRequest, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str = ""
) -> PreparedCell:
    """Say how the cell is built, now that its source and its toolchain are there."""
    domains = trust.serving(trust.domain_of(order.wanted))
    own, *below = (_in_domain(each, order, source, image, toolchain, host_arch, emulator) for each in domains)
    return replace(own, trusted=below[0]) if below else own


def _in_domain(
    domain: str, order: CellRequest, source: Source, image: ImageSpec, toolchain: Image, host_arch: Arch, emulator: str
) -> PreparedCell:
    own_python = None
    if order.strategy is Strategy.CROSS:
        own_python = build_python.make_spec(order.recipe, source, host_arch, toolchain, domain)
    spec = make_spec(
        source,
        order.variant,
        order.cell.arch,
        order.strategy,
        toolchain,
        build_python=own_python.own.key if own_python else None,
        domain=domain,
        emulator=emulator,
    )
    return PreparedCell(order, source, image, toolchain, spec, own_python)


def stashed(store: Store, prepared: PreparedCell) -> Artifact | None:
    """Return what the stash has for a cell, intact: of its own trust domain, or of the recipes' own sources."""
    found = store.find_intact(prepared.key)
    return found or (stashed(store, prepared.trusted) if prepared.trusted else None)
