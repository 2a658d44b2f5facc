"""Estimates of the time left in a build's phases, from the last build of the same kind."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossjit.errors import InfrastructureError
from crossjit.progress import Progress, Step
from crossjit.util import files

PARTS = 400  # of a phase with counted work; about the number of files that make compiles
FILE = "durations/builds.json"

Profile = Sequence[float]
"""Seconds until each equal part of a phase's work was done, the last until its end; one number without a count."""


class Paced:
    """A Progress that adds estimates of the time left to each step of a build, and records the time that it took."""

    def __init__(self, listener: Progress, home: Path, kind: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`kind` names builds that take about the same time; their times are stored under `home`."""
        self._listener = listener
        self._file = home / FILE
        self._kind = kind
        self._clock = clock
        self._earlier = self._profiles(self._kinds())
        self._took: dict[str, Profile] = {}

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Open the listener's step."""
        with self._listener.step(name, subject) as step:
            paced = _PacedStep(step, self._earlier.get(name, ()), self._clock)
            paced.update()
            yield paced
            self._took[name] = paced.profile()

    def say(self, text: str) -> None:
        """Pass the text to the listener."""
        self._listener.say(text)

    def record(self) -> None:
        """Save the steps' times for the next build. Raises InfrastructureError."""
        kinds = self._kinds()
        profiles = {name: [round(seconds, 1) for seconds in profile] for name, profile in self._took.items()}
        document = {**kinds, self._kind: {**self._profiles(kinds), **profiles}}
        with files.translate_os_errors(InfrastructureError, "cannot record build times", self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._file, json.dumps(document, sort_keys=True).encode())

    def _kinds(self) -> Mapping[str, Any]:
        try:
            document = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}

    def _profiles(self, kinds: Mapping[str, Any]) -> Mapping[str, Profile]:
        """Return the profiles of this kind; none if they are invalid."""
        try:
            return {name: [float(seconds) for seconds in profile] for name, profile in kinds[self._kind].items()}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}


class _PacedStep:
    def __init__(self, step: Step, earlier: Profile, clock: Callable[[], float]) -> None:
        self._step = step
        self._earlier = earlier
        self._clock = clock
        self._began = clock()
        self._parts: list[float] = []

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        elapsed = self._clock() - self._began
        share = done / total if done is not None and total else 0.0
        while len(self._parts) < int(share * PARTS):
            self._parts.append(elapsed)
        if self._earlier and left is None:
            left = seconds_left(self._earlier, share, elapsed)
        self._step.update(done=done, total=total, detail=detail, left=left)

    def line(self, text: str) -> None:
        self._step.line(text)

    def profile(self) -> Profile:
        """Return the profile of the finished step."""
        end = self._clock() - self._began
        unseen = PARTS - 1 - len(self._parts)  # make does not print all expected lines
        return (*self._parts[: PARTS - 1], *([end] * unseen if self._parts else []), end)


def seconds_left(earlier: Profile, share: float, elapsed: float) -> float:
    """Estimate the seconds left when a share of the counted work is done.

    >>> seconds_left([10, 20, 30, 140], 0.75, 60)  # the last quarter takes most of it, and this machine is slower
    185.0
    """
    total = earlier[-1]
    if len(earlier) == 1:
        return max(0.0, total - elapsed)
    number, rest = divmod(min(share, 1.0) * len(earlier), 1)
    points = (0.0, *earlier, total)
    past = points[int(number)] + rest * (points[int(number) + 1] - points[int(number)])
    trust = total / 10  # at first, the earlier build predicts the pace better than this one's small share
    return (total - past) * (elapsed + trust) / (past + trust)
