"""How steps tell what they do, without printing: a step is a context manager that a listener times and shows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """One step under way."""

    def update(self, *, done: int | None = None, total: int | None = None, detail: str = "") -> None:
        """Say how far the step is: `done` of `total` units, and what it is doing now."""

    def line(self, text: str) -> None:
        """Pass on one line of a command's output; listeners may keep, show or drop it."""


class Progress(Protocol):
    """Who listens: the terminal, the run record, or nobody."""

    def step(self, name: str, subject: str = "") -> AbstractContextManager[Step]:
        """Open a timed step: `name` is the phase (`configure`), `subject` what it is about (a cell, an image)."""

    def say(self, text: str) -> None:
        """Say one thing that is worth a line of its own."""


class SilentStep:
    """A step that nobody listens to."""

    def update(self, *, done: int | None = None, total: int | None = None, detail: str = "") -> None:
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

    def update(self, *, done: int | None = None, total: int | None = None, detail: str = "") -> None:
        for step in self._steps:
            step.update(done=done, total=total, detail=detail)

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
