"""The engine volumes that hold the build caches; the scripts that fill them are in `toolchain/`.

Entries are keyed by all their inputs, so cached and uncached builds are byte-identical. But a source's code can write
to the volume of its build, so each trust domain of a state folder has its own volume (see `trust`). Builds of other
domains also read the volume of the recipes' own sources, mounted read-only.
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

STRANGERS = 4  # volumes kept for strangers' sources: the most recently used
MEASURE_SECONDS = 300  # timeout for trimming and measuring a volume

_STRANGERS = "strangers"  # folder in the state folder; its files' times say when each stranger's volume was last used
_UNBOUNDED = "unbounded"  # folder in it: the volumes that a build has written to since they were last trimmed


@dataclass(frozen=True)
class Part:
    """One cache: its size in bytes, its number of files, and its limit in bytes."""

    name: str
    size: int
    files: int
    limit: int | None


def name(settings: Settings, domain: str = trust.RECIPES) -> str:
    """Name the volume of a trust domain."""
    base = f"crossjit-cache-{settings.identity}"
    return base if domain == trust.RECIPES else f"{base}-{domain}"


def ensure(engine: Engine, settings: Settings, domain: str = trust.RECIPES, source: str = "") -> str:
    """Make the volume of a trust domain if it is missing, and return its name; `source` is shown to people.

    If there are too many volumes of strangers' sources, the least recently used ones are removed.
    """
    if trust.is_stranger(domain):
        _use(engine, settings, domain)
    engine.ensure_volume(name(settings, domain), labels(settings, domain, source))
    return name(settings, domain)


def labels(settings: Settings, domain: str = trust.RECIPES, source: str = "") -> Mapping[str, str]:
    """Return a volume's labels, without a run's label: volumes outlive runs."""
    return {OWNED: "cache", HOME: settings.identity, DOMAIN: domain, SOURCE: source}


def find(engine: Engine, settings: Settings) -> tuple[EngineObject, ...]:
    """Return all volumes; the volume of the recipes' own sources comes first."""
    owned = engine.owned({OWNED: "cache", HOME: settings.identity})
    return tuple(sorted((thing for thing in owned if thing.kind == "volume"), key=lambda thing: thing.name))


def domain_of(volume: EngineObject) -> str:
    """Return the trust domain whose builds write to a volume."""
    return volume.labels.get(DOMAIN) or trust.RECIPES


def parts(
    engine: Engine, image: Image, volume: str, *, domain: str, container: str, labels: Mapping[str, str]
) -> tuple[Part, ...]:
    """Trim a domain's volume to its limits, and return its parts. Uses the Python of a toolchain image.

    Nothing in the volume is executed. Raises EngineError, and InfrastructureError if the sizes cannot be read.
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
            isolated=not image.is_host,
        )
    ) as inside:
        inside.put(scripts(None, (layout.CACHE,)), "/")
        argv = ("python3", f"{layout.TOOLS}/build_cache.py", "sizes")
        completed = inside.run(argv, on_line=lines.append, timeout=MEASURE_SECONDS)
    try:
        if completed.returncode or not lines:
            raise MalformedError(completed.how)
        sizes = channels.cache_sizes(lines[-1])
    except MalformedError as error:
        raise InfrastructureError(
            f"the contents of the cache volume {volume} are unknown: {error}", details=tuple(lines)
        ) from error
    return tuple(Part(part, size.bytes, size.files, size.limit) for part, size in sizes.items())


def bound(
    engine: Engine, image: Image, volume: str, domain: str, container: str, labels: Mapping[str, str], mark: Path
) -> None:
    """Trim the volume of a stranger's build to its limits, or remove it if that fails; then remove `mark`."""
    try:
        parts(engine, image, volume, domain=domain, container=container, labels=labels)
    except CrossjitError:
        remove(engine, volume)
    mark.unlink(missing_ok=True)


def mark(settings: Settings, domain: str, run: str) -> Path:
    """Record, before a stranger's build starts, that its volume has to be trimmed; return the record's file."""
    folder = settings.engine_home / _STRANGERS / _UNBOUNDED
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(prefix=f"{domain}@{run}@", dir=folder)
    os.close(descriptor)
    return Path(path)


def unbounded(settings: Settings) -> list[tuple[Path, str, str]]:
    """Return the remaining records of `mark`, each with its domain and run."""
    try:
        paths = sorted((settings.engine_home / _STRANGERS / _UNBOUNDED).iterdir())
    except FileNotFoundError:
        return []
    names = ((path, path.name.split("@")) for path in paths)
    return [(path, parts[0], parts[1]) for path, parts in names if len(parts) == 3]


def remove(engine: Engine, volume: str) -> None:
    """Remove a volume. Raises EngineError if a build uses it."""
    engine.remove(EngineObject("volume", volume, volume, {}))


def _use(engine: Engine, settings: Settings, domain: str) -> None:
    """Record that a stranger's volume is used now, and remove the least recently used ones."""
    folder = settings.engine_home / _STRANGERS
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
