"""Installed Pythons in folders and archives, which may come from strangers: checked, and read as a tree."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import posixpath
import re
import struct
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.config.pythons import HINT, LocalKind, LocalPython
from crossjit.errors import StashError, TreeError, UserError
from crossjit.model import Arch
from crossjit.sources import tarball
from crossjit.stash import manifest as manifests
from crossjit.stash import packing, tree
from crossjit.stash.artifact import MANIFEST_NAME
from crossjit.util import tar, tar_zst
from crossjit.util.budget import BUDGET, TreeCount

USER = 1000  # in the target, where the library is byte-compiled
PREFIX = "usr/local"  # where it is installed, and where our exports have it
TOP = "tree"

_PROGRAM = re.compile(r"(?:(?P<prefix>.+)/)?bin/(?P<name>python3(?:\.[0-9]+)?[td]{0,2})")
_LIBRARY = re.compile(r"(?:(?P<prefix>.+)/)?lib/python3\.[0-9]+[td]*/os\.py")
_ENVIRONMENT = "pyvenv.cfg"
_SYSTEM = ("/", "/usr")
_HEADER = 20  # bytes of an ELF header up to the machine
_DEPTH = 5  # folders that are looked into for a Python

Content = tuple[tarfile.TarInfo, "BinaryIO | None"]


@dataclass
class _Inventory:
    """What is looked for in a tree: programs (their first bytes, or a link's target), and prefixes of libraries."""

    headers: dict[str, bytes]
    links: dict[str, str]
    libraries: set[str]
    environment: bool = False


def inspect(path: Path) -> LocalPython:
    """Find the Python in a folder or an archive. Raises UserError if there is none that runs on Linux."""
    kind = _kind(path)
    if str(path.resolve()) in _SYSTEM:
        raise UserError(f"{path} is this machine's own system", hint=HINT)
    with _refused(path):
        found = _inventory(_of_folder(path, _DEPTH) if kind is LocalKind.FOLDER else _members(path, kind))
    if found.environment:
        raise UserError(f"{path} is a virtual environment", hint="give the Python that it was made from")
    programs = [match for name in {*found.headers, *found.links} if (match := _PROGRAM.fullmatch(name))]
    complete = [match for match in programs if (match["prefix"] or "") in found.libraries]
    if not complete:
        missing = "no standard library in lib/python3.N" if programs else "no program bin/python3"
        raise UserError(f"{path} is not an installed Python: it has {missing}", hint=HINT)
    chosen = min(complete, key=lambda match: (len(match[0].split("/")), len(match["name"]), match[0]))
    prefix = chosen["prefix"] or ""
    header = found.headers.get(_resolved(chosen[0], found.links), b"")
    if kind is LocalKind.FOLDER and str((path / prefix).resolve()) in _SYSTEM:
        raise UserError(f"{path} is this machine's own system", hint=HINT)
    return LocalPython(path, kind, prefix, chosen["name"], _arch(path, header))


def _kind(path: Path) -> LocalKind:
    if path.is_dir():
        return LocalKind.FOLDER
    if not path.exists():
        raise UserError(f"there is no {path}", hint=HINT)
    if not path.is_file():
        raise UserError(f"{path} is neither a folder nor an archive", hint=HINT)
    if path.stat().st_size > BUDGET.archive:
        raise UserError(f"{path} has more than {BUDGET.archive:,} bytes", hint="give a smaller archive")
    return LocalKind.ARCHIVE


def _arch(path: Path, header: bytes) -> Arch:
    if header[:4] != b"\x7fELF" or len(header) < _HEADER:
        raise UserError(f"the interpreter in {path} is not a program of Linux", hint=HINT)
    (number,) = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)
    arch = next((arch for arch in Arch if arch.elf_number == number), None)
    if arch is None:
        raise UserError(
            f"{path} is a Python for an unknown machine (ELF number {number}): expected {' or '.join(Arch)}", hint=HINT
        )
    return arch


def require_arch(python: LocalPython, requested: Iterable[Arch]) -> None:
    """Raise UserError if a Python is for a different arch than those requested; none is any."""
    arches = tuple(requested)
    if arches and python.arch not in arches:
        raise UserError(
            f"{python} is an {python.arch} Python: expected {' or '.join(arches)}",
            hint="leave --arch out, or give a Python of that architecture",
        )


@contextlib.contextmanager
def opened(python: LocalPython) -> Iterator[tuple[BinaryIO, str]]:
    """Yield the Python as a tar of the folder TOP with `usr/local/…` in it, and the digest of its content.

    The digest does not depend on whether it is a folder or an archive. Raises UserError for content that is refused:
    names and links out of the Python's own folder, devices, and more than the limits.
    """
    with tempfile.TemporaryFile() as file:
        output = cast(BinaryIO, file)
        with _refused(python.path):
            digest = _write(python, output)
        output.seek(0)
        yield output, digest


def exported_llvm(python: LocalPython, digest: str) -> str | None:
    """Return the LLVM of an export of ours, by its manifest; None if it is none, or was changed since."""
    if python.kind is not LocalKind.FOLDER or python.prefix != PREFIX:
        return None
    try:
        with (python.path / MANIFEST_NAME).open("rb") as file:
            manifest = manifests.parse(file.read(BUDGET.report))
    except (OSError, StashError):
        return None
    return manifest.llvm if manifest.tree_digest == digest else None


def _write(python: LocalPython, output: BinaryIO) -> str:
    """Write the tree, and return its digest, which is the stash's digest of such a tree."""
    prefix = f"{python.prefix}/" if python.prefix else ""
    entries: dict[str, Line] = dict.fromkeys(("usr", PREFIX), ("d", 0o755, ""))
    with tar_zst.tar_writer(output) as archive:
        for member, content in _members(python.path, python.kind):
            if member.name.startswith(prefix):
                path = f"{PREFIX}/{member.name.removeprefix(prefix)}"
                entries[path] = _copy(archive, member, content, path, _target(member, prefix), entries)
                tar.drop_members(archive)
        if python.program != "python3":
            link = tarfile.TarInfo(f"{TOP}/{PREFIX}/bin/python3")
            link.type, link.linkname = tarfile.SYMTYPE, python.program
            archive.addfile(link)
    lines = [(packing.raw_path(path), packing.digest_line(path, *entry)) for path, entry in entries.items()]
    return packing.tree_digest(lines)


Line = tuple[str, int, str]  # of a tree's digest, without the path


def _copy(
    archive: tarfile.TarFile,
    member: tarfile.TarInfo,
    content: BinaryIO | None,
    path: str,
    target: str,
    entries: Mapping[str, Line],
) -> Line:
    """Copy a member to `path` in the tree; return its part of the digest. Raises TreeError for a link out of it.

    `target` is what it links to if it is a hard link.
    """
    copy = tarfile.TarInfo(f"{TOP}/{path}")
    copy.type, copy.mode, copy.uid, copy.gid = member.type, member.mode | 0o600, USER, USER
    if member.isdir():
        copy.mode = 0o755
        archive.addfile(copy)
        return "d", 0o755, ""
    if member.issym():
        copy.linkname = member.linkname
        _require_inside(posixpath.join(posixpath.dirname(path), member.linkname))
        archive.addfile(copy)
        return "l", 0o777, json.dumps(member.linkname)
    if member.islnk():
        if target not in entries:
            raise TreeError(f"{member.name} is a hard link to {member.linkname}, which is not in the Python's folder")
        copy.linkname = f"{TOP}/{target}"
        archive.addfile(copy)
        return entries[target]
    copy.size = member.size
    digest = hashlib.sha256()
    archive.addfile(copy, cast("BinaryIO | None", tar_zst.ObservingReader(cast(BinaryIO, content), digest.update)))
    return "f", tree.mode(member), digest.hexdigest()


def _target(member: tarfile.TarInfo, prefix: str) -> str:
    return f"{PREFIX}/{tree.clean(member.linkname).removeprefix(prefix)}" if member.islnk() else ""


def _require_inside(path: str) -> None:
    normal = posixpath.normpath(path)
    if path.startswith("/") or not f"{normal}/".startswith(f"{PREFIX}/"):
        raise TreeError(f"a link points out of the Python's own folder: {path}")


def _inventory(members: Iterator[Content]) -> _Inventory:
    found = _Inventory({}, {}, set())
    for member, content in members:
        if match := _LIBRARY.fullmatch(member.name):
            found.libraries.add(match["prefix"] or "")
        elif member.name.rpartition("/")[2] == _ENVIRONMENT and member.name.count("/") == 0:
            found.environment = True
        elif posixpath.basename(posixpath.dirname(member.name)) == "bin":
            if member.issym():
                target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                found.links[member.name] = posixpath.normpath(target)
            elif member.islnk():
                found.links[member.name] = tree.clean(member.linkname)
            elif content is not None:
                found.headers[member.name] = content.read(_HEADER)
    return found


def _resolved(name: str, links: Mapping[str, str]) -> str:
    for _ in range(len(links) + 1):
        if name not in links:
            return name
        name = links[name]
    return ""


def _members(path: Path, kind: LocalKind) -> Iterator[Content]:
    """Yield files, folders and links with clean names. Raises TreeError for anything else, and TarErrors."""
    if kind is LocalKind.FOLDER:
        yield from _of_folder(path)
        return
    with tarball.decompressed(path) as stream:
        for member, content in tar.read(stream, TreeCount(str(path), error=TreeError)):
            if member.isdir() and not member.name.strip("./"):
                continue
            member.name = tree.clean(member.name)
            if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                raise TreeError(f"{member.name} is neither a file, a folder nor a link")
            yield member, content


def _of_folder(path: Path, depth: int = BUDGET.depth) -> Iterator[Content]:
    count = TreeCount(str(path), error=TreeError)
    for folder, folders, files in os.walk(path, onerror=_raise):
        inside = sorted((*folders, *files))
        folders[:] = sorted(folders) if len(Path(folder).relative_to(path).parts) < depth else []
        for name in inside:
            full = Path(folder, name)
            member = tarfile.TarInfo(str(full.relative_to(path)))
            status = full.lstat()
            count.add(member.name, status.st_size)
            member.mode = status.st_mode & 0o777
            if full.is_symlink():
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(full)  # noqa: PTH115 - not a Path
                yield member, None
            elif full.is_dir():
                member.type = tarfile.DIRTYPE
                yield member, None
            elif full.is_file():
                member.size = status.st_size
                with full.open("rb") as file:
                    yield member, file
            else:
                raise TreeError(f"{member.name} is neither a file, a folder nor a link")


def _raise(error: OSError) -> None:
    raise error


@contextlib.contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Turn errors in reading a Python into UserErrors."""
    try:
        yield
    except TreeError as error:
        raise UserError(f"{path} is refused: {error.message}", hint=HINT) from error
    except (*tarball.DAMAGED, OSError) as error:
        raise UserError(f"{path} cannot be read: {error}", hint="give a folder, or a whole tar archive") from error
