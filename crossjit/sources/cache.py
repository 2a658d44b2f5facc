"""The folder `sources/` of the state folder: what was downloaded or packed, by digest, with the facts read from it."""

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
    """`facts.json`, beside each stored file. `size` and `mtime_ns` tell cheaply that the file is what was verified.

    `tree` names the file that builds are given, `name` or one beside it.
    """

    name: str
    tree: str
    size: int
    mtime_ns: int
    origin: str
    facts: TreeFacts


@dataclass(frozen=True)
class CachedSource:
    """A file in the cache, with what is known of it."""

    path: Path
    record: Record

    @property
    def tree(self) -> Path:
        """The file that builds are given."""
        return self.path.with_name(self.record.tree)


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turn what the operating system says against writing into a StashError."""
    what = f"cannot write to {path}"
    try:
        with files.translate_os_errors(StashError, what, path):
            yield
    except OSError as error:
        raise StashError(
            f"{what}: {(error.strerror or str(error)).lower()}",
            hint="set CROSSJIT_HOME to a writable folder",
        ) from error


@contextlib.contextmanager
def locked(settings: Settings, name: str, step: Step) -> Iterator[None]:
    """Hold the lock of one source, so that two processes fetch it once; the step says so while it waits."""
    path = settings.locks / f"source-{name}.lock"
    with locks.locked(
        path,
        errors=lambda: storing(path.parent),
        on_wait=lambda: step.update(detail="waiting for another process that fetches it"),
    ):
        yield


@contextlib.contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """Make a folder for files in the making and remove it on the way out; first those of processes that were killed."""
    with contextlib.ExitStack() as stack:
        with storing(parent):
            files.remove_dead(parent)
            folder = stack.enter_context(files.locked_dir(parent, uuid.uuid4().hex))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def find(settings: Settings, digest: str) -> CachedSource | None:
    """Look up what was stored and verified under a digest; None if there is nothing, or it has changed since."""
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
    """Return the file under a digest that `find` does not trust, to be verified anew."""
    folder = settings.sources / digest
    own = (FACTS, TREE)
    files = [path for path in folder.iterdir() if path.name not in own and path.is_file()] if folder.is_dir() else []
    return files[0] if len(files) == 1 else None


def add(
    settings: Settings, digest: str, file: Path, *, tree: Path | None = None, name: str, origin: str, facts: TreeFacts
) -> CachedSource:
    """Store a verified file of a workspace under its digest, with its facts, in one rename. Needs the digest's lock.

    `tree` is what builds are given instead of the file.
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
    """Put the facts of a stored file that was verified again, and its tree, beside it. Needs the digest's lock."""
    with storing(settings.sources):
        status = file.stat()
        tree = tree.replace(file.with_name(TREE))
        record = Record(file.name, tree.name, status.st_size, status.st_mtime_ns, origin, facts)
        files.replace(file.with_name(FACTS), _record_type().dump_json(record, indent=2))
    return CachedSource(file, record)


def invalidate(path: Path) -> None:
    """Have a stored file that turned out to be damaged verified before it is used again."""
    with contextlib.suppress(OSError):
        path.with_name(FACTS).unlink()


def digest_of(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _record_type() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
