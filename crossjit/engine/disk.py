"""Watching what a container's commands write to the engine's disk: storage drivers have no limit for it.

What is free on that disk is looked at all the time, which costs nothing. Only where that falls, or cannot be seen, is
the engine asked what the container has.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from crossjit.errors import EngineError
from crossjit.util.budget import BudgetError, disk_exceeded

LOOK = 0.25  # seconds between two looks at what is free
STEP = 256 << 20  # bytes less that are free: the engine is asked
OFTEN, SELDOM = (
    30.0,
    120.0,
)  # seconds after which it is asked anyway, where the free bytes cannot be seen and where they can
AGAIN = 2.0  # seconds until it is asked again where it could not tell
FAILURES = 3  # that many times in a row

Measure = Callable[[bool], int]
"""Returns the bytes that the container has; True asks for an exact count, since the disk filled meanwhile.

Raises EngineError if the engine does not answer, BudgetError where what runs in the container keeps it from being told.
"""


class DiskWatch:
    """Holds what a container writes against its limit. `root` is the engine's folder, None if that is elsewhere."""

    def __init__(self, measure: Measure, limit: int, root: Path | None) -> None:
        self._measure = measure
        self._limit = limit
        self._root = root
        self._failures = 0
        self._most = self._base = self._free() or 0
        self._asked = time.monotonic()
        self._next = 0.0

    def look(self, what: str) -> None:
        """Look, if it is time to. `what` names the command that is running.

        Raises BudgetError if there is too much, and if it could not be told several times in a row; EngineError if the
        engine did not answer as often while the disk filled.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + LOOK
        free = self._free()
        if free is not None:
            # what others remove meanwhile hides nothing that is written later
            self._most, self._base = max(self._most, free), max(self._base, free)
        if (free is not None and self._base - free >= STEP) or now - self._asked >= (OFTEN if free is None else SELDOM):
            self._ask(what, free)

    def _ask(self, what: str, free: int | None) -> None:
        filled = free is None or self._most - free > self._limit
        began = time.monotonic()
        try:
            size = self._measure(filled)
        except (BudgetError, EngineError) as error:
            self._failures += 1
            if self._failures >= FAILURES and (filled or isinstance(error, BudgetError)):
                raise
            self._next = time.monotonic() + AGAIN
            return
        if size > self._limit:
            raise disk_exceeded(what, self._limit)
        self._failures = 0
        self._base = free or 0
        self._asked = time.monotonic()
        self._next = self._asked + max(LOOK, self._asked - began)

    def _free(self) -> int | None:
        try:
            return shutil.disk_usage(self._root).free if self._root is not None else None
        except OSError:
            return None
