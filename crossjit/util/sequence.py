"""Numbers that only grow, whatever the clock says: what came later has the larger one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path


def next_number(file: Path, given: Callable[[], int]) -> int:
    """Return a number that is larger than all that were taken from this file before, by any process.

    `given` returns the largest that is known otherwise; it is asked where the file is new or damaged. Raises OSError.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        written = os.read(descriptor, 64).strip()
        number = 1 + (int(written) if written.isdigit() else given())
        os.pwrite(descriptor, b"%020d\n" % number, 0)
        os.fsync(descriptor)
        return number
    finally:
        os.close(descriptor)
