"""The facts of a request before anything is started, and the best order of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from crossjit import sources
from crossjit.build import build_python
from crossjit.engine.base import Engine
from crossjit.images import ImageSpec, Role, provider
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
    """The facts of a request before anything is started; `key` is None if the source or the toolchain is missing."""

    request: CellRequest
    known: Available
    source: Source | None = None
    image: ImageSpec | None = None
    key: str | None = None
    artifact: Artifact | None = None


def forecast(
    request: CellRequest,
    settings: Settings,
    host_arch: Arch,
    specs: tuple[ImageSpec, ...],
    store: Store,
    engine: Engine | None,
    *,
    before: Sequence[CellRequest] = (),
) -> PlannedCell:
    """Find what a request can reuse, now or after the requests `before` it. `engine` is None if none answers.

    Nothing is started or written. Raises UserError if no image fits the source.
    """
    known = Available(build_python=_serving(request, before))
    source = sources.known(request.built_from, settings)
    if source is None:
        return PlannedCell(request, known)
    known = replace(known, source=True)
    image = prepare.choose_image(specs, request, source)
    if engine is None:
        return PlannedCell(request, known, source, image)
    find = partial(provider(engine, host_arch, settings.engine_home).find, image)
    known = replace(known, target=find(Role.TARGET, request.cell.arch) is not None)
    toolchain = find(Role.TOOLCHAIN, prepare.compiler_arch(request, host_arch))
    if toolchain is None:
        return PlannedCell(request, known, source, image)
    prepared = prepare.make_prepared(request, source, image, toolchain, host_arch)
    artifact = prepare.stashed(store, prepared)
    python = find_build_python(store, prepared)
    known = replace(
        known,
        toolchain=True,
        build_python=python.manifest.subject if python else known.build_python,
        artifact=artifact is not None,
    )
    return PlannedCell(request, known, source, image, prepared.key, artifact)


def arranged(requests: Sequence[CellRequest]) -> tuple[CellRequest, ...]:
    """Put each recipe's cross builds after its other cells, since a native cell can be their build Python."""
    recipes = list(dict.fromkeys(request.cell.recipe for request in requests))
    crossing = Strategy.CROSS
    return tuple(
        sorted(requests, key=lambda request: (recipes.index(request.cell.recipe), request.strategy is crossing))
    )


def _serving(request: CellRequest, before: Sequence[CellRequest]) -> str | None:
    """Name the cell among the requests `before` a cross build that will be its build Python, if any."""
    if request.strategy is not Strategy.CROSS:
        return None
    native = {
        earlier.variant.name: str(earlier.cell)
        for earlier in before
        if (earlier.strategy, earlier.recipe, earlier.source, earlier.image)
        == (Strategy.NATIVE, request.recipe, request.source, request.image)
    }
    return next((native[name] for name in build_python.serving(request.recipe) if name in native), None)
