"""Locks between processes. The kernel releases them when their holder is killed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import filelock


def lock(path: Path) -> filelock.BaseFileLock:
    """Return a lock. Acquiring it fails on a file system without locks."""
    return filelock.FileLock(path, thread_local=False, fallback_to_soft=False)


def try_acquire(lock: filelock.BaseFileLock) -> bool:
    """Acquire a lock unless another process has it."""
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


@contextlib.contextmanager
def locked(
    path: Path,
    errors: Callable[[], AbstractContextManager[None]],
    on_wait: Callable[[], object],
    *,
    timeout: float = -1,
) -> Iterator[None]:
    """Hold a lock for the block. If another process has it, call `on_wait` once, then wait up to `timeout` seconds.

    `errors` makes a context that translates errors in acquiring the lock: the disk's, and filelock.Timeout.
    """
    with errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        file_lock = lock(path)
        acquired = try_acquire(file_lock)
    if not acquired:
        on_wait()
        with errors():
            file_lock.acquire(timeout)
    try:
        yield
    finally:
        file_lock.release()
