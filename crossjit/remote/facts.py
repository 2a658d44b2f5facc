"""Whether the manifest of a fetched artifact tells the truth: its build key is computed again from its inputs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from crossjit.remote.bundle import TREE, Bundle, RefusedError
from crossjit.stash.artifact import GENERATED, INSTALL, SUPPORT
from crossjit.stash.manifest import ArtifactKind, Manifest, key_of

TREES = {ArtifactKind.CELL: (INSTALL, SUPPORT, GENERATED), ArtifactKind.BUILD_PYTHON: (INSTALL,)}


def require_true(manifest: Manifest, bundle: Bundle) -> None:
    """Raise RefusedError unless a manifest's inputs give the bundle's key, and its facts agree with them."""
    if manifest.kind not in TREES:
        raise RefusedError("it is a Python that crossjit did not build")
    if not manifest.inputs:
        raise RefusedError("its manifest does not record the build's inputs")
    if key_of(manifest.inputs) != bundle.key or manifest.build_key != bundle.key:
        raise RefusedError("its manifest is that of another build: its inputs do not give this build key")
    try:
        wrong = next(_disagreeing(manifest), None) or ("time" if manifest.created.tzinfo is None else "")
    except (KeyError, TypeError, AttributeError, StopIteration):
        wrong = "inputs"
    if wrong:
        raise RefusedError(f"its manifest contradicts itself: {wrong} is not what the build key says")
    _require_trees(manifest, bundle)


def _disagreeing(manifest: Manifest) -> Iterator[str]:
    """Yield the names of facts that are not those of the inputs."""
    inputs: Any = manifest.inputs
    core = inputs["core"]
    configure = next(command["argv"] for command in inputs["commands"] if command["phase"] == "configure")
    facts = {
        "arch": (manifest.arch, inputs["arch"]),
        "strategy": (manifest.strategy, inputs["strategy"]),
        "source": (manifest.source.digest, inputs["source"]),
        "trust domain": (manifest.domain, inputs["domain"]),
        "configure": (manifest.configure, shlex.join(configure)),
        "base key": (manifest.base_key, key_of(inputs, core) if core else None),
        "cell": (manifest.cell.arch if manifest.cell else manifest.arch, inputs["arch"]),
    }
    return (name for name, (told, meant) in facts.items() if told != meant)


def _require_trees(manifest: Manifest, bundle: Bundle) -> None:
    trees = {f"{name}{TREE}": (tree.object, tree.size) for name, tree in manifest.trees.items()}
    layers = {layer.title: (layer.digest, layer.size) for layer in bundle.layers.values() if layer.is_tree}
    if trees != layers:
        raise RefusedError("its manifest names other trees than it has")
    if missing := [name for name in TREES[manifest.kind] if name not in manifest.trees]:
        raise RefusedError(f"it lacks the tree {missing[0]}")
    if manifest.tree_digest != manifest.trees[INSTALL].digest:
        raise RefusedError("its manifest contradicts itself: the digest of the install tree")
