"""What is known of an order before anything is started, and the order in which orders are best dealt with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossjit import build_python, flow, images, sources
from crossjit.engine.base import Engine
from crossjit.flow import Order
from crossjit.images import ImageSpec, Role
from crossjit.model import Arch, Strategy
from crossjit.plan import Known
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.store import Artifact, Store


@dataclass(frozen=True)
class Foreseen:
    """What is known of an order before anything is started; `key` is None until source and toolchain are there."""

    order: Order
    known: Known
    source: Source | None = None
    image: ImageSpec | None = None
    key: str | None = None
    artifact: Artifact | None = None


def foresee(
    order: Order,
    settings: Settings,
    host_arch: Arch,
    specs: tuple[ImageSpec, ...],
    store: Store,
    engine: Engine | None,
    *,
    before: Sequence[Order] = (),
) -> Foreseen:
    """Look at what is there for an order already, or will be when the orders `before` it are done.

    Nothing is started or written. `engine` is None if none answers.
    """
    known = Known(build_python=_serving(order, before))
    source = sources.known(order.wanted, settings)
    if source is None:
        return Foreseen(order, known)
    known = replace(known, source=True)
    image = flow.choose_image(specs, order, source)
    if engine is None:
        return Foreseen(order, known, source, image)
    find = partial(images.find, engine, image, host_arch=host_arch, home=settings.home)
    known = replace(known, target=find(Role.TARGET, order.cell.arch) is not None)
    toolchain = find(Role.TOOLCHAIN, flow.compiler_arch(order, host_arch))
    if toolchain is None:
        return Foreseen(order, known, source, image)
    prepared = flow.specified(order, source, image, toolchain, host_arch)
    artifact = flow.stashed(store, prepared)
    found = flow.find_build_python(store, prepared)
    known = replace(
        known,
        toolchain=True,
        build_python=found.manifest.subject if found else known.build_python,
        artifact=artifact is not None,
    )
    return Foreseen(order, known, source, image, prepared.key, artifact)


def arranged(orders: Sequence[Order]) -> tuple[Order, ...]:
    """Put each recipe's cross builds behind its other cells, the native ones of which may be their build Python."""
    recipes = list(dict.fromkeys(order.cell.recipe for order in orders))
    crossing = Strategy.CROSS
    return tuple(sorted(orders, key=lambda order: (recipes.index(order.cell.recipe), order.strategy is crossing)))


def _serving(order: Order, before: Sequence[Order]) -> str | None:
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
