"""Tars for containers: small ones, made in memory, and less of a large one."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, cast

_CHUNK = 1 << 18


def packed(
    files: Mapping[str, bytes] | None = None,
    folders: Mapping[str, int] | None = None,
    *,
    links: Mapping[str, str] | None = None,
    owner: int = 0,
    mode: int = 0o644,
) -> BinaryIO:
    """Make a tar of files (contents by absolute path) and, before them, of empty folders (uids by path, mode 0o755).

    After them come symbolic links (where they lead, by absolute path). `owner` is the files' and the links', `mode` the
    files'; a group has its owner's number.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for path, uid in (folders or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.uid = member.gid = uid
            tar.addfile(member)
        for path, content in (files or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mode = len(content), mode
            member.uid = member.gid = owner
            tar.addfile(member, io.BytesIO(content))
        for path, target in (links or {}).items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.type, member.linkname = tarfile.SYMTYPE, target
            member.uid = member.gid = owner
            tar.addfile(member)
    stream.seek(0)
    return stream


def without(tar: BinaryIO, unwanted: re.Pattern[bytes]) -> BinaryIO:
    """Return a tar that `packing` wrote without the members whose path begins as `unwanted` says."""
    return cast(BinaryIO, io.BufferedReader(_Chunks(_without(tar, unwanted)), _CHUNK))


def _without(tar: BinaryIO, unwanted: re.Pattern[bytes]) -> Iterator[bytes]:
    extended = b""  # stands before the member that it tells the long name of, whose own header has its beginning
    while header := tar.read(tarfile.BLOCKSIZE):
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        member = header + tar.read(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if header[156:157] == tarfile.XHDTYPE:
            extended = member
            continue
        if not unwanted.match(header):
            yield extended + member
        extended = b""


class _Chunks(io.RawIOBase):
    """A stream of pieces, none of which is empty."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        self._rest = self._rest or memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
