"""Release archives: a recipe's, with a digest and places; or the user's file or URL."""

from __future__ import annotations

import time
from pathlib import Path

from crossjit.config.recipes import Archive
from crossjit.errors import DownloadError, SourceError
from crossjit.progress import Progress, Step
from crossjit.settings import Settings
from crossjit.sources import cache
from crossjit.sources.cache import CachedSource
from crossjit.sources.download import Fetched, TooLargeError, fetch
from crossjit.sources.inspection import inspect
from crossjit.sources.locations import (
    TIMEOUTS,
    Place,
    PlaceError,
    PoolMirrors,
    Timeouts,
    candidates,
    file_name,
    redacted,
    upstream_name,
)
from crossjit.sources.model import Kind, Source
from crossjit.util import budget


def resolve_recipe(
    archive: Archive,
    settings: Settings,
    *,
    progress: Progress,
    pool_mirrors: PoolMirrors,
    work: Path,
    timeouts: Timeouts,
) -> Source:
    """Return the archive with the recipe's digest, from the cache or the first place that has it.

    Raises DownloadError if none has it, SourceError if the archive is not CPython of the recipe's version.
    """
    stored = cache.find(settings, archive.sha256)
    if stored is None:
        with (
            progress.step("source", upstream_name(archive.version)) as step,
            cache.locked(settings, archive.sha256, step),
        ):
            stored = (
                cache.find(settings, archive.sha256)
                or _verify_again(settings, archive.sha256, work)
                or _fetch_first(archive, settings, step, pool_mirrors, work, timeouts)
            )
    source = source_of(stored, archive.sha256)
    if source.version != archive.version:
        raise SourceError(
            f"the recipe says that its archive is CPython {archive.version}, but it is {source.version}",
            hint="correct the recipe's version or sha256",
        )
    return source


def known(archive: Archive, settings: Settings) -> Source | None:
    """Return a recipe's archive if it was fetched and checked before; nothing is fetched."""
    stored = cache.find(settings, archive.sha256)
    return None if stored is None else source_of(stored, archive.sha256)


def _fetch_first(
    archive: Archive, settings: Settings, step: Step, pool_mirrors: PoolMirrors, work: Path, timeouts: Timeouts
) -> CachedSource:
    failures: list[str] = []
    dead: dict[str, str] = {}
    with cache.workspace(work) as folder:
        target = folder / "archive"
        for place in candidates(archive.version, archive.places, settings.source_mirrors, pool_mirrors):
            host = place.url.split("/")[2] if place.url else ""
            step.update(detail=place.name)
            started = time.monotonic()
            try:
                if host in dead:
                    raise PlaceError(dead[host])
                fetched = fetch(place, target, step, timeouts)
                _require_digest(fetched, archive.sha256)
            except PlaceError as error:
                if error.dead and host:
                    dead[host] = str(error)
                failures.append(f"{place.name}: {error} ({time.monotonic() - started:.2f} s)")
                step.line(failures[-1])
                continue
            step.update(detail="checking")
            return add(settings, archive.sha256, target, place)
    raise DownloadError(
        f"no location has the archive of CPython {archive.version}",
        hint=f"set CROSSJIT_SOURCE_MIRROR to a folder or URL that holds {upstream_name(archive.version)}, "
        "or give the archive itself with --source",
        details=tuple(failures),
    )


def _require_digest(fetched: Fetched, digest: str) -> None:
    if fetched.digest != digest:
        raise PlaceError(f"its sha256 is {fetched.digest}, not {digest}: cut short, damaged or another file")


def add(settings: Settings, digest: str, file: Path, place: Place) -> CachedSource:
    """Inspect a file of a workspace and store it. The digest's lock must be held."""
    tree = file.with_name(cache.TREE)
    facts = inspect(file, place.name, tree)
    return cache.add(settings, digest, file, tree=tree, name=_name(place), origin=place.name, facts=facts)


def _verify_again(settings: Settings, digest: str, work: Path) -> CachedSource | None:
    """Return a stored file that changed after its verification if it still has its digest."""
    file = cache.leftover(settings, digest)
    if file is None:
        return None
    try:
        if cache.digest_of(file) != digest:
            return None
        with cache.workspace(work) as folder:
            facts = inspect(file, str(file), folder / cache.TREE)
            return cache.refresh(settings, file, tree=folder / cache.TREE, origin=str(file), facts=facts)
    except (OSError, SourceError):
        return None


def resolve_file(path: Path, settings: Settings, *, progress: Progress, work: Path) -> Source:
    """Return a user's archive, copied into the cache under its sha256. Raises SourceError if it is not a valid one."""
    with progress.step("source", path.name) as step:
        try:
            if path.stat().st_size > budget.BUDGET.archive:
                raise SourceError(
                    f"{path} has more than {budget.BUDGET.archive:,} bytes", hint="give an archive of CPython's source"
                )
            digest = cache.digest_of(path)
        except OSError as error:
            raise SourceError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error
        stored = cache.find(settings, digest)
        if stored is not None:
            return source_of(stored, digest, origin=str(path))
        return _take(Place(str(path), path=path), settings, step, work, TIMEOUTS)


def resolve_url(url: str, settings: Settings, *, progress: Progress, work: Path, timeouts: Timeouts) -> Source:
    """Return a user's archive from a URL. It is downloaded each time, since it may have changed."""
    with progress.step("source", file_name(url)) as step:
        return _take(Place(redacted(url), url=url), settings, step, work, timeouts)


def _take(place: Place, settings: Settings, step: Step, work: Path, timeouts: Timeouts) -> Source:
    with cache.workspace(work) as folder:
        target = folder / "archive"
        step.update(detail=place.name)
        try:
            fetched = fetch(place, target, step, timeouts)
        except TooLargeError as error:
            raise SourceError(
                f"{place.name} is refused: {error}", hint="give an archive of CPython's source"
            ) from error
        except PlaceError as error:
            raise DownloadError(
                f"{place.name} cannot be fetched: {error}", hint="check the address and the network, or give a file"
            ) from error
        with cache.locked(settings, fetched.digest, step):
            stored = cache.find(settings, fetched.digest)
            if stored is None:
                step.update(detail="checking")
                stored = add(settings, fetched.digest, target, place)
        return source_of(stored, fetched.digest, origin=place.name)


def _name(place: Place) -> str:
    """Return the file's name in the cache, which must not be one of the cache's own."""
    name = file_name(place.name) if place.path is None else place.path.name
    reserved = ("", ".", "..", cache.FACTS, cache.TREE)
    return name if name not in reserved and "/" not in name and "\0" not in name else "archive"


def source_of(stored: CachedSource, digest: str, *, origin: str | None = None) -> Source:
    """Make the Source of a stored archive."""
    facts = stored.record.facts
    return Source(
        kind=Kind.ARCHIVE,
        version=facts.version,
        python=facts.python,
        digest=digest,
        archive=stored.path,
        top=facts.top,
        origin=origin or stored.record.origin,
        llvm=facts.llvm,
        core=facts.core,
        tree=stored.tree,
    )
