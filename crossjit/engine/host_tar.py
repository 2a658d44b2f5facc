"""Tar streams into and out of a container's folder of the host engine."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from crossjit.engine.host_paths import PathMap
from crossjit.util.tar import drop_members

_CHUNK = 1 << 18


class UnfitMemberError(Exception):
    """A member cannot be unpacked: it leads out of the container's folder, or is a device."""


def unpack(stream: BinaryIO, destination: str, paths: PathMap) -> None:
    """Unpack an uncompressed tar into an existing folder of a container, with its modes and times.

    All files are this user's. Absolute targets of symbolic links are paths in the container. Raises tarfile.TarError,
    UnfitMemberError, OSError.
    """
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as tar:
        for member in tar:
            name = f"{destination.rstrip('/')}/{member.name}"
            place = paths.place(name)
            _require_within(place, name, paths)
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
                folders.append((place, member))
            else:
                _unpack(tar, member, place, f"{destination.rstrip('/')}/{member.linkname}", paths)
            drop_members(tar)
    for place, member in reversed(folders):  # last: what is put into a folder changes its time
        place.chmod(stat.S_IMODE(member.mode))
        os.utime(place, (member.mtime, member.mtime))


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, place: Path, linked: str, paths: PathMap) -> None:
    """Unpack a file or link; `linked` is the path of a hard link's other name."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    if member.issym():
        place.symlink_to(paths.outside(member.linkname) if member.linkname.startswith("/") else member.linkname)
        os.utime(place, (member.mtime, member.mtime), follow_symlinks=False)
        return
    if member.islnk():
        other = paths.place(linked)
        _require_within(other, linked, paths)
        place.hardlink_to(other)
        return
    content = tar.extractfile(member) if member.isreg() else None
    if content is None:
        raise UnfitMemberError(f"{member.name} is a device or a pipe")
    with place.open("xb") as file:
        while data := content.read(_CHUNK):
            file.write(data)
    place.chmod(stat.S_IMODE(member.mode))
    os.utime(place, (member.mtime, member.mtime))


def _require_within(place: Path, name: str, paths: PathMap) -> None:
    """Raise UnfitMemberError if a file would be outside of the container, also by a link that was unpacked before."""
    folder = place.parent.resolve()
    if place not in paths.volumes.values() and not any(
        folder.is_relative_to(root) for root in (paths.root, *paths.volumes.values())
    ):
        raise UnfitMemberError(f"{name} leads out of the container")


def pack(path: Path, paths: PathMap) -> Iterator[bytes]:
    """Yield a tar of a file or folder, whose members' names start with its last component. Raises OSError."""
    first: dict[tuple[int, int], str] = {}  # the name of a file with several names, by device and inode
    for place in _tree(path):
        name = place.relative_to(path.parent).as_posix()
        about = place.lstat()
        member = tarfile.TarInfo(name)
        member.mode, member.mtime = stat.S_IMODE(about.st_mode), int(about.st_mtime)
        member.uid, member.gid = about.st_uid, about.st_gid
        if stat.S_ISLNK(about.st_mode):
            target = str(place.readlink())
            member.type, member.linkname = tarfile.SYMTYPE, paths.inside(target) if target.startswith("/") else target
        elif stat.S_ISDIR(about.st_mode):
            member.type = tarfile.DIRTYPE
        elif not stat.S_ISREG(about.st_mode):
            continue  # sockets and pipes, which docker leaves out as well
        elif about.st_nlink > 1 and (about.st_dev, about.st_ino) in first:
            member.type, member.linkname = tarfile.LNKTYPE, first[about.st_dev, about.st_ino]
        else:
            first[about.st_dev, about.st_ino] = name
            member.size = about.st_size
        yield member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if member.isreg():
            yield from _content(place, member.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _tree(path: Path) -> Iterator[Path]:
    """Yield a file, or a folder and all below it, in order."""
    yield path
    if path.is_dir() and not path.is_symlink():
        for entry in sorted(path.iterdir()):
            yield from _tree(entry)


def _content(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file's content, of exactly this size, and its padding."""
    left = size
    with path.open("rb") as file:
        while left and (data := file.read(min(left, _CHUNK))):
            left -= len(data)
            yield data
    while left:  # the file has become shorter meanwhile
        part = min(left, _CHUNK)
        left -= part
        yield bytes(part)
    if padding := -size % tarfile.BLOCKSIZE:
        yield bytes(padding)
