"""Records of verified files, which are not read again until they change."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path

from crossjit.util import files

_RECENT = 2 * 10**9  # nanoseconds: a change right after this one might not show in ctime


def is_whole(path: Path, digest: str, records: Path) -> bool:
    """Whether a file has this sha256; a match is recorded in the folder `records`, with inode, ctime and size.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        state = f"{status.st_ino} {status.st_ctime_ns} {status.st_size}\n".encode()
        record = records / digest
        with contextlib.suppress(OSError):
            if record.read_bytes() == state:
                return True
        began = time.time_ns()
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            return False
    if status.st_ctime_ns < began - _RECENT:
        with contextlib.suppress(OSError):  # without write permission, the file is read each time
            records.mkdir(exist_ok=True)
            files.replace(record, state)
    return True
