"""A remote in a folder, which a network file system or a CI's cache can serve.

    artifacts/<build key>.json      OCI manifests
    blobs/sha256/<digest>           their layers, as in an OCI image layout

Each file appears whole, under a name that only it has: several machines may push at once without a lock.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from crossjit.remote.base import Blob, OpenBlob
from crossjit.remote.bundle import MOST_MANIFEST, Layer
from crossjit.sources.cache import CHUNK
from crossjit.sources.locations import PlaceError
from crossjit.stash.artifact import file_sha256
from crossjit.util import files


class Folder:
    """A folder, which pushing makes if it is missing."""

    def __init__(self, path: Path) -> None:
        self.name = path.as_uri()
        self._path = path

    def manifest(self, key: str) -> bytes | None:
        """Return the manifest of a build key."""
        with _explained(self._path):
            if not self._path.is_dir():
                raise PlaceError("there is no such folder", dead=True)
            try:
                with self._manifest(key).open("rb") as file:
                    content = file.read(MOST_MANIFEST + 1)
            except FileNotFoundError:
                return None
        if len(content) > MOST_MANIFEST:
            raise PlaceError(f"{self._manifest(key)} has more than {MOST_MANIFEST:,} bytes")
        return content

    @contextlib.contextmanager
    def blob(self, layer: Layer) -> Iterator[Blob]:
        """Open a blob's file."""
        path = self._blob(layer)

        def chunks() -> Iterator[bytes]:
            with _explained(path):
                while chunk := file.read(CHUNK):
                    yield chunk

        with contextlib.ExitStack() as stack:
            with _explained(path):
                file = stack.enter_context(path.open("rb"))
                total = path.stat().st_size
            yield Blob(total, chunks())

    def has(self, layer: Layer) -> bool:
        """Whether a blob is there, unchanged."""
        with _explained(self._path):
            try:
                return self._blob(layer).stat().st_size == layer.size and file_sha256(self._blob(layer)) == layer.digest
            except FileNotFoundError:
                return False

    def put_blob(self, layer: Layer, content: OpenBlob) -> None:
        """Copy a blob."""
        self._put(self._blob(layer), content)

    def put_manifest(self, key: str, content: bytes) -> None:
        """Write a manifest."""
        with _explained(self._path):
            self._manifest(key).parent.mkdir(parents=True, exist_ok=True)
            files.replace(self._manifest(key), content)

    def _manifest(self, key: str) -> Path:
        return self._path / "artifacts" / f"{key}.json"

    def _blob(self, layer: Layer) -> Path:
        return self._path / "blobs" / "sha256" / layer.digest

    def _put(self, path: Path, content: OpenBlob) -> None:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with _explained(self._path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with content() as source, temporary.open("xb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                    files.sync_file(file)
                temporary.replace(path)
                files.sync_folder(path.parent)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
                raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PlaceError(f"{(error.strerror or str(error)).lower()} ({error.filename or path})") from error
