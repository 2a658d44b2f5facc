"""`config show`: the settings, and where each was found."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from invoke.context import Context

from crossjit.tasks.framework import command, show, show_json, show_table
from crossjit.tasks.options import describe


@command(name="show", default=True, help=describe("json"))
def show_settings(context: Context, json: bool = False) -> None:
    """Show each setting's value and where it comes from: the environment, a project's file, the user's, or nowhere.

    The first of these that sets it wins. All errors in the files are reported at once, with line and column.
    """
    from crossjit import settings

    loaded = settings.load()
    found = [(each, getattr(loaded, each.setting.attribute)) for each in settings.find()]
    files = settings.files()
    if json:
        show_json(
            {
                "settings": [
                    {
                        "name": each.setting.name,
                        "variable": each.setting.variable,
                        "value": [*map(str, value)] if isinstance(value, tuple) else value,
                        "origin": each.origin,
                        "place": each.place,
                        "meaning": each.setting.meaning,
                    }
                    for each, value in found
                ],
                "files": [asdict(file) for file in files],
            }
        )
        return
    rows = [(each.setting.name, _text(value), each.place or each.origin) for each, value in found]
    show_table(("setting", "value", "from"), rows)
    show("")
    read = [(str(file.path), f"{file.origin}'s", "yes" if file.exists else "there is none") for file in files]
    show_table(("configuration file", "whose", "read"), read)


def _text(value: str | int | Path | tuple[object, ...] | None) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return (" ".join(map(str, value)) if isinstance(value, tuple) else str(value or "")) or "-"
