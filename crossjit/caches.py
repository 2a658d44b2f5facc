"""The volume in which builds keep what they need not do again; what keeps it is in `toolchain/`, inside the containers.

Everything in it is found by all that it depends on, and is what a build without it would have made. It belongs to one
state folder. What is built can write to it, as it could write to anything that it makes: do not share it between people
who do not trust each other's sources.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from crossjit import build
from crossjit.engine.base import HOME, OWNED, Engine, Owned
from crossjit.errors import InfrastructureError
from crossjit.images import Image
from crossjit.settings import Settings


@dataclass(frozen=True)
class Part:
    """One cache: its size in bytes, its files, and the bytes that it may hold (None: it has a bound of its own)."""

    name: str
    size: int
    files: int
    limit: int | None


def name(settings: Settings) -> str:
    """Name the volume of a state folder."""
    return f"crossjit-cache-{settings.identity}"


def ensure(engine: Engine, settings: Settings) -> str:
    """Have the volume, and return its name."""
    engine.ensure_volume(name(settings), labels(settings))
    return name(settings)


def labels(settings: Settings) -> Mapping[str, str]:
    """Return what the volume carries. No run's label: it outlives them."""
    return {OWNED: "cache", HOME: settings.identity}


def find(engine: Engine, settings: Settings) -> Owned | None:
    """Return the volume, None if nothing was kept yet."""
    owned = engine.owned({HOME: settings.identity})
    return next((thing for thing in owned if thing.kind == "volume" and thing.name == name(settings)), None)


def parts(
    engine: Engine, settings: Settings, image: Image, *, container: str, run: Mapping[str, str]
) -> tuple[Part, ...]:
    """Look into the volume, in a container of a toolchain image (it needs its Python) with these name and labels.

    Raises EngineError, and InfrastructureError if what is in there cannot be told.
    """
    lines: list[str] = []
    with engine.container(
        image.reference,
        arch=image.arch,
        name=container,
        labels=run,
        env={"CROSSJIT_CACHE": build.CACHE},
        user=f"{build.BUILDER}:{build.BUILDER}",
        volumes={name(settings): build.CACHE},
    ) as inside:
        inside.put(build.scripts(None), "/")
        completed = inside.run(("python3", f"{build.TOOLS}/cache.py", "sizes"), on_line=lines.append)
    if completed.returncode or not lines:
        raise InfrastructureError("what is in the cache cannot be told", details=tuple(lines[-10:]))
    found = json.loads(lines[-1])
    return tuple(Part(part, each["bytes"], each["files"], each["limit"]) for part, each in found.items())
