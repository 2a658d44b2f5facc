"""What a target lets programs do: the facts of `validate/capabilities.py`, which known failures may rest on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossjit.engine.base import Container
from crossjit.known_failures import KnownFailure
from crossjit.model import TestResult

SECONDS = 300  # more than the script gives itself


@dataclass(frozen=True)
class Probed:
    """What came of probing.

    `facts` are {name: {"works": bool or None, "detail": text}}, where None means that it could not be told; `problem`
    says why there are no facts.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    @property
    def known(self) -> Mapping[str, bool]:
        """Which capabilities are there and which are not; those of which nothing is known are left out."""
        return {name: fact["works"] for name, fact in self.facts.items() if fact["works"] is not None}


def probe(container: Container, python: str, script: str) -> Probed:
    """Run the script in a target. What goes wrong in it is a problem; raises EngineError for what is the engine's."""
    lines: deque[str] = deque(maxlen=200)
    completed = container.run((python, script), env={"PYTHON_JIT": "0"}, on_line=lines.append, timeout=SECONDS)
    facts = _facts(lines)
    if completed.returncode or facts is None:
        last = next((line for line in reversed(lines) if line.strip()), "")
        said = f"; {last[:200]}" if last else ""
        return Probed(problem=f"what the target is capable of could not be probed ({completed.how}{said})")
    return Probed(facts)


def _facts(lines: Iterable[str]) -> dict[str, Any] | None:
    """Find the script's line among others, such as QEMU's warnings; None where it is not as it should be."""
    found = None
    for line in lines:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("capabilities"), dict):
            found = value["capabilities"]
    if found is None or not all(_is_fact(fact) for fact in found.values()):
        return None
    return {name: {"works": fact["works"], "detail": str(fact.get("detail", ""))} for name, fact in found.items()}


def _is_fact(fact: object) -> bool:
    return isinstance(fact, dict) and (fact.get("works", 0) is None or isinstance(fact.get("works"), bool))


def excuses(probed: Probed, results: Iterable[TestResult], known: Sequence[KnownFailure]) -> tuple[str, ...]:
    """Say in a line what is missing in the target that tests fail for as known; nothing if no test does."""
    failed = [result for result in results if result.failed_as_known]
    missing = {
        name: probed.facts[name]["detail"]
        for entry in known
        if entry.when.lacks and any(entry.describes(result) for result in failed)
        for name in entry.when.lacks
    }
    if not missing:
        return ()
    said = "; ".join(f"{name} ({detail})" for name, detail in sorted(missing.items()))
    return (f"missing in the target, which tests fail for as known: {said}",)
