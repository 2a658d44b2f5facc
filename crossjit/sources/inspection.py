"""Checking a tree before it is unpacked, and reading its facts, in one pass."""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.errors import SourceError
from crossjit.sources.model import TreeFacts
from crossjit.sources.tarball import (
    DAMAGED,
    TeeReader,
    components,
    compressing,
    decompressed,
    is_build_input,
    recompress,
)
from crossjit.util.budget import TreeCount
from crossjit.util.tar import TrackingReader, members, opened
from crossjit.util.tar_zst import ObservingReader

# tarfile does not translate all errors in parsing, such as the ValueError for an invalid number in a header.
UNREADABLE = (*DAMAGED, OSError, ValueError, ArithmeticError, LookupError)

FACT_FILES = ("Include/patchlevel.h", "Tools/jit/_llvm.py", "configure")
JIT_OPTION = b"--enable-experimental-jit"
PIECE = 1 << 20
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
TESTS = "Lib/test/"  # builds do not read it, only copy it

# Headers that tar implementations read differently, or that set attributes that sources may not have.
FORBIDDEN_HEADERS = ("GNU.sparse.", "SCHILY.xattr.", "LIBARCHIVE.xattr.", "RHT.security.")


def inspect(path: Path, label: str, tree: Path | None = None) -> TreeFacts:
    """Read a whole archive once: check that unpacking it is safe, and return its facts.

    Safe means: only regular files, folders and links; every path and every link's target inside the one top folder,
    even with links followed in any order; no name twice, nothing below a link; no sparse files, extended attributes or
    headers that tar implementations read differently; complete to its last byte. `tree` is the file to write for
    builds: the archive without the files that they do not read. Raises SourceError, with `label` in the message, and
    StashError if `tree` cannot be written.
    """
    inspection = Inspection(label)
    whole = False
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(decompressed(path))
            count = inspection.count
            copied = TeeReader(stream, count, stack.enter_context(compressing(tree))) if tree else None
            reader = copied or TrackingReader(stream, count)
            with opened(reader) as tar:
                for member in members(tar, reader):
                    is_input = is_build_input("/".join(components(member.name)[1:]))
                    whole |= (
                        is_input and member.islnk() and not is_build_input("/".join(components(member.linkname)[1:]))
                    )
                    if copied:
                        copied.decide(is_input, end=tar.offset)
                    content = tar.extractfile(member) if member.isfile() else None
                    content = inspection.take(member, cast("BinaryIO | None", content))
                    while content and content.read(PIECE):
                        pass
                if copied:
                    copied.decide(True, end=sys.maxsize)
                if not reader.ended:
                    raise SourceError(
                        f"{label} is cut short or damaged: it stops without a tar archive's end",
                        hint="fetch or make the archive again",
                    )
                if not reader.rest_is_zero():
                    raise SourceError(
                        f"{label} has data after the end of its tar archive", hint="make the archive again"
                    )
                inspection.check_global(tar.pax_headers)
        except UNREADABLE as error:
            raise _no_tar(label, error) from error
    if tree and whole:  # a build input is a hard link to a file that was left out
        recompress(path, tree)
    return inspection.facts()


def require_archive(path: Path) -> None:
    """Raise SourceError for a file that does not start with a tar header, compressed or not."""
    try:
        with decompressed(path) as stream:
            reader = TrackingReader(stream, TreeCount(str(path), error=SourceError, hint="give CPython's source"))
            with opened(reader):
                pass
    except UNREADABLE as error:
        raise _no_tar(str(path), error) from error


def _no_tar(label: str, error: Exception) -> SourceError:
    return SourceError(
        f"{label} is not a complete tar archive: {error}",
        hint="give a .tar, .tar.xz, .tar.gz, .tar.bz2 or .tar.zst file; if it is one, fetch it again",
    )


def leads_outside(path: tuple[str, ...], target: str) -> bool:
    """Whether a symbolic link at a path in the tree leads out of it, or may."""
    # No member lies below a link (see _finish), so a link's folder is the one in its path. '..' is accepted only at the
    # start of the target: after a name, which may itself be a link, the text does not show where it leads.
    parts = components(target)
    ups = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return target.startswith("/") or not target or ".." in parts[ups:] or ups > len(path) - 1


def _leads_to_tests(inner: str, member: tarfile.TarInfo) -> bool:
    """Whether a link from outside leads into the tests, or to a folder that contains them."""
    if member.issym():
        target = posixpath.normpath(posixpath.join(posixpath.dirname(inner), member.linkname))
    elif member.islnk():
        target = "/".join(components(member.linkname)[1:])
    else:
        return False
    return f"{target}/".startswith(TESTS) or TESTS.startswith(f"{target}/") or target == "."


class Inspection:
    """The state of checking a tree, member by member."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.count = TreeCount(label, error=SourceError, hint="give CPython's source")
        self.core = hashlib.sha256()
        self.apart = True  # no link from outside leads to the tests
        self.files: dict[str, bytes] = {}
        self.kinds: dict[str, bytes] = {}
        self.ancestors: set[str] = set()
        self.tops: dict[str, None] = {}

    def _refuse(self, what: str) -> SourceError:
        return SourceError(
            f"{self.label} is refused: {what}",
            hint="give an archive as CPython's releases are: regular files inside one top folder",
        )

    def take(self, member: tarfile.TarInfo, content: BinaryIO | None) -> BinaryIO | None:
        """Check a member, and return its content, which is hashed as it is read. Raises SourceError."""
        inner = "/".join(self._check(member)[1:])
        if inner.startswith(TESTS):
            return content
        self.apart = self.apart and not _leads_to_tests(inner, member)
        about = (inner, member.type.hex(), oct(member.mode), member.linkname, str(member.size))
        self.core.update("\0".join((*about, "")).encode("utf-8", "surrogateescape"))
        if content is None:
            return None
        return cast(BinaryIO, ObservingReader(content, lambda piece: self._add(inner, piece)))

    def _add(self, path: str, piece: bytes) -> None:
        """Hash a piece of a file's content, and store that of fact files."""
        self.core.update(piece)
        if path in FACT_FILES and len(self.files.setdefault(path, b"")) < PIECE:
            self.files[path] += piece

    def facts(self) -> TreeFacts:
        """Check the tree as a whole, and return its facts. Raises SourceError."""
        top = self._finish()
        configure = self.kinds.get(f"{top}/configure")
        if configure not in _FILES or "Include/patchlevel.h" not in self.files:
            missing = "configure" if configure not in _FILES else "Include/patchlevel.h"
            raise SourceError(
                f"{self.label} is not a CPython source: there is no {missing} in it", hint="give CPython's source"
            )
        core = self.core.hexdigest() if self.apart else ""
        return replace(_facts(self.label, top, self.files), core=core)

    def _check(self, member: tarfile.TarInfo) -> tuple[str, ...]:
        """Check a member by itself and against earlier ones; return its path's components."""
        name = member.name
        shown = repr(name)
        parts = components(name)
        if "\0" in name or "\0" in member.linkname:
            raise self._refuse(f"the name of member {shown} has a NUL in it")
        if name.startswith("/") or ".." in parts:
            raise self._refuse(f"the path of member {shown} leaves the top folder")
        if any(key.startswith(FORBIDDEN_HEADERS) for key in member.pax_headers):
            raise self._refuse(f"member {shown} is sparse or carries extended attributes")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise self._refuse(f"member {shown} is neither a regular file, a folder nor a link")
        if not parts:
            if member.isdir():
                return parts
            raise self._refuse(f"member {shown} has no name")
        self.tops.setdefault(parts[0])
        if len(self.tops) > 1:
            raise self._refuse(f"it has more than one top folder: {', '.join(self.tops)}")
        if len(parts) == 1 and not member.isdir():
            raise self._refuse(f"it has no top folder: {shown} is outside of any")
        path = "/".join(parts)
        self.count.add(path, member.size)
        if path in self.kinds and not (member.isdir() and self.kinds[path] == tarfile.DIRTYPE):
            raise self._refuse(f"member {shown} occurs twice")
        if member.issym():
            self._check_symlink(member, parts)
        elif member.islnk():
            self._check_hardlink(member)
        self.kinds[path] = member.type
        while (path := path.rpartition("/")[0]) and path not in self.ancestors:
            self.ancestors.add(path)
        return parts

    def _check_symlink(self, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        if leads_outside(parts[1:], member.linkname):
            raise self._refuse(f"the link {member.name!r} leads to {member.linkname!r}, outside of the top folder")

    def _check_hardlink(self, member: tarfile.TarInfo) -> None:
        target = components(member.linkname)
        is_file = self.kinds.get("/".join(target)) in (*_FILES, tarfile.LNKTYPE)
        if member.linkname.startswith("/") or not is_file:
            raise self._refuse(f"the link {member.name!r} leads to {member.linkname!r}, which is not an earlier file")

    def check_global(self, headers: Mapping[str, str]) -> None:
        """Check global headers: git's comment is harmless, tar implementations read others differently."""
        if unknown := sorted(set(headers) - {"comment"}):
            raise self._refuse(f"it has global headers: {', '.join(unknown)}")

    def _finish(self) -> str:
        """Check the tree as a whole, and return the top folder's name."""
        for path, kind in self.kinds.items():
            if kind != tarfile.DIRTYPE and path in self.ancestors:
                raise self._refuse(f"member {path!r} is not a folder, but has members below it")
        if not self.tops:
            raise self._refuse("there is nothing in it")
        return next(iter(self.tops))


def _facts(label: str, top: str, files: dict[str, bytes]) -> TreeFacts:
    text = files["Include/patchlevel.h"].decode("utf-8", "replace")
    version = re.search(r'^#define\s+PY_VERSION\s+"(\d[\w.+-]{0,40})"', text, re.MULTILINE)
    major, minor = (
        re.search(rf"^#define\s+PY_{name}_VERSION\s+(\d+)", text, re.MULTILINE) for name in ("MAJOR", "MINOR")
    )
    if not (version and major and minor):
        raise SourceError(
            f"{label} is not a CPython source that can be read: Include/patchlevel.h names no version",
            hint="give CPython's source",
        )
    # 3.13 and 3.14 have `_LLVM_VERSION = 19`, 3.15 has `_LLVM_VERSION = "21"`.
    llvm = re.search(
        r"""^_LLVM_VERSION\b[^=\n]*=\s*["']?(\d+)""",
        files.get("Tools/jit/_llvm.py", b"").decode("utf-8", "replace"),
        re.MULTILINE,
    )
    jit = llvm is not None and JIT_OPTION in files.get("configure", b"")
    return TreeFacts(top, version[1], (int(major[1]), int(minor[1])), llvm[1] if llvm and jit else None)
