"""The command line, a task for each command: `./inv` runs `program`, plain `invoke` uses `namespace`."""

from __future__ import annotations

from types import ModuleType

from invoke.collection import Collection

from crossjit import INSTALLED
from crossjit.tasks import (
    bisect,
    build,
    cache,
    capsule,
    cells,
    ci,
    config,
    debug,
    develop,
    docs,
    doctor,
    effect,
    images,
    known_failures,
    measure,
    measure_compare,
    reduce,
    report,
    reproduce,
    runs,
    shared_stash,
    stash,
    stencils,
    triage,
)
from crossjit.tasks.commandline import CrossjitProgram
from crossjit.tasks.framework import Command

__all__ = ["namespace", "program"]


def _commands(module: ModuleType, *names: str) -> list[Command]:
    """Return a module's tasks, or the named ones only."""
    tasks = (value for value in vars(module).values() if isinstance(value, Command))
    return [task for task in tasks if not names or task.name in names]


def _group(name: str, about: str, tasks: list[Command]) -> Collection:
    """Return tasks as a group; its default task runs for the group's name alone."""
    group = Collection(name, *tasks)
    group.__doc__ = about
    return group


namespace = Collection(
    *_commands(doctor),
    *_commands(build),
    *_commands(reproduce, "reproduce"),
    *_commands(reduce),
    *_commands(capsule),
    *_commands(triage),
    *_commands(bisect),
    *_commands(effect),
    *_commands(debug),
    *_commands(cells, "cells"),
    *_commands(report),
    *_commands(runs, "clean"),
    _group("measure", "Measurements of the JIT.", [*_commands(measure), *_commands(measure_compare)]),
    _group("recipes", "The recipes.", _commands(reproduce, "check")),
    _group("ci", "Continuous integration on GitHub.", _commands(ci)),
    _group("config", "The settings.", _commands(config)),
    _group("stash", "The artifacts.", [*_commands(stash), *_commands(shared_stash)]),
    _group("stencils", "The JIT's stencils alone.", _commands(stencils)),
    _group("cache", "The build caches.", _commands(cache)),
    _group("images", "The images to compile and to run in.", _commands(images)),
    _group("known-failures", "The tests that fail for a reason that is not the build's.", _commands(known_failures)),
    _group("runs", "The runs.", _commands(runs, "list", "show", "import", "merge")),
)

if not INSTALLED:  # these need the repository
    for task in (*_commands(develop), *_commands(cells, "schema"), docs.task(namespace)):
        namespace.add_task(task)
program = CrossjitProgram(namespace)
