"""Verifying artifacts: every byte is read and compared with the digests that were stashed."""

from __future__ import annotations

import json
from pathlib import Path

from crossjit.errors import StashError
from crossjit.stash import manifest as manifests
from crossjit.stash import packing
from crossjit.stash.artifact import FILES_NAME, MANIFEST_NAME, SUMS_NAME, file_sha256, read_sums
from crossjit.stash.layout import Layout
from crossjit.stash.manifest import Tree


def problems(layout: Layout, folder: Path) -> list[str]:
    """Read every byte of an artifact; return a list of the damage, each entry with its file."""
    damage: list[str] = []
    try:
        sums = (folder / SUMS_NAME).read_bytes()
        actual = {name: file_sha256(folder / name) for name in (FILES_NAME, MANIFEST_NAME)}
    except OSError as error:
        return [f"{folder.name}/{Path(error.filename or SUMS_NAME).name}: {(error.strerror or str(error)).lower()}"]
    for name, digest in actual.items():
        if read_sums({name: digest}) not in sums:
            damage.append(f"{folder.name}/{name}: changed (or {SUMS_NAME} beside it)")
    if not damage and sums != read_sums(actual):
        damage.append(f"{folder.name}/{SUMS_NAME}: changed")
    try:
        manifest = manifests.parse((folder / MANIFEST_NAME).read_bytes())
        listed = json.loads((folder / FILES_NAME).read_bytes())
        if manifest.build_key != folder.name:
            damage.append(f"{folder.name}/{MANIFEST_NAME}: belongs to {manifest.build_key}")
        for name, tree in manifest.trees.items():
            damage += _problems_of_tree(layout, name, tree, dict(listed.get(name, {})))
    except (StashError, OSError, ValueError, TypeError, AttributeError) as error:
        damage.append(f"{folder.name}: {error}")
    return damage


def _problems_of_tree(layout: Layout, name: str, tree: Tree, listed: dict[str, str]) -> list[str]:
    path = layout.object_path(tree.object)
    label = str(path.relative_to(layout.path))
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
