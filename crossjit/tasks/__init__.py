"""The command line: one task per command, the same under plain `invoke`, `./inv` and the console script `crossjit`."""

from __future__ import annotations

import sys
from types import ModuleType

import invoke.main
from invoke.collection import Collection
from invoke.program import Program

from crossjit import __version__

# invoke turns bytecode files off, for its own users' small tasks.py; here every command would compile all modules anew
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

from crossjit.tasks import (  # noqa: E402 - see above
    build,
    cache,
    commandline,
    debug,
    develop,
    doctor,
    known_failures,
    listing,
    report,
    runs,
    stash,
    triage,
)
from crossjit.tasks.framework import Command  # noqa: E402

__all__ = ["namespace", "program"]


def _commands(module: ModuleType, *names: str) -> list[Command]:
    """Return a module's tasks, the named ones only if there are names."""
    found = (value for value in vars(module).values() if isinstance(value, Command))
    return [task for task in found if not names or task.name in names]


def _group(name: str, about: str, tasks: list[Command]) -> Collection:
    """Return tasks as a group, whose default stands for the group's name alone."""
    group = Collection(name, *tasks)
    group.__doc__ = about
    return group


namespace = Collection(
    *_commands(doctor),
    *_commands(build),
    *_commands(triage),
    *_commands(debug),
    *_commands(listing),
    *_commands(report),
    *_commands(runs, "clean"),
    *_commands(develop),
    _group("stash", "The artifacts.", _commands(stash)),
    _group("cache", "What builds keep.", _commands(cache)),
    _group("known-failures", "The tests that fail for a reason that is not the build's.", _commands(known_failures)),
    _group("runs", "What was done.", _commands(runs, "list", "show")),
)

program = Program(version=__version__, namespace=namespace, name="crossjit", binary="crossjit")

commandline.teach(program)
commandline.teach(invoke.main.program)  # the Program behind the commands `invoke` and `inv`
