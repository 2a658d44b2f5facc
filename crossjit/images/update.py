"""Renewing the images of a state folder from what the mirror has now, and listing them. Old ones stay until `clean`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from crossjit.engine.base import HOME, OWNED, Engine
from crossjit.images import base as bases
from crossjit.images import release as releases
from crossjit.images.base import BaseKind, Bootstrapper
from crossjit.images.builder import CORE, KEY, MADE, ask, core_of, ensure, locked_base
from crossjit.images.image import Image
from crossjit.images.release import Choice
from crossjit.images.spec import ImageSpec
from crossjit.model import Arch
from crossjit.progress import Progress
from crossjit.settings import Settings


@dataclass(frozen=True)
class Updated:
    """An image that was looked at: what it is now, and what it was before; the same if nothing changed."""

    image: Image
    before: str

    @property
    def changed(self) -> bool:
        """Whether there is another image now."""
        return self.image.reference != self.before


@dataclass(frozen=True)
class ListedImage:
    """An image of this state folder in the engine. `made` is a date in UTC; `current`: it is what commands take."""

    name: str
    made: str
    release: str
    current: bool


def update(
    engine: Engine,
    specs: tuple[ImageSpec, ...],
    settings: Settings,
    host_arch: Arch,
    *,
    progress: Progress,
    labels: Mapping[str, str],
    bootstrapper: Bootstrapper = bases.bootstrap,
) -> Iterator[Updated]:
    """Ask the mirror, and make anew what it would make other: bases first, then all images that commands take now.

    Raises EngineError where registry or mirror do not answer, InfrastructureError as `ensure` does.
    """
    home = settings.home
    wanted = tuple(_current(specs, home, host_arch))
    for spec in {(spec.suite, spec.mirror): spec for _, spec in wanted}.values():
        _renew_base(engine, spec, host_arch, settings, progress=progress, labels=labels, bootstrapper=bootstrapper)
    for choice, spec in wanted:
        image = ensure(
            engine,
            spec,
            choice.role,
            choice.arch,
            host_arch=host_arch,
            home=home,
            progress=progress,
            labels=labels,
            bootstrapper=bootstrapper,
            refresh=True,
        )
        if image.core != choice.core:
            releases.invalidate(home, choice)
        yield Updated(image, choice.reference)


def listed(
    engine: Engine, specs: tuple[ImageSpec, ...], settings: Settings, host_arch: Arch
) -> tuple[ListedImage, ...]:
    """List the images that a state folder had made or takes, by name, the newest first. Raises EngineError."""
    current = {choice.reference for choice, _ in _current(specs, settings.home, host_arch)}
    rows = [
        ListedImage(thing.name, thing.labels.get(MADE, ""), thing.labels.get(releases.LABEL, ""), thing.name in current)
        for thing in engine.owned({OWNED: "image", KEY: None, CORE: None})
        if thing.kind == "image" and (thing.labels.get(HOME) == settings.identity or thing.name in current)
    ]
    newest_first = sorted(rows, key=lambda row: row.made, reverse=True)
    return tuple(sorted(newest_first, key=lambda row: row.name.partition(":")[0]))


def _current(specs: tuple[ImageSpec, ...], home: Path, host_arch: Arch) -> Iterator[tuple[Choice, ImageSpec]]:
    """Yield the images that commands take, each with what it is made of, as far as they were made."""
    for choice in releases.all_chosen(home):
        spec = choice.spec(specs)
        base = bases.recorded(spec, host_arch, home) if spec else None
        if spec and base and choice.core == core_of(spec, choice.role, choice.arch, host_arch, base):
            yield choice, spec


def _renew_base(
    engine: Engine,
    spec: ImageSpec,
    host_arch: Arch,
    settings: Settings,
    *,
    progress: Progress,
    labels: Mapping[str, str],
    bootstrapper: Bootstrapper,
) -> None:
    """Have the newest base: pulled again, or bootstrapped if the mirror has changed since."""
    with locked_base(spec, host_arch, settings.home, progress):
        base = bases.recorded(spec, host_arch, settings.home)
        if base is not None and base.kind is BaseKind.BOOTSTRAP and (info := engine.image(base.reference)) is not None:
            now = ask(engine, spec, host_arch, base, labels)
            if releases.digests(now) == releases.digests(info.labels.get(releases.LABEL, "")):
                return
        bases.decide(
            engine,
            spec,
            host_arch,
            settings.home,
            labels=labels,
            progress=progress,
            bootstrapper=bootstrapper,
            refresh=True,
        )
