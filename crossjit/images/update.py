"""Updating a state folder's images to the mirror's present packages, and listing them. Old ones stay until `clean`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crossjit.engine.base import HOME, OWNED, Engine
from crossjit.images import release as releases
from crossjit.images.base import BaseKind
from crossjit.images.builder import CORE, KEY, MADE, ImageBuilder, core_of
from crossjit.images.image import Image
from crossjit.images.release import Choice
from crossjit.images.spec import ImageSpec
from crossjit.model import Arch
from crossjit.settings import Settings


@dataclass(frozen=True)
class Updated:
    """A checked image, and its reference before; the same if nothing changed."""

    image: Image
    before: str

    @property
    def changed(self) -> bool:
        """Whether the image was built again."""
        return self.image.reference != self.before


@dataclass(frozen=True)
class ListedImage:
    """An image of this state folder in the engine. `made` is a date in UTC; commands use the `current` one."""

    name: str
    made: str
    release: str
    current: bool


def update(builder: ImageBuilder, specs: tuple[ImageSpec, ...]) -> Iterator[Updated]:
    """Build images again if the mirror has changed: bases first, then all images that commands use.

    Raises EngineError if the registry or the mirror does not answer, InfrastructureError as `ensure` does.
    """
    current = tuple(_current(builder, specs))
    for spec in {(spec.suite, spec.mirror): spec for _, spec in current}.values():
        _renew_base(builder, spec)
    for choice, spec in current:
        image = builder.ensure(spec, choice.role, choice.arch, refresh=True)
        if image.core != choice.core:
            releases.invalidate(builder.home, choice)
        yield Updated(image, choice.reference)


def listed(
    engine: Engine, specs: tuple[ImageSpec, ...], settings: Settings, host_arch: Arch
) -> tuple[ListedImage, ...]:
    """List the images that a state folder built or uses, by name, the newest first. Raises EngineError."""
    current = {choice.reference for choice, _ in _current(ImageBuilder(engine, host_arch, settings.engine_home), specs)}
    rows = [
        ListedImage(thing.name, thing.labels.get(MADE, ""), thing.labels.get(releases.LABEL, ""), thing.name in current)
        for thing in engine.owned({OWNED: "image", KEY: None, CORE: None})
        if thing.kind == "image" and (thing.labels.get(HOME) == settings.identity or thing.name in current)
    ]
    newest_first = sorted(rows, key=lambda row: row.made, reverse=True)
    return tuple(sorted(newest_first, key=lambda row: row.name.partition(":")[0]))


def _current(builder: ImageBuilder, specs: tuple[ImageSpec, ...]) -> Iterator[tuple[Choice, ImageSpec]]:
    """Yield the images that commands use and that were built, with their specs."""
    for choice in releases.all_chosen(builder.home):
        spec = choice.spec(specs)
        base = builder.recorded(spec) if spec else None
        if spec and base and choice.core == core_of(spec, choice.role, choice.arch, builder.host_arch, base):
            yield choice, spec


def _renew_base(builder: ImageBuilder, spec: ImageSpec) -> None:
    """Update the base: pull it again, or bootstrap it if the mirror has changed."""
    with builder.locked_base(spec):
        base = builder.recorded(spec)
        info = builder.engine.image(base.reference) if base and base.kind is BaseKind.BOOTSTRAP else None
        if base is not None and info is not None:
            now = builder.ask(spec, base)
            if releases.digests(now) == releases.digests(info.labels.get(releases.LABEL, "")):
                return
        builder.decide(spec, refresh=True)
