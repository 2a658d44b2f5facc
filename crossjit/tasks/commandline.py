"""Parsing the command line: two-word task names, and invoke's parse errors reworded."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from invoke.collection import Collection
from invoke.completion.complete import print_completion_script
from invoke.config import Config
from invoke.exceptions import Exit, ParseError
from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext, to_flag
from invoke.program import Program
from invoke.tasks import Task

from crossjit import PROGRAM, __version__
from crossjit.errors import UserError, did_you_mean
from crossjit.tasks.framework import Command, ending

# invoke's other options are about its shell commands and settings files, which our tasks do not use.
_OPTIONS = ("complete", "debug", "help", "list", "list-depth", "list-format", "print-completion-script", "version")
_LIST_FORMATS = ("flat", "nested", "json")


class _NoSettings(Config):
    """invoke's configuration without settings from /etc, the home folder and the environment."""

    def load_base_conf_files(self) -> None:
        """Read no file."""

    def load_shell_env(self) -> None:
        """Read no variable."""


class CrossjitProgram(Program):
    """The program of `./inv` and `crossjit`, with two-word task names (`stash list`).

    An invalid command line exits with a hint and code 2, an unexpected error with 3, never with 1, which means that
    CPython fails.
    """

    def __init__(self, namespace: Collection) -> None:
        super().__init__(
            version=__version__,
            namespace=namespace,
            name="crossjit",
            binary=f"{PROGRAM}",
            binary_names=["crossjit", "inv"],
            config_class=_NoSettings,
        )

    def core_args(self) -> list[Argument]:
        """Return those of invoke's own options that apply here."""
        return [argument for argument in super().core_args() if argument.name in _OPTIONS]

    def run(self, argv: list[str] | None = None, exit: bool = True) -> None:
        """Parse a command line, run its tasks, and exit with their code."""
        try:
            with ending():
                self.create_config()
                self._parse(argv)
                self.execute()
                sys.stdout.flush()
        except Exit as end:
            if end.message:
                print(end.message, file=sys.stderr)
            if exit:
                sys.exit(end.code)

    def _parse(self, argv: list[str] | None) -> None:
        """Parse. Raises Exit if there is no task to run, UserError for an invalid command line."""
        try:
            self.parse_collection()
            self.parse_core(argv)
            self.parse_tasks()
            self.parse_cleanup()
        except ParseError as error:
            raise explain(error, self.collection) from error
        except ValueError as error:  # invoke converts its own options' values unguarded
            raise UserError(f"an option has an invalid value: {error}", hint=f"see `{PROGRAM} --help`") from error

    def parse_core(self, argv: list[str] | None) -> None:
        """Parse the options before the first task; some of them need no task."""
        self.normalize_argv(argv)
        self.parse_core_args()
        self._answer()

    def _answer(self) -> None:
        """Carry out the options that need no task, then raise Exit."""
        if self.args.version.value:
            self.print_version()
            raise Exit
        if shell := self.args["print-completion-script"].value:
            print_completion_script(shell=shell, names=self.binary_names)
            raise Exit

    def parse_tasks(self) -> None:
        """Parse the tasks and their options."""
        words = rewrite(self.core.unparsed, self.collection)
        if words[1:] == ["--help"]:  # handled here, because invoke would first miss positional arguments
            self.args["help"].value, words = words[0], []
        self.core.unparsed[:] = words
        super().parse_tasks()
        self._answer()  # invoke also accepts its options after a task
        if self.args.debug.value:
            os.environ["CROSSJIT_DEBUG"] = "1"
        for context in self.tasks:
            _refuse_empty(context)
        if self.core.remainder and not self.args.complete.value and not any(map(self._takes_words, self.tasks)):
            raise UserError(
                "no task here takes arguments after --", hint=f"`debug` and `test` do; see `{PROGRAM} --list`"
            )

    def _takes_words(self, context: ParserContext) -> bool:
        task = _find(self.collection, context.name or "")
        return isinstance(task, Command) and task.words

    def parse_cleanup(self) -> None:
        """Carry out help, the list, and a shell's completion, which need no task."""
        if self.args.complete.value:  # during completion, an incomplete command line is not an error
            with contextlib.suppress(ParseError, ValueError):
                super().parse_cleanup()
            raise Exit
        _one_of("--list-format", self.args["list-format"].value, _LIST_FORMATS)
        if isinstance(group := self.args.list.value, str):
            _one_of("--list", group, sorted(self.collection.collections))
        try:
            super().parse_cleanup()
        except Exit as end:  # with a message and 1 for an error
            if end.message:
                raise UserError(end.message, hint=f"see `{PROGRAM} --help`") from end
            raise


def _refuse_empty(context: ParserContext) -> None:
    """Raise UserError for an empty value: an unset variable must not select the default."""
    for argument in context.args.values():
        values = argument.value if argument.kind is list else [argument.raw_value]
        if any(isinstance(value, str) and not value.strip(" ,") for value in values):
            name = argument.name.upper() if argument.positional else f"--{argument.name}"
            raise UserError(
                f"{name} is empty", hint="give a value, or leave it out for the default; a variable in it may be unset"
            )


def _one_of(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UserError(
            f"invalid {option} {value!r}{did_you_mean(value, choices)}", hint=f"choose from {', '.join(choices)}"
        )


def rewrite(tokens: Iterable[str], collection: Collection) -> list[str]:
    """Turn `stash list` into invoke's `stash.list`, and bare words after a task into values of its `rest` option.

    With `--help` after a task, only these two remain. Raises UserError for a task that a group does not have.
    """
    queue, result = list(tokens), []
    task: Task[Any] | None = None
    name = ""
    missing = 0  # positional arguments that the task still needs
    while queue:
        token = queue.pop(0)
        if task is not None and token in ("--help", "-h"):
            return [name, "--help"]
        if token.startswith("-"):
            result.append(token)
            if task is not None and queue and _takes_value(task, token):
                result.append(queue.pop(0))
            continue
        if missing:
            missing -= 1
            result.append(token)
            continue
        if token in collection.collections:
            token = _second_word(token, queue, collection.collections[token])
        named = _find(collection, token)
        if named is not None:
            task, name, missing = named, token, len(list(named.positional))
            result.append(token)
        elif isinstance(task, Command) and task.rest is not None:
            result += [f"--{task.rest}", token]
        else:
            result.append(token)
    return result


def _second_word(group: str, queue: list[str], members: Collection) -> str:
    """Return the full name of the group's task that the next word names, and remove that word from the queue."""
    names = sorted(members.task_names)
    if queue and queue[0] in names:
        return f"{group}.{queue.pop(0)}"
    if queue and not queue[0].startswith("-"):
        raise UserError(
            f"{group} has no task {queue[0]!r}{did_you_mean(queue[0], names)}",
            hint=f"there are {', '.join(f'`{PROGRAM} {group} {name}`' for name in names)}",
        )
    return group


def _find(collection: Collection, name: str) -> Task[Any] | None:
    try:
        task = collection[name]
    except (KeyError, ValueError):
        return None
    return task if isinstance(task, Task) else None


def _takes_value(task: Task[Any], token: str) -> bool:
    """Whether the next token is the option's value."""
    if "=" in token:
        return False
    return any(
        token == to_flag(name) and argument.takes_value for argument in task.get_arguments() for name in argument.names
    )


_UNKNOWN = re.compile(r"No idea what ['\"](?P<word>.*)['\"] is!", re.DOTALL)
_NO_VALUE = re.compile(r"Flag <Argument: (?P<option>[\w-]+).*> needed value")
_NO_POSITIONAL = re.compile(r"did not receive required positional arguments: (?P<names>.*)")


def explain(error: ParseError, collection: Collection) -> UserError:
    """Reword an error of invoke's parser, which has nothing but a message."""
    message = str(error)
    name = error.context.name if error.context is not None else None
    shown = (name or "").replace(".", " ")
    hint = f"see `{PROGRAM} {shown} --help`" if name else f"see `{PROGRAM} --list`"
    if match := _UNKNOWN.match(message):
        word = match["word"]
        if word.startswith("-"):
            flags = list(error.context.flags) if error.context is not None else []
            of = f" for {shown}" if name else ""
            return UserError(f"there is no option {word}{of}{did_you_mean(word, flags)}", hint=hint)
        names = [full.replace(".", " ") for full in collection.task_names] + list(collection.collections)
        also = f", and {shown} takes no such argument" if name else ""
        return UserError(f"there is no task {word!r}{also}{did_you_mean(word, names)}", hint=hint)
    if match := _NO_VALUE.match(message):
        return UserError(f"--{match['option']} needs a value", hint=hint)
    if match := _NO_POSITIONAL.search(message):
        return UserError(f"{shown} needs {match['names'].replace(chr(39), '').upper()}", hint=hint)
    return UserError(message, hint=hint)
