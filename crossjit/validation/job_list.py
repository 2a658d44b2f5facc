"""The order in which a suite's jobs run, and what the target lacks for one."""

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
    suite: Suite, where: TargetEnvironment, known: Iterable[KnownFailure], scripts: str, selection: TestSelection
) -> dict[str, object]:
    """Say what `validate/runner.py` is to do: its JSON. `scripts` is the folder of our scripts in the target."""
    factor = suite.factor(where)
    items: list[dict[str, object]] = [
        item(
            "script",
            f"{scripts}/{script.file}",
            script.timeout * factor,
            arguments=list(script.arguments),
            env=dict(suite.env),
            weight=float(script.timeout),
        )
        for script in suite.scripts
        if script.when.holds(where)
    ]
    for group in suite.groups:
        if group.when.holds(where):
            items += (
                item(
                    "module",
                    module,
                    suite.timeout * factor,
                    without=list(group.without) if module.endswith("*") else [],
                    label=group.label,
                    arguments=list(group.arguments),
                    env={**suite.env, **group.env},
                    weights={
                        name: weight for name, weight in suite.weights.items() if fnmatch.fnmatchcase(name, module)
                    },
                    optional=group.optional,
                )
                for module in group.modules
                if module not in group.without
            )
    unlike = {json.dumps(each, sort_keys=True): each for each in items}  # two groups may run the same module alike
    items = list(unlike.values())
    return {
        "limit": suite.limit * factor,
        "resources": list(suite.resources),
        "ignore": deselected(known),
        "items": items,
        "shard": list(selection.shard) if selection.shard else None,
        "tests": list(selection.tests),
    }


def item(kind: str, name: str, timeout: int, **more: object) -> dict[str, object]:
    """Make an item of what `validate/runner.py` is to do, as it describes it. `timeout` is in seconds."""
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


def missing(suite: Suite, where: TargetEnvironment, results: Iterable[TestResult]) -> tuple[str, ...]:
    """Say which required tests did not run."""
    ran = [result.name.partition(" [")[0] for result in results if result.outcome is not Outcome.SKIPPED]
    said = []
    for required in suite.required:
        if required.when.holds(where):
            number = sum(fnmatch.fnmatchcase(name, required.tests) for name in ran)
            if number < required.at_least:
                wanted = f"at least {required.at_least}" if required.at_least > 1 else "any"
                said.append(f"{number} tests of {required.tests} ran, not {wanted}: {required.why}")
    return tuple(said)
