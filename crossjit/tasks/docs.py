"""`docs`: what is generated of the documentation: the page that lists every command, and the table of settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from invoke.collection import Collection
from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.parser.context import to_flag

from crossjit import PROJECT
from crossjit.config.setting import SETTINGS
from crossjit.errors import UserError
from crossjit.tasks.framework import Command, command, show

PAGE, SETTINGS_PAGE = "docs/commands.md", "docs/settings.md"

_BEGIN, _END = "<!-- Written by `./inv docs`: -->\n", "<!-- up to here -->\n"

_HEAD = """\
# All commands

<!-- Written by `./inv docs` from the commands themselves; do not edit. -->

This page has what `./inv COMMAND --help` prints. [Usage](usage.md) shows the commands at work.
"""


def task(namespace: Collection) -> Command:
    """Return the task that writes the generated pages, for a collection's commands, including itself."""

    @command(help={"check": "write nothing, and end with 2 if a page is not current; default: off"})
    def docs(context: Context, check: bool = False) -> None:
        """Write what is generated of the documentation: docs/commands.md, and the table of docs/settings.md."""
        for name, text in pages(namespace).items():
            path = PROJECT / name
            current = path.is_file() and path.read_text(encoding="utf-8") == text
            if not current and check:
                raise UserError(f"{name} is not current", hint="`./inv docs` writes it")
            if not current:
                path.write_text(text, encoding="utf-8")
            show(f"{name} is current" if current else f"written: {name}")

    return docs


def pages(namespace: Collection) -> dict[str, str]:
    """Return the pages that are generated, or contain what is, by their names."""
    settings = (PROJECT / SETTINGS_PAGE).read_text(encoding="utf-8")
    return {PAGE: page(namespace), SETTINGS_PAGE: with_settings(settings)}


def with_settings(text: str) -> str:
    """Return the page of settings, given as it is now, with their table."""
    before, _, rest = text.partition(_BEGIN)
    rows = (
        f"| `{setting.name}` | `{setting.variable}` | {setting.meaning} | {setting.default} |" for setting in SETTINGS
    )
    table = "\n".join(("| key | variable | meaning | default |", "|---|---|---|---|", *rows))
    return f"{before}{_BEGIN}\n{table}\n\n{_END}{rest.partition(_END)[2]}"


def page(namespace: Collection) -> str:
    """Return the page for a collection's commands."""
    commands = ((name.replace(".", " "), namespace[name]) for name in namespace.task_names)
    return "\n".join((_HEAD, *(line for name, task in commands for line in _section(name, task))))


def _section(name: str, task: Command) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{inspect.cleandoc(task.__doc__ or '')}\n"
    arguments = task.get_arguments()
    if arguments:
        yield "| option | meaning | default |"
        yield "|---|---|---|"
        yield from map(_row, sorted(arguments, key=_name))
        yield ""


def _row(argument: Argument) -> str:
    meaning, _, default = (argument.help or "").replace("|", r"\|").partition("; default: ")
    if meaning.endswith("; required"):
        meaning, default = meaning.removesuffix("; required"), "required"
    names = ", ".join(map(to_flag, argument.names))
    return f"| `{names}{' VALUE' if argument.takes_value else ''}` | {meaning} | {default} |"


def _name(argument: Argument) -> str:
    return str(to_flag(str(argument.name)))
