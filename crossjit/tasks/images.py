"""`images list|update`: the images that cells are built and run in."""

from __future__ import annotations

from dataclasses import asdict

from invoke.context import Context

from crossjit.tasks.framework import command, note, show, show_json, show_table, telling
from crossjit.tasks.options import describe


@command(name="list", default=True, help=describe("json"))
def list_images(context: Context, json: bool = False) -> None:
    """List the images, with their dates and the state of Debian's mirror that they were made of."""
    from crossjit import engine, images, settings
    from crossjit.images import release

    loaded = settings.load()
    client = engine.connect(loaded)
    found = images.listed(client, images.configured(loaded), loaded, client.facts().arch)
    if json:
        show_json([asdict(each) for each in found])
    elif not found:
        note("there are no images yet: the first build makes them")
    else:
        rows = [
            (
                each.name,
                each.made.replace("T", " ").partition("+")[0],
                release.short(each.release) + (" (expired)" if release.is_expired(each.release) else ""),
                "current" if each.current else "old",
            )
            for each in found
        ]
        show_table(("image", "made (UTC)", "Debian's Release", ""), rows)


@command(name="update", help=describe("json"))
def update_images(context: Context, json: bool = False) -> None:
    """Make images again if Debian's mirror has changed since. Old ones stay until `clean`."""
    from crossjit import engine, images, settings
    from crossjit.pipeline.context import labels
    from crossjit.report.terminal import Terminal
    from crossjit.runs import history

    loaded = settings.load()
    client = engine.connect(loaded)
    with telling(client), Terminal() as terminal, history.presence(loaded) as run:
        builder = images.ImageBuilder(client, client.facts().arch, loaded.home, terminal, labels(loaded, run))
        found = list(images.update(builder, images.configured(loaded)))
    changed = [each for each in found if each.changed]
    if json:
        show_json([{"image": each.image.reference, "before": each.before, "changed": each.changed} for each in found])
    elif not found:
        note("there are no images yet: the first build makes them")
    else:
        for each in changed:
            show(f"{each.image.reference} in place of {each.before}")
        if len(changed) < len(found):
            show(f"unchanged: {len(found) - len(changed)}")
