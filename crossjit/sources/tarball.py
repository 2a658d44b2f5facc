"""Source tars: reading them with any compression, and writing them reproducibly."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import tempfile
import zlib
from bz2 import BZ2File
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.errors import SourceError, StashError
from crossjit.sources.cache import CHUNK, invalidate, storing
from crossjit.sources.model import Source
from crossjit.util import files, tar, tar_zst
from crossjit.util.budget import BUDGET, TreeCount
from crossjit.util.tar_zst import HashingWriter

TOP = "cpython"

# The mtime of every member that we pack. CPython's Makefile regenerates a file if one of its inputs is newer, but a
# checkout's mtimes only show when git wrote each file: with equal mtimes nothing is newer. `regenerate` finds the files
# that a change makes stale.
MTIME = 1_577_836_800  # 2020-01-01, after 1980 so that zip files can hold it

# Folders and files that neither a build nor a test reads. They are not packed, so that nothing can read them, and
# changes there do not make a different source. READ has the part of Doc/ that make writes from Grammar/Tokens.
UNREAD = (".devcontainer/", ".github/", "Doc/", "InternalDocs/", "Misc/NEWS.d/", "Misc/svnmap.txt")
READ = ("Doc/library/token",)

PACKING = (TOP, MTIME, UNREAD, READ)
"""All that a packed tree depends on in addition to the files."""

DAMAGED = (*tar_zst.DAMAGED, lzma.LZMAError, zlib.error, gzip.BadGzipFile)


Take = Callable[[tarfile.TarInfo, "BinaryIO | None"], "BinaryIO | None"]
"""Gets each member and its content before it is written, and returns the content to write."""


def is_build_input(path: str) -> bool:
    """Whether a build or a test reads a path, given without the top folder."""
    return not path.startswith(UNREAD) or path.startswith(READ)


def components(name: str) -> tuple[str, ...]:
    """Split a path in a tar into its components, without empty ones and `.`."""
    return tuple(part for part in name.split("/") if part not in ("", "."))


@contextlib.contextmanager
def decompressed(path: Path) -> Iterator[BinaryIO]:
    """Open a file and decompress it (xz, gzip, bzip2, zstd or none), detected by its first bytes, not its name."""
    with path.open("rb") as raw:
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(b"\xfd7zXZ\x00"):
            stream: object = io.BufferedReader(_Xz(raw), CHUNK)
        elif magic.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=raw)
        elif magic.startswith(b"BZh"):
            stream = BZ2File(raw)
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            stream = tar_zst.decompressed(raw)
        else:
            stream = raw
        yield cast(BinaryIO, stream)


class _Xz(io.RawIOBase):
    """Decompresses xz as lzma.LZMAFile does, with a memory limit; trailing data must be xz as well."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=BUDGET.memory)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while True:
            piece = b""
            if self._decoder.eof:
                piece = self._decoder.unused_data.lstrip(b"\0")
                while not piece and (read := self._raw.read(CHUNK)):
                    piece = read.lstrip(b"\0")
                if not piece:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=BUDGET.memory)
            elif self._decoder.needs_input and not (piece := self._raw.read(CHUNK)):
                raise EOFError("it ends before the end of what was compressed")
            if data := self._decoder.decompress(piece, len(buffer)):
                buffer[: len(data)] = data
                return len(data)


@contextlib.contextmanager
def compressing(target: Path) -> Iterator[HashingWriter]:
    """Open a new file for a tar, compressed for fast opening, with checksums; it is synced at the end."""
    with storing(target), target.open("wb") as raw:
        with tar_zst.compressed(raw, level=1, workers=1) as compressed:
            sink = HashingWriter(compressed, lambda: storing(target))
            yield sink
            sink.flush()
        files.sync_file(raw)


def recompress(path: Path, target: Path) -> None:
    """Compress the tar in a file again, into `target`."""
    with decompressed(path) as stream, compressing(target) as sink:
        while piece := stream.read(CHUNK):
            sink.write(piece)


class TeeReader(tar.TrackingReader):
    """A reader of a tar that writes what it reads to a sink, without the members that are left out."""

    def __init__(self, stream: BinaryIO, count: TreeCount, sink: HashingWriter) -> None:
        super().__init__(stream, count)
        self._sink = sink
        self._end = 0
        self._keep = True
        self._undecided = b""

    def pull(self, size: int) -> bytes:
        """Read, and write the data of a kept member; data after its end waits for the next decision."""
        content = max(0, self._end - self.tell())
        data = super().pull(size)
        if self._keep:
            self._sink.write(data[:content])
        self._undecided += data[content:]
        return data

    def decide(self, keep: bool, end: int) -> None:
        """Keep or leave out the member whose header has just been read and whose content ends at `end`."""
        if keep:
            self._sink.write(self._undecided)
        self._undecided, self._keep, self._end = b"", keep, end


@contextlib.contextmanager
def open_tar(source: Source) -> Iterator[BinaryIO]:
    """Open an uncompressed tar of a source's build inputs, in the folder `source.top`, as a forward-only stream.

    Raises StashError if the stored file is gone, or is found to be damaged while it is read.
    """
    stored = source.tree or source.archive
    hint = "run it again: the source is fetched or packed again"
    try:
        stored.stat()
    except OSError as error:
        raise StashError(f"the stored source {stored} is gone: {error.strerror}", hint=hint) from error
    try:
        with decompressed(stored) as stream:
            yield stream
    except DAMAGED as error:
        invalidate(stored)
        raise StashError(f"the stored source {stored} is damaged: {error}", hint=hint) from error


@contextlib.contextmanager
def subset_tar(source: Source, prefixes: Sequence[str]) -> Iterator[BinaryIO]:
    """Open an uncompressed tar of some of a source's files and folders, named without the top folder.

    A prefix is a path inside the source: `Tools` is that folder with all below it. Modes and mtimes are the source's,
    owners are root. Raises SourceError if there is nothing under one of the prefixes, StashError as `open_tar` does,
    and if the temporary file cannot be written.
    """
    folder = Path(tempfile.gettempdir())
    with storing(folder):
        result = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
    try:
        with storing(folder):
            sink = HashingWriter(cast(BinaryIO, result), lambda: storing(folder))
            _write_subset(source, [prefix.strip("/") for prefix in prefixes], sink)
            sink.flush()
            result.seek(0)
        yield cast(BinaryIO, result)
    finally:
        with contextlib.suppress(OSError):  # data that could not be written is not needed any more
            result.close()


def _write_subset(source: Source, prefixes: Sequence[str], sink: HashingWriter) -> None:
    used: set[str] = set()
    with open_tar(source) as stream:
        writer = _Writer(sink)
        for member, content in tar.read(stream, TreeCount(f"the source from {source.origin}", error=SourceError)):
            inner = "/".join(components(member.name)[1:])
            matching = _matching(inner, prefixes)
            if not matching:
                continue
            used |= matching
            member.name = inner
            if member.islnk():
                member.linkname = "/".join(components(member.linkname)[1:])
                if not _matching(member.linkname, prefixes):
                    raise SourceError(
                        f"{inner!r} is a hard link to {member.linkname!r}, which is outside of the requested files",
                        hint=f"request {member.linkname} as well",
                    )
            writer.add(member, content)
        writer.close()
    if missing := sorted(set(prefixes) - used):
        raise SourceError(
            f"there is no {' and no '.join(missing)} in the source from {source.origin}",
            hint="give a source that is complete",
        )


def _matching(path: str, prefixes: Sequence[str]) -> set[str]:
    return {prefix for prefix in prefixes if path == prefix or path.startswith(f"{prefix}/")}


@dataclass(frozen=True)
class Entry:
    """A file to pack: its path below the top folder, whether it is executable, and its content or its link's target."""

    path: str
    executable: bool = False
    link: str | None = None
    size: int = 0
    content: BinaryIO | None = None


def pack(entries: Iterable[Entry], target: Path, take: Take = lambda member, content: content) -> str:
    """Write entries, sorted by path, into a zstd-compressed tar, and return the sha256 of the uncompressed tar.

    The same entries give the same tar: owners, mtimes, and modes except for the executable bit are constant. Entries
    that are not build inputs are read to their end, and left out. `take` gets all others, and their folders.
    """
    with compressing(target) as sink:
        writer = _Writer(sink, take)
        for entry in entries:
            if not is_build_input(entry.path):
                _drain(entry)
                continue
            member = tarfile.TarInfo(f"{TOP}/{entry.path}")
            member.mode = 0o755 if entry.executable else 0o644
            member.mtime = MTIME
            if entry.link is not None:
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.link, 0o777
            else:
                member.size = entry.size
            try:
                writer.add(member, entry.content)
            except (OSError, tarfile.TarError) as error:  # the sink's own are StashErrors
                raise _unreadable(entry, error) from error
        writer.close()
    return sink.hash.hexdigest()


def _drain(entry: Entry) -> None:
    try:
        while entry.content is not None and entry.content.read(CHUNK):
            pass
    except (OSError, tarfile.TarError) as error:
        raise _unreadable(entry, error) from error


def _unreadable(entry: Entry, error: Exception) -> SourceError:
    return SourceError(f"{entry.path} cannot be read, or changed while it was read: {error}", hint="run it again")


class _Writer:
    """Writes members, each folder before the first thing in it, owned by root."""

    def __init__(self, sink: HashingWriter, take: Take = lambda member, content: content) -> None:
        self._tar = tar_zst.tar_writer(sink)
        self._take = take
        self._folders: set[str] = set()

    def add(self, member: tarfile.TarInfo, content: BinaryIO | None) -> None:
        """Add a member and its parents; a folder is added once."""
        parts = member.name.split("/")
        for length in range(1, len(parts)):
            self._add_folder("/".join(parts[:length]), int(member.mtime))
        if member.isdir():
            self._add_folder(member.name, int(member.mtime), stat.S_IMODE(member.mode))
            return
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.pax_headers = {}
        member.mtime = int(member.mtime)
        self._tar.addfile(member, self._take(member, content))
        tar.drop_members(self._tar)

    def _add_folder(self, name: str, mtime: int, mode: int = 0o755) -> None:
        if name in self._folders:
            return
        self._folders.add(name)
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, mode, mtime
        self._take(folder, None)
        self._tar.addfile(folder)

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()
