"""`cache show|clear`: what builds keep for the next ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.report.tables import size
from crossjit.tasks.framework import command, note, show, show_json, show_table
from crossjit.tasks.options import describe

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.images import Image
    from crossjit.settings import Settings


@command(name="show", default=True, help=describe("json"))
def show_cache(context: Context, json: bool = False) -> None:
    """Show what builds keep for the next ones: sizes and bounds. Hits and misses stand in each run's table."""
    import os

    from crossjit import build, caches, engine, flow, settings

    loaded = settings.load()
    client = engine.connect(loaded)
    image = _toolchain(client, loaded)
    if caches.find(client, loaded) is None or image is None:
        show_json([]) if json else note("nothing is kept yet: the first build begins it")
        return
    name = build.container_name("cache", f"show-{os.getpid()}")
    parts = caches.parts(client, loaded, image, container=name, run=flow.labels(loaded, "show"))
    if json:
        show_json([{"name": part.name, "bytes": part.size, "files": part.files, "limit": part.limit} for part in parts])
    else:
        rows = [
            (part.name, size(part.size), f"{part.files:,}", size(part.limit) if part.limit else "") for part in parts
        ]
        show_table(("cache", "size", "files", "bound"), rows)


@command(name="clear", help=describe("json"))
def clear_cache(context: Context, json: bool = False) -> None:
    """Remove all that builds keep for the next ones. A build that uses it meanwhile keeps it, which is an error."""
    from crossjit import caches, engine, settings

    loaded = settings.load()
    client = engine.connect(loaded)
    found = caches.find(client, loaded)
    if found is not None:
        client.remove(found)
    if json:
        show_json({"removed": [found.name] if found else []})
    else:
        show(f"removed volume {found.name}" if found else "nothing is kept")


def _toolchain(client: Engine, settings: Settings) -> Image | None:
    """Find any toolchain image of the engine's own arch: it has the Python that looks into the cache."""
    import crossjit
    from crossjit import images
    from crossjit.images import Role

    arch = client.facts().arch
    specs = images.load_all(crossjit.PROJECT / "images")
    found = (images.find(client, spec, Role.TOOLCHAIN, arch, host_arch=arch, home=settings.home) for spec in specs)
    return next((image for image in found if image is not None), None)
