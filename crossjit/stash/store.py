"""The stash: content-addressed artifacts on disk, complete or absent. `layout` has its paths."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from crossjit import PROGRAM
from crossjit.errors import StashError, UserError
from crossjit.progress import Progress, Silent
from crossjit.stash import gc, packing, verify
from crossjit.stash import manifest as manifests
from crossjit.stash.artifact import (
    FILES_NAME,
    INSTALL,
    MANIFEST_NAME,
    SHORT_ID,
    SUMS_NAME,
    Artifact,
    file_sha256,
    mentions,
    read_sums,
    sha256,
)
from crossjit.stash.gc import GcResult
from crossjit.stash.layout import Layout
from crossjit.stash.manifest import ArtifactKind, Manifest, NewerSchemaError, SourceFacts, Tree
from crossjit.stash.packing import Packed, Rest
from crossjit.util import files, locks, sequence

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


class Staging:
    """An unfinished artifact; `Store.staging` makes one."""

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
        """Open a packed tree as an uncompressed tar stream. Raises StashError."""
        return packing.unpack_stream(self._packed[name].path)

    def take(self, name: str, artifact: Artifact) -> Packed:
        """Copy a tree of another, intact artifact into this one. Raises StashError."""
        tree, path = artifact.manifest.trees[name], self._folder / f"{name}.tar.zst"
        with files.translate_os_errors(StashError, "cannot write to the stash", self._store.path):
            files.write(path, artifact.objects[name].read_bytes())
        packed = Packed(path, tree.object, tree.size, tree.digest, artifact.files()[name], tree.unpacked)
        self._packed[name] = packed
        return packed

    def place(self, name: str, tree: Tree, listed: Mapping[str, str]) -> Path:
        """Return the path where the caller puts a tree that is packed already, verified and synced.

        `listed` are the digests of its files by path.
        """
        path = self._folder / f"{name}.tar.zst"
        self._packed[name] = Packed(path, tree.object, tree.size, tree.digest, listed, tree.unpacked)
        return path

    def commit(
        self, manifest: Manifest, *, created: datetime | None = None, beside: Mapping[str, bytes] | None = None
    ) -> Artifact:
        """Put the trees and the manifest into the stash atomically, replacing the key's artifact if there is one.

        Fills in `created` (by default: now), `sequence`, `tree_digest` and `trees` of the manifest. `beside` are other
        files for the artifact's folder. Raises StashError.
        """
        if manifest.build_key != self._key:
            raise ValueError(f"manifest of {manifest.build_key} in the staging of {self._key}")
        manifest = replace(
            manifest,
            created=created or datetime.now(UTC),
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
        contents |= beside or {}
        with files.translate_os_errors(StashError, "cannot write to the stash", self._store.path):
            folder = self._folder / "artifact"
            folder.mkdir()
            for name, data in contents.items():
                files.write(folder / name, data)
            files.sync_folder(folder)
            self._store._publish(folder, self._key, self._packed, self._folder / "replaced")
        artifact = self._store.find(self._key)
        if artifact is None:
            raise StashError(f"artifact {self._key} vanished while it was being stashed", hint="run it again")
        return artifact


class Store:
    """The stash in a folder, which need not exist yet. Reading works without write permission.

    Damaged artifacts are reported to `progress` and treated as absent.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        self.path = path
        self._layout = Layout(path)
        self._progress = progress or Silent()

    def find(self, key: str) -> Artifact | None:
        """Return the complete artifact of a build key, or None. Checks only the objects' sizes; see `verify`."""
        folder = self._layout.artifact_folder(key)
        try:
            return self._read(folder)
        except FileNotFoundError:
            return None
        except NewerSchemaError as error:
            self._progress.say(f"artifact {key} is left alone: {error.message}")
        except StashError as error:
            self._progress.say(f"artifact {key} is damaged and is ignored: {error.message}")
        return None

    def find_intact(self, key: str) -> Artifact | None:
        """Return the artifact of a build key if every byte of it is unchanged, or None."""
        artifact = self.find(key)
        if artifact is None or artifact.is_intact():
            return artifact
        self._progress.say(f"artifact {artifact.id} is damaged and is ignored: `{PROGRAM} stash verify {artifact.id}`")
        return None

    def find_by_base_key(self, base_key: str) -> Artifact | None:
        """Return the newest complete artifact with this base key, or None."""
        matches = [
            artifact
            for folder in self._layout.artifact_folders()
            if mentions(folder / MANIFEST_NAME, base_key)
            and (artifact := self.find(folder.name))
            and artifact.manifest.base_key == base_key
        ]
        return max(matches, key=lambda artifact: artifact.manifest.age, default=None)

    def artifacts(self) -> tuple[Artifact, ...]:
        """Return all complete artifacts, newest first."""
        complete = (a for folder in self._layout.artifact_folders() if (a := self.find(folder.name)))
        return tuple(sorted(complete, key=lambda artifact: artifact.manifest.age, reverse=True))

    def find_by_prefix(self, text: str) -> Artifact:
        """Find by a prefix (4 digits or more) of an artifact's id or build key, or by a cell, which gives its newest.

        Raises UserError unless exactly one matches.
        """
        artifacts = self.artifacts()
        for artifact in artifacts:
            if artifact.manifest.cell and text in (str(artifact.manifest.cell), artifact.manifest.cell.slug):
                return artifact
        matches = [
            artifact
            for artifact in artifacts
            if len(text) >= _SHORTEST_PREFIX and (artifact.full_id.startswith(text) or artifact.key.startswith(text))
        ]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(
                f"{text!r} matches {len(matches)} artifacts",
                hint="give more digits",
                details=tuple(f"{artifact.full_id[:20]}  {artifact.manifest.subject}" for artifact in matches),
            )
        raise UserError(
            f"there is no artifact {text!r} in the stash",
            hint=f"give a cell such as 3.15/aarch64/jit, or 4 digits of an id; `{PROGRAM} stash list` shows them",
        )

    @contextlib.contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock of a build key; the kernel releases it if we are killed. `on_wait` is called once if we wait.

        Call `find` again afterwards: the previous holder may have built the artifact. Raises StashError if the stash is
        not writable.
        """
        with locks.locked(self._layout.lock_path(key), self._layout.writing, on_wait):
            yield

    @contextlib.contextmanager
    def staging(self, key: str) -> Iterator[Staging]:
        """Make an artifact, with the key's lock held by the caller. The block's end removes it if it is not committed.

        Raises StashError.
        """
        self._layout.artifact_folder(key)
        with contextlib.ExitStack() as stack:
            with self._layout.writing():
                name = f"{key[:SHORT_ID]}-{secrets.token_hex(4)}"
                folder = stack.enter_context(files.locked_dir(self._layout.temporary, name))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            yield Staging(self, key, folder)

    def verify(self, artifact: Artifact) -> list[str]:
        """Read every byte of an artifact; return a list of the damage, each entry with its file."""
        return verify.problems(self._layout, artifact.folder)

    def verify_all(self) -> dict[str, list[str]]:
        """Verify all artifacts by build key, including damaged ones that `artifacts` leaves out."""
        return {folder.name: verify.problems(self._layout, folder) for folder in self._layout.artifact_folders()}

    def export(self, artifact: Artifact, folder: Path) -> None:
        """Unpack the install tree and the manifest into an empty or new folder.

        It appears atomically, and belongs to the current user. Raises UserError for a folder that is not empty,
        StashError for a damaged artifact or a place that is not writable.
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
            raise StashError(f"cannot read the stash: {error}", hint="build the cell again to repair it") from error
        if damaged:
            raise StashError(
                f"artifact {artifact.id} is damaged",
                hint=f"`{PROGRAM} stash verify {artifact.id}` shows the damage; build the cell again to repair it",
            )
        with files.translate_os_errors(StashError, f"cannot export to {folder}", folder.parent):
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise UserError(f"{folder} is not a folder", hint="give one that is empty, or a new name")
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
        """Remove the temporary folders of dead processes; return their names. Raises StashError."""
        with self._layout.writing():
            return tuple(folder.name for folder in files.remove_dead(self._layout.temporary))

    def gc(self, *, keep_days: float | None = None, keep_last: int | None = None, dry_run: bool = False) -> GcResult:
        """Remove old, damaged and unused data; see `gc.gc`. Raises StashError."""
        return gc.gc(self._layout, self.artifacts, keep_days=keep_days, keep_last=keep_last, dry_run=dry_run)

    def _next_number(self) -> int:
        """Return the number for a new artifact. Raises StashError."""
        with self._layout.writing():
            return sequence.next_number(self.path / "sequence", self._newest_number)

    def _newest_number(self) -> int:
        return max((artifact.manifest.sequence for artifact in self.artifacts()), default=0)

    def _read(self, folder: Path) -> Artifact:
        """Read an artifact. Raises FileNotFoundError if it does not exist, StashError if it is not complete."""
        with files.translate_os_errors(StashError, "cannot read the stash", self.path):
            manifest = manifests.parse((folder / MANIFEST_NAME).read_bytes())
            if manifest.build_key != folder.name or INSTALL not in manifest.trees:
                raise StashError(
                    "the manifest belongs to a different artifact", hint="build the cell again to repair it"
                )
            objects = {}
            for name, tree in manifest.trees.items():
                objects[name] = self._layout.object_path(tree.object)
                try:
                    size = objects[name].stat().st_size
                except FileNotFoundError:
                    raise StashError(f"{name}: {objects[name]} is missing", hint="") from None
                if size != tree.size:
                    raise StashError(f"{name}: {objects[name]} has {size} bytes instead of {tree.size}", hint="")
        return Artifact(manifest, folder, objects)

    def _publish(self, folder: Path, key: str, packed: Mapping[str, Packed], replaced: Path) -> None:
        """Move the objects and then the artifact's folder into place; a previous artifact is moved to `replaced`."""
        final = self._layout.artifact_folder(key)
        self._layout.locks.mkdir(exist_ok=True)
        with self._layout.stash_lock():  # or else gc could remove the objects before the artifact refers to them
            for item in packed.values():
                place = self._layout.object_path(item.digest)
                place.parent.mkdir(parents=True, exist_ok=True)
                item.path.replace(place)  # repairs an existing object if it is damaged
                files.sync_folder(place.parent)
                files.sync_folder(place.parent.parent)
            final.parent.mkdir(exist_ok=True)
            if final.exists():
                final.rename(replaced)
            folder.rename(final)
            files.sync_folder(final.parent)
            files.sync_folder(self.path)
