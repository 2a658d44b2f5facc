"""A target's capabilities: the facts of `validate/capabilities.py`, which known failures may depend on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossjit.channels import Capabilities, MalformedError, read
from crossjit.engine.base import Container
from crossjit.known_failures.entries import KnownFailure
from crossjit.model import TestResult

SECONDS = 300  # more than the script's own limit


@dataclass(frozen=True)
class Probed:
    """The result of probing.

    `facts` are {name: {"works": bool or None, "detail": text}}, with None for unknown; `problem` says why there are no
    facts, and `our_limit` that our time limit is the reason.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    our_limit: bool = False

    @property
    def known(self) -> Mapping[str, bool]:
        """The capabilities and whether the target has them, without unknown ones."""
        return {name: fact["works"] for name, fact in self.facts.items() if fact["works"] is not None}


def probe(container: Container, python: str, script: str) -> Probed:
    """Run the script in a target. Its failure is a problem in the result; raises EngineError for the engine's."""
    lines: deque[str] = deque(maxlen=200)
    completed = container.run((python, script), env={"PYTHON_JIT": "0"}, on_line=lines.append, timeout=SECONDS)
    output = [line for line in lines if line.strip()]
    reports = [line for line in output if line.startswith("{")]
    facts = [completed.how, *(line[:200] for line in output[-1:])]
    if not completed.returncode and reports:
        try:
            parsed = read(Capabilities, reports[-1]).capabilities
            return Probed({name: {"works": fact.works, "detail": fact.detail} for name, fact in parsed.items()})
        except MalformedError as error:
            facts.append(f"its output cannot be read: {error}")
    problem = f"the target's capabilities could not be probed ({'; '.join(facts)})"
    return Probed(problem=problem, our_limit=completed.returncode == -9 and completed.seconds >= SECONDS)


def excuses(probed: Probed, results: Iterable[TestResult], known: Sequence[KnownFailure]) -> tuple[str, ...]:
    """Name the missing capabilities that known failures are due to, in one line; nothing if there are none."""
    failed = [result for result in results if result.xfailed]
    missing = {
        name: probed.facts[name]["detail"]
        for entry in known
        if entry.when.lacks and any(entry.describes(result) for result in failed)
        for name in entry.when.lacks
    }
    if not missing:
        return ()
    listing = "; ".join(f"{name} ({detail})" for name, detail in sorted(missing.items()))
    return (f"missing in the target, so tests fail as expected: {listing}",)
