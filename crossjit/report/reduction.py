"""A smaller script, or fewer tests, as text and as JSON."""

from __future__ import annotations

from pathlib import Path

from crossjit.reduction.script import Reduction
from crossjit.reduction.test_list import TestReduction
from crossjit.util.text import pluralize

MOST_TESTS = 50  # on a terminal


def as_text(done: Reduction, path: Path) -> str:
    """Return what became of a script, and where it is."""
    sizes = f"{_size(done.before.content)} → {_size(done.after.content)}; {done.end}"
    env = " ".join(f"{name}={value}" for name, value in done.env.items())
    lines = [
        f"written:   {path}",
        f"script:    {sizes}",
        f"fails:     {done.cell}{f' with {env}' if env else ''}: {done.failure}",
        f"passes:    {', '.join(done.passes) or 'nowhere that was tried'}",
        f"verified:  {f'{done.count} in the target' if done.count else 'no'}",
        f"tried:     {pluralize(done.tried, 'candidate')}",
    ]
    return "\n".join(lines)


def as_json(done: Reduction) -> dict[str, object]:
    """Return what became of a script as JSON values."""
    return {
        "cell": str(done.cell),
        "before": _facts(done.before.content),
        "after": _facts(done.after.content),
        "failure": {"how": done.failure.how, "reason": done.failure.text},
        "environment": dict(done.env),
        "passes": list(done.passes),
        "end": done.end.value,
        "tried": done.tried,
        "verified": None if done.count is None else {"failed": done.count.failed, "passed": done.count.passed},
    }


def tests_as_text(done: TestReduction, path: Path | None) -> str:
    """Return the tests that fail together."""
    lines = [
        *([f"written:   {path}"] if path else []),
        f"tests:     {done.before:,} → {len(done.tests):,}; {done.end}",
        f"fail:      {done.cell}, python -m test --matchfile {path or 'FILE'} {' '.join(done.modules)}",
        f"rounds:    {done.rounds}",
    ]
    return "\n".join([*lines, *(f"  {test}" for test in done.tests[:MOST_TESTS])])


def tests_as_json(done: TestReduction) -> dict[str, object]:
    """Return the tests that fail together as JSON values."""
    return {
        "cell": str(done.cell),
        "modules": list(done.modules),
        "before": done.before,
        "tests": list(done.tests),
        "rounds": done.rounds,
        "end": done.end.value,
    }


def _facts(content: bytes) -> dict[str, int]:
    return {"bytes": len(content), "lines": len(content.splitlines())}


def _size(content: bytes) -> str:
    return f"{pluralize(len(content.splitlines()), 'line')} ({len(content):,} bytes)"
