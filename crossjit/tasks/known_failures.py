"""`known-failures list|check`: the list of tests that fail for a reason that is not the build's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM
from crossjit.errors import ExitCode
from crossjit.tasks.framework import Notes, command, note, show, show_json, show_table
from crossjit.tasks.options import describe
from crossjit.util.text import pluralize

if TYPE_CHECKING:
    from crossjit.known_failures.audit import AuditedEntry
    from crossjit.known_failures.entries import LocatedEntry


@command(name="list", default=True, help=describe("json"))
def list_known_failures(context: Context, json: bool = False) -> None:
    """List the known failures. See also `known-failures check`."""
    from crossjit.known_failures import entries as entries_module

    listed = entries_module.listed()
    if json:
        show_json([_facts(each) for each in listed])
    elif listed:
        rows = [
            (
                _place(each),
                each.failure.test,
                each.failure.kind.value + ("" if each.failure.run else ", not run"),
                each.failure.when.words or "always",
                each.failure.reason,
            )
            for each in listed
        ]
        show_table(("where", "test", "kind", "when", "reason"), rows)
    else:
        note("no failures are known")


@command(name="check", help=describe("json"))
def check_known_failures(context: Context, json: bool = False) -> ExitCode:
    """Find entries that match no test of any recipe, and entries that no run has needed.

    Tests are known from the artifacts in the stash and from runs. Ends with 1 if an entry is wrong. An entry whose
    conditions no run has met was not tried, which is no error.
    """
    from crossjit import PROJECT, settings
    from crossjit.config import recipes, suites
    from crossjit.known_failures import audit
    from crossjit.known_failures import entries as entries_module
    from crossjit.runs import history
    from crossjit.stash.store import Store

    loaded = settings.load()
    listed = entries_module.listed()
    recorded = [(run.id, result) for run in history.list_runs(loaded) for result in run.results()]
    artifacts = Store(loaded.stash, progress=Notes()).artifacts()
    subjects = audit.subjects(artifacts, recorded, [each.failure.test for each in listed])
    names = recipes.load_all(PROJECT / "recipes", suites=suites.names())
    judged = audit.judge(listed, subjects, audit.histories(recorded), names)
    wrong = [each for each in judged if each.state.is_wrong]
    if json:
        looked = sorted({subject.recipe for subject in subjects if subject.tests is not None})
        entries = [_facts(each.listed) | {"state": each.state.value, "why": each.why} for each in judged]
        show_json({"wrong": len(wrong), "recipes": looked, "entries": entries})
    else:
        show(_described(judged))
        if not any(subject.tests for subject in subjects):
            note(f"cannot check whether the tests exist: the stash is empty; `{PROGRAM} build` fills it")
    return ExitCode.PRODUCT if wrong else ExitCode.PASS


def _described(judged: tuple[AuditedEntry, ...]) -> str:
    from crossjit.known_failures.audit import State

    lines = [f"{_place(each.listed)}: {each.listed.failure.test}: {each.state}: {each.why}" for each in judged]
    counts = [(state, sum(each.state is state for each in judged)) for state in State]
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
    """Say where an entry stands, as short as can be from here."""
    path = listed.path
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{listed.line}"
