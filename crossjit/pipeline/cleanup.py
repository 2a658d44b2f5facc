"""Removing leftovers: `sweep` those of dead runs, at the start of a command; `clean` everything that crossjit made."""

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

KINDS = ("container", "volume", "image")  # containers first, since they use volumes and images


@dataclass(frozen=True)
class Skipped:
    """An object that was not removed, and the reason."""

    thing: EngineObject
    reason: str


@dataclass(frozen=True)
class CleanupResult:
    """The removed engine objects and temporary folders of the state folder (names), and the objects not removed."""

    removed: tuple[EngineObject, ...] = ()
    folders: tuple[str, ...] = ()
    kept: tuple[Skipped, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each removed object and folder, for people."""
        return (
            *(f"{thing.kind} {thing.name}" for thing in self.removed),
            *(f"folder {name}" for name in self.folders),
        )


def sweep(engine: Engine, settings: Settings) -> CleanupResult:
    """Remove leftovers of runs whose process died, and unfinished data in the stash and `sources/`.

    Only objects with the labels of this state folder and of a run are considered. Images stay, since they are found by
    key, except for a run's own copies. Caches (volumes without a run's label) stay, except for those of strangers'
    builds that died before the caches were trimmed. Objects that the engine does not remove are returned with the
    reason.

    Raises EngineError if the engine does not answer, StashError if the stash is not writable, InfrastructureError if
    `sources/` is not.
    """
    removed, skipped = [], []
    leftovers = engine.owned({HOME: settings.identity, RUN: None})
    for thing in sorted(leftovers, key=lambda thing: KINDS.index(thing.kind)):
        if (thing.kind == "image" and COPY not in thing.labels) or history.is_alive(settings, thing.labels[RUN]):
            continue
        reason = _remove(engine, thing)
        if reason is None:
            removed.append(thing)
        else:
            skipped.append(Skipped(thing, reason))
    removed += _sweep_unbounded(engine, settings)
    return CleanupResult(tuple(removed), sweep_folders(settings), tuple(skipped))


def _sweep_unbounded(engine: Engine, settings: Settings) -> Iterator[EngineObject]:
    """Remove the cache volumes of strangers' builds that died before the caches were trimmed; yield these.

    A volume that a living run uses is left to that run.
    """
    marks = cache_volume.unbounded(settings)
    living = {domain for _, domain, run in marks if history.is_alive(settings, run)}
    volumes = (
        {cache_volume.domain_of(volume): volume for volume in cache_volume.find(engine, settings)} if marks else {}
    )
    for mark, domain, _ in marks:
        volume = volumes.get(domain)
        if domain in living or (volume and _remove(engine, volume) is not None):
            continue  # in use: retried by the next sweep
        mark.unlink(missing_ok=True)
        if volume and volumes.pop(domain):
            yield volume


def sweep_folders(settings: Settings) -> tuple[str, ...]:
    """Remove unfinished data of dead processes from the stash and `sources/`. Needs no engine.

    Raises StashError, InfrastructureError.
    """
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
    """Remove the objects of these kinds that crossjit made for this state folder, found by label.

    The containers and volumes of living runs stay, except for `own_run`, the run that cleans. While there is such a
    run, all images and caches stay, since it may use any of them. Raises as `sweep` does.
    """
    living = set(history.living(settings)) - {own_run}
    removed: list[EngineObject] = []
    skipped: list[Skipped] = []
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
            skipped.append(Skipped(thing, reason))
    return CleanupResult(tuple(removed), () if dry_run else sweep_folders(settings), tuple(skipped))


def _in_order(engine: Engine, settings: Settings, selected: dict[str, bool]) -> Iterator[EngineObject]:
    """Yield the objects of the selected kinds, in the order of KINDS."""
    yield from (
        thing
        for thing in sorted(engine.owned({HOME: settings.identity}), key=lambda thing: KINDS.index(thing.kind))
        if selected[thing.kind]
    )


def _remove(engine: Engine, thing: EngineObject) -> str | None:
    """Remove an object; return the reason if the engine refuses. Raises EngineError if it no longer answers."""
    try:
        engine.remove(thing)
    except CrossjitError as error:
        engine.facts()  # raises if the engine is gone
        return error.message
    return None
