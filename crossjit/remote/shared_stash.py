"""Taking artifacts from a remote: only what somebody trusted has signed, and never at the cost of a build."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeVar

import tenacity

from crossjit.errors import StashError
from crossjit.progress import Progress, Step
from crossjit.remote import bundle as bundles
from crossjit.remote import facts, signing
from crossjit.remote.base import PULLING, Remote
from crossjit.remote.bundle import Bundle, Layer, RefusedError
from crossjit.sources.locations import PlaceError, TransientError
from crossjit.stash import manifest as manifests
from crossjit.stash.artifact import ATTESTATION_NAME, FILES_NAME, MANIFEST_NAME, ORIGIN_NAME, Artifact, Origin
from crossjit.stash.manifest import ArtifactKind, Manifest
from crossjit.stash.store import Staging, Store
from crossjit.util import files

T = TypeVar("T")

SLOW_SECONDS, SLOWEST = 15.0, 128 << 10  # after these seconds, fewer bytes a second on average are too few


class UntrustedError(RefusedError):
    """Nobody trusted has signed the artifact; `whose` describes all artifacts of this kind."""

    def __init__(self, whose: str, why: str) -> None:
        super().__init__(why)
        self.whose = whose


class SharedStash:
    """A remote, and whose artifacts are taken from it (names by public key; None if nobody was named)."""

    def __init__(
        self,
        remote: Remote,
        trusted: Mapping[str, str] | None,
        progress: Progress,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.remote = remote
        self._trusted = trusted
        self._progress = progress
        self._clock = clock
        self._is_down = False
        self._told: set[str] = set()

    def find(self, store: Store, key: str, kind: ArtifactKind, subject: str) -> Artifact | None:
        """Take the artifact of a build key into the stash, None if that fails. The caller holds the key's lock.

        The reasons are reported, those that concern several artifacts once. A remote that fails is not asked again.
        Raises StashError if the stash cannot be written.
        """
        name = self.remote.name
        if self._trusted is None:
            self._tell_once(f"nothing is taken from {name}: CROSSJIT_TRUST names nobody")
            return None
        if self._is_down:
            return None
        try:
            artifact = self.take(store, key, kind, subject)
        except UntrustedError as error:
            self._tell_once(f"{error.whose} in {name} are not used: {error}")
        except RefusedError as error:
            self._progress.say(f"{subject}: the artifact in {name} is not used: {error}")
        except PlaceError as error:
            self._is_down = True
            self._tell_once(f"{name} fails and is not asked again: {error}")
        else:
            if artifact is not None and (origin := artifact.origin):
                self._progress.say(f"{subject}: {artifact.id} is taken from {name}, signed by {origin.signer}")
            return artifact
        return None

    def take(self, store: Store, key: str, kind: ArtifactKind | None, subject: str) -> Artifact | None:
        """Take an artifact as `find` does, but raise RefusedError or PlaceError if it cannot be; None if it is missing.

        `kind` None allows each.
        """
        content = _retrying(lambda: self.remote.manifest(key))
        if content is None:
            return None
        bundle = bundles.parse(key, content)
        signer = self._require_trusted(bundle)
        with self._progress.step("pull", subject) as step, store.staging(key) as staging:
            transfer = _Transfer(self.remote, bundle, step, self._clock)
            manifest = self._manifest(transfer, bundle, kind)
            listed = _listed(transfer.read(bundle.layers[FILES_NAME]), manifest)
            for name, tree in manifest.trees.items():
                transfer.save(bundle.layers[f"{name}{bundles.TREE}"], staging.place(name, tree, listed[name]))
            origin = Origin(self.remote.name, signer, bundle.signer, datetime.now(UTC).isoformat(timespec="seconds"))
            beside = {ORIGIN_NAME: manifests.to_json(asdict(origin))}
            if attestation := bundle.layers.get(ATTESTATION_NAME):
                beside[ATTESTATION_NAME] = transfer.read(attestation)
            return _admit(staging, manifest, beside)

    def is_trusted(self, bundle: Bundle) -> bool:
        """Whether somebody trusted has signed a bundle."""
        try:
            self._require_trusted(bundle)
        except RefusedError:
            return False
        return True

    def _require_trusted(self, bundle: Bundle) -> str:
        """Return the name of who signed a bundle. Raises RefusedError."""
        if not bundle.signer or not bundle.signature:
            raise UntrustedError("artifacts without a signature", "nobody answers for them")
        name = (self._trusted or {}).get(bundle.signer)
        if name is None:
            whose = bundle.signer if len(bundle.signer) < 80 else "an unknown key"
            raise UntrustedError(f"artifacts signed by {whose}", "CROSSJIT_TRUST does not name this key")
        if not signing.is_signed(bundle.statement, bundle.signer, bundle.signature):
            raise RefusedError(f"its signature is not one by {name} of this artifact")
        return name

    def _manifest(self, transfer: _Transfer, bundle: Bundle, kind: ArtifactKind | None) -> Manifest:
        try:
            manifest = manifests.parse(transfer.read(bundle.layers[MANIFEST_NAME]))
        except StashError as error:
            raise RefusedError(error.message) from error
        facts.require_true(manifest, bundle)
        if kind not in (None, manifest.kind):
            raise RefusedError(f"it is a {manifest.kind}, not a {kind}")
        return manifest

    def _tell_once(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._progress.say(message)


def _admit(staging: Staging, manifest: Manifest, beside: Mapping[str, bytes]) -> Artifact:
    return staging.commit(manifest, created=manifest.created, beside=beside)


def _listed(content: bytes, manifest: Manifest) -> Mapping[str, Mapping[str, str]]:
    """Read the digests of the trees' files."""
    try:
        listed = json.loads(content)
        return {name: {str(path): str(digest) for path, digest in listed[name].items()} for name in manifest.trees}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RefusedError(f"its {FILES_NAME} is invalid") from error


class _Transfer:
    """The layers of one artifact as they arrive; each is verified by digest before it is used."""

    def __init__(self, remote: Remote, bundle: Bundle, step: Step, clock: Callable[[], float]) -> None:
        self._remote = remote
        self._step = step
        self._clock = clock
        self._started = clock()
        self._total = sum(layer.size for layer in bundle.layers.values())
        self._done = 0

    def read(self, layer: Layer) -> bytes:
        """Return a layer's content. Raises RefusedError, PlaceError."""
        buffer = io.BytesIO()
        _retrying(lambda: self._receive(layer, buffer))
        return buffer.getvalue()

    def save(self, layer: Layer, path: Path) -> None:
        """Write a layer to a new file, and sync it. Raises RefusedError, PlaceError, StashError."""
        with _writing(path), path.open("xb") as file:
            _retrying(lambda: self._receive(layer, file))
            files.sync_file(file)

    def _receive(self, layer: Layer, sink: BinaryIO) -> None:
        sink.seek(0)
        sink.truncate()
        digest, size = hashlib.sha256(), 0
        try:
            with self._remote.blob(layer) as blob:
                if blob.total not in (None, layer.size):
                    raise RefusedError(f"{layer.title} has {blob.total} bytes there instead of {layer.size}")
                for chunk in blob.chunks:
                    size += len(chunk)
                    if size > layer.size:
                        raise RefusedError(f"{layer.title} is longer there than it says")
                    sink.write(chunk)
                    digest.update(chunk)
                    self._step.update(done=self._done + size, total=self._total)
                    self._require_pace(self._done + size)
        except PlaceError as error:
            if error.dead or isinstance(error, TransientError):
                raise
            raise RefusedError(f"{layer.title} cannot be read there: {error}") from error
        if size != layer.size:
            raise TransientError(f"{layer.title} was cut short: {size} of {layer.size} bytes came")
        if digest.hexdigest() != layer.digest:
            raise RefusedError(f"{layer.title} was changed there: its digest is not the signed one")
        self._done += size

    def _require_pace(self, size: int) -> None:
        passed = self._clock() - self._started
        if passed > SLOW_SECONDS and size < SLOWEST * passed:
            raise PlaceError(f"too slow: {size:,} bytes in {passed:.0f} s", dead=True)


def _retrying(step: Callable[[], T]) -> T:
    """Do a step again, once, after an error that may pass."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        stop=tenacity.stop_after_attempt(PULLING.attempts),
        wait=tenacity.wait_fixed(0.5),
        reraise=True,
    )
    return retrying(step)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    translated: AbstractContextManager[None] = files.translate_os_errors(
        StashError, "cannot write to the stash", path.parent
    )
    with translated:
        yield
