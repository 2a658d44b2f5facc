"""The tree in a tar stream, as a mapping from paths to entries, for packing."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from crossjit.errors import StashError, TreeError

PACK_HINT = "this is not a tree that a build installs; see what the build's commands put there"
CUT_OFF_HINT = "the engine or the disk failed; run it again"


@dataclass(slots=True, eq=False)
class Entry:
    """One path of the tree. `kind` is f, d or l; a file's content is in `spool`. Hard links share an entry."""

    kind: str
    mode: int
    spool: BinaryIO | None = None
    offset: int = 0
    size: int = 0
    target: str = ""


def index(members: Iterable[tarfile.TarInfo], file: BinaryIO) -> dict[str, Entry]:
    """Map the paths of a tree of one folder, without the folder's name, to their entries; `file` has the whole tar."""
    entries: dict[str, Entry] = {}
    linked: dict[str, str] = {}
    top: str | None = None
    for member in members:
        name = clean(member.name)
        first, _, path = name.partition("/")
        top = first if top is None else top
        if first != top or not (path or member.isdir()):
            raise TreeError(f"the stream has more than one top folder: {top} and {name}", hint=PACK_HINT)
        linked.pop(path, None)
        if not path:
            continue
        if member.islnk():
            linked[path] = clean(member.linkname).partition("/")[2]
        else:
            entries[path] = _entry(member, file)
    if top is None:
        raise StashError("the tar stream is empty", hint=CUT_OFF_HINT)
    _resolve(entries, linked)
    _complete(entries)
    return entries


def _entry(member: tarfile.TarInfo, file: BinaryIO) -> Entry:
    if member.isdir():
        return Entry("d", 0o755)
    if member.issym():
        return Entry("l", 0o777, target=member.linkname)
    if member.isreg():
        return Entry("f", mode(member), file, member.offset_data, member.size)
    raise TreeError(f"{member.name} is neither file, folder nor link", hint=PACK_HINT)


def archived(members: Iterable[tarfile.TarInfo], file: BinaryIO) -> dict[str, Entry]:
    """Map the paths in one of our archives to their entries; the first of several hard links has the content."""
    entries: dict[str, Entry] = {}
    for member in members:
        entries[member.name] = entries[member.linkname] if member.islnk() else _entry(member, file)
    return entries


def joined(entries: Mapping[str, Entry], rest: Mapping[str, Entry], folder: str) -> dict[str, Entry]:
    """Replace a folder of `rest` by entries, which must all be in this folder or its parents."""
    below = f"{folder}/"
    require_below(folder, entries, "the only folder that was made again")
    joined = {path: entry for path, entry in rest.items() if not f"{path}/".startswith(below)} | dict(entries)
    _complete(joined)
    return joined


def require_below(folder: str, entries: Mapping[str, Entry], why: str) -> None:
    """Raise TreeError for an entry that is neither in a folder nor a parent of it."""
    for path, entry in entries.items():
        is_parent = entry.kind == "d" and f"{folder}/".startswith(f"{path}/")
        if not is_parent and not path.startswith(f"{folder}/"):
            raise TreeError(f"{path} is not in {folder}, {why}", hint=PACK_HINT)


def _resolve(entries: dict[str, Entry], linked: Mapping[str, str]) -> None:
    """Resolve hard links to the entries that they link to, through any number of links."""
    for path in linked:
        target = path
        steps = 0
        while target in linked and steps <= len(linked):
            target = linked[target]
            steps += 1
        entry = entries.get(target)
        if entry is None or entry.kind == "d" or target in linked:
            raise TreeError(f"{path} is a hard link to {linked[path]}, which is not a file of the tree", hint=PACK_HINT)
        entries[path] = entry


def _complete(entries: dict[str, Entry]) -> None:
    """Add missing parent folders. Raises TreeError for a path whose parent is not a folder."""
    for path in list(entries):
        parent = path.rpartition("/")[0]
        while parent:
            if entries.setdefault(parent, Entry("d", 0o755)).kind != "d":
                raise TreeError(f"{path} is below {parent}, which is not a folder", hint=PACK_HINT)
            parent = parent.rpartition("/")[0]


def clean(name: str) -> str:
    """Normalise a member's name. Raises TreeError if it is absolute, or has `..`, a NUL or no parts."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or not parts:
        raise TreeError(f"the tar stream has a name that leaves its folder: {name!r}", hint=PACK_HINT)
    return "/".join(parts)


def mode(member: tarfile.TarInfo) -> int:
    """Return the mode with which a file is packed and unpacked."""
    return 0o755 if member.mode & 0o111 else 0o644
