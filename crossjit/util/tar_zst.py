"""Tars compressed with zstd: how ours are written and read, and streams that observe what passes through them."""

from __future__ import annotations

import contextlib
import hashlib
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CHUNK = 1 << 20
DAMAGED = (EOFError, zstd.ZstdError, tarfile.TarError)

# The binary logarithm of what zstd may look back: what it takes without being asked (`--long` is refused).
_WINDOW = 27


class Writable(Protocol):
    """What a tar is written to."""

    def write(self, data: bytes | bytearray, /) -> int:
        """Write all of it."""


@contextlib.contextmanager
def compressed(output: Writable, *, level: int, workers: int, job_size: int | None = None) -> Iterator[BinaryIO]:
    """Open a stream that compresses into `output`, with checksums, in up to that many threads beside this one."""
    parameter = zstd.CompressionParameter
    lowest, highest = parameter.nb_workers.bounds()
    options: dict[int, int] = {
        parameter.compression_level: level,
        parameter.checksum_flag: 1,
        parameter.nb_workers: max(lowest, min(workers, highest)),
    }
    if highest and job_size is not None:  # a libzstd without threads has neither
        options[parameter.job_size] = job_size
    with zstd.ZstdFile(cast(BinaryIO, output), "wb", options=options) as stream:
        yield cast(BinaryIO, stream)


def decompressed(file: BinaryIO) -> BinaryIO:
    """Return what a file has compressed. Reading it raises one of DAMAGED."""
    return cast(BinaryIO, zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: _WINDOW}))


def tar_writer(stream: Writable) -> tarfile.TarFile:
    """Return a tar that is written to a stream, the same way everywhere."""
    return tarfile.TarFile(
        fileobj=cast(BinaryIO, stream),
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        copybufsize=CHUNK,
    )


class HashingWriter:
    """Hashes and counts what is written, and passes it on in large pieces.

    `errors` makes a context for each piece, which tells errors in writing from those in reading.
    """

    def __init__(
        self, stream: Writable, errors: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._stream = stream
        self._errors = errors
        self._waiting = bytearray()

    def tell(self) -> int:
        """Return how much was written."""
        return self.size

    def write(self, data: bytes | bytearray, /) -> int:
        """Write, in large pieces."""
        self._waiting += data
        self.size += len(data)
        if len(self._waiting) >= CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Pass on what waits."""
        waiting, self._waiting = self._waiting, bytearray()
        if waiting:
            self.hash.update(waiting)
            with self._errors():
                self._stream.write(waiting)


class ObservingReader:
    """Passes on what is read, after `observe` was given it."""

    def __init__(self, stream: BinaryIO, observe: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._observe = observe

    def read(self, size: int = -1, /) -> bytes:
        """Read on."""
        data = self._stream.read(size)
        self._observe(data)
        return data
