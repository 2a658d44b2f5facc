"""How steps tell what they do, without printing: a step is a context manager that a listener times and shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """One step under way."""

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        """Say how far the step is: `done` of `total` units, and what it is doing now.

        `left` is an estimate of the seconds until its end, where units say little about time.
        """

    def line(self, text: str) -> None:
        """Pass on one line of a command's output; listeners may keep, show or drop it."""


class Progress(Protocol):
    """Who listens: the terminal, the run record, or nobody."""

    def step(self, name: str, subject: str = "") -> AbstractContextManager[Step]:
        """Open a timed step: `name` is the phase (`configure`), `subject` what it is about (a cell, an image)."""

    def say(self, text: str) -> None:
        """Say one thing that is worth a line of its own."""


class StepState:
    """What a step said last, and what follows from that later on."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._end: float | None = None
        self.done: int | None = None
        self.total: int | None = None
        self.detail = ""

    def update(self, done: int | None, total: int | None, detail: str, left: float | None) -> None:
        """Keep what is given; what is not stays as it was."""
        self.done = done if done is not None else self.done
        self.total = total if total is not None else self.total
        self.detail = detail or self.detail
        self._end = self._clock() + left if left is not None else self._end

    @property
    def elapsed(self) -> float:
        """Seconds since the step was opened."""
        return self._clock() - self._started

    @property
    def left(self) -> float | None:
        """The estimate of the seconds that are left now, below 0 if it takes longer; None where there is none."""
        return None if self._end is None else self._end - self._clock()

    @property
    def share(self) -> float | None:
        """The share that is done: of the step's time where that can be estimated, or else of its units."""
        if self.left is not None:
            return None if self.left <= 0 else self.elapsed / (self.elapsed + self.left)
        return min(self.done / self.total, 1.0) if self.done and self.total else None


class SilentStep:
    """A step that nobody listens to."""

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        """Drop it."""

    def line(self, text: str) -> None:
        """Drop it."""


class Silent:
    """Nobody listens."""

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Open a step that is not shown."""
        yield SilentStep()

    def say(self, text: str) -> None:
        """Drop it."""


class _TeeStep:
    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        for step in self._steps:
            step.update(done=done, total=total, detail=detail, left=left)

    def line(self, text: str) -> None:
        for step in self._steps:
            step.line(text)


class Tee:
    """Passes everything on to several listeners; each sees a step begin and end, and what it failed with."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Open the step with every listener."""
        with contextlib.ExitStack() as stack:
            yield _TeeStep([stack.enter_context(listener.step(name, subject)) for listener in self._listeners])

    def say(self, text: str) -> None:
        """Say it to every listener."""
        for listener in self._listeners:
            listener.say(text)
