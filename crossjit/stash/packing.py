"""Deterministic `.tar.zst`: the same tree gives the same bytes, whatever order, owners and times it came with."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from crossjit.errors import StashError, TreeError
from crossjit.util import files
from crossjit.util import tar as tar_module
from crossjit.util.budget import BUDGET, BudgetError, TreeCount

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# 1980-01-02: zip files begin with 1980 in local time, and the standard library's tests put its own files into some.
MODIFIED = 315_619_200

_CHUNK = 1 << 20
_LEVEL = 3
# zstd's output is the same for any number of workers from one on, and another one without any (a test holds it to
# that), so there is always at least one. The job size is fixed lest a default changes.
_JOB_SIZE = 8 << 20


@dataclass(frozen=True)
class Packed:
    """A packed tree: its `.tar.zst`, with sha256 and size in bytes; `files` maps paths to sha256, `unpacked` is bytes.

    `tree_digest` depends on the tree alone (types, exec bits, paths, contents, link targets), not on how it is packed.
    """

    path: Path
    digest: str
    size: int
    tree_digest: str
    files: Mapping[str, str]
    unpacked: int


@dataclass(frozen=True)
class Rest:
    """All that one of our `.tar.zst` has outside of a folder: what a tree that was made anew in part has otherwise."""

    archive: Path
    folder: str


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _HashingReader:
    def __init__(self, source: _Readable) -> None:
        self._source = source
        self.hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(size)
        self.hash.update(data)
        return data


class _HashingWriter:
    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> int:
        self._target.write(data)
        self.hash.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        self._target.flush()


def pack(
    stream: BinaryIO, destination: Path, *, below: str = "", rest: Rest | None = None, workers: int | None = None
) -> Packed:
    """Pack an uncompressed tar stream of one folder into `destination`, without the folder's own name, and sync it.

    With `below`, all of the tree has to be in that folder of it. With `rest`, what the stream has is all below the
    folder that the rest is without, and the two make one tree.

    Members come out sorted by name, owned by 0:0 without names, at one time, with modes 0755 and 0644; a file's exec
    bit stays, setuid does not. Of names that are hard links to each other the first keeps the content and the others
    link to it. Folders that the stream leaves out are added. `workers` (threads of zstd, default: as many as there are
    cores) does not change the bytes.

    Beside `destination` spool files of what is read exist while this runs. Raises StashError for a stream that is cut
    off, TreeError for one that holds what an artifact cannot have (devices, names that leave the folder, or are not
    below that one), BudgetError for one that is over a bound; then nothing is left.
    """
    try:
        with contextlib.ExitStack() as stack:
            entries = _index(stack.enter_context(_spooled(stream, destination, ".spool", "the tree")))
            if below:
                _require_below(below, entries, "which is all that a build installs into")
            if rest is not None:
                with unpack_stream(rest.archive) as others:
                    spool = stack.enter_context(_spooled(others, destination, ".rest", rest.archive.name))
                    entries = _joined(entries, _archived(spool), rest.folder)
            with destination.open("xb") as output:
                packed = _write(entries, output, destination, workers or os.cpu_count() or 1)
                files.sync_file(output)
    except BaseException:
        with contextlib.suppress(OSError):
            destination.unlink(missing_ok=True)
        raise
    return packed


class _Spool(tar_module.TrackingReader):
    """A stream that is kept in a file as it is read, to be read again in any order; zeros take no room there."""

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
    """Have a stream in a file beside `destination` as it is read."""
    path = destination.with_name(destination.name + suffix)
    try:
        with path.open("x+b") as file:
            yield _Spool(stream, TreeCount(what), file)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def unpack_stream(path: Path) -> Iterator[BinaryIO]:
    """Open a `.tar.zst` as an uncompressed tar stream. Raises StashError if it is missing or turns out damaged."""
    try:
        stream = zstd.open(path, "rb")
    except FileNotFoundError as error:
        raise StashError(f"{path} is missing", hint="building the cell again heals it") from error
    try:
        with stream:
            yield cast(BinaryIO, stream)
    except (zstd.ZstdError, EOFError, tarfile.TarError) as error:
        raise StashError(
            f"{path} is damaged: {error}",
            hint="`./inv stash verify` tells what is hit; building the cell again heals it",
        ) from error


def extract(archive: Path, folder: Path) -> None:
    """Unpack one of our `.tar.zst` into an existing empty folder; all belongs to the user who runs this.

    Nothing is written outside `folder`, whatever the archive says: links are made after everything else, so nothing
    can be written through them. Raises StashError, also for a link out of the tree; `folder` is then half full.
    """
    # Without tarfile's extraction filters: Python 3.11 has them from 3.11.4 on, and Debian 12 has 3.11.2.
    try:
        _extract(archive, folder)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise StashError(f"{archive.name} is no tree: {error}", hint=_EXPORT_HINT) from error
    except TreeError as error:
        raise StashError(f"{archive.name} is no tree: {error.message}", hint=_EXPORT_HINT) from error


def _extract(archive: Path, folder: Path) -> None:
    links: list[tuple[Path, str]] = []
    with unpack_stream(archive) as stream:
        for member, content in _stored(stream, archive):
            name = _clean(member.name)
            if member.isdir():
                (folder / name).mkdir()
                (folder / name).chmod(0o755)  # whatever the umask
            elif member.issym():
                links.append((folder / name, member.linkname))
            elif member.islnk():
                os.link(folder / _clean(member.linkname), folder / name, follow_symlinks=False)
            elif content is not None:
                with (folder / name).open("xb") as file:
                    while chunk := content.read(_CHUNK):
                        file.write(chunk)
                    file.flush()
                    os.fchmod(file.fileno(), _mode(member))
                    os.utime(file.fileno(), (MODIFIED, MODIFIED))
            else:
                raise StashError(f"{name} in {archive.name} is neither file, folder nor link", hint=_EXPORT_HINT)
    for path, target in links:
        path.symlink_to(target)
    root = os.path.realpath(folder)
    for path, target in links:  # all are there now, so that one that goes through another is followed
        if target.startswith("/") or not f"{os.path.realpath(path)}/".startswith(f"{root}/"):
            raise StashError(f"the link {path.relative_to(folder)} points out of the tree: {target}", hint=_EXPORT_HINT)


def read(archive: Path, wanted: Iterable[str]) -> dict[str, bytes]:
    """Return what files in one of our `.tar.zst` hold, by path. Raises StashError for one that is not in it.

    Reads no further than it has to: what is damaged behind that is not noticed. Raises BudgetError for files that are
    more than memory should hold.
    """
    missing = set(wanted)
    found: dict[str, bytes] = {}
    room = BUDGET.file
    with unpack_stream(archive) as stream:
        for member, file in _stored(stream, archive):
            if member.name not in missing:
                continue
            room -= member.size
            if room < 0:
                raise BudgetError(f"{member.name} of {archive.name} is too large to be read: {member.size:,} bytes")
            content = file.read() if file else found.get(member.linkname) if member.islnk() else None
            if content is not None:
                found[member.name] = content
                missing.discard(member.name)
            if not missing:
                break
    if missing:
        raise StashError(f"{archive.name} has no file {min(missing)}", hint="building the cell again heals it")
    return found


def contents(archive: Path) -> Iterator[tuple[str, str]]:
    """Yield path and sha256 of every regular file in one of our `.tar.zst`. Raises StashError if it is damaged."""
    seen: dict[str, str] = {}
    with unpack_stream(archive) as stream:
        for member, content in _stored(stream, archive):
            if content is not None:
                digest = hashlib.file_digest(cast(io.BufferedReader, content), "sha256").hexdigest()
            elif member.islnk() and member.linkname in seen:
                digest = seen[member.linkname]
            else:
                continue
            seen[member.name] = digest
            yield member.name, digest


_PACK_HINT = "this is not a tree that a build installs; see what the build's commands put there"
_CUT_OFF_HINT = "the engine or the disk failed; run it again"
_EXPORT_HINT = "the artifact cannot be exported safely; build the cell again"


@dataclass(slots=True, eq=False)
class _Entry:
    """One path of the tree; a file's content is in `spool`, and names that are linked have the same one."""

    kind: str
    mode: int
    spool: BinaryIO | None = None
    offset: int = 0
    size: int = 0
    target: str = ""


def _members(reader: tar_module.TrackingReader) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    """Yield the members, each with its content, up to an end that is one."""
    opened = False
    try:
        with tar_module.opened(reader) as tar:
            opened = True
            for member in tar_module.members(tar, reader):
                reader.count.add(member.name, member.size)
                yield member, cast("BinaryIO | None", tar.extractfile(member) if member.isreg() else None)
    except tarfile.TarError as error:
        message = f"the tar stream is cut off: {error}" if opened else f"this is no tar stream: {error}"
        raise StashError(message, hint=_CUT_OFF_HINT if opened else _PACK_HINT) from error
    # tarfile takes a damaged header, or the end of the file, for the end of the archive; zeros are the real one.
    if not reader.ended:
        raise StashError("the tar stream is cut off or damaged", hint=_CUT_OFF_HINT)


def _stored(stream: BinaryIO, archive: Path) -> Iterator[tuple[tarfile.TarInfo, BinaryIO | None]]:
    return _members(tar_module.TrackingReader(stream, TreeCount(archive.name)))


def _index(spool: _Spool) -> dict[str, _Entry]:
    """Map the paths of the tree, without its own name, to what is there."""
    entries: dict[str, _Entry] = {}
    linked: dict[str, str] = {}
    top: str | None = None
    for member, _ in _members(spool):
        name = _clean(member.name)
        first, _, path = name.partition("/")
        top = first if top is None else top
        if first != top or not (path or member.isdir()):
            raise TreeError(f"the stream is not of one folder: it has {top} and {name}", hint=_PACK_HINT)
        linked.pop(path, None)
        if not path:
            continue
        if member.islnk():
            linked[path] = _clean(member.linkname).partition("/")[2]
        else:
            entries[path] = _entry(spool, member)
    spool.file.truncate(spool.tell())
    spool.drain()
    if top is None:
        raise StashError("the tar stream is empty", hint=_CUT_OFF_HINT)
    _resolve(entries, linked)
    _complete(entries)
    return entries


def _entry(spool: _Spool, member: tarfile.TarInfo) -> _Entry:
    if member.isdir():
        return _Entry("d", 0o755)
    if member.issym():
        return _Entry("l", 0o777, target=member.linkname)
    if member.isreg():
        return _Entry("f", _mode(member), spool.file, member.offset_data, member.size)
    raise TreeError(f"{member.name} is neither file, folder nor link", hint=_PACK_HINT)


def _archived(spool: _Spool) -> dict[str, _Entry]:
    """Map the paths in one of our archives to what is there; of linked names the first has the content."""
    entries: dict[str, _Entry] = {}
    for member, _ in _members(spool):
        entries[member.name] = entries[member.linkname] if member.islnk() else _entry(spool, member)
    spool.file.truncate(spool.tell())
    spool.drain()
    return entries


def _joined(entries: Mapping[str, _Entry], others: Mapping[str, _Entry], folder: str) -> dict[str, _Entry]:
    """Put entries that are all below a folder, and its parents, in place of what others have there."""
    below = f"{folder}/"
    _require_below(folder, entries, "which alone was made anew")
    joined = {path: entry for path, entry in others.items() if not f"{path}/".startswith(below)} | dict(entries)
    _complete(joined)
    return joined


def _require_below(folder: str, entries: Mapping[str, _Entry], why: str) -> None:
    for path, entry in entries.items():
        is_parent = entry.kind == "d" and f"{folder}/".startswith(f"{path}/")
        if not is_parent and not path.startswith(f"{folder}/"):
            raise TreeError(f"{path} is not in {folder}, {why}", hint=_PACK_HINT)


def _resolve(entries: dict[str, _Entry], linked: Mapping[str, str]) -> None:
    """Give hard links the content of what they link to, over any number of steps."""
    for path in linked:
        target = path
        steps = 0
        while target in linked and steps <= len(linked):
            target = linked[target]
            steps += 1
        found = entries.get(target)
        if found is None or found.kind == "d" or target in linked:
            raise TreeError(f"{path} is a hard link to {linked[path]}, which is no file of the tree", hint=_PACK_HINT)
        entries[path] = found


def _complete(entries: dict[str, _Entry]) -> None:
    """Add folders that are missing above others; a path through anything but a folder is refused."""
    for path in list(entries):
        parent = path.rpartition("/")[0]
        while parent:
            if entries.setdefault(parent, _Entry("d", 0o755)).kind != "d":
                raise TreeError(f"{path} lies under {parent}, which is no folder", hint=_PACK_HINT)
            parent = parent.rpartition("/")[0]


def _write(entries: Mapping[str, _Entry], output: BinaryIO, destination: Path, workers: int) -> Packed:
    writer = _HashingWriter(output)
    parameter = zstd.CompressionParameter
    lowest, highest = parameter.nb_workers.bounds()
    options: dict[int, int] = {
        parameter.compression_level: _LEVEL,
        parameter.checksum_flag: 1,
        parameter.nb_workers: max(lowest, min(workers, highest)),
    }
    if highest:  # a libzstd without threads has neither
        options[parameter.job_size] = _JOB_SIZE
    files: dict[str, str] = {}
    lines: list[tuple[bytes, str]] = []
    first: dict[int, str] = {}
    unpacked = 0
    with (
        zstd.ZstdFile(cast(BinaryIO, writer), "wb", options=options) as compressed,
        tarfile.TarFile(
            fileobj=cast(BinaryIO, compressed),
            mode="w",
            format=tarfile.PAX_FORMAT,
            encoding="utf-8",
            errors="surrogateescape",
            copybufsize=_CHUNK,
        ) as packed,
    ):
        for path in sorted(entries, key=_raw):
            entry = entries[path]
            info = tarfile.TarInfo(path)
            info.mtime = MODIFIED
            info.mode = entry.mode
            value = ""
            if entry.kind == "d":
                info.type = tarfile.DIRTYPE
                packed.addfile(info)
            elif entry.kind == "l":
                info.type = tarfile.SYMTYPE
                info.linkname = entry.target
                value = json.dumps(entry.target)
                packed.addfile(info)
            elif id(entry) in first:
                info.type = tarfile.LNKTYPE
                info.linkname = first[id(entry)]
                value = files[path] = files[info.linkname]
                packed.addfile(info)
            else:
                assert entry.spool is not None
                first[id(entry)] = path
                info.size = entry.size
                entry.spool.seek(entry.offset)
                reader = _HashingReader(entry.spool)
                packed.addfile(info, cast(BinaryIO, reader))
                value = files[path] = reader.hash.hexdigest()
                unpacked += info.size
            tar_module.forget(packed)
            lines.append((_raw(path), f"{entry.kind} {entry.mode:04o} {json.dumps(path)} {value}\n"))
    return Packed(
        path=destination,
        digest=writer.hash.hexdigest(),
        size=writer.size,
        tree_digest=_digest(line for _, line in sorted(lines)),
        files=files,
        unpacked=unpacked,
    )


def _raw(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def _clean(name: str) -> str:
    """Normalise a member's name; one that is absolute or climbs is refused."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        raise TreeError(f"the tar stream has a name that leaves its folder: {name!r}", hint=_PACK_HINT)
    return "/".join(parts)


def _mode(member: tarfile.TarInfo) -> int:
    return 0o755 if member.mode & 0o111 else 0o644
