"""Fetching a file from one place, over HTTP or from a folder. A dead server is given up soon, a slow one is not."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import tenacity

from crossjit.progress import Step
from crossjit.sources.cache import CHUNK, storing
from crossjit.sources.locations import Place, PlaceError, Timeouts, TransientError
from crossjit.util import budget, files


class TooLargeError(PlaceError):
    """The file is larger than any archive of CPython's."""

    def __init__(self) -> None:
        super().__init__(f"it has more than {budget.BUDGET.archive:,} bytes")


@dataclass(frozen=True)
class Fetched:
    """A fetched file: its sha256 and its size in bytes."""

    digest: str
    size: int


def fetch(place: Place, target: Path, step: Step, timeouts: Timeouts) -> Fetched:
    """Fetch a place's file into a new file, and sync it; `step` shows the bytes done and in total.

    Transient errors (a lost connection, a server's 5xx) are retried after a moment. Raises PlaceError if the place does
    not have the file or it is too large, StashError if it cannot be written; no file is left then.
    """
    try:
        if place.path is not None:
            return _copy(place.path, target, step)
        if place.url is None:
            raise PlaceError(place.missing)
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(timeouts.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=0.3, max=3.0),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    step.update(done=0, detail=f"{place.name}, attempt {attempt.retry_state.attempt_number}")
                return _download(place.url, target, step, timeouts)
        raise AssertionError("unreachable: the last error is raised again")
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise


def _copy(path: Path, target: Path, step: Step) -> Fetched:
    def chunks(stream: BinaryIO) -> Iterator[bytes]:
        try:
            while chunk := stream.read(CHUNK):
                yield chunk
        except OSError as error:
            raise PlaceError(error.strerror or str(error)) from error

    try:
        if not path.is_file():
            raise PlaceError("no such file")
        stream = path.open("rb")
    except OSError as error:
        raise PlaceError(error.strerror or str(error)) from error
    with stream:
        return _receive(chunks(stream), target, step, path.stat().st_size)


def _receive(chunks: Iterator[bytes], target: Path, step: Step, total: int | None) -> Fetched:
    digest = hashlib.sha256()
    size = 0
    if total is not None and total > budget.BUDGET.archive:
        raise TooLargeError
    step.update(done=0, total=total)
    with storing(target), target.open("wb") as file:  # the chunks' own errors are PlaceErrors
        for chunk in chunks:
            size += len(chunk)
            if size > budget.BUDGET.archive:
                raise TooLargeError
            file.write(chunk)
            digest.update(chunk)
            step.update(done=size, total=total)
        files.sync_file(file)
    return Fetched(digest.hexdigest(), size)


def _download(url: str, target: Path, step: Step, timeouts: Timeouts) -> Fetched:
    from crossjit.sources import http  # urllib3 takes 50 ms, and most commands download nothing

    with http.asking(url, timeouts) as answer:
        fetched = _receive(answer.chunks, target, step, answer.total)
    if answer.total is not None and fetched.size != answer.total:
        raise TransientError(f"cut short: {fetched.size} of {answer.total} bytes came")
    return fetched
