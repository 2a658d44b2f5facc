"""Untrusted files from a container: stored and read by plain names in one folder, without links, within limits."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from crossjit.errors import ProductError
from crossjit.util.budget import BUDGET, BudgetError, TreeCount
from crossjit.util.tar import read

MEMBERS = 1_000  # files and folders that one module of a suite, or one program, may leave
STREAM = BUDGET.log + 2 * BUDGET.report  # bytes of such a tar: a log and two reports
CHUNK = 1 << 18

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class UnfitFilesError(ProductError):
    """A container's files are not the expected ones."""


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_file(folder: Path, name: str) -> BinaryIO:
    """Open a regular file in a folder for reading. Raises FileNotFoundError for anything else, and OSError."""
    if not _NAME.fullmatch(name):
        raise FileNotFoundError(2, "not a plain file name", name)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        with _folder(folder) as within:
            descriptor = os.open(name, flags, dir_fd=within)
    except NotADirectoryError as error:
        raise FileNotFoundError(2, "there is no such folder", str(folder)) from error
    except OSError as error:  # ELOOP: a link; ENXIO: a socket
        raise FileNotFoundError(2, error.strerror or "cannot be opened", name) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(2, "not a regular file", name)
    return open(descriptor, "rb")  # noqa: PTH123 - a descriptor, not a path


def is_file(folder: Path, name: str) -> bool:
    """Whether there is such a regular file in a folder."""
    try:
        open_file(folder, name).close()
    except OSError:
        return False
    return True


def read_end(folder: Path, name: str, size: int) -> str:
    """Return the last `size` bytes of a file as text; an empty text if there is no such file."""
    try:
        with open_file(folder, name) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def read_whole(folder: Path, name: str, size: int = BUDGET.report) -> bytes:
    """Return a file's content. Raises BudgetError if that is more than `size` bytes, OSError if it cannot be read."""
    with open_file(folder, name) as file:
        content = file.read(size + 1)
    if len(content) > size:
        raise BudgetError(f"{name} has more than {size:,} bytes")
    return content


def copy(source: Path, folder: Path, name: str) -> None:
    """Copy a file into another folder. Raises OSError."""
    with open_file(source, name) as content:
        _write(folder, name, content)


def extract(tar: BinaryIO, folder: Path, names: Collection[str], *, under: str, room: int) -> int:
    """Extract the named files of a tar's folder `under`, and return their total size in bytes.

    Other files are skipped. Raises UnfitFilesError if one of them is not a regular file or occurs twice, or the tar is
    damaged; BudgetError for a file over the limit of a log, for more than `room` bytes, or for too many files.
    """
    sizes: dict[str, int] = {}
    count = TreeCount(under, budget=replace(BUDGET, tree=min(room, STREAM), members=MEMBERS))
    try:
        for member, content in read(tar, count):
            parent, _, name = member.name.removeprefix("./").rpartition("/")
            if parent != under or name not in names:
                continue
            if content is None or name in sizes or not _NAME.fullmatch(name):
                raise UnfitFilesError(f"{name} is not a regular file, or occurs twice")
            if member.size > BUDGET.log:
                raise BudgetError(f"{name} has more than {BUDGET.log:,} bytes")
            sizes[name] = member.size
            _write(folder, name, content)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UnfitFilesError(f"the contents of {under} cannot be read: {error}") from error
    return sum(sizes.values())


def first_file(tar: BinaryIO, *, end: int = BUDGET.report) -> bytes:
    """Return the last `end` bytes of a tar's first file; nothing if it is not a regular file.

    Raises UnfitFilesError for a damaged tar, BudgetError for one over the limit.
    """
    tail = bytearray()
    try:
        for _, content in read(tar, TreeCount("a file", budget=replace(BUDGET, tree=STREAM, members=1))):
            while content is not None and (piece := content.read(CHUNK)):
                tail += piece
                if len(tail) > 2 * end:
                    del tail[:-end]
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise UnfitFilesError(f"a file cannot be taken out of the container: {error}") from error
    return bytes(tail[-end:])


def whole_file(tar: BinaryIO, *, most: int, what: str, hint: str = "") -> bytes:
    """Return a tar's first file; nothing if it is not a regular file. Raises as `first_file`, and if it is larger."""
    content = first_file(tar, end=most + 1)
    if len(content) > most:
        raise BudgetError(f"{what} more than {most:,} bytes", hint=hint)
    return content


def _write(folder: Path, name: str, content: BinaryIO) -> None:
    """Write a file. An existing one of that name is unlinked first."""
    with _folder(folder) as within:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=within)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o644, dir_fd=within)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        shutil.copyfileobj(content, file, CHUNK)
