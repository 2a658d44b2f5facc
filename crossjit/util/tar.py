"""Tars: reading any within bounds; for containers small ones, made in memory, and less of a large one."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, cast

from crossjit.util.budget import TreeCount

_CHUNK = 1 << 18

# Before Python 3.11.10 tarfile takes the square of such a run's length (CVE-2024-6232). No header needs one.
_DIGITS = re.compile(rb"[0-9]{256}")


class NotTarError(tarfile.ReadError):
    """A stream does not begin as a tar does."""


class TrackingReader(io.BufferedIOBase):
    """A forward-only stream for tarfile that bounds what is read of it, in total and for each header.

    tarfile reads a header of any size into memory, and takes a damaged one in mid-archive for the end: `last`, what was
    read last, tells whether it was one. Going over a bound raises the count's error.
    """

    def __init__(self, stream: BinaryIO, count: TreeCount) -> None:
        self.last = b""
        self._stream = stream
        self.count = count
        self._position = 0
        self._ahead = b""
        self._header: int | None = None  # how much more may be read for it

    @contextlib.contextmanager
    def heading(self) -> Iterator[None]:
        """Bound what is read for a member's header while tarfile looks for the next one."""
        self._header = self.count.budget.headers
        try:
            yield
        except RecursionError as error:  # each header that extends the next is a call of tarfile's
            raise self.count.over("too many headers of one member") from error
        except (ValueError, ArithmeticError, LookupError) as error:  # what tarfile's parsing runs into
            raise tarfile.ReadError(f"a header is damaged: {error}") from error
        finally:
            self._header = None

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and remember it."""
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
        """Read, within the whole stream's bound."""
        data = self._ahead
        while len(data) < size and (more := self._stream.read(size - len(data))):  # a pipe gives what is there
            data += more
        self.last, self._ahead = data[:size], data[size:]
        self._advance(len(self.last))
        return self.last

    def _advance(self, size: int) -> None:
        self._position += size
        if self._position > self.count.budget.tree:
            raise self.count.over(f"more than {self.count.budget.tree:,} bytes")

    def tell(self) -> int:
        """Return how much was read so far."""
        return self._position

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Read on up to a position."""
        if whence or position < self._position:
            raise io.UnsupportedOperation("the stream only goes forward")
        while self._position < position and self.pull(min(_CHUNK, position - self._position)):
            pass
        return self._position

    def rest_is_zero(self) -> bool:
        """Read to the end, which makes a decompressor check its sums, and say whether there was nothing more."""
        while block := self.pull(_CHUNK):
            if block.strip(b"\0"):
                return False
        return True

    def drain(self) -> None:
        """Read to the end: what is left unread, an engine takes for our death."""
        while data := self._stream.read(_CHUNK):
            self._advance(len(data))

    @property
    def ended(self) -> bool:
        """Whether what tarfile took for the archive's end is one."""
        return len(self.last) == tarfile.BLOCKSIZE and not self.last.strip(b"\0")


@contextlib.contextmanager
def opened(reader: TrackingReader) -> Iterator[tarfile.TarFile]:
    """Open an uncompressed tar. Raises NotTarError, and its count's error.

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
    """Yield the members of a tar that is open, without keeping them as tarfile itself does."""
    while True:
        with reader.heading():
            member = tar.next()
        if member is None:
            return
        if member.issparse():  # its size is what it claims, and reading it gives as many zeros
            raise reader.count.over("a sparse file")
        yield member
        drop_members(tar)


def drop_members(tar: tarfile.TarFile) -> None:
    """Drop the members that were read or written, which tarfile keeps."""
    tar.members.clear()  # type: ignore[attr-defined]


def contents(reader: TrackingReader) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield a tar's members as they are counted, and of a file the content, up to the archive's end.

    Raises NotTarError for what does not begin as a tar, another tarfile.TarError for one that is cut off or damaged.
    """
    with opened(reader) as tar:
        for member in members(tar, reader):
            reader.count.add(member.name, member.size)
            yield member, cast("BinaryIO | None", tar.extractfile(member) if member.isreg() else None)
    # tarfile takes a damaged header, or the end of the file, for the end of the archive; zeros are the real one.
    if not reader.ended:
        raise tarfile.ReadError("its end is missing")


def read(stream: BinaryIO, count: TreeCount) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield an uncompressed tar's members as they are counted, and of a file the content, to be read before the next.

    The stream need not seek. Raises tarfile.TarError for what is no tar or is cut off, and the count's error for what
    goes over its bounds, before it is read.
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
        content = _pieces(tar, -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        if header[156:157] == tarfile.XHDTYPE:
            extended = header + b"".join(content)
            continue
        wanted = not unwanted.match(header)
        if wanted:
            yield extended + header
        for piece in content:
            if wanted:
                yield piece
        extended = b""


def _pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size and (piece := stream.read(min(size, _CHUNK))):
        size -= len(piece)
        yield piece


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
