"""The stash: content-addressed artifacts on disk, whole or not there at all.

    objects/<aa>/<sha256>.tar.zst           packed trees by the digest of their bytes
    artifacts/<build key>/manifest.json     what is known of the artifact, and its trees by digest
    artifacts/<build key>/files.json        sha256 of every file by tree and path
    artifacts/<build key>/SHA256SUMS        of the two files above, as `sha256sum -c` reads it
    verified/<sha256>                       of which file the bytes were read and found to be so (see `verified`)
    sequence                                the number of the artifact that was stashed last
    tmp/<...>/                              artifacts in the making
    locks/                                  one lock per build key, and one for the stash; never removed

An artifact's folder is made in tmp/ and appears by one rename, after its objects are there and synced.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import filelock

from crossjit.errors import StashError, UserError
from crossjit.progress import Progress, Silent
from crossjit.stash import manifest as manifests
from crossjit.stash import packing
from crossjit.stash.artifact import (
    FILES_NAME,
    INSTALL,
    MANIFEST_NAME,
    SHORT_ID,
    SUMS_NAME,
    VERIFIED_NAME,
    Artifact,
    file_sha256,
    mentions,
    read_sums,
    sha256,
)
from crossjit.stash.manifest import ArtifactKind, Manifest, NewerSchemaError, SourceFacts, Tree
from crossjit.stash.packing import Packed, Rest
from crossjit.util import files, sequence

__all__ = [
    "Artifact",
    "ArtifactKind",
    "GcResult",
    "Manifest",
    "Packed",
    "Rest",
    "SourceFacts",
    "Staging",
    "Store",
    "Tree",
]

_SHORTEST_PREFIX = 4
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class GcResult:
    """What `gc` removed, or would: artifacts' names, objects' digests, folders in the making; `size` in bytes."""

    artifacts: tuple[str, ...]
    objects: tuple[str, ...]
    temporary: tuple[str, ...]
    size: int


class Staging:
    """An artifact in the making; `Store.staging` gives one."""

    def __init__(self, store: Store, key: str, folder: Path) -> None:
        self._store = store
        self._key = key
        self._folder = folder
        self._packed: dict[str, Packed] = {}

    def add(self, name: str, tar_stream: BinaryIO, *, below: str = "", rest: Rest | None = None) -> Packed:
        """Pack a tree from an uncompressed tar stream of one folder; see `packing.pack`. Raises StashError."""
        with files.translate_os_errors(StashError, "cannot write to the stash", self._store.path):
            packed = packing.pack(tar_stream, self._folder / f"{name}.tar.zst", below=below, rest=rest)
        self._packed[name] = packed
        return packed

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a tree that was packed as an uncompressed tar stream. Raises StashError."""
        return packing.unpack_stream(self._packed[name].path)

    def take(self, name: str, artifact: Artifact) -> Packed:
        """Have a tree of another artifact, which is intact, in this one, too. Raises StashError."""
        tree, path = artifact.manifest.trees[name], self._folder / f"{name}.tar.zst"
        with files.translate_os_errors(StashError, "cannot write to the stash", self._store.path):
            files.write(path, artifact.objects[name].read_bytes())
        packed = Packed(path, tree.object, tree.size, tree.digest, artifact.files()[name], tree.unpacked)
        self._packed[name] = packed
        return packed

    def commit(self, manifest: Manifest) -> Artifact:
        """Put the trees and the manifest into the stash, all or nothing, in place of what is there under the key.

        `created`, `sequence`, `tree_digest` and `trees` of the manifest are filled in. Raises StashError.
        """
        if manifest.build_key != self._key:
            raise ValueError(f"manifest of {manifest.build_key} in the staging of {self._key}")
        manifest = replace(
            manifest,
            created=datetime.now(UTC),
            sequence=self._store._next_number(),
            tree_digest=self._packed[INSTALL].tree_digest,
            trees={
                name: Tree(packed.digest, packed.size, packed.tree_digest, len(packed.files), packed.unpacked)
                for name, packed in sorted(self._packed.items())
            },
        )
        contents = {
            FILES_NAME: manifests.to_json({name: packed.files for name, packed in sorted(self._packed.items())}),
            MANIFEST_NAME: manifests.dump(manifest),
        }
        contents[SUMS_NAME] = read_sums({name: sha256(data) for name, data in contents.items()})
        with files.translate_os_errors(StashError, "cannot write to the stash", self._store.path):
            made = self._folder / "artifact"
            made.mkdir()
            for name, data in contents.items():
                files.write(made / name, data)
            files.sync_folder(made)
            self._store._publish(made, self._key, self._packed, self._folder / "replaced")
        artifact = self._store.find(self._key)
        if artifact is None:
            raise StashError(f"artifact {self._key} vanished as it was stashed", hint="run it again")
        return artifact


class Store:
    """The stash in a folder, which need not exist yet. Reading works where nothing can be written.

    `progress` hears of damaged artifacts, which are then treated as absent.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        self.path = path
        self._progress = progress or Silent()

    def find(self, key: str) -> Artifact | None:
        """Return the complete artifact of a build key, or None. Looks at objects' sizes, `verify` at their bytes."""
        folder = self._artifact_folder(key)
        try:
            return self._read(folder)
        except FileNotFoundError:
            return None
        except NewerSchemaError as error:
            self._progress.say(f"artifact {key} is left alone: {error.message}")
        except StashError as error:
            self._progress.say(f"artifact {key} is damaged and counts as absent: {error.message}")
        return None

    def find_intact(self, key: str) -> Artifact | None:
        """Return the artifact of a build key if every byte of it is as it was stashed, or None."""
        found = self.find(key)
        if found is None or found.is_intact():
            return found
        self._progress.say(f"artifact {found.id} is damaged and counts as absent: `./inv stash verify {found.id}`")
        return None

    def find_by_core(self, base_key: str) -> Artifact | None:
        """Return the newest complete artifact of those that have this core key, or None."""
        found = [
            artifact
            for folder in self._folders()
            if mentions(folder / MANIFEST_NAME, base_key)
            and (artifact := self.find(folder.name))
            and artifact.manifest.base_key == base_key
        ]
        return max(found, key=lambda artifact: artifact.manifest.age, default=None)

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return all complete artifacts, newest first."""
        found = (self.find(folder.name) for folder in self._folders())
        return tuple(sorted((a for a in found if a), key=lambda artifact: artifact.manifest.age, reverse=True))

    def find_by_prefix(self, text: str) -> Artifact:
        """Find by the beginning (4 digits or more) of an artifact's id or build key, or by a cell: its newest.

        Raises UserError if nothing or more than one matches.
        """
        artifacts = self.artifacts()
        for artifact in artifacts:
            if artifact.manifest.cell and text in (str(artifact.manifest.cell), artifact.manifest.cell.slug):
                return artifact
        found = [
            artifact
            for artifact in artifacts
            if len(text) >= _SHORTEST_PREFIX and (artifact.full_id.startswith(text) or artifact.key.startswith(text))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(
                f"{text!r} is the beginning of {len(found)} artifacts",
                hint="give more of it",
                details=tuple(f"{artifact.full_id[:20]}  {artifact.manifest.subject}" for artifact in found),
            )
        raise UserError(
            f"no artifact in the stash is {text!r}",
            hint="give a cell such as 3.15/aarch64/jit, or 4 digits or more of an id; `./inv stash list` shows them",
        )

    @contextlib.contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of a build key; the kernel lets go if we are killed. `on_wait` is called once if it is held.

        Who got it must `find` again: who held it may have built it. Raises StashError if nothing can be written.
        """
        lock = self._lock(key)
        with self._writing():
            self._locks.mkdir(parents=True, exist_ok=True)
            held = _try(lock)
        if not held:
            on_wait()
            with self._writing():
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def staging(self, key: str) -> Iterator[Staging]:
        """Make an artifact; hold the key's lock. What was not committed is gone after the block. Raises StashError."""
        self._artifact_folder(key)
        with contextlib.ExitStack() as stack:
            with self._writing():
                name = f"{key[:SHORT_ID]}-{secrets.token_hex(4)}"
                folder = stack.enter_context(files.locked_dir(self._temporary, name))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            yield Staging(self, key, folder)

    def verify(self, artifact: Artifact) -> list[str]:
        """Look at every byte of an artifact as it is on disk now; return what is wrong, each with the file it is in."""
        return self._problems(artifact.folder)

    def verify_all(self) -> dict[str, list[str]]:
        """Verify all artifacts, those too that are so damaged that `artifacts` leaves them out; by build key."""
        return {folder.name: self._problems(folder) for folder in self._folders()}

    def export(self, artifact: Artifact, folder: Path) -> None:
        """Unpack the install tree, and the manifest beside it, into a folder that is empty or not there.

        It appears complete or not at all, and belongs to the user who runs this. Raises UserError for a folder that is
        not empty, StashError for an artifact that is damaged or a place that cannot be written.
        """
        folder = folder.absolute()
        tree = artifact.manifest.trees[INSTALL]
        try:
            described = (artifact.folder / MANIFEST_NAME).read_bytes()
            sums = (artifact.folder / SUMS_NAME).read_bytes()
            damaged = (
                read_sums({MANIFEST_NAME: sha256(described)}) not in sums
                or manifests.parse(described) != artifact.manifest
            )
            damaged = damaged or file_sha256(artifact.objects[INSTALL]) != tree.object
        except OSError as error:
            raise StashError(f"cannot read the stash: {error}", hint="building the cell again heals it") from error
        if damaged:
            raise StashError(
                f"artifact {artifact.id} is damaged",
                hint=f"`./inv stash verify {artifact.id}` tells what is hit; building the cell again heals it",
            )
        with files.translate_os_errors(StashError, f"cannot export to {folder}", folder.parent):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise UserError(f"{folder} is no folder", hint="give one that is empty, or a new name")
            if folder.exists() and any(folder.iterdir()):
                raise UserError(f"{folder} is not empty", hint="give a folder that is empty, or a new name")
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
            temporary.mkdir()
            try:
                packing.extract(artifact.objects[INSTALL], temporary)
                (temporary / MANIFEST_NAME).write_bytes(described)
                temporary.rename(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise

    def sweep(self) -> tuple[str, ...]:
        """Remove what processes that died left in the making; return the folders' names. Raises StashError."""
        with self._writing():
            return tuple(folder.name for folder in files.remove_dead(self._temporary))

    def gc(self, *, keep_days: float | None = None, keep_last: int | None = None, dry_run: bool = False) -> GcResult:
        """Remove old and damaged artifacts, objects that none refers to, and what dead processes left in the making.

        An artifact is old if it is older than `keep_days` and not among the `keep_last` newest of its cell; without
        either none is. Nothing that is locked is touched, nor what a newer crossjit wrote. Raises StashError.
        """
        names: list[str] = []
        with self._writing(), contextlib.ExitStack() as stack:
            if not dry_run and self.path.is_dir():
                self._locks.mkdir(exist_ok=True)
                stack.enter_context(self._stash_lock())
            keep = self._to_keep(keep_days, keep_last)
            remaining = []
            for folder in self._folders():
                if folder.name in keep or not self._delete(folder, dry_run=dry_run):
                    remaining.append(folder)
                else:
                    names.append(folder.name)
            unused = self._unused_objects(remaining)
            size = sum(path.stat().st_size for path in unused)
            temporary = files.stale_dirs(self._temporary)
            if not dry_run:
                for path in unused:
                    path.unlink()
                    (self.path / VERIFIED_NAME / path.name.partition(".")[0]).unlink(missing_ok=True)
                temporary = files.remove_dead(self._temporary)
        digests = tuple(path.name.partition(".")[0] for path in unused)
        return GcResult(tuple(names), digests, tuple(folder.name for folder in temporary), size)

    def _next_number(self) -> int:
        """Return the number of an artifact that is newer than all that are there. Raises StashError."""
        with self._writing():
            return sequence.next_number(self.path / "sequence", self._newest_number)

    def _newest_number(self) -> int:
        return max((artifact.manifest.sequence for artifact in self.artifacts()), default=0)

    @property
    def _temporary(self) -> Path:
        return self.path / "tmp"

    @property
    def _locks(self) -> Path:
        return self.path / "locks"

    def _artifact_folder(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"no build key: {key!r}")
        return self.path / "artifacts" / key

    def _object(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise StashError(f"no digest: {digest!r}", hint="building the cell again heals it")
        return self.path / "objects" / digest[:2] / f"{digest}.tar.zst"

    def _folders(self) -> list[Path]:
        try:
            return sorted(path for path in (self.path / "artifacts").iterdir() if _KEY.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def _writing(self) -> AbstractContextManager[None]:
        return files.translate_os_errors(StashError, "cannot write to the stash", self.path)

    def _lock(self, key: str) -> filelock.BaseFileLock:
        self._artifact_folder(key)
        return files.lock(self._locks / f"{key}.lock", thread_local=False)

    def _stash_lock(self) -> filelock.BaseFileLock:
        # '+' cannot be in a build key
        return files.lock(self._locks / "stash+.lock", thread_local=False)

    def _read(self, folder: Path) -> Artifact:
        """Read an artifact. Raises FileNotFoundError where there is none, StashError where it is not complete."""
        with files.translate_os_errors(StashError, "cannot read the stash", self.path):
            manifest = manifests.parse((folder / MANIFEST_NAME).read_bytes())
            if manifest.build_key != folder.name or INSTALL not in manifest.trees:
                raise StashError("the manifest is another one's", hint="building the cell again heals it")
            objects = {}
            for name, tree in manifest.trees.items():
                objects[name] = self._object(tree.object)
                try:
                    size = objects[name].stat().st_size
                except FileNotFoundError:
                    raise StashError(f"{name}: {objects[name]} is missing", hint="") from None
                if size != tree.size:
                    raise StashError(f"{name}: {objects[name]} has {size} bytes instead of {tree.size}", hint="")
        return Artifact(manifest, folder, objects)

    def _publish(self, made: Path, key: str, packed: Mapping[str, Packed], replaced: Path) -> None:
        """Move objects and artifact folder to their places, in this order; an artifact that is there goes aside."""
        final = self._artifact_folder(key)
        self._locks.mkdir(exist_ok=True)
        with self._stash_lock():  # lest gc finds objects before there is an artifact that refers to them
            for item in packed.values():
                place = self._object(item.digest)
                place.parent.mkdir(parents=True, exist_ok=True)
                item.path.replace(place)  # over one that is there: that heals it if it was damaged
                files.sync_folder(place.parent)
                files.sync_folder(place.parent.parent)
            final.parent.mkdir(exist_ok=True)
            if final.exists():
                final.rename(replaced)
            made.rename(final)
            files.sync_folder(final.parent)
            files.sync_folder(self.path)

    def _problems(self, folder: Path) -> list[str]:
        problems: list[str] = []
        try:
            sums = (folder / SUMS_NAME).read_bytes()
            actual = {name: file_sha256(folder / name) for name in (FILES_NAME, MANIFEST_NAME)}
        except OSError as error:
            return [f"{folder.name}/{Path(error.filename or SUMS_NAME).name}: {(error.strerror or str(error)).lower()}"]
        for name, digest in actual.items():
            if read_sums({name: digest}) not in sums:
                problems.append(f"{folder.name}/{name}: changed (or {SUMS_NAME} beside it)")
        if not problems and sums != read_sums(actual):
            problems.append(f"{folder.name}/{SUMS_NAME}: changed")
        try:
            manifest = manifests.parse((folder / MANIFEST_NAME).read_bytes())
            listed = json.loads((folder / FILES_NAME).read_bytes())
            if manifest.build_key != folder.name:
                problems.append(f"{folder.name}/{MANIFEST_NAME}: is of {manifest.build_key}")
            for name, tree in manifest.trees.items():
                problems += self._problems_of_tree(name, tree, dict(listed.get(name, {})))
        except (StashError, OSError, ValueError, TypeError, AttributeError) as error:
            problems.append(f"{folder.name}: {error}")
        return problems

    def _problems_of_tree(self, name: str, tree: Tree, listed: dict[str, str]) -> list[str]:
        path = self._object(tree.object)
        label = str(path.relative_to(self.path))
        if not path.exists():
            return [f"{label}: missing (the tree {name})"]
        problems = []
        if file_sha256(path) != tree.object:
            problems.append(f"{label}: changed (the tree {name})")
        last = "the beginning"
        try:
            for file, digest in packing.contents(path):
                last = file
                expected = listed.pop(file, None)
                if expected is None:
                    problems.append(f"{name}/{file}: not in {FILES_NAME}")
                elif expected != digest:
                    problems.append(f"{name}/{file}: changed")
        except StashError as error:
            problems.append(f"{label}: unreadable after {name}/{last}: {error.message}")
        else:
            problems += [f"{name}/{file}: missing" for file in listed]
        return problems

    def _to_keep(self, keep_days: float | None, keep_last: int | None) -> set[str]:
        """Return the keys of the artifacts that are not old, and of those that are a newer crossjit's."""
        artifacts = self.artifacts()
        keep = {folder.name for folder in self._folders() if _is_newer(folder)}
        if keep_days is None and keep_last is None:
            return keep | {artifact.key for artifact in artifacts}
        since = datetime.now(UTC) - timedelta(days=keep_days or 0)
        by_subject: dict[str, list[str]] = defaultdict(list)
        for artifact in artifacts:
            keys = by_subject[artifact.manifest.subject]
            keys.append(artifact.key)
            if (keep_days is not None and artifact.manifest.created >= since) or len(keys) <= (keep_last or 0):
                keep.add(artifact.key)
        return keep

    def _delete(self, folder: Path, *, dry_run: bool) -> bool:
        """Remove an artifact unless its key is locked; whether it went, or would."""
        lock = self._lock(folder.name)
        if dry_run and not self._locks.is_dir():
            return True
        if not _try(lock):
            return False
        try:
            if not dry_run:
                with files.locked_dir(self._temporary, f"gc-{secrets.token_hex(4)}") as aside:
                    folder.rename(aside / "artifact")  # out of sight as a whole first; if we die now it is swept
                    shutil.rmtree(aside)
        finally:
            lock.release()
        return True

    def _unused_objects(self, remaining: list[Path]) -> list[Path]:
        used: set[str] = set()
        for folder in remaining:
            # Whatever looks like a digest: so that what a newer crossjit, or a damaged manifest, refers to is kept.
            with contextlib.suppress(FileNotFoundError):
                used.update(_DIGEST.findall((folder / MANIFEST_NAME).read_text("utf-8", "replace")))
        return sorted(
            path for path in (self.path / "objects").glob("*/*.tar.zst") if path.name.partition(".")[0] not in used
        )


def _try(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


def _is_newer(folder: Path) -> bool:
    try:
        manifests.parse((folder / MANIFEST_NAME).read_bytes())
    except NewerSchemaError:
        return True
    except (OSError, StashError):
        return False
    return False
