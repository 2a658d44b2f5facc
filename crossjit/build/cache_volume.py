"""The volumes in which builds keep what later ones need not do again; what keeps it is in `toolchain/`.

Everything in a volume is found by all that it depends on, and is what a build without it would have made. But what is
built can write to its volume, so each trust domain of a state folder has its own (see `trust`). Builds of other domains
read that of the recipes' own sources, mounted read-only.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crossjit import channels
from crossjit.build import layout
from crossjit.build.container import scripts
from crossjit.channels import MalformedError
from crossjit.engine.base import HOME, OWNED, ContainerOptions, Engine, EngineObject
from crossjit.errors import CrossjitError, InfrastructureError
from crossjit.images import Image
from crossjit.settings import Settings
from crossjit.sources import trust

DOMAIN = "crossjit.domain"  # label: the trust domain whose builds write to the volume
SOURCE = "crossjit.source"  # label: a source of that domain, for people

STRANGERS = 4  # volumes of strangers' sources that are kept, those that were used last
LOOK_SECONDS = 300  # for looking through a volume

# In the state folder: when each stranger's volume was used last, and which ones a build has written to since they were
# bounded.
_STRANGERS, _UNBOUNDED = "strangers", "unbounded"


@dataclass(frozen=True)
class Part:
    """One cache: its size in bytes, its files, and the bytes that it may hold."""

    name: str
    size: int
    files: int
    limit: int | None


def name(settings: Settings, domain: str = trust.RECIPES) -> str:
    """Name the volume of a trust domain."""
    whole = f"crossjit-cache-{settings.identity}"
    return whole if domain == trust.RECIPES else f"{whole}-{domain}"


def ensure(engine: Engine, settings: Settings, domain: str = trust.RECIPES, source: str = "") -> str:
    """Have the volume of a trust domain, and return its name; `source` tells people whose it is.

    Of strangers' sources, those that were used longest ago lose theirs.
    """
    if trust.is_stranger(domain):
        _use(engine, settings, domain)
    engine.ensure_volume(name(settings, domain), labels(settings, domain, source))
    return name(settings, domain)


def labels(settings: Settings, domain: str = trust.RECIPES, source: str = "") -> Mapping[str, str]:
    """Return what a volume carries. No run's label: it outlives them."""
    return {OWNED: "cache", HOME: settings.identity, DOMAIN: domain, SOURCE: source}


def find(engine: Engine, settings: Settings) -> tuple[EngineObject, ...]:
    """Return all volumes, that of the recipes' own sources first."""
    owned = engine.owned({OWNED: "cache", HOME: settings.identity})
    return tuple(sorted((thing for thing in owned if thing.kind == "volume"), key=lambda thing: thing.name))


def domain_of(volume: EngineObject) -> str:
    """Return the trust domain whose builds write to a volume."""
    return volume.labels.get(DOMAIN) or trust.RECIPES


def parts(
    engine: Engine, image: Image, volume: str, *, domain: str, container: str, labels: Mapping[str, str]
) -> tuple[Part, ...]:
    """Bound what is in a domain's volume and tell what that is, in a container of a toolchain image (for its Python).

    Nothing of what is in there runs. Raises EngineError, and InfrastructureError if it cannot be told.
    """
    lines: deque[str] = deque(maxlen=10)
    with engine.container(
        ContainerOptions(
            image.reference,
            arch=image.arch,
            name=container,
            labels=labels,
            env={"CROSSJIT_CACHE": layout.CACHE, **(layout.SMALL_CACHE if trust.is_stranger(domain) else {})},
            user=f"{layout.BUILDER}:{layout.BUILDER}",
            volumes={volume: layout.CACHE},
        )
    ) as inside:
        inside.put(scripts(None, (layout.CACHE,)), "/")
        argv = ("python3", f"{layout.TOOLS}/build_cache.py", "sizes")
        completed = inside.run(argv, on_line=lines.append, timeout=LOOK_SECONDS)
    try:
        if completed.returncode or not lines:
            raise MalformedError(completed.how)
        found = channels.cache_sizes(lines[-1])
    except MalformedError as error:
        raise InfrastructureError(
            f"the contents of the cache volume {volume} are unknown: {error}", details=tuple(lines)
        ) from error
    return tuple(Part(part, each.bytes, each.files, each.limit) for part, each in found.items())


def bound(
    engine: Engine, image: Image, volume: str, domain: str, container: str, labels: Mapping[str, str], mark: Path
) -> None:
    """Bound what a stranger's build left in its volume, which may be anything; what cannot be bounded is removed.

    `mark` says until then that it is not bounded.
    """
    try:
        parts(engine, image, volume, domain=domain, container=container, labels=labels)
    except CrossjitError:
        remove(engine, volume)
    mark.unlink(missing_ok=True)


def mark(settings: Settings, domain: str, run: str) -> Path:
    """Note before a stranger's build of a run begins that its volume is not bounded; return the note."""
    folder = settings.home / _STRANGERS / _UNBOUNDED
    folder.mkdir(parents=True, exist_ok=True)
    made, path = tempfile.mkstemp(prefix=f"{domain}@{run}@", dir=folder)
    os.close(made)
    return Path(path)


def unbounded(settings: Settings) -> list[tuple[Path, str, str]]:
    """Return the notes that `mark` made and nobody took away: each with its domain and its run."""
    try:
        paths = sorted((settings.home / _STRANGERS / _UNBOUNDED).iterdir())
    except FileNotFoundError:
        return []
    names = ((path, path.name.split("@")) for path in paths)
    return [(path, parts[0], parts[1]) for path, parts in names if len(parts) == 3]


def remove(engine: Engine, volume: str) -> None:
    """Remove a volume. Raises EngineError if a build uses it."""
    engine.remove(EngineObject("volume", volume, volume, {}))


def _use(engine: Engine, settings: Settings, domain: str) -> None:
    """Note that a stranger's volume is used now, and remove those that were used longest ago."""
    folder = settings.home / _STRANGERS
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / domain
    own.touch()
    others = sorted(
        (path for path in folder.iterdir() if path.name not in (domain, _UNBOUNDED)), key=_last_used, reverse=True
    )
    for path in itertools.islice(others, STRANGERS - 1, None):
        with contextlib.suppress(CrossjitError):  # a build uses it
            remove(engine, name(settings, path.name))
            path.unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
