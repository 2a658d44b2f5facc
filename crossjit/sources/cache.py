"""The state folder's `sources/`: downloaded and packed files by digest, with the facts read from them."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import StashError
from crossjit.progress import Step
from crossjit.settings import Settings
from crossjit.sources.model import TreeFacts
from crossjit.util import files, locks

CHUNK = 1 << 20
FACTS = "facts.json"
TREE = "tree.tar.zst"


@dataclass(frozen=True)
class Record:
    """`facts.json`, beside each stored file. `size` and `mtime_ns` detect cheaply that the file has changed.

    `tree` is the name of the file that builds get: `name`, or one beside it.
    """

    name: str
    tree: str
    size: int
    mtime_ns: int
    origin: str
    facts: TreeFacts


@dataclass(frozen=True)
class CachedSource:
    """A file in the cache and its record."""

    path: Path
    record: Record

    @property
    def tree(self) -> Path:
        """The file that builds get."""
        return self.path.with_name(self.record.tree)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn OSErrors in writing into StashErrors."""
    message = f"cannot write to {path}"
    try:
        with files.translate_os_errors(StashError, message, path):
            yield
    except OSError as error:
        raise StashError(
            f"{message}: {(error.strerror or str(error)).lower()}",
            hint="set CROSSJIT_HOME to a writable folder",
        ) from error


@contextlib.contextmanager
def locked(settings: Settings, name: str, step: Step) -> Iterator[None]:
    """Hold the lock of a source, so that two processes fetch it once; the step shows the wait."""
    path = settings.locks / f"source-{name}.lock"
    with locks.locked(
        path,
        errors=lambda: storing(path.parent),
        on_wait=lambda: step.update(detail="waiting for another process that fetches it"),
    ):
        yield


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a folder for unfinished files, removed at the end; remove those of killed processes first."""
    with contextlib.ExitStack() as stack:
        with storing(parent):
            files.remove_dead(parent)
            folder = stack.enter_context(files.locked_dir(parent, uuid.uuid4().hex))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def find(settings: Settings, digest: str) -> CachedSource | None:
    """Look up the verified file of a digest; None if there is none, or it has changed."""
    folder = settings.sources / digest
    try:
        record = _record_type().validate_json((folder / FACTS).read_bytes())
        path = folder / record.name
        status = path.stat()
    except (OSError, ValidationError):
        return None
    stored = CachedSource(path, record)
    if (status.st_size, status.st_mtime_ns) != (record.size, record.mtime_ns) or not stored.tree.is_file():
        return None
    return stored


def leftover(settings: Settings, digest: str) -> Path | None:
    """Return the file of a digest that `find` does not accept, to be verified again."""
    folder = settings.sources / digest
    own = (FACTS, TREE)
    files = [path for path in folder.iterdir() if path.name not in own and path.is_file()] if folder.is_dir() else []
    return files[0] if len(files) == 1 else None


def add(
    settings: Settings, digest: str, file: Path, *, tree: Path | None = None, name: str, origin: str, facts: TreeFacts
) -> CachedSource:
    """Store a verified file of a workspace and its facts under its digest, in one rename. Its lock must be held.

    `tree` is the file that builds get instead.
    """
    final = settings.sources / digest
    stage = file.parent / f"{digest}.stage"
    with storing(settings.sources):
        stage.mkdir()
        file = file.rename(stage / name)
        if tree is not None:
            tree = tree.rename(stage / TREE)
        status = file.stat()
        record = Record(name, (tree or file).name, status.st_size, status.st_mtime_ns, origin, facts)
        files.write(stage / FACTS, _record_type().dump_json(record, indent=2))
        files.sync_folder(stage)
        if final.exists():
            final.rename(stage.with_suffix(".damaged"))
        stage.rename(final)
        files.sync_folder(settings.sources)
    return CachedSource(final / name, record)


def refresh(settings: Settings, file: Path, *, tree: Path, origin: str, facts: TreeFacts) -> CachedSource:
    """Replace the facts and the tree of a stored file that was verified again. The digest's lock must be held."""
    with storing(settings.sources):
        status = file.stat()
        tree = tree.replace(file.with_name(TREE))
        record = Record(file.name, tree.name, status.st_size, status.st_mtime_ns, origin, facts)
        files.replace(file.with_name(FACTS), _record_type().dump_json(record, indent=2))
    return CachedSource(file, record)


def invalidate(path: Path) -> None:
    """Mark a stored file as damaged: it is verified before it is used again."""
    with contextlib.suppress(OSError):
        path.with_name(FACTS).unlink()


def digest_of(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _record_type() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
