"""Progress reports without printing: a step is a context manager that a listener times and shows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """A step that is running."""

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        """Report `done` of `total` units, and what the step is doing now.

        `left` is an estimate of the remaining seconds, for steps whose units say little about time.
        """

    def line(self, text: str) -> None:
        """Pass on one line of a command's output; a listener may keep, show or drop it."""


class Progress(Protocol):
    """A listener: the terminal, the run record, or none."""

    def step(self, name: str, subject: str = "") -> AbstractContextManager[Step]:
        """Open a timed step: `name` is the phase (`configure`), `subject` its cell or image."""

    def say(self, text: str) -> None:
        """Report one message on a line of its own."""


class StepState:
    """The last update of a step, and the estimates derived from it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started = clock()
        self._end: float | None = None
        self.done: int | None = None
        self.total: int | None = None
        self.detail = ""

    def update(self, done: int | None, total: int | None, detail: str, left: float | None) -> None:
        """Store the given values; the others stay as they are."""
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
        """The estimated remaining seconds, negative once overdue; None without an estimate."""
        return None if self._end is None else self._end - self._clock()

    @property
    def share(self) -> float | None:
        """The finished share: of the step's time if there is an estimate, else of its units; None if unknown."""
        if self.left is not None:
            return None if self.left <= 0 else self.elapsed / (self.elapsed + self.left)
        return min(self.done / self.total, 1.0) if self.done and self.total else None


class SilentStep:
    """A step without a listener."""

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        """Drop it."""

    def line(self, text: str) -> None:
        """Drop it."""


class Silent:
    """A listener that drops everything."""

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
    """Passes everything on to several listeners; each sees a step begin and end, and its exception."""

    def __init__(self, *listeners: Progress) -> None:
        self._listeners = listeners

    @contextlib.contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[Step]:
        """Open the step with every listener."""
        with contextlib.ExitStack() as stack:
            yield _TeeStep([stack.enter_context(listener.step(name, subject)) for listener in self._listeners])

    def say(self, text: str) -> None:
        """Report a message to every listener."""
        for listener in self._listeners:
            listener.say(text)


class OnEngine:
    """Passes everything on to a listener, with the name of the engine that it happens on."""

    def __init__(self, listener: Progress, engine: str) -> None:
        self._listener = listener
        self._engine = engine

    def step(self, name: str, subject: str = "") -> AbstractContextManager[Step]:
        """Open the listener's step."""
        return self._listener.step(name, f"{subject} on {self._engine}".strip())

    def say(self, text: str) -> None:
        """Report a message."""
        self._listener.say(f"{self._engine}: {text}")
