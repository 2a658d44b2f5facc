"""Crash-safe files, folders that show whether their owner is alive, and clear disk errors."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from crossjit import PROGRAM
from crossjit.errors import InfrastructureError

ALIVE = "alive.lock"
_MAKING = ".making.lock"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_WRONG_KIND = frozenset({errno.ENOTDIR, errno.EISDIR, errno.EEXIST})  # EEXIST: mkdir where a file is
_UNSUPPORTED = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})  # on some network file systems
_BROKEN = frozenset({errno.EIO, errno.ESTALE, errno.EFBIG, errno.ENAMETOOLONG, errno.EBUSY, errno.EXDEV})


@contextlib.contextmanager
def translate_os_errors(kind: type[InfrastructureError], what: str, folder: Path) -> Iterator[None]:
    """Turn disk errors inside the block into an error of `kind`; `what` says what failed.

    Other OSErrors (a broken pipe, a missing file) pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            hint = (
                f"free some space (`{PROGRAM} stash gc` removes old artifacts, `{PROGRAM} clean` empties the engine), "
                "or set CROSSJIT_HOME to a folder on another disk"
            )
        elif error.errno in _REFUSED:
            hint = f"make {folder} writable for this user, or set CROSSJIT_HOME to a folder that is"
        elif error.errno in _WRONG_KIND:
            hint = f"{folder}, and all above it, must be folders; or set CROSSJIT_HOME to another place"
        elif error.errno in _BROKEN:
            hint = f"check the disk that {folder} is on, or set CROSSJIT_HOME to a folder on another one"
        elif error.errno in _UNSUPPORTED:
            hint = f"{folder} is on a file system without locks: set CROSSJIT_HOME to a folder on a local disk"
        else:
            raise
        file = f" ({error.filename})" if error.filename else ""
        raise kind(f"{what}: {(error.strerror or str(error)).lower()}{file}", hint=hint) from error


def sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk, unless its file system cannot sync folders."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL and error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)


def sync_file(file: IO[Any]) -> None:
    """Sync a file's content to disk. Raises ENOTSUP, which `translate_os_errors` knows, if the file system cannot."""
    file.flush()
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise OSError(errno.ENOTSUP, "the file system does not sync files", file.name) from error
        raise


def write(path: Path, content: bytes) -> None:
    """Write a new file and sync it to disk."""
    with path.open("xb") as file:
        file.write(content)
        sync_file(file)


def replace(path: Path, content: bytes) -> None:
    """Replace a file's content atomically: a reader sees the old or the new content, even if this process dies."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary, content)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def _flocked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_dir(parent: Path, name: str) -> Iterator[Path]:
    """Make the folder `parent/name` and hold its `alive.lock` for the block. The kernel releases it if we are killed.

    The folder is made and locked under a lock of the parent that `remove_dead` also takes, so a new folder is never
    mistaken for a dead one. The folder stays. Raises FileExistsError if it exists already.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = parent / name
    with _flocked(parent / _MAKING):
        folder.mkdir()
        try:
            descriptor = os.open(folder / ALIVE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            folder.rmdir()
            raise
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        os.close(descriptor)


def is_alive(folder: Path) -> bool:
    """Whether the process that made a folder with `locked_dir` still holds it. Works without write permission."""
    try:
        descriptor = os.open(folder / ALIVE, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        with translate_os_errors(InfrastructureError, "cannot tell what is in use", folder):
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def stale_dirs(parent: Path) -> tuple[Path, ...]:
    """Return the folders in `parent` without a living owner, sorted by name."""
    if not parent.is_dir():
        return ()
    return tuple(
        sorted(path for path in parent.iterdir() if path.name != _MAKING and path.is_dir() and not is_alive(path))
    )


def remove_dead(parent: Path, condemned: Callable[[Path], bool] = lambda folder: True) -> tuple[Path, ...]:
    """Remove the dead folders in `parent` that `condemned` picks, and return them."""
    if not stale_dirs(parent):
        return ()
    with _flocked(parent / _MAKING):
        removed = tuple(folder for folder in stale_dirs(parent) if condemned(folder))
        for folder in removed:
            with contextlib.suppress(FileNotFoundError):  # its owner is just removing it
                shutil.rmtree(folder)
    return removed
