"""Tars: reading within limits, making small ones in memory, and filtering members out of large ones."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, cast

from crossjit.util.budget import TreeCount

_CHUNK = 1 << 18

# Before Python 3.11.10, tarfile's time is quadratic in the length of such a run (CVE-2024-6232). No header needs one.
_DIGITS = re.compile(rb"[0-9]{256}")


class NotTarError(tarfile.ReadError):
    """A stream does not start with a tar header."""


class TrackingReader(io.BufferedIOBase):
    """A forward-only stream for tarfile that limits the bytes read, in total and for each header.

    tarfile reads a header of any size into memory, and mistakes a damaged header for the archive's end: `last`, the
    last block read, shows which it was. Exceeding a limit raises the count's error.
    """

    def __init__(self, stream: BinaryIO, count: TreeCount) -> None:
        self.last = b""
        self._stream = stream
        self.count = count
        self._position = 0
        self._ahead = b""
        self._header: int | None = None  # bytes that may still be read for it

    @contextlib.contextmanager
    def heading(self) -> Iterator[None]:
        """Limit the bytes read while tarfile reads the next member's header."""
        self._header = self.count.budget.headers
        try:
            yield
        except RecursionError as error:  # tarfile calls itself for each extended header
            raise self.count.over("too many headers of one member") from error
        except (ValueError, ArithmeticError, LookupError) as error:  # from tarfile's parsing
            raise tarfile.ReadError(f"a header is damaged: {error}") from error
        finally:
            self._header = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read up to `size` bytes, within a header's limit."""
        size = -1 if size is None else size
        if self._header is not None:
            self._header -= size
            if size < 0 or self._header < 0:
                raise self.count.over(f"a header of more than {self.count.budget.headers:,} bytes")
        data = self.pull(size)
        if self._header is not None and _DIGITS.search(data):
            raise self.count.over("a header with an invalid number")
        return data

    def pull(self, size: int) -> bytes:
        """Read up to `size` bytes, within the whole stream's limit."""
        data = self._ahead
        while len(data) < size and (more := self._stream.read(size - len(data))):  # a pipe may return less
            data += more
        self.last, self._ahead = data[:size], data[size:]
        self._advance(len(self.last))
        return self.last

    def _advance(self, size: int) -> None:
        self._position += size
        if self._position > self.count.budget.tree:
            raise self.count.over(f"more than {self.count.budget.tree:,} bytes")

    def tell(self) -> int:
        """Return the number of bytes read so far."""
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Read forward to a position."""
        if whence or position < self._position:
            raise io.UnsupportedOperation("the stream only goes forward")
        while self._position < position and self.pull(min(_CHUNK, position - self._position)):
            pass
        return self._position

    def rest_is_zero(self) -> bool:
        """Read to the end, so that a decompressor checks its sums; return whether all of it was zeros."""
        while block := self.pull(_CHUNK):
            if block.strip(b"\0"):
                return False
        return True

    def drain(self) -> None:
        """Read to the end: an engine treats a stream closed early as a failure."""
        while data := self._stream.read(_CHUNK):
            self._advance(len(data))

    @property
    def ended(self) -> bool:
        """Whether the archive ended with a block of zeros, not a damaged header."""
        return len(self.last) == tarfile.BLOCKSIZE and not self.last.strip(b"\0")


@contextlib.contextmanager
def opened(reader: TrackingReader) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed tar. Raises NotTarError, and the count's error.

    Reading its members raises tarfile.TarError.
    """
    stream = cast(BinaryIO, reader)
    try:
        with reader.heading():
            tar = tarfile.TarFile(fileobj=stream, encoding="utf-8", errors="surrogateescape", errorlevel=2)
    except tarfile.TarError as error:
        raise NotTarError(str(error)) from error
    with tar:
        yield tar


def members(tar: tarfile.TarFile, reader: TrackingReader) -> Iterator[tarfile.TarInfo]:
    """Yield an open tar's members without keeping them in memory, as tarfile itself would."""
    while True:
        with reader.heading():
            member = tar.next()
        if member is None:
            return
        if member.issparse():  # it can claim any size, and is read as that many zeros
            raise reader.count.over("a sparse file")
        yield member
        drop_members(tar)


def drop_members(tar: tarfile.TarFile) -> None:
    """Drop tarfile's list of the members read or written."""
    tar.members.clear()  # type: ignore[attr-defined]


def contents(reader: TrackingReader) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield a tar's members, counted, and the content of each regular file, up to the archive's end.

    Raises NotTarError if it does not start with a tar header, another tarfile.TarError if it is truncated or damaged.
    """
    with opened(reader) as tar:
        for member in members(tar, reader):
            reader.count.add(member.name, member.size)
            yield member, cast("BinaryIO | None", tar.extractfile(member) if member.isreg() else None)
    # tarfile accepts a damaged header, or the end of the file, as the archive's end; the real one is zeros.
    if not reader.ended:
        raise tarfile.ReadError("its end is missing")


def read(stream: BinaryIO, count: TreeCount) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield an uncompressed tar's members, counted, with the content of each regular file, to be read before the next.

    The stream need not be seekable. Raises tarfile.TarError if it is not a tar or is truncated, and the count's error,
    before reading, if a limit is exceeded.
    """
    reader = TrackingReader(stream, count)
    yield from contents(reader)
    reader.drain()


def packed(
    files: Mapping[str, bytes] | None = None,
    folders: Mapping[str, int] | None = None,
    *,
    links: Mapping[str, str] | None = None,
    owner: int = 0,
    mode: int = 0o644,
) -> BinaryIO:
    """Make a tar of empty folders (uids by absolute path, mode 0o755), files (contents), and symbolic links (targets).

    They are written in this order. `owner` is the uid of files and links, `mode` the files' mode; a gid equals its uid.
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
    """Return a tar written by `tar_zst.tar_writer` without the members whose header matches `unwanted` at its start."""
    return cast(BinaryIO, io.BufferedReader(ChunkReader(_without(tar, unwanted)), _CHUNK))


def _without(tar: BinaryIO, unwanted: re.Pattern[bytes]) -> Iterator[bytes]:
    extended = b""  # the extended header before a member with a long name; the member's own header has the name's start
    while header := tar.read(tarfile.BLOCKSIZE):
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        content = _pieces(tar, -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if header[156:157] == tarfile.XHDTYPE:
            extended = header + b"".join(content)
            continue
        keep = not unwanted.match(header)
        if keep:
            yield extended + header
        for piece in content:
            if keep:
                yield piece
        extended = b""


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (piece := stream.read(min(size, _CHUNK))):
        size -= len(piece)
        yield piece


class ChunkReader(io.RawIOBase):
    """A stream of non-empty pieces."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read into the buffer."""
        self._rest = self._rest or memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
