"""Deterministic `.tar.zst`: the same tree gives the same bytes, regardless of its order, owners and times."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from crossjit import PROGRAM
from crossjit.errors import StashError, TreeError
from crossjit.stash import tree
from crossjit.stash.tree import CUT_OFF_HINT, PACK_HINT, Entry, clean, mode
from crossjit.util import files, tar_zst
from crossjit.util import tar as tar_module
from crossjit.util.budget import BUDGET, BudgetError, TreeCount

# 1980-01-02: zip files cannot have times before 1980 (local time), and CPython's tests put library files into some.
MODIFIED = 315_619_200

_LEVEL = 3
# zstd's output is the same for any number of workers except 0 (a test checks this), so there is always at least one.
# The job size is fixed, since a default could change.
_JOB_SIZE = 8 << 20


@dataclass(frozen=True)
class Packed:
    """A packed tree: `path`, `digest` (sha256) and `size` (bytes) of its `.tar.zst`.

    `files` maps paths to sha256; `unpacked` is the size of the files in bytes. `tree_digest` depends only on the tree
    (types, exec bits, paths, contents, link targets), not on the packing.
    """

    path: Path
    digest: str
    size: int
    tree_digest: str
    files: Mapping[str, str]
    unpacked: int


@dataclass(frozen=True)
class Rest:
    """The content of one of our `.tar.zst` outside a folder; `pack` completes a tree with it."""

    archive: Path
    folder: str


def pack(
    stream: BinaryIO, destination: Path, *, below: str = "", rest: Rest | None = None, workers: int | None = None
) -> Packed:
    """Pack an uncompressed tar stream of one folder into `destination`, without the folder's own name, and sync it.

    With `below`, the whole tree must be in this subfolder. With `rest`, the stream must be in `rest.folder`, and the
    rest is added to it.

    Members are sorted by name, owned by 0:0 without names, with one time, and with modes 0755 and 0644: a file's exec
    bit is kept, setuid is not. The first of several hard links has the content, and the others link to it. Missing
    parent folders are added. `workers` (threads of zstd, default: the number of cores) does not change the bytes.

    Spool files exist beside `destination` while this runs. Raises StashError for a truncated stream, TreeError for
    invalid content (devices, names outside the folder or outside `below`), BudgetError for an exceeded limit; then
    nothing is left.
    """
    try:
        with contextlib.ExitStack() as stack:
            spool = stack.enter_context(_spooled(stream, destination, ".spool", "the tree"))
            entries = tree.index(_all(spool), spool.file)
            if below:
                tree.require_below(below, entries, "the only folder that a build installs into")
            if rest is not None:
                with unpack_stream(rest.archive) as rest_stream:
                    spool = stack.enter_context(_spooled(rest_stream, destination, ".rest", rest.archive.name))
                    entries = tree.joined(entries, tree.archived(_all(spool), spool.file), rest.folder)
            with destination.open("xb") as output:
                packed = _write(entries, output, destination, workers or os.cpu_count() or 1)
                files.sync_file(output)
    except BaseException:
        with contextlib.suppress(OSError):
            destination.unlink(missing_ok=True)
        raise
    return packed


class _Spool(tar_module.TrackingReader):
    """A stream that is copied to a sparse file as it is read, for random access later."""

    def __init__(self, stream: BinaryIO, count: TreeCount, file: BinaryIO) -> None:
        super().__init__(stream, count)
        self.file = file

    def pull(self, size: int) -> bytes:
        data = super().pull(size)
        if data.strip(b"\0"):
            self.file.write(data)
        else:
            self.file.seek(len(data), os.SEEK_CUR)
        return data


@contextlib.contextmanager
def _spooled(stream: BinaryIO, destination: Path, suffix: str, what: str) -> Iterator[_Spool]:
    """Copy a stream to a temporary file beside `destination` as it is read; `what` names the tree."""
    path = destination.with_name(destination.name + suffix)
    try:
        with path.open("x+b") as file:
            yield _Spool(stream, TreeCount(what), file)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _all(spool: _Spool) -> Iterator[tarfile.TarInfo]:
    """Yield the members, and read the stream to its end."""
    for member, _ in _members(spool):
        yield member
    spool.file.truncate(spool.tell())
    spool.drain()


@contextlib.contextmanager
def unpack_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a `.tar.zst` as an uncompressed tar stream. Raises StashError if it is missing or damaged."""
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise StashError(f"{path} is missing", hint="build the cell again to repair it") from error
    try:
        with file, tar_zst.decompressed(file) as stream:
            yield stream
    except tar_zst.DAMAGED as error:
        raise StashError(
            f"{path} is damaged: {error}",
            hint=f"`{PROGRAM} stash verify` shows the damage; build the cell again to repair it",
        ) from error


def extract(archive: Path, folder: Path) -> None:
    """Unpack one of our `.tar.zst` into an existing empty folder; all files belong to the current user.

    Nothing is written outside `folder`: symbolic links are made last, so nothing can be written through them. Raises
    StashError, also for a link out of the tree; then `folder` is incomplete.
    """
    # tarfile's extraction filters need Python 3.11.4, and Debian 12 has 3.11.2.
    try:
        _extract(archive, folder)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise StashError(f"{archive.name} is not a valid tree: {error}", hint=_EXPORT_HINT) from error
    except TreeError as error:
        raise StashError(f"{archive.name} is not a valid tree: {error.message}", hint=_EXPORT_HINT) from error


def _extract(archive: Path, folder: Path) -> None:
    links: list[tuple[Path, str]] = []
    with unpack_stream(archive) as stream:
        for member, content in _stored(stream, archive):
            name = clean(member.name)
            if member.isdir():
                (folder / name).mkdir()
                (folder / name).chmod(0o755)  # mkdir applies the umask
            elif member.issym():
                links.append((folder / name, member.linkname))
            elif member.islnk():
                os.link(folder / clean(member.linkname), folder / name, follow_symlinks=False)
            elif content is not None:
                with (folder / name).open("xb") as file:
                    while chunk := content.read(tar_zst.CHUNK):
                        file.write(chunk)
                    file.flush()
                    os.fchmod(file.fileno(), mode(member))
                    os.utime(file.fileno(), (MODIFIED, MODIFIED))
            else:
                raise StashError(f"{name} in {archive.name} is neither file, folder nor link", hint=_EXPORT_HINT)
    for path, target in links:
        path.symlink_to(target)
    root = os.path.realpath(folder)
    for path, target in links:  # after all are made, so that a link through another one is resolved
        if target.startswith("/") or not f"{os.path.realpath(path)}/".startswith(f"{root}/"):
            raise StashError(f"the link {path.relative_to(folder)} points out of the tree: {target}", hint=_EXPORT_HINT)


def read(archive: Path, paths: Iterable[str]) -> dict[str, bytes]:
    """Return the contents of files in one of our `.tar.zst`, by path.

    Stops after the last of them, so later damage is not noticed. Raises StashError for a missing file, BudgetError if
    the files together exceed the limit for memory.
    """
    missing = set(paths)
    contents: dict[str, bytes] = {}
    remaining = BUDGET.file
    with unpack_stream(archive) as stream:
        for member, file in _stored(stream, archive):
            if member.name not in missing:
                continue
            remaining -= member.size
            if remaining < 0:
                raise BudgetError(f"{member.name} of {archive.name} is too large to be read: {member.size:,} bytes")
            content = file.read() if file else contents.get(member.linkname) if member.islnk() else None
            if content is not None:
                contents[member.name] = content
                missing.discard(member.name)
            if not missing:
                break
    if missing:
        raise StashError(f"{archive.name} has no file {min(missing)}", hint="build the cell again to repair it")
    return contents


def contents(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of every regular file in one of our `.tar.zst`. Raises StashError if it is damaged."""
    digests: dict[str, str] = {}
    with unpack_stream(archive) as stream:
        for member, content in _stored(stream, archive):
            if content is not None:
                digest = hashlib.file_digest(cast(io.BufferedReader, content), "sha256").hexdigest()
            elif member.islnk() and member.linkname in digests:
                digest = digests[member.linkname]
            else:
                continue
            digests[member.name] = digest
            yield member.name, digest


_EXPORT_HINT = "the artifact cannot be exported safely; build the cell again"


def _members(reader: tar_module.TrackingReader) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield the members, each with its content. Raises StashError if the stream is damaged or truncated."""
    try:
        yield from tar_module.contents(reader)
    except tar_module.NotTarError as error:
        raise StashError(f"this is not a tar stream: {error}", hint=PACK_HINT) from error
    except tarfile.TarError as error:
        raise StashError(f"the tar stream is cut off or damaged: {error}", hint=CUT_OFF_HINT) from error


def _stored(stream: BinaryIO, archive: Path) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    return _members(tar_module.TrackingReader(stream, TreeCount(archive.name)))


def _write(entries: Mapping[str, Entry], output: BinaryIO, destination: Path, workers: int) -> Packed:
    writer = tar_zst.HashingWriter(output)
    with (
        tar_zst.compressed(writer, level=_LEVEL, workers=workers, job_size=_JOB_SIZE) as compressed,
        tar_zst.tar_writer(compressed) as tar,
    ):
        members = _MemberWriter(tar)
        for path in sorted(entries, key=raw_path):
            members.add(path, entries[path])
    writer.flush()
    return Packed(
        path=destination,
        digest=writer.hash.hexdigest(),
        size=writer.size,
        tree_digest=tree_digest(members.lines),
        files=members.files,
        unpacked=members.unpacked,
    )


class _MemberWriter:
    """Writes entries as members of a tar; `lines` are the input of the tree's digest, `files` the files' sha256."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.files: dict[str, str] = {}
        self.lines: list[tuple[bytes, str]] = []
        self.unpacked = 0
        self._tar = tar
        self._first: dict[int, str] = {}

    def add(self, path: str, entry: Entry) -> None:
        info = tarfile.TarInfo(path)
        info.mtime = MODIFIED
        info.mode = entry.mode
        value = ""
        if entry.kind == "d":
            info.type = tarfile.DIRTYPE
            self._tar.addfile(info)
        elif entry.kind == "l":
            info.type = tarfile.SYMTYPE
            info.linkname = entry.target
            value = json.dumps(entry.target)
            self._tar.addfile(info)
        elif id(entry) in self._first:
            info.type = tarfile.LNKTYPE
            info.linkname = self._first[id(entry)]
            value = self.files[path] = self.files[info.linkname]
            self._tar.addfile(info)
        else:
            assert entry.spool is not None
            self._first[id(entry)] = path
            info.size = entry.size
            entry.spool.seek(entry.offset)
            sha256 = hashlib.sha256()
            self._tar.addfile(info, cast(BinaryIO, tar_zst.ObservingReader(entry.spool, sha256.update)))
            value = self.files[path] = sha256.hexdigest()
            self.unpacked += info.size
        tar_module.drop_members(self._tar)
        self.lines.append((raw_path(path), digest_line(path, entry.kind, entry.mode, value)))


def raw_path(path: str) -> bytes:
    """Return a path as bytes; trees are sorted by it."""
    return path.encode("utf-8", "surrogateescape")


def digest_line(path: str, kind: str, mode: int, value: str) -> str:
    """Return an entry's part of its tree's digest; `value` is a file's sha256, or a link's target as JSON."""
    return f"{kind} {mode:04o} {json.dumps(path)} {value}\n"


def tree_digest(lines: Iterable[tuple[bytes, str]]) -> str:
    """Return a tree's digest, of its entries' raw paths and lines in any order."""
    digest = hashlib.sha256()
    for _, line in sorted(lines):
        digest.update(line.encode("ascii"))
    return digest.hexdigest()
