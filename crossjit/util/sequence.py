"""Sequence numbers that only grow, independent of the clock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def next_number(file: Path, largest: Callable[[], int]) -> int:
    """Return a number larger than all that any process took from this file before.

    `largest` returns the largest number in use; it is called if the file is new or damaged. Raises OSError.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        written = os.read(descriptor, 64).strip()
        number = 1 + (int(written) if written.isdigit() else largest())
        os.pwrite(descriptor, b"%020d\n" % number, 0)
        os.fsync(descriptor)
        return number
    finally:
        os.close(descriptor)
