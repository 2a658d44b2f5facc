"""Measures what a container of the host engine has written to disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from crossjit.engine import host_processes
from crossjit.util.budget import BudgetError

_BLOCK = 512


def measure(identity: str, folders: Sequence[Path]) -> int:
    """Return the bytes of the blocks of all files in these folders, and of files that are removed and still open.

    Raises BudgetError if something cannot be read: the container's own processes hide it.
    """
    seen: set[tuple[int, int]] = set()
    size = 0
    for about in (*(each for folder in folders for each in _files(folder)), *host_processes.deleted_files(identity)):
        if (about.st_dev, about.st_ino) not in seen:
            seen.add((about.st_dev, about.st_ino))
            size += about.st_blocks * _BLOCK
    return size


def _files(folder: Path) -> Iterator[os.stat_result]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):  # gone meanwhile
        return
    except OSError as error:
        raise BudgetError(
            f"cannot measure what was written to disk: {error.strerror}: {error.filename}",
            hint="its source prevents others from reading its folders",
        ) from error
    for entry in entries:
        try:
            yield entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
        except FileNotFoundError:
            continue
        if is_folder:
            yield from _files(Path(entry.path))
