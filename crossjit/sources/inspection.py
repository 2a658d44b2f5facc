"""Checking an archive before anything unpacks it, and reading what it says of itself, in one pass."""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from crossjit.errors import SourceError
from crossjit.sources.model import TreeFacts
from crossjit.sources.tarball import DAMAGED, Watched, components, decompressed

# tarfile lets whatever its parsing runs into through, such as a ValueError out of a header that is not a number.
UNREADABLE = (*DAMAGED, OSError, ValueError, ArithmeticError, LookupError)

MAX_BYTES = 4 << 30  # CPython is 150 MB; what claims to be more than this is a bomb or no CPython
MAX_MEMBERS = 500_000
FACT_FILES = ("Include/patchlevel.h", "Tools/jit/_llvm.py")
MAX_FACT_FILE = 1 << 20
TESTS = "Lib/test/"  # what no build reads, and only copies

# Headers that let two tar implementations see two different archives, or that set what a source has no business to set.
FORBIDDEN_HEADERS = ("GNU.sparse.", "SCHILY.xattr.", "LIBARCHIVE.xattr.", "RHT.security.")


def inspect(path: Path, label: str) -> TreeFacts:
    """Read a whole archive once: check that unpacking it is safe and read what it says of itself.

    Safe means: regular files, folders and links only; every path and every link's target inside the one top folder,
    even with links followed in any order; no name twice, nothing below a link; no sparse files, extended attributes or
    headers that other tar implementations read differently; whole to its last byte. Raises SourceError, with `label`
    in the message.
    """
    checker = _Checker(label)
    files: dict[str, bytes] = {}
    names: set[str] = set()
    core = hashlib.sha256()
    try:
        with decompressed(path) as stream:
            watched = Watched(stream)
            with tarfile.open(fileobj=watched, mode="r:", errorlevel=2) as tar:
                for member in tar:
                    inner = "/".join(checker.check(member)[1:])
                    if member.isfile():
                        names.add(inner)
                    if inner.startswith(TESTS):
                        continue
                    about = (inner, member.type.hex(), oct(member.mode), member.linkname, str(member.size))
                    core.update("\0".join((*about, "")).encode("utf-8", "surrogateescape"))
                    if member.isfile() and (content := tar.extractfile(member)):
                        piece = content.read(MAX_FACT_FILE)
                        if inner in FACT_FILES:
                            files[inner] = piece
                        while piece:
                            core.update(piece)
                            piece = content.read(MAX_FACT_FILE)
                if len(watched.last) != tarfile.BLOCKSIZE or watched.last.strip(b"\0"):
                    raise SourceError(
                        f"{label} is cut short or damaged: it stops without a tar archive's end",
                        hint="fetch or make the archive anew",
                    )
                if not watched.rest_is_zero():
                    raise SourceError(
                        f"{label} has data after the end of its tar archive", hint="make the archive anew"
                    )
                checker.check_global(tar.pax_headers)
    except UNREADABLE as error:
        raise SourceError(
            f"{label} is not a whole tar archive: {error}",
            hint="give a .tar, .tar.xz, .tar.gz, .tar.bz2 or .tar.zst file; if it is one, fetch it anew",
        ) from error
    top = checker.finish()
    if "configure" not in names or "Include/patchlevel.h" not in files:
        missing = "configure" if "configure" not in names else "Include/patchlevel.h"
        raise SourceError(f"{label} is not a CPython source: there is no {missing} in it", hint="give CPython's source")
    return replace(_facts(label, top, files), core=core.hexdigest())


class _Checker:
    """What has been seen of an archive so far."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.kinds: dict[tuple[str, ...], bytes] = {}
        self.ancestors: set[tuple[str, ...]] = set()
        self.tops: dict[str, None] = {}
        self.bytes = 0

    def refuse(self, what: str) -> SourceError:
        return SourceError(
            f"{self.label} is refused: {what}",
            hint="give an archive as CPython's releases are: regular files inside one top folder",
        )

    def check(self, member: tarfile.TarInfo) -> tuple[str, ...]:
        """Check one member on its own and against those before it; return its path's components."""
        name = member.name
        shown = repr(name)
        parts = components(name)
        if "\0" in name or "\0" in member.linkname:
            raise self.refuse(f"the name of member {shown} has a NUL in it")
        if name.startswith("/") or ".." in parts:
            raise self.refuse(f"the path of member {shown} leaves the top folder")
        if any(key.startswith(FORBIDDEN_HEADERS) for key in member.pax_headers):
            raise self.refuse(f"member {shown} is sparse or carries extended attributes")
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            raise self.refuse(f"member {shown} is neither a regular file, a folder nor a link")
        if not parts:
            if member.isdir():
                return parts
            raise self.refuse(f"member {shown} has no name")
        self.tops.setdefault(parts[0])
        if len(self.tops) > 1:
            raise self.refuse(f"it has more than one top folder: {', '.join(self.tops)}")
        if len(parts) == 1 and not member.isdir():
            raise self.refuse(f"it has no top folder: {shown} stands outside of any")
        if parts in self.kinds and not (member.isdir() and self.kinds[parts] == tarfile.DIRTYPE):
            raise self.refuse(f"member {shown} is in it twice")
        if member.issym():
            self._check_symlink(member, parts)
        elif member.islnk():
            self._check_hardlink(member)
        self.bytes += member.size
        self.kinds[parts] = member.type
        self.ancestors.update(parts[:length] for length in range(1, len(parts)))
        if self.bytes > MAX_BYTES or len(self.kinds) > MAX_MEMBERS:
            raise self.refuse("it is too large for a CPython source")
        return parts

    def _check_symlink(self, member: tarfile.TarInfo, parts: tuple[str, ...]) -> None:
        # No member lies below a link (see finish), so a link's folder is where its path says. From there '..' is only
        # taken before any name: after one, which may be a link elsewhere, nobody can tell from the text where it leads.
        target = components(member.linkname)
        ups = next((index for index, part in enumerate(target) if part != ".."), len(target))
        leaves = member.linkname.startswith("/") or not member.linkname or ".." in target[ups:] or ups > len(parts) - 2
        if leaves:
            raise self.refuse(f"the link {member.name!r} leads to {member.linkname!r}, outside of the top folder")

    def _check_hardlink(self, member: tarfile.TarInfo) -> None:
        target = components(member.linkname)
        known = self.kinds.get(target) in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.LNKTYPE)
        if member.linkname.startswith("/") or not known:
            raise self.refuse(f"the link {member.name!r} leads to {member.linkname!r}, which is no file before it")

    def check_global(self, headers: Mapping[str, str]) -> None:
        """Check headers that hold for all members: git's comment is harmless, others are read differently by others."""
        if unknown := sorted(set(headers) - {"comment"}):
            raise self.refuse(f"it has global headers: {', '.join(unknown)}")

    def finish(self) -> str:
        """Check what only the whole tells, and return the top folder's name."""
        for parts, kind in self.kinds.items():
            if kind != tarfile.DIRTYPE and parts in self.ancestors:
                raise self.refuse(f"member {'/'.join(parts)!r} is no folder, yet others lie below it")
        if not self.tops:
            raise self.refuse("there is nothing in it")
        return next(iter(self.tops))


def _facts(label: str, top: str, files: dict[str, bytes]) -> TreeFacts:
    text = files["Include/patchlevel.h"].decode("utf-8", "replace")
    version = re.search(r'^#define\s+PY_VERSION\s+"([^"\s]+)"', text, re.MULTILINE)
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
    return TreeFacts(top, version[1], (int(major[1]), int(minor[1])), llvm[1] if llvm else None)
