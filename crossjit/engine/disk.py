"""Limits a container's disk usage, for which storage drivers have no limit.

The free space of the engine's disk is checked often, which is cheap. The container is measured only when that falls, at
long intervals, or more often if the free space is not visible.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from crossjit.errors import EngineError
from crossjit.util.budget import BudgetError, disk_exceeded

CHECK_INTERVAL = 0.25  # seconds between two checks of the free space
MEASURE_STEP = 256 << 20  # bytes by which the free space falls before the container is measured
MEASURE_INTERVAL = 120.0  # seconds after which it is measured in any case
MEASURE_INTERVAL_HIDDEN = 30.0  # the same if the free space is not visible
RETRY_DELAY = 2.0  # seconds until a failed measurement is repeated
MAX_FAILURES = 3  # in a row

Measure = Callable[[bool], int]
"""Returns the bytes that the container uses; True asks for an exact count.

Raises EngineError if the engine does not answer, BudgetError if the container's processes prevent the measurement.
"""


class DiskWatch:
    """Checks a container's disk usage against its limit. `root` is the engine's data folder, None if not visible."""

    def __init__(self, measure: Measure, limit: int, root: Path | None) -> None:
        self._measure = measure
        self._limit = limit
        self._root = root
        self._failures = 0
        self._most = self._base = self._free() or 0
        self._measured = time.monotonic()
        self._next = 0.0

    def look(self, what: str) -> None:
        """Check the disk if it is time to. `what` names the running command.

        Raises BudgetError if the usage exceeds the limit, or could not be measured MAX_FAILURES times in a row;
        EngineError if the engine failed as often while the disk filled.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + CHECK_INTERVAL
        free = self._free()
        if free is not None:
            # space that others free must not hide what is written later
            self._most, self._base = max(self._most, free), max(self._base, free)
        interval = MEASURE_INTERVAL_HIDDEN if free is None else MEASURE_INTERVAL
        if (free is not None and self._base - free >= MEASURE_STEP) or now - self._measured >= interval:
            self._check(what, free)

    def _check(self, what: str, free: int | None) -> None:
        filled = free is None or self._most - free > self._limit
        began = time.monotonic()
        try:
            size = self._measure(filled)
        except (BudgetError, EngineError) as error:
            self._failures += 1
            if self._failures >= MAX_FAILURES and (filled or isinstance(error, BudgetError)):
                raise
            self._next = time.monotonic() + RETRY_DELAY
            return
        if size > self._limit:
            raise disk_exceeded(what, self._limit)
        self._failures = 0
        self._base = free or 0
        self._measured = time.monotonic()
        self._next = self._measured + max(CHECK_INTERVAL, self._measured - began)

    def _free(self) -> int | None:
        try:
            return shutil.disk_usage(self._root).free if self._root is not None else None
        except OSError:
            return None
