"""`images list|update`: the images that cells are built and run in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.tasks.framework import command, note, reporting_leftovers, show, show_json, show_table
from crossjit.tasks.options import describe

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.images.update import Updated
    from crossjit.settings import Settings


def _connect(settings: Settings) -> Engine:
    """Connect to the engine. Raises EngineError for one that has no images of ours."""
    from crossjit import engine
    from crossjit.engine.base import Feature, cannot

    client = engine.connect(settings)
    if Feature.IMAGES in client.lacks:
        raise cannot(Feature.IMAGES)
    return client


@command(name="list", default=True, help=describe("json"))
def list_images(context: Context, json: bool = False) -> None:
    """List the images, with their dates and the state of Debian's mirror that they were made of."""
    from crossjit import images, settings
    from crossjit.images import release

    loaded = settings.load()
    listed = []
    for each in loaded.each_engine:
        client = _connect(each)
        found = images.listed(client, images.configured(each), each, client.facts().arch)
        listed += [(each.engine_name, image) for image in found]
    if json:
        show_json([{"engine": name, **asdict(image)} for name, image in listed])
    elif not listed:
        note("there are no images yet: the first build makes them")
    else:
        several = len(loaded.engines) > 1
        rows = [
            (
                image.name,
                image.made.replace("T", " ").partition("+")[0],
                release.short(image.release) + (" (expired)" if release.is_expired(image.release) else ""),
                "current" if image.current else "old",
                *([name] if several else []),
            )
            for name, image in listed
        ]
        show_table(("image", "made (UTC)", "Debian's Release", "", *(["engine"] if several else [])), rows)


@command(name="update", help=describe("json"))
def update_images(context: Context, json: bool = False) -> None:
    """Make images again if Debian's mirror has changed since. Old ones stay until `clean`."""
    from crossjit import images, settings
    from crossjit.pipeline.context import labels
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history

    loaded = settings.load()
    updates: list[Updated] = []
    for each in loaded.each_engine:
        client = _connect(each)
        with reporting_leftovers(client), Terminal() as terminal, history.presence(each) as run:
            builder = images.ImageBuilder(client, client.facts().arch, each.engine_home, terminal, labels(each, run))
            updates += images.update(builder, images.configured(each))
    changed = [update for update in updates if update.changed]
    if json:
        show_json(
            [
                {"image": update.image.reference, "before": update.before, "changed": update.changed}
                for update in updates
            ]
        )
    elif not updates:
        note("there are no images yet: the first build makes them")
    else:
        for update in changed:
            show(f"{update.image.reference} in place of {update.before}")
        if len(changed) < len(updates):
            show(f"unchanged: {len(updates) - len(changed)}")
