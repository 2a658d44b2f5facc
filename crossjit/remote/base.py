"""What a remote does: it finds a manifest by build key, and has blobs by digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from crossjit.remote.bundle import Layer
from crossjit.sources.locations import Timeouts

PULLING = Timeouts(name=2.0, connect=2.0, stall=10.0, attempts=2)
PUSHING = Timeouts(name=5.0, connect=5.0, stall=120.0, attempts=3)

OpenBlob = Callable[[], BinaryIO]
"""Opens a blob to be sent; called again for another try."""


@dataclass(frozen=True)
class Blob:
    """The content of a layer as the remote has it: in chunks, and its size in bytes if the remote tells it."""

    total: int | None
    chunks: Iterator[bytes]


class Remote(Protocol):
    """A registry or a folder. Its methods raise PlaceError, and TransientError if another try may succeed."""

    @property
    def name(self) -> str:
        """The URL, for people."""

    def manifest(self, key: str) -> bytes | None:
        """Return the OCI manifest of a build key, None if there is none."""

    def blob(self, layer: Layer) -> AbstractContextManager[Blob]:
        """Open a layer."""

    def has(self, layer: Layer) -> bool:
        """Whether a layer is there."""

    def put_blob(self, layer: Layer, content: OpenBlob) -> None:
        """Add a layer."""

    def put_manifest(self, key: str, content: bytes) -> None:
        """Add the OCI manifest of a build key, or replace it; its layers are there."""
