"""Tars compressed with zstd: writing, reading, and streams that observe the data passing through them."""

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

# The binary logarithm of zstd's window size: its own default limit, without `--long`.
_WINDOW = 27


class Writable(Protocol):
    """A stream that a tar can be written to."""

    def write(self, data: bytes | bytearray, /) -> int:
        """Write all of the data."""


@contextlib.contextmanager
def compressed(output: Writable, *, level: int, workers: int, job_size: int | None = None) -> Iterator[BinaryIO]:
    """Open a stream that compresses into `output`, with checksums, in up to `workers` more threads."""
    parameter = zstd.CompressionParameter
    lowest, highest = parameter.nb_workers.bounds()
    options: dict[int, int] = {
        parameter.compression_level: level,
        parameter.checksum_flag: 1,
        parameter.nb_workers: max(lowest, min(workers, highest)),
    }
    if highest and job_size is not None:  # a libzstd without threads supports neither
        options[parameter.job_size] = job_size
    with zstd.ZstdFile(cast(BinaryIO, output), "wb", options=options) as stream:
        yield cast(BinaryIO, stream)


def decompressed(file: BinaryIO) -> BinaryIO:
    """Return a stream of a compressed file's content. Reading it raises one of DAMAGED if the file is damaged."""
    return cast(BinaryIO, zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: _WINDOW}))


def tar_writer(stream: Writable) -> tarfile.TarFile:
    """Return a tar that writes to a stream, with options that make it reproducible."""
    return tarfile.TarFile(
        fileobj=cast(BinaryIO, stream),
        mode="w",
        format=tarfile.PAX_FORMAT,
        encoding="utf-8",
        errors="surrogateescape",
        copybufsize=CHUNK,
    )


class HashingWriter:
    """Hashes and counts the data written, and passes it on in large pieces.

    `errors` makes a context for each write, so that errors in writing can be told from those in reading.
    """

    def __init__(
        self, stream: Writable, errors: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._stream = stream
        self._errors = errors
        self._buffer = bytearray()

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.size

    def write(self, data: bytes | bytearray, /) -> int:
        """Buffer the data, and pass it on once there is a large piece."""
        self._buffer += data
        self.size += len(data)
        if len(self._buffer) >= CHUNK:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Pass on the buffered data."""
        data, self._buffer = self._buffer, bytearray()
        if data:
            self.hash.update(data)
            with self._errors():
                self._stream.write(data)


class ObservingReader:
    """Passes on the data read, after calling `observe` with it."""

    def __init__(self, stream: BinaryIO, observe: Callable[[bytes], object]) -> None:
        self._stream = stream
        self._observe = observe

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes, or all without one."""
        data = self._stream.read(size)
        self._observe(data)
        return data
