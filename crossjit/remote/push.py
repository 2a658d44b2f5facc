"""Pushing artifacts to a remote, signed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

import tenacity
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from crossjit.errors import StashError, UserError
from crossjit.progress import Progress
from crossjit.remote import bundle as bundles
from crossjit.remote import facts, signing
from crossjit.remote.base import PUSHING, OpenBlob, Remote
from crossjit.remote.bundle import Bundle, Layer, RefusedError
from crossjit.sources.locations import PlaceError, TransientError
from crossjit.stash.artifact import ATTESTATION_NAME, FILES_NAME, MANIFEST_NAME, Artifact, sha256
from crossjit.util.text import size as size_text

MOST_ATTESTATION = 16 << 20


def push(
    remote: Remote,
    artifact: Artifact,
    key: Ed25519PrivateKey,
    is_trusted: Callable[[Bundle], bool],
    progress: Progress,
    *,
    attestation: bytes | None = None,
) -> bool:
    """Push an intact artifact; return whether it was missing there.

    One that is there and signed by this key, or by somebody trusted, is kept, unless a new attestation comes with it.
    Raises StashError if the remote fails or the artifact cannot be shared.
    """
    contents = _contents(artifact, attestation)
    bundle = _signed(artifact.key, [layer for layer, _ in contents], key)
    _require_shareable(artifact, bundle)
    try:
        if _is_there(remote, bundle, is_trusted):
            return False
        with progress.step("push", artifact.manifest.subject) as step:
            total, done = sum(layer.size for layer, _ in contents), 0
            for layer, content in (*contents, _config()):
                if not remote.has(layer):
                    _retrying(partial(remote.put_blob, layer, content))
                done += layer.size
                step.update(done=done, total=total)
            _retrying(partial(remote.put_manifest, artifact.key, bundles.dump(bundle)))
    except PlaceError as error:
        raise StashError(
            f"cannot push {artifact.id} to {remote.name}: {error}", hint="what was pushed before it stays there"
        ) from error
    return True


def read_attestation(path: Path) -> bytes:
    """Read a file with attestations: JSON, or JSON a line, as GitHub's tools write it. Raises UserError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_ATTESTATION + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot read {path}: {reason}", hint="check the path") from error
    if len(content) > MOST_ATTESTATION:
        raise UserError(f"{path} has more than {size_text(MOST_ATTESTATION)}", hint="give a bundle of attestations")
    if not (_is_json([content]) or _is_json(content.splitlines())):
        raise UserError(f"{path} is not a bundle of attestations: expected JSON", hint="actions/attest writes one")
    return content


def _is_json(texts: Iterable[bytes]) -> bool:
    """Whether there are texts, and each is a JSON object."""
    try:
        values = [json.loads(text) for text in texts if text.strip()]
    except (ValueError, RecursionError):
        return False
    return bool(values) and all(isinstance(value, dict) for value in values)


def _contents(artifact: Artifact, attestation: bytes | None) -> list[tuple[Layer, OpenBlob]]:
    """Return the layers of an artifact, and what opens each."""
    small = {name: (artifact.folder / name).read_bytes() for name in (FILES_NAME, MANIFEST_NAME)}
    if attestation is not None:
        small[ATTESTATION_NAME] = attestation
    elif artifact.attestation is not None:
        small[ATTESTATION_NAME] = artifact.attestation.read_bytes()
    return [
        *(
            (Layer(name, sha256(content), len(content)), partial(io.BytesIO, content))
            for name, content in small.items()
        ),
        *(
            (Layer(f"{name}{bundles.TREE}", tree.object, tree.size), partial(_opened, artifact.objects[name]))
            for name, tree in artifact.manifest.trees.items()
        ),
    ]


def _config() -> tuple[Layer, OpenBlob]:
    """Return the empty configuration that an OCI manifest needs."""
    return Layer("", sha256(bundles.EMPTY), len(bundles.EMPTY)), partial(io.BytesIO, bundles.EMPTY)


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, path.open("rb"))


def _signed(build_key: str, layers: list[Layer], key: Ed25519PrivateKey) -> Bundle:
    bundle = bundles.of(build_key, layers, signer=signing.public_of(key))
    return replace(bundle, signature=signing.sign(key, bundle.statement))


def _require_shareable(artifact: Artifact, bundle: Bundle) -> None:
    """Raise StashError for an artifact that nobody would take."""
    try:
        facts.require_true(artifact.manifest, bundle)
    except RefusedError as error:
        hint = "build the cell again with --rebuild, and push that"
        raise StashError(f"artifact {artifact.id} cannot be shared: {error}", hint=hint) from error


def _is_there(remote: Remote, bundle: Bundle, is_trusted: Callable[[Bundle], bool]) -> bool:
    """Whether the remote has an artifact of this key that need not be replaced."""
    content = _retrying(partial(remote.manifest, bundle.key))
    if content is None:
        return False
    try:
        there = bundles.parse(bundle.key, content)
    except RefusedError:
        return False
    is_own = there.signer == bundle.signer and signing.is_signed(there.statement, there.signer, there.signature)
    mine, theirs = (each.layers.get(ATTESTATION_NAME) for each in (bundle, there))
    return (
        (is_own or is_trusted(there))
        and (mine is None or mine == theirs)
        and all(remote.has(layer) for layer in there.layers.values())
    )


def _retrying(step: Callable[[], bytes | None]) -> bytes | None:
    """Do a step again after an error that may pass."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(PUSHING.attempts),
        wait=tenacity.wait_exponential_jitter(multiplier=0.3, max=3.0),
        reraise=True,
    )
    return retrying(step)
