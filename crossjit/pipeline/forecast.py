"""What is known of an order before anything is started, and the order in which orders are best dealt with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossjit import sources
from crossjit.build import build_python
from crossjit.engine.base import Engine
from crossjit.images import ImageBuilder, ImageSpec, Role
from crossjit.model import Arch, Strategy
from crossjit.pipeline import prepare
from crossjit.pipeline.build_python import find_build_python
from crossjit.pipeline.context import CellRequest
from crossjit.pipeline.plan import Available
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store


@dataclass(frozen=True)
class PlannedCell:
    """What is known of an order before anything is started; `key` is None until source and toolchain are there."""

    order: CellRequest
    known: Available
    source: Source | None = None
    image: ImageSpec | None = None
    key: str | None = None
    artifact: Artifact | None = None


def forecast(
    order: CellRequest,
    settings: Settings,
    host_arch: Arch,
    specs: tuple[ImageSpec, ...],
    store: Store,
    engine: Engine | None,
    *,
    before: Sequence[CellRequest] = (),
) -> PlannedCell:
    """Look at what is there for an order already, or will be when the orders `before` it are done.

    Nothing is started or written. `engine` is None if none answers.
    """
    known = Available(build_python=_serving(order, before))
    source = sources.known(order.wanted, settings)
    if source is None:
        return PlannedCell(order, known)
    known = replace(known, source=True)
    image = prepare.choose_image(specs, order, source)
    if engine is None:
        return PlannedCell(order, known, source, image)
    find = partial(ImageBuilder(engine, host_arch, settings.home).find, image)
    known = replace(known, target=find(Role.TARGET, order.cell.arch) is not None)
    toolchain = find(Role.TOOLCHAIN, prepare.compiler_arch(order, host_arch))
    if toolchain is None:
        return PlannedCell(order, known, source, image)
    prepared = prepare.make_prepared(order, source, image, toolchain, host_arch)
    artifact = prepare.stashed(store, prepared)
    found = find_build_python(store, prepared)
    known = replace(
        known,
        toolchain=True,
        build_python=found.manifest.subject if found else known.build_python,
        artifact=artifact is not None,
    )
    return PlannedCell(order, known, source, image, prepared.key, artifact)


def arranged(orders: Sequence[CellRequest]) -> tuple[CellRequest, ...]:
    """Put each recipe's cross builds behind its other cells, the native ones of which may be their build Python."""
    recipes = list(dict.fromkeys(order.cell.recipe for order in orders))
    crossing = Strategy.CROSS
    return tuple(sorted(orders, key=lambda order: (recipes.index(order.cell.recipe), order.strategy is crossing)))


def _serving(order: CellRequest, before: Sequence[CellRequest]) -> str | None:
    """Name the cell among the orders before a cross build that will be its build Python."""
    if order.strategy is not Strategy.CROSS:
        return None
    native = {
        each.variant.name: str(each.cell)
        for each in before
        if (each.strategy, each.recipe, each.source, each.image)
        == (Strategy.NATIVE, order.recipe, order.source, order.image)
    }
    return next((native[name] for name in build_python.serving(order.recipe) if name in native), None)
