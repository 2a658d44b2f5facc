"""`cache show|clear`: the build caches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.tasks.framework import command, note, reporting_leftovers, show, show_json, show_table
from crossjit.tasks.options import describe
from crossjit.util.text import size

if TYPE_CHECKING:
    from crossjit.build.cache_volume import Part
    from crossjit.engine.base import Engine, EngineObject
    from crossjit.images import Image
    from crossjit.settings import Settings


@command(name="show", default=True, help=describe("json"))
def show_cache(context: Context, json: bool = False) -> None:
    """Show the build caches with their sizes and bounds. Hits and misses are in each run's table.

    There is a volume for the recipes' own sources, one for your checkouts and archives, and one for each other source.
    """
    from crossjit import engine, settings
    from crossjit.build import cache_volume, container
    from crossjit.pipeline import context as context_module
    from crossjit.runs import history

    loaded = settings.load()
    sizes = []
    for each in loaded.each_engine:
        client = engine.connect(each)
        image, volumes = _toolchain(client, each), cache_volume.find(client, each)
        if not volumes or image is None:
            continue
        with reporting_leftovers(client), history.presence(each) as run:
            for volume in volumes:
                name, labels = container.container_name("cache-show", run), context_module.labels(each, run)
                domain = cache_volume.domain_of(volume)
                parts = cache_volume.parts(client, image, volume.name, domain=domain, container=name, labels=labels)
                sizes.append((each.engine_name, volume, parts))
    if json:
        show_json([{"engine": name, **_json(volume, part)} for name, volume, parts in sizes for part in parts])
    elif not sizes:
        note("there are no caches yet: the first build makes them")
    else:
        several = len(loaded.engines) > 1
        rows = [(*_row(volume, part), *([name] if several else [])) for name, volume, parts in sizes for part in parts]
        show_table(("of", "cache", "size", "files", "bound", *(["engine"] if several else [])), rows)


@command(name="clear", help=describe("json"))
def clear_cache(context: Context, json: bool = False) -> None:
    """Remove all build caches. One that a build is using stays, which is an error."""
    from crossjit import engine, settings
    from crossjit.build import cache_volume

    removed = []
    for each in settings.load().each_engine:
        client = engine.connect(each)
        for volume in cache_volume.find(client, each):
            client.remove(volume)
            removed.append(volume.name)
    if json:
        show_json({"removed": removed})
    else:
        show("\n".join(f"removed volume {name}" for name in removed) or "there are no caches")


def _json(volume: EngineObject, part: Part) -> dict[str, object]:
    from crossjit.build import cache_volume

    whose = {
        "volume": volume.name,
        "domain": cache_volume.domain_of(volume),
        "source": volume.labels.get(cache_volume.SOURCE, ""),
    }
    return {**whose, "name": part.name, "bytes": part.size, "files": part.files, "limit": part.limit}


def _row(volume: EngineObject, part: Part) -> tuple[str, ...]:
    from crossjit.build import cache_volume
    from crossjit.sources import trust

    domain = cache_volume.domain_of(volume)
    whose = volume.labels.get(cache_volume.SOURCE, domain) if trust.is_stranger(domain) else domain
    return (whose, part.name, size(part.size), f"{part.files:,}", size(part.limit) if part.limit else "")


def _toolchain(client: Engine, settings: Settings) -> Image | None:
    """Find any toolchain image of the engine's own arch: it has the Python that reads the cache."""
    from crossjit import images
    from crossjit.images import Role

    arch = client.facts().arch
    specs = images.configured(settings)
    builder = images.provider(client, arch, settings.engine_home)
    candidates = (builder.find(spec, Role.TOOLCHAIN, arch) for spec in specs)
    return next((image for image in candidates if image is not None), None)
