"""The command line before a task runs: two-word task names, and what invoke's parser finds wrong, in our words."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from typing import Any

from invoke.collection import Collection
from invoke.exceptions import Exit, ParseError
from invoke.program import Program
from invoke.tasks import Task

from crossjit.errors import UserError, did_you_mean
from crossjit.report import tables
from crossjit.tasks.framework import BROKEN_PIPE, Command, ended, stdout_is_gone


def teach(program: Program) -> None:
    """Have a Program take two-word task names (`stash list`), and end on a wrong command line with a hint and code 2.

    What comes after `--` keeps its words. Plain `invoke` runs a Program of its own, which knows nothing of ours but
    this; it ends with 1 otherwise.
    """
    parse_core, parse_tasks, parse_cleanup = program.parse_core, program.parse_tasks, program.parse_cleanup

    def core(argv: list[str] | None) -> None:
        try:
            parse_core(argv)
        except ValueError as error:  # invoke converts its own options' values unguarded
            raise _refuse(UserError(f"an option has a wrong value: {error}", hint="see `invoke --help`")) from error
        if "--" in program.argv:  # invoke joins what comes after it with spaces: one word is not to be told from two
            program.core.remainder = shlex.join(program.argv[program.argv.index("--") + 1 :])

    def tasks() -> None:
        collection = program.collection
        try:
            words = rewrite(program.core.unparsed, collection)
            if words[1:] == ["--help"]:  # as if it had come first: invoke would miss positional arguments before
                program.args["help"].value, words = words[0], []
            program.core.unparsed[:] = words
            parse_tasks()
        except UserError as error:
            raise _refuse(error) from error
        except ParseError as error:
            raise _refuse(explain(error, collection)) from error
        if program.args["debug"].value:
            os.environ["CROSSJIT_DEBUG"] = "1"

    def cleanup() -> None:
        try:
            parse_cleanup()
        except ParseError as error:
            raise _refuse(explain(error, program.collection)) from error
        except BrokenPipeError:  # the help or the list, and somebody who read enough of it
            if not stdout_is_gone():
                raise
            raise Exit(code=BROKEN_PIPE) from None

    for name, method in (("parse_core", core), ("parse_tasks", tasks), ("parse_cleanup", cleanup)):
        setattr(program, name, method)


def _refuse(error: UserError) -> Exit:
    return ended(tables.error_text(error), error.exit_code)


def rewrite(tokens: Iterable[str], collection: Collection) -> list[str]:
    """Turn `stash list` into invoke's `stash.list`, and bare words after a task into values of its `rest` option.

    A task's `--help` leaves nothing but the two. Raises UserError for a second word that the group does not have.
    """
    queue, result = list(tokens), []
    task: Task[Any] | None = None
    name = ""
    wanted = 0  # positional arguments that the task still waits for
    while queue:
        token = queue.pop(0)
        if task is not None and token in ("--help", "-h"):
            return [name, "--help"]
        if token.startswith("-"):
            result.append(token)
            if task is not None and queue and _takes_value(task, token):
                result.append(queue.pop(0))
            continue
        if wanted:
            wanted -= 1
            result.append(token)
            continue
        if token in collection.collections:
            token = _second_word(token, queue, collection.collections[token])
        known = _find(collection, token)
        if known is not None:
            task, name, wanted = known, token, len(list(known.positional))
            result.append(token)
        elif isinstance(task, Command) and task.rest is not None:
            result += [f"--{task.rest}", token]
        else:
            result.append(token)
    return result


def _second_word(group: str, queue: list[str], members: Collection) -> str:
    """Return the full name of the group's task that the next word names; it is taken from the queue."""
    names = sorted(members.task_names)
    if queue and queue[0] in names:
        return f"{group}.{queue.pop(0)}"
    if queue and not queue[0].startswith("-"):
        raise UserError(
            f"{group} has no task {queue[0]!r}{did_you_mean(queue[0], names)}",
            hint=f"there are {', '.join(f'`invoke {group} {name}`' for name in names)}",
        )
    return group


def _find(collection: Collection, name: str) -> Task[Any] | None:
    try:
        found = collection[name]
    except (KeyError, ValueError):
        return None
    return found if isinstance(found, Task) else None


def _takes_value(task: Task[Any], token: str) -> bool:
    """Whether the next token is the option's value."""
    if "=" in token:
        return False
    return any(
        token == f"--{name}" and argument.takes_value for argument in task.get_arguments() for name in argument.names
    )


_UNKNOWN = re.compile(r"No idea what ['\"](?P<word>.*)['\"] is!", re.DOTALL)
_NO_VALUE = re.compile(r"Flag <Argument: (?P<option>[\w-]+).*> needed value")
_NO_POSITIONAL = re.compile(r"did not receive required positional arguments: (?P<names>.*)")


def explain(error: ParseError, collection: Collection) -> UserError:
    """Say in one sentence what invoke's parser found wrong; invoke tells it in words only, so those are read."""
    message = str(error)
    name = error.context.name if error.context is not None else None
    shown = (name or "").replace(".", " ")
    hint = f"see `invoke {shown} --help`" if name else "see `invoke --list`"
    if match := _UNKNOWN.match(message):
        word = match["word"]
        if word.startswith("-"):
            flags = list(error.context.flags) if error.context is not None else []
            of = f" for {shown}" if name else ""
            return UserError(f"there is no option {word}{of}{did_you_mean(word, flags)}", hint=hint)
        names = [full.replace(".", " ") for full in collection.task_names] + list(collection.collections)
        also = f", and {shown} takes no such word" if name else ""
        return UserError(f"there is no task {word!r}{also}{did_you_mean(word, names)}", hint=hint)
    if match := _NO_VALUE.match(message):
        return UserError(f"--{match['option']} needs a value", hint=hint)
    if match := _NO_POSITIONAL.search(message):
        return UserError(f"{shown} needs {match['names'].replace(chr(39), '').upper()}", hint=hint)
    return UserError(message, hint=hint)
