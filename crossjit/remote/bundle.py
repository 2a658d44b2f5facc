"""An artifact as an OCI manifest: its files as layers, and a signature over all of them.

    manifest.json, files.json     as in the stash
    install.tar.zst, ...          its packed trees
    attestation.json              what others attest of it; may be missing

The signed statement names the build key, and each layer with digest and size: nothing can be left out or replaced.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crossjit.stash.artifact import FILES_NAME, MANIFEST_NAME
from crossjit.util.budget import BUDGET
from crossjit.util.text import shortened, size

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MOST_MANIFEST = 4 << 20  # what the distribution specification asks registries to take
MOST_JSON = 64 << 20
TREE = ".tar.zst"
EMPTY = b"{}"

_ARTIFACT_TYPE = "application/vnd.crossjit.artifact.v1"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_TITLE = "org.opencontainers.image.title"
_SIGNER, _SIGNATURE = "crossjit.signer", "crossjit.signature"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}(\.json|\.tar\.zst)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class RefusedError(Exception):
    """An artifact of the remote cannot be used; the message says why."""


@dataclass(frozen=True)
class Layer:
    """One file: its title, sha256 (64 hex digits) and size."""

    title: str
    digest: str
    size: int

    @property
    def is_tree(self) -> bool:
        """Whether it is a packed tree."""
        return self.title.endswith(TREE)


@dataclass(frozen=True)
class Bundle:
    """The layers of an artifact by title, and who signed them: a public key and a signature, empty if nobody did."""

    key: str
    layers: Mapping[str, Layer]
    signer: str = ""
    signature: str = ""

    @property
    def statement(self) -> bytes:
        """The text that is signed."""
        layers = sorted(self.layers.values(), key=lambda layer: layer.title)
        lines = ("crossjit artifact 1", self.key, *(f"{each.digest} {each.size} {each.title}" for each in layers))
        return "".join(f"{line}\n" for line in lines).encode("ascii")


def of(key: str, layers: Iterable[Layer], signer: str = "", signature: str = "") -> Bundle:
    """Make a bundle of layers."""
    return Bundle(key, {layer.title: layer for layer in layers}, signer, signature)


def dump(bundle: Bundle) -> bytes:
    """Return the OCI manifest."""
    layers = [
        _descriptor(_type_of(layer), layer.digest, layer.size, {_TITLE: layer.title})
        for layer in bundle.layers.values()
    ]
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": _ARTIFACT_TYPE,
        "config": _descriptor(_EMPTY_TYPE, hashlib.sha256(EMPTY).hexdigest(), len(EMPTY), {}),
        "layers": layers,
        "annotations": {_SIGNER: bundle.signer, _SIGNATURE: bundle.signature},
    }
    return json.dumps(manifest, indent=1).encode()


def parse(key: str, content: bytes) -> Bundle:
    """Read the OCI manifest found for a build key. Raises RefusedError if it is not one of ours."""
    try:
        manifest = _type().validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place, what = ".".join(map(str, first["loc"])), first["msg"]
        raise RefusedError(f"its OCI manifest is invalid: {shortened(f'{place}: {what}', 200)}") from error
    if manifest.mediaType != MANIFEST_TYPE or manifest.artifactType != _ARTIFACT_TYPE:
        raise RefusedError("it is not an artifact of crossjit's")
    layers = [_layer(each) for each in manifest.layers]
    bundle = of(key, layers, manifest.annotations.get(_SIGNER, ""), manifest.annotations.get(_SIGNATURE, ""))
    if len(bundle.layers) != len(layers):
        raise RefusedError("two of its layers have one title")
    if missing := {MANIFEST_NAME, FILES_NAME} - bundle.layers.keys():
        raise RefusedError(f"it has no {min(missing)}")
    if (total := sum(layer.size for layer in layers)) > BUDGET.archive:
        raise RefusedError(f"it has {size(total)}, more than any artifact")
    return bundle


@dataclass(frozen=True)
class _Descriptor:
    digest: str
    size: int
    annotations: dict[str, str]


@dataclass(frozen=True)
class _Manifest:
    mediaType: str  # noqa: N815 - the names are OCI's
    artifactType: str  # noqa: N815
    layers: list[_Descriptor]
    annotations: dict[str, str]


@cache
def _type() -> TypeAdapter[_Manifest]:
    return TypeAdapter(_Manifest)


def _layer(descriptor: _Descriptor) -> Layer:
    title = descriptor.annotations.get(_TITLE, "")
    if not _NAME.fullmatch(title) or not _DIGEST.fullmatch(descriptor.digest) or descriptor.size < 0:
        raise RefusedError(f"a layer has an invalid title, digest or size: {shortened(title, 60)!r}")
    if not title.endswith(TREE) and descriptor.size > MOST_JSON:
        raise RefusedError(f"{title} has {size(descriptor.size)}, more than any artifact")
    return Layer(title, descriptor.digest.removeprefix("sha256:"), descriptor.size)


def _type_of(layer: Layer) -> str:
    return "application/vnd.crossjit.tree.v1.tar+zstd" if layer.is_tree else "application/json"


def _descriptor(kind: str, digest: str, length: int, annotations: Mapping[str, str]) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": length, "annotations": dict(annotations)}
