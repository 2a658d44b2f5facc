"""What a target lets programs do: the facts of `validate/capabilities.py`, which known failures may rest on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossjit.channels import Capabilities, MalformedError, read
from crossjit.engine.base import Container
from crossjit.known_failures.entries import KnownFailure
from crossjit.model import TestResult

SECONDS = 300  # more than the script gives itself


@dataclass(frozen=True)
class Probed:
    """What came of probing.

    `facts` are {name: {"works": bool or None, "detail": text}}, where None means that it could not be told; `problem`
    says why there are no facts, and `our_limit` that it was the time that we gave it.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None
    our_limit: bool = False

    @property
    def known(self) -> Mapping[str, bool]:
        """Which capabilities are there and which are not; those of which nothing is known are left out."""
        return {name: fact["works"] for name, fact in self.facts.items() if fact["works"] is not None}


def probe(container: Container, python: str, script: str) -> Probed:
    """Run the script in a target. What goes wrong in it is a problem; raises EngineError for what is the engine's."""
    lines: deque[str] = deque(maxlen=200)
    completed = container.run((python, script), env={"PYTHON_JIT": "0"}, on_line=lines.append, timeout=SECONDS)
    said = [line for line in lines if line.strip()]
    reports = [line for line in said if line.startswith("{")]
    words = [completed.how, *(line[:200] for line in said[-1:])]
    if not completed.returncode and reports:
        try:
            found = read(Capabilities, reports[-1]).capabilities
            return Probed({name: {"works": each.works, "detail": each.detail} for name, each in found.items()})
        except MalformedError as error:
            words.append(f"its output cannot be read: {error}")
    what = f"the target's capabilities could not be probed ({'; '.join(words)})"
    return Probed(problem=what, our_limit=completed.returncode == -9 and completed.seconds >= SECONDS)


def excuses(probed: Probed, results: Iterable[TestResult], known: Sequence[KnownFailure]) -> tuple[str, ...]:
    """Say in a line what is missing in the target that tests fail for as known; nothing if no test does."""
    failed = [result for result in results if result.xfailed]
    missing = {
        name: probed.facts[name]["detail"]
        for entry in known
        if entry.when.lacks and any(entry.describes(result) for result in failed)
        for name in entry.when.lacks
    }
    if not missing:
        return ()
    said = "; ".join(f"{name} ({detail})" for name, detail in sorted(missing.items()))
    return (f"missing in the target, so tests fail as expected: {said}",)
