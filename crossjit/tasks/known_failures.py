"""`known-failures list|check`: the list of tests that fail for a reason that is not the build's."""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode, InfrastructureError
from crossjit.model import Arch
from crossjit.tasks.framework import Notes, command, note, show, show_json, show_table
from crossjit.tasks.options import REPEATABLE, describe, words
from crossjit.tasks.session import looking
from crossjit.util.text import pluralize

if TYPE_CHECKING:
    from crossjit.config.conditions import TargetEnvironment
    from crossjit.config.recipes import Recipe
    from crossjit.known_failures.audit import AuditedEntry
    from crossjit.known_failures.entries import KnownFailure, LocatedEntry
    from crossjit.known_failures.subjects import Recorded, Subject
    from crossjit.known_failures.test_inventory import Inventory
    from crossjit.pipeline.context import BuildContext
    from crossjit.settings import Settings
    from crossjit.stash.artifact import Artifact


@command(name="list", default=True, help=describe("json"))
def list_known_failures(context: Context, json: bool = False) -> None:
    """List the known failures. See also `known-failures check`."""
    from crossjit.known_failures import entries as entries_module

    listed = entries_module.listed()
    if json:
        show_json([_facts(entry) for entry in listed])
    elif listed:
        rows = [
            (
                _place(entry),
                entry.failure.test,
                entry.failure.kind.value + ("" if entry.failure.run else ", not run"),
                entry.failure.when.words or "always",
                entry.failure.reason,
            )
            for entry in listed
        ]
        show_table(("where", "test", "kind", "when", "reason"), rows)
    else:
        note("no failures are known")


@command(
    name="check",
    iterable=["recipe"],
    help=describe(
        "json",
        recipe=f"the path of a recipe's file, to include its artifacts; {REPEATABLE}; default: crossjit's recipes only",
    ),
)
def check_known_failures(context: Context, recipe: list[str] | None = None, json: bool = False) -> ExitCode:
    """Find entries that match no test of any recipe, and entries that no run has needed.

    Test names are known from runs and from artifacts in the stash: if a name is unknown, artifacts list their tests,
    each once. Ends with 1 if an entry is wrong. An entry whose conditions no run has met was not tried, which is no
    error.
    """
    from crossjit import PROJECT, settings
    from crossjit.config import recipes, suites
    from crossjit.known_failures import audit
    from crossjit.known_failures import entries as entries_module
    from crossjit.runs import history

    loaded = settings.load()
    listed = entries_module.listed()
    recorded = [(run.id, result) for run in history.list_runs(loaded) for result in run.results()]
    gathered = recipes.gather(words(recipe), PROJECT / "recipes", suites=suites.names())
    subjects = _subjects(loaded, recorded, [entry.failure for entry in listed], gathered)
    judged = audit.judge(listed, subjects, audit.histories(recorded), gathered)
    wrong = [entry for entry in judged if entry.state.is_wrong]
    if json:
        looked = sorted({subject.recipe for subject in subjects if subject.tests is not None})
        not_listed = [subject.name for subject in subjects if subject.is_unlisted]
        entries = [_facts(entry.listed) | {"state": entry.state.value, "why": entry.why} for entry in judged]
        show_json({"wrong": len(wrong), "recipes": looked, "not_listed": not_listed, "entries": entries})
    else:
        show(_described(judged))
        if not any(subject.artifact for subject in subjects):
            note(f"cannot check whether the tests exist: the stash is empty; `{PROGRAM} build` fills it")
    return ExitCode.PRODUCT if wrong else ExitCode.PASS


def _subjects(
    loaded: Settings, recorded: Recorded, failures: Sequence[KnownFailure], recipes: Mapping[str, Recipe]
) -> tuple[Subject, ...]:
    """Collect the tests that are known. The engine is used only if an artifact has to list its tests."""
    from crossjit.known_failures import subjects
    from crossjit.pipeline import test_lists
    from crossjit.stash.store import Store

    with contextlib.ExitStack() as stack:

        @functools.cache
        def ctx() -> BuildContext | None:
            try:
                return stack.enter_context(looking(loaded))
            except InfrastructureError as error:
                note(f"tests of artifacts cannot be listed: {error.message}")
                return None

        def make(artifact: Artifact, env: TargetEnvironment) -> Inventory | None:
            return test_lists.make(context, artifact, env) if (context := ctx()) else None

        return subjects.subjects(
            Store(loaded.stash, progress=Notes()).artifacts(),
            recorded,
            failures,
            recipes,
            host_arch=Arch.of_machine(platform.machine()),
            find=functools.partial(test_lists.find, loaded.stash),
            make=make,
        )


def _described(judged: tuple[AuditedEntry, ...]) -> str:
    from crossjit.known_failures.audit import State

    lines = [f"{_place(entry.listed)}: {entry.listed.failure.test}: {entry.state}: {entry.why}" for entry in judged]
    counts = [(state, sum(entry.state is state for entry in judged)) for state in State]
    summary = ", ".join(f"{number} {state}" for state, number in counts if number)
    return "\n".join([*lines, f"{pluralize(len(judged), 'known failure')}: {summary or 'nothing to check'}"])


def _facts(listed: LocatedEntry) -> dict[str, object]:
    failure = listed.failure
    return {
        "file": str(listed.path),
        "line": listed.line,
        "test": failure.test,
        "kind": failure.kind.value,
        "run": failure.run,
        "when": failure.when.words,
        "reason": failure.reason,
        "link": failure.link,
    }


def _place(listed: LocatedEntry) -> str:
    """Return an entry's file and line, relative to the current folder if possible."""
    path = listed.path
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{listed.line}"
