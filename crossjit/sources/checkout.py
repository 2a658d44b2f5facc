"""A checkout as a source: the working tree with its uncommitted changes, which nothing here writes to."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.errors import SourceError
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import cache, regenerate, stamps
from crossjit.sources.inspection import Inspection, leads_outside
from crossjit.sources.located import Repository, Window, locate, window_on
from crossjit.sources.model import Kind, Source
from crossjit.sources.repository import add, source_of
from crossjit.sources.request import Checkout
from crossjit.sources.tarball import PACKING, Entry, components, is_build_input, pack
from crossjit.util.budget import BUDGET


def resolve_checkout(request: Checkout, settings: Settings, *, progress: Progress, work: Path) -> Source:
    """Pack a working tree: tracked files as they are, untracked ones that are not ignored; what was deleted is gone.

    Nothing is written to the checkout, not even to its index. `diff_digest` covers path, mode and content of all that
    differs from HEAD; a changed mtime is no difference. `regenerate` is what these changes make stale of what HEAD has
    generated. Submodules and nested repositories are left out. Raises SourceError if the folder is no checkout.
    """
    with progress.step("source", str(request.path)) as step, cache.workspace(work) as folder:
        repository = locate(request.path)
        head = head_of(repository)
        step.update(detail="comparing with HEAD")
        view = window_on(repository, head, folder)
        changes = _changes(request.path, view, head)
        seen = stamps.take(request.path, changes.paths, head, *sorted(changes.changed), repr(PACKING))
        if known := seen.known(settings):
            stored, diff_digest = known
        else:
            step.update(detail="packing")
            tree = _WorkingTree(request.path, changes)
            inspection = Inspection(str(request.path))
            digest = pack(tree.entries(), folder / "source", inspection.take)
            diff_digest = tree.diff_digest()
            name = f"{head[:12]}-{diff_digest[:12]}" if diff_digest else head[:12]
            stored = add(settings, digest, folder / "source", name, inspection, step)
            seen.keep(settings, digest, diff_digest)
        changed = {path for path in changes.changed if not path.endswith("/")}
        make = regenerate.stale(changed, *_readers(request.path, view, head))
    for remark in (*changes.remarks, *regenerate.left_to_do(changed)):
        progress.say(f"{request.path}: {remark}")
    return source_of(Kind.CHECKOUT, stored, str(request.path), head, diff_digest, make)


def head_of(repository: Repository) -> str:
    """Return the commit that is checked out. Raises SourceError if nothing is."""
    path = repository.path
    if repository.ask("rev-parse", "--is-inside-work-tree").text != "true":
        raise SourceError(f"{path} is a repository without a working tree", hint=f"add a ref: {path}#main")
    head = repository.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if not head.ok:
        raise SourceError(f"{path} has no commit", hint="commit something, or give an archive")
    return head.text


def _readers(checkout: Path, view: Window, head: str) -> tuple[regenerate.Read, regenerate.Read]:
    """Return readers of the working tree and of HEAD."""

    def now(name: str) -> bytes:
        try:
            descriptor = os.open(checkout / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                return file.read(BUDGET.names) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        except OSError:
            return b""

    def before(name: str) -> bytes:
        answer = view.ask("cat-file", "blob", f"{head}:{name}")
        return answer.output if answer.ok else b""

    return now, before


@dataclass(frozen=True)
class _Changes:
    """All paths of a working tree, sorted as git sorts, and those of them that are not as in HEAD."""

    paths: tuple[str, ...]
    changed: frozenset[str]
    remarks: tuple[str, ...]


def _changes(checkout: Path, view: Window, head: str) -> _Changes:
    view.ask("update-index", "-q", "--refresh")
    raw = _listing(checkout, view, "diff-index", "--raw", "-z", "--no-renames", "--ignore-submodules=all", head)
    tracked = _listing(checkout, view, "ls-files", "-z", "--cached")
    others = _listing(checkout, view, "ls-files", "-z", "--others", "--exclude-standard")
    stray = {
        path: None
        for path in others
        if _is_stray(checkout, path) and not any(name.startswith(f"{path}/") for name in tracked)
    }
    others = [path for path in others if path not in stray]
    changed = frozenset(path for status, path in zip(raw[::2], raw[1::2], strict=True) if status.startswith(":"))
    paths = sorted({*tracked, *others, *changed}, key=os.fsencode)
    remarks = (f"{path} is left out: it is untracked, and a link out of the checkout" for path in stray)
    return _Changes(tuple(paths), changed.union(others), tuple(remarks))


def _is_stray(checkout: Path, path: str) -> bool:
    """Say whether an untracked path is a link that no source may have."""
    try:
        return leads_outside(components(path), str((checkout / path).readlink()))
    except OSError:  # it is no link, or gone
        return False


def _listing(checkout: Path, view: Window, *arguments: str) -> list[str]:
    answer = view.ask(*arguments)
    if not answer.ok:
        raise SourceError(f"git {arguments[0]} failed in {checkout}", hint="see what git says", details=answer.errors)
    return [os.fsdecode(name) for name in answer.output.split(b"\0") if name]


@dataclass
class _WorkingTree:
    """Reads each file once, so that the digest of the changes is of what was packed."""

    root: Path
    changes: _Changes
    seen: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)

    def entries(self) -> Iterator[Entry]:
        """Yield what is there, in order."""
        linked: dict[Path, bool] = {self.root: False}
        for name in self.changes.paths:
            path = self.root / name
            try:
                if name.endswith("/"):  # a repository within this one
                    continue
                if self._below_a_link(path.parent, linked):
                    self._miss(name)
                    continue
                status = path.lstat()
                if stat.S_ISLNK(status.st_mode):
                    link = str(path.readlink())
                    self._note(name, "link", hashlib.sha256(os.fsencode(link)).hexdigest())
                    yield Entry(name, link=link)
                elif stat.S_ISREG(status.st_mode):
                    changed = name in self.changes.changed
                    if not changed and not is_build_input(name):
                        continue
                    with path.open("rb") as file:
                        status = os.fstat(file.fileno())
                        executable = bool(status.st_mode & 0o100)
                        content = _Hashing(file) if changed else file
                        yield Entry(name, executable, size=status.st_size, content=cast(BinaryIO, content))
                        if isinstance(content, _Hashing):
                            self._note(name, "executable" if executable else "file", content.hash.hexdigest())
                elif not stat.S_ISDIR(status.st_mode):  # a folder here is a submodule
                    raise SourceError(f"{path} is neither a file nor a link", hint="remove it, or have git ignore it")
            except (FileNotFoundError, NotADirectoryError):
                self._miss(name)
            except OSError as error:
                raise SourceError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from error

    def _below_a_link(self, folder: Path, linked: dict[Path, bool]) -> bool:
        if folder not in linked:
            linked[folder] = self._below_a_link(folder.parent, linked) or folder.is_symlink()
        return linked[folder]

    def _miss(self, name: str) -> None:
        # Of a sparse checkout git says that nothing is missing, but what is packed differs from HEAD where it is read.
        if is_build_input(name):
            self.absent.add(name)

    def _note(self, name: str, kind: str, digest: str) -> None:
        if name in self.changes.changed:
            self.seen[name] = f"{kind} {digest}"

    def diff_digest(self) -> str | None:
        """Return the digest of all changes, once the entries were read; None if there are none."""
        changed = sorted((name for name in self.changes.changed | self.absent if name[-1] != "/"), key=os.fsencode)
        if not changed:
            return None
        digest = hashlib.sha256()
        for name in changed:
            digest.update(os.fsencode(name) + b"\0" + self.seen.get(name, "deleted").encode() + b"\0")
        return digest.hexdigest()


class _Hashing(io.RawIOBase):
    """A file that is hashed while it is read."""

    def __init__(self, stream: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        data = self._stream.read(size)
        self.hash.update(data)
        return data
