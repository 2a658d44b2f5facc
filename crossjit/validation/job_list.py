"""The list of a suite's jobs for the runner, and the check for required tests that did not run."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable

from crossjit.config.conditions import TargetEnvironment
from crossjit.config.suites import Suite
from crossjit.config.test_selection import TestSelection
from crossjit.known_failures.entries import KnownFailure, deselected
from crossjit.model import Outcome, TestResult


def order(
    suite: Suite, env: TargetEnvironment, known: Iterable[KnownFailure], scripts: str, selection: TestSelection
) -> dict[str, object]:
    """Return the input of `validate/runner.py`, as JSON values. `scripts` is the scripts' folder in the target."""
    factor = suite.factor(env)
    items: list[dict[str, object]] = [
        item(
            "script",
            f"{scripts}/{script.file}",
            script.timeout * factor,
            arguments=list(script.arguments),
            env={**suite.env, **env.variant.test_environment},
            weight=float(script.timeout),
        )
        for script in suite.scripts
        if script.when.holds(env)
    ]
    for group in suite.groups:
        if group.when.holds(env):
            items += (
                item(
                    "module",
                    module,
                    suite.timeout * factor,
                    without=list(group.without) if module.endswith("*") else [],
                    label=group.label,
                    arguments=list(group.arguments),
                    env={**suite.env, **group.env, **env.variant.test_environment},
                    weights={
                        name: weight for name, weight in suite.weights.items() if fnmatch.fnmatchcase(name, module)
                    },
                    optional=group.optional,
                )
                for module in group.modules
                if module not in group.without
            )
    # two groups may have the same module with the same options
    unique = {json.dumps(entry, sort_keys=True): entry for entry in items}
    items = list(unique.values())
    return {
        "limit": suite.limit * factor,
        "resources": list(suite.resources),
        "ignore": deselected(known),
        "items": items,
        "shard": list(selection.shard) if selection.shard else None,
        "tests": list(selection.tests),
    }


def item(kind: str, name: str, timeout: int, **more: object) -> dict[str, object]:
    """Make an item of the runner's input, as `validate/runner.py` describes it. `timeout` is in seconds."""
    return {
        "kind": kind,
        "name": name,
        "without": [],
        "label": "",
        "arguments": [],
        "env": {},
        "timeout": timeout,
        "weight": 1.0,
        "weights": {},
        "optional": False,
        **more,
    }


def missing(suite: Suite, env: TargetEnvironment, results: Iterable[TestResult]) -> tuple[str, ...]:
    """Return messages about required tests that did not run."""
    ran = [result.name.partition(" [")[0] for result in results if result.outcome is not Outcome.SKIPPED]
    messages = []
    for required in suite.required:
        if required.when.holds(env):
            number = sum(fnmatch.fnmatchcase(name, required.tests) for name in ran)
            if number < required.at_least:
                expected = f"at least {required.at_least}" if required.at_least > 1 else "any"
                messages.append(f"{number} tests of {required.tests} ran, not {expected}: {required.why}")
    return tuple(messages)
