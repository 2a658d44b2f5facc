"""`docs`: the documentation page that lists every command, generated from the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from invoke.collection import Collection
from invoke.context import Context
from invoke.parser.argument import Argument
from invoke.parser.context import to_flag

from crossjit import PROJECT
from crossjit.errors import UserError
from crossjit.tasks.framework import Command, command, show

PAGE = "docs/commands.md"

_HEAD = """\
# All commands

<!-- Written by `./inv docs` from the commands themselves; do not edit. -->

This page has what `./inv COMMAND --help` prints. [Usage](usage.md) shows the commands at work.
"""


def task(namespace: Collection) -> Command:
    """Return the task that writes the page of a collection's commands, including itself."""

    @command(help={"check": "write nothing, and end with 2 if the page is not current; default: off"})
    def docs(context: Context, check: bool = False) -> None:
        """Write the page of the documentation that lists every command: docs/commands.md."""
        path = PROJECT / PAGE
        text = page(namespace)
        current = path.is_file() and path.read_text(encoding="utf-8") == text
        if not current and check:
            raise UserError(f"{PAGE} is not current", hint="`./inv docs` writes it")
        if not current:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        show(f"{PAGE} is current" if current else f"written: {PAGE}")

    return docs


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
