"""`images list|update`: the images that cells are built and run in."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit.tasks.framework import command, note, reporting_leftovers, show, show_json, show_table
from crossjit.tasks.options import describe

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.settings import Settings


def _connect(settings: Settings) -> Engine:
    """Return the engine. Raises EngineError for one without images."""
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
    client = _connect(loaded)
    listed = images.listed(client, images.configured(loaded), loaded, client.facts().arch)
    if json:
        show_json([asdict(image) for image in listed])
    elif not listed:
        note("there are no images yet: the first build makes them")
    else:
        rows = [
            (
                image.name,
                image.made.replace("T", " ").partition("+")[0],
                release.short(image.release) + (" (expired)" if release.is_expired(image.release) else ""),
                "current" if image.current else "old",
            )
            for image in listed
        ]
        show_table(("image", "made (UTC)", "Debian's Release", ""), rows)


@command(name="update", help=describe("json"))
def update_images(context: Context, json: bool = False) -> None:
    """Make images again if Debian's mirror has changed since. Old ones stay until `clean`."""
    from crossjit import images, settings
    from crossjit.pipeline.context import labels
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history

    loaded = settings.load()
    client = _connect(loaded)
    with reporting_leftovers(client), Terminal() as terminal, history.presence(loaded) as run:
        builder = images.ImageBuilder(client, client.facts().arch, loaded.home, terminal, labels(loaded, run))
        updates = list(images.update(builder, images.configured(loaded)))
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
