"""Running cells on engines side by side: each engine has a thread that takes its cells from the schedule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from crossjit.model import Cell, CellResult, Verdict
from crossjit.pipeline.schedule import Schedule


@dataclass(frozen=True)
class Attempt:
    """What came of a cell on an engine. `lost` says that the engine did not get to the end of it, so others may."""

    result: CellResult
    lost: bool = False


class Post(Protocol):
    """An engine with all that it takes to run cells on it."""

    @property
    def name(self) -> str:
        """The engine's name."""

    def prepare(self, cells: Sequence[Cell]) -> None:
        """Get ready for cells that are likely to come here. Raises only Interrupted and UserError."""

    def run(self, cell: Cell) -> Attempt:
        """Run a cell. Raises only Interrupted and UserError."""

    def stop(self) -> None:
        """Make `run` in another thread clean up and end, with Interrupted."""

    def say(self, text: str) -> None:
        """Report a message."""


class Dispatch:
    """Runs a schedule's cells on engines. `deliver` gets each result, one at a time."""

    def __init__(self, posts: Sequence[Post], schedule: Schedule, deliver: Callable[[CellResult], None]) -> None:
        self._posts = tuple(posts)
        self._schedule = schedule
        self._deliver = deliver
        self._changed = threading.Condition()
        self._closed = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Run all cells. Raises Interrupted and UserError, of whichever thread.

        The first engine works in the calling thread, so that a Ctrl-C reaches what it is doing. If that ends with an
        exception, the others are stopped and awaited.
        """
        first, *others = self._posts
        # daemons: a third Ctrl-C ends the process without waiting for them
        threads = [
            threading.Thread(target=self._work_apart, args=(post,), name=post.name, daemon=True) for post in others
        ]
        for thread in threads:
            thread.start()
        try:
            self._work(first)  # until all cells are done, wherever
            if self._error is not None:
                raise self._error
        finally:
            self._close()
            if not self._schedule.is_done:
                for post in others:
                    post.stop()
            for thread in threads:
                thread.join()

    def _close(self) -> None:
        """Let no thread take another cell."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _work_apart(self, post: Post) -> None:
        try:
            self._work(post)
        except BaseException as error:
            self._error = self._error or error
            self._close()

    def _work(self, post: Post) -> None:
        with self._changed:
            expected = self._schedule.expected(post.name)
        post.prepare(expected)
        while (cell := self._take(post)) is not None:
            attempt = post.run(cell)
            with self._changed:
                self._settle(post, cell, attempt)
                self._changed.notify_all()

    def _take(self, post: Post) -> Cell | None:
        """Wait for a cell for this engine; None if there will be none any more."""
        with self._changed:
            while not self._closed and not self._schedule.is_done:
                if (cell := self._schedule.next(post.name)) is not None:
                    return cell
                self._changed.wait()
        return None

    def _settle(self, post: Post, cell: Cell, attempt: Attempt) -> None:
        if attempt.lost and self._schedule.give_back(post.name, cell):
            post.say(f"{cell} goes on elsewhere: {attempt.result.reasons[0]}")
            return
        self._schedule.finish(post.name, cell, infra=attempt.result.verdict is Verdict.INFRA)
        self._deliver(replace(attempt.result, lost_on=self._schedule.given_back(cell)))
