"""One benchmark at each commit of a history: how many instructions it needs, and where that moved."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from crossjit.bisect import history
from crossjit.bisect.history import Commit, History
from crossjit.bisect.trial import UnfitError
from crossjit.errors import BuildError, ProductError, UserError
from crossjit.model import Arch
from crossjit.progress import Progress
from crossjit.util.text import duration, pluralize

# One build whose functions are laid out differently needs up to this many percent more or fewer instructions; a
# measurement of 3.15 in five layouts gave 0.10 to 0.25. A commit that changes nothing else may change the layout.
THRESHOLD = 0.3


class Counter(Protocol):
    """What builds a commit and counts the benchmark's instructions there."""

    def expect(self, commits: Sequence[str]) -> None:
        """Say which commits may be next."""

    def count(self, commit: str) -> int:
        """Return the instructions of the warm call. Raises UnfitError, CrossjitErrors."""


@dataclass(frozen=True)
class Point:
    """A commit: instructions by arch, or why there are none."""

    commit: Commit
    instructions: Mapping[Arch, int] = field(default_factory=dict)
    problems: Mapping[Arch, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Move:
    """A change of more than the threshold, in percent, from the last commit before that was counted."""

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
            except (UnfitError, BuildError, ProductError, UserError) as error:
                problems[arch] = str(error)
        yield Point(described[commit], instructions, problems)


def moves(points: Sequence[Point], threshold: float = THRESHOLD) -> tuple[Move, ...]:
    """Return the commits at which a count moved by more than `threshold` percent. Pure."""
    last: dict[Arch, int] = {}
    found = []
    for point in points:
        for arch, count in point.instructions.items():
            if arch in last:
                percent = (count / last[arch] - 1) * 100
                if abs(percent) > threshold:
                    found.append(Move(point.commit, arch, percent))
            last[arch] = count
    return tuple(found)
