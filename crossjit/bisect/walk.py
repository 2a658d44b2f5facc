"""One benchmark at each commit of a history: how many instructions it needs, and where that moved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crossjit.bisect import history
from crossjit.bisect.history import Commit, History
from crossjit.bisect.trial import UnfitError
from crossjit.measure.compare import NOISE
from crossjit.model import Arch
from crossjit.progress import Progress
from crossjit.util.text import duration, pluralize


class Counter(Protocol):
    """What builds a commit and counts the benchmark's instructions there."""

    def expect(self, commits: Sequence[str]) -> None:
        """Say which commits may be next."""

    def count(self, commit: str) -> int:
        """Return the instructions of the warm call. Raises UnfitError, EngineErrors."""


@dataclass(frozen=True)
class Point:
    """A commit: instructions by arch, or why there are none."""

    commit: Commit
    instructions: Mapping[Arch, int] = field(default_factory=dict)
    problems: Mapping[Arch, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A change of more than the noise, in percent, from the last commit before that was counted."""

    commit: Commit
    arch: Arch
    percent: float


def walk(line: History, counters: Mapping[Arch, Counter], progress: Progress) -> Iterator[Point]:
    """Yield a point for each commit, oldest first. Raises EngineErrors, SourceError."""
    described = {each.id: each for each in history.describe(line.path, line.commits)}
    began = time.monotonic()
    for index, commit in enumerate(line.commits):
        left = len(line.commits) - index
        about = f"{pluralize(left, 'commit')} left"
        if index:
            about += f", about {duration((time.monotonic() - began) / index * left)}"
        progress.say(f"{commit[:12]} {described[commit].subject}; {about}")
        instructions, problems = {}, {}
        for arch, counter in counters.items():
            counter.expect(line.commits[index + 1 : index + 2])
            try:
                instructions[arch] = counter.count(commit)
            except UnfitError as error:
                problems[arch] = str(error)
        yield Point(described[commit], instructions, problems)


def moves(points: Sequence[Point], noise: float = NOISE) -> tuple[Move, ...]:
    """Return the commits at which a count moved by more than `noise`, a part of 1. Pure."""
    last: dict[Arch, int] = {}
    found = []
    for point in points:
        for arch, count in point.instructions.items():
            if arch in last:
                percent = (count / last[arch] - 1) * 100
                if abs(percent) > noise * 100:
                    found.append(Move(point.commit, arch, percent))
            last[arch] = count
    return tuple(found)
