"""Removing what runs left: `sweep` after dead ones, at the start of a command; `clean` all that crossjit made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crossjit.build import cache_volume
from crossjit.engine.base import COPY, HOME, RUN, Engine, EngineObject
from crossjit.errors import CrossjitError, InfrastructureError
from crossjit.runs import history
from crossjit.settings import Settings
from crossjit.stash.store import Store
from crossjit.util import files

KINDS = ("container", "volume", "image")  # containers first, then what they hold on to


@dataclass(frozen=True)
class Skipped:
    """Something that was not removed, and why not."""

    thing: EngineObject
    reason: str


@dataclass(frozen=True)
class CleanupResult:
    """What was removed from the engine and from the state folder (names of folders in the making), and what was not."""

    removed: tuple[EngineObject, ...] = ()
    folders: tuple[str, ...] = ()
    kept: tuple[Skipped, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """What was removed, a line each, for people."""
        return (
            *(f"{thing.kind} {thing.name}" for thing in self.removed),
            *(f"folder {name}" for name in self.folders),
        )


def sweep(engine: Engine, settings: Settings) -> CleanupResult:
    """Remove what runs left whose process died, and what is half made in the stash and `sources/`.

    Only things with this state folder's label and a run's label are looked at. Images stay, since they are found by key
    again, but for copies that a run made for itself; so do caches (volumes without a run's label), but for those of
    strangers' builds that ended before they were bounded. What the engine does not let go is kept, with the reason.

    Raises EngineError if the engine does not answer, StashError if the state folder cannot be written.
    """
    removed, kept = [], []
    left = engine.owned({HOME: settings.identity, RUN: None})
    for thing in sorted(left, key=lambda thing: KINDS.index(thing.kind)):
        if (thing.kind == "image" and COPY not in thing.labels) or history.is_alive(settings, thing.labels[RUN]):
            continue
        reason = _remove(engine, thing)
        if reason is None:
            removed.append(thing)
        else:
            kept.append(Skipped(thing, reason))
    removed += _sweep_unbounded(engine, settings)
    return CleanupResult(tuple(removed), sweep_folders(settings), tuple(kept))


def _sweep_unbounded(engine: Engine, settings: Settings) -> Iterator[EngineObject]:
    """Remove the cache volumes of strangers' builds that died before what they wrote was bounded; yield these.

    One that a living run uses is its to bound, if it comes to that.
    """
    marks = cache_volume.unbounded(settings)
    living = {domain for _, domain, run in marks if history.is_alive(settings, run)}
    there = {cache_volume.domain_of(volume): volume for volume in cache_volume.find(engine, settings)} if marks else {}
    for mark, domain, _ in marks:
        volume = there.get(domain)
        if domain in living or (volume and _remove(engine, volume) is not None):
            continue  # somebody looks into it: next time
        mark.unlink(missing_ok=True)
        if volume and there.pop(domain):
            yield volume


def sweep_folders(settings: Settings) -> tuple[str, ...]:
    """Remove what dead processes left half made in the stash and in `sources/`. Raises StashError. Needs no engine."""
    with files.translate_os_errors(InfrastructureError, "cannot clean up", settings.sources):
        sources = files.remove_dead(settings.sources / "tmp")
    return (
        *(f"stash/tmp/{name}" for name in Store(settings.stash).sweep()),
        *(f"sources/tmp/{folder.name}" for folder in sources),
    )


def clean(
    engine: Engine,
    settings: Settings,
    *,
    containers: bool = True,
    volumes: bool = True,
    images: bool = True,
    own_run: str | None = None,
    dry_run: bool = False,
) -> CleanupResult:
    """Remove all of these kinds that crossjit made for this state folder, found by label.

    Never what a living run other than `own_run` (the one that cleans) uses: its containers and volumes stay, and so do
    all images and caches as long as there is one, since nobody knows which it is about to use. Raises as `sweep` does.
    """
    living = set(history.living(settings)) - {own_run}
    removed: list[EngineObject] = []
    kept: list[Skipped] = []
    for thing in _in_order(engine, settings, {"container": containers, "volume": volumes, "image": images}):
        reason: str | None = None
        run = thing.labels.get(RUN)
        if run in living:
            reason = f"run {run} uses it"
        elif living and (thing.kind == "image" or run is None):
            reason = f"run {min(living)} may use it"
        elif not dry_run:
            reason = _remove(engine, thing)
        if reason is None:
            removed.append(thing)
        else:
            kept.append(Skipped(thing, reason))
    return CleanupResult(tuple(removed), () if dry_run else sweep_folders(settings), tuple(kept))


def _in_order(engine: Engine, settings: Settings, wanted: dict[str, bool]) -> Iterator[EngineObject]:
    """Containers first, then what they hold on to."""
    yield from (
        thing
        for thing in sorted(engine.owned({HOME: settings.identity}), key=lambda thing: KINDS.index(thing.kind))
        if wanted[thing.kind]
    )


def _remove(engine: Engine, thing: EngineObject) -> str | None:
    """Remove it; return why not, if the engine refused. Raises EngineError if it does not answer any more."""
    try:
        engine.remove(thing)
    except CrossjitError as error:
        engine.facts()  # raises if the reason is that the engine is gone
        return error.message
    return None
