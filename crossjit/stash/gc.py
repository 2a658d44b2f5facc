"""Removing old, damaged and unused data from the stash."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crossjit.errors import StashError
from crossjit.stash import manifest as manifests
from crossjit.stash.artifact import MANIFEST_NAME, Artifact
from crossjit.stash.layout import DIGEST, Layout
from crossjit.stash.manifest import NewerSchemaError
from crossjit.util import files, locks


@dataclass(frozen=True)
class GcResult:
    """The removed artifacts' names, objects' digests and temporary folders' names; `size` is the objects', in bytes.

    In a dry run, `gc` would remove them.
    """

    artifacts: tuple[str, ...]
    objects: tuple[str, ...]
    temporary: tuple[str, ...]
    size: int


def gc(
    layout: Layout,
    artifacts: Callable[[], Sequence[Artifact]],
    *,
    keep_days: float | None,
    keep_last: int | None,
    dry_run: bool,
) -> GcResult:
    """Remove old and damaged artifacts, unused objects and test lists, and temporary folders of dead processes.

    An artifact is old if it is older than `keep_days` and not among the `keep_last` newest of its cell. If both are
    None, none is old. Locked artifacts, and those of a newer crossjit, are kept. Raises StashError.
    """
    names: list[str] = []
    with layout.writing(), contextlib.ExitStack() as stack:
        if not dry_run and layout.path.is_dir():
            layout.locks.mkdir(exist_ok=True)
            stack.enter_context(layout.stash_lock())
        keep = _to_keep(layout, artifacts(), keep_days, keep_last)
        remaining = []
        for folder in layout.artifact_folders():
            if folder.name in keep or not _delete(layout, folder, dry_run=dry_run):
                remaining.append(folder)
            else:
                names.append(folder.name)
        unused = _unused_objects(layout, remaining)
        size = sum(path.stat().st_size for path in unused)
        temporary = files.stale_dirs(layout.temporary)
        if not dry_run:
            for path in unused:
                path.unlink()
                (layout.verified / path.name.partition(".")[0]).unlink(missing_ok=True)
            keys = {folder.name for folder in layout.artifact_folders()}
            for path in layout.test_lists.glob("[!.]*"):
                if path.name not in keys:
                    path.unlink(missing_ok=True)
            temporary = files.remove_dead(layout.temporary)
    digests = tuple(path.name.partition(".")[0] for path in unused)
    return GcResult(tuple(names), digests, tuple(folder.name for folder in temporary), size)


def _to_keep(layout: Layout, artifacts: Sequence[Artifact], keep_days: float | None, keep_last: int | None) -> set[str]:
    """Return the keys of the artifacts that are not old, and of those written by a newer crossjit."""
    keep = {folder.name for folder in layout.artifact_folders() if _is_newer(folder)}
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


def _delete(layout: Layout, folder: Path, *, dry_run: bool) -> bool:
    """Remove an artifact unless its key is locked; return whether it was removed, or would be."""
    lock = locks.lock(layout.lock_path(folder.name))
    if dry_run and not layout.locks.is_dir():
        return True
    if not locks.try_acquire(lock):
        return False
    try:
        if not dry_run:
            with files.locked_dir(layout.temporary, f"gc-{secrets.token_hex(4)}") as aside:
                folder.rename(aside / "artifact")  # atomic; if we die now, the next sweep removes it
                shutil.rmtree(aside)
    finally:
        lock.release()
    return True


def _unused_objects(layout: Layout, remaining: list[Path]) -> list[Path]:
    used: set[str] = set()
    for folder in remaining:
        # Any text that looks like a digest, so that objects of a newer crossjit or of a damaged manifest are kept.
        with contextlib.suppress(FileNotFoundError):
            used.update(DIGEST.findall((folder / MANIFEST_NAME).read_text("utf-8", "replace")))
    return sorted(path for path in layout.objects.glob("*/*.tar.zst") if path.name.partition(".")[0] not in used)


def _is_newer(folder: Path) -> bool:
    try:
        manifests.parse((folder / MANIFEST_NAME).read_bytes())
    except NewerSchemaError:
        return True
    except (OSError, StashError):
        return False
    return False
