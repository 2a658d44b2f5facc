"""Files that were read whole and had the bytes of their digest: they are not read again until they change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from crossjit.util import files

_RECENT = 2 * 10**9  # nanoseconds: a change right after this one might not show in ctime


def is_whole(path: Path, digest: str, memory: Path) -> bool:
    """Tell whether a file has the bytes of this sha256; remembered in the folder `memory` by inode, ctime and size.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        seen = f"{about.st_ino} {about.st_ctime_ns} {about.st_size}\n".encode()
        note = memory / digest
        with contextlib.suppress(OSError):
            if note.read_bytes() == seen:
                return True
        began = time.time_ns()
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return False
    if about.st_ctime_ns < began - _RECENT:
        with contextlib.suppress(OSError):  # a stash that cannot be written is read anew each time
            memory.mkdir(exist_ok=True)
            files.replace(note, seen)
    return True
