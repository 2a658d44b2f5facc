"""An engine's command-line client as a process: output followed as it comes, tar streams in and out, signals held back.

Clients get a session of their own, so that a Ctrl-C at the terminal reaches crossjit alone, which then decides.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, BinaryIO, cast

LineSink = Callable[[str], None]

CHUNK = 1 << 16
DRAIN = 1 << 20  # bytes of a stream's padding that a reader may leave behind unread


@dataclass(frozen=True)
class Ended:
    """A client that ended: its exit status, what it said on stdout, and on stderr."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Followed:
    """A followed client that ended: its exit status, and whether its time was up."""

    returncode: int
    timed_out: bool


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP; what came meanwhile is raised again at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (handler := signal.getsignal(number)) is not None:  # None: not Python's, it could not be put back
            previous[number] = handler
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for arrival in dict.fromkeys(arrived):
            signal.raise_signal(arrival)


def finish(command: Sequence[str], *, timeout: float) -> Ended:
    """Run a client to its end. Raises subprocess.TimeoutExpired after `timeout` seconds, OSError if it cannot start."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        timeout=timeout,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


class _Lines:
    """Cuts a byte stream into lines of text."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink
        self._rest = bytearray()

    def feed(self, data: bytes) -> None:
        """Take some bytes and pass on the lines that they complete."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._rest += line
            text = self._rest.decode(errors="replace")
            self._rest.clear()
            self._sink(text)
        self._rest += rest

    def flush(self) -> None:
        """Pass on the last line, which has no newline."""
        if self._rest:
            text = self._rest.decode(errors="replace")
            self._rest.clear()
            self._sink(text)


def follow(
    command: Sequence[str],
    *,
    on_line: LineSink,
    on_error_line: LineSink,
    timeout: float | None = None,
    on_timeout: Callable[[], None] | None = None,
    grace: float = 10.0,
) -> Followed:
    """Run a client and pass on its stdout and stderr line by line, as they come.

    After `timeout` seconds `on_timeout` is called to end what the client waits for; the client itself is killed `grace`
    seconds later. An exception, from a sink or from Ctrl-C, kills the client on its way. Raises OSError if it cannot
    start.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        bufsize=0,
    )
    timed_out = False
    try:
        with selectors.DefaultSelector() as selector:
            for stream, sink in ((process.stdout, on_line), (process.stderr, on_error_line)):
                selector.register(cast(IO[bytes], stream), selectors.EVENT_READ, _Lines(sink))
            deadline = None if timeout is None else time.monotonic() + timeout
            while selector.get_map():
                ready = selector.select(None if deadline is None else max(0.0, deadline - time.monotonic()))
                for key, _ in ready:
                    lines: _Lines = key.data
                    if data := os.read(key.fd, CHUNK):
                        lines.feed(data)
                    else:
                        lines.flush()
                        selector.unregister(key.fileobj)
                if deadline is not None and time.monotonic() >= deadline and selector.get_map():
                    if timed_out:
                        break
                    timed_out = True
                    if on_timeout is not None:
                        on_timeout()
                    deadline = time.monotonic() + grace
            for key in selector.get_map().values():
                key.data.flush()
        if timed_out and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.kill()
        return Followed(process.wait(), timed_out)
    finally:
        _end(process)


def feed(command: Sequence[str], source: BinaryIO) -> Ended:
    """Run a client with `source` as its stdin. Raises OSError if it cannot start."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            stdin = cast(IO[bytes], process.stdin)
            with contextlib.suppress(BrokenPipeError):  # the client gave up, and says why
                shutil.copyfileobj(source, stdin, CHUNK)
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
            process.wait()
        finally:
            _end(process)
        return Ended(process.returncode, "", _said(said))


@contextlib.contextmanager
def reading(command: Sequence[str], failed: Callable[[Ended, bool], Exception]) -> Iterator[BinaryIO]:
    """Run a client and open its stdout. A reader may stop early.

    A client that fails raises what `failed` makes of it; its second argument says whether there was any output before.
    Raises OSError if the client cannot start.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, start_new_session=True
        )
        try:
            stdout = cast(io.BufferedReader, process.stdout)
            if not stdout.peek(1) and process.wait() != 0:
                raise failed(Ended(process.returncode, "", _said(said)), False)
            try:
                yield stdout
            except Exception as error:
                # a reader that trips over a stream's sudden end should learn why it ended
                with contextlib.suppress(subprocess.TimeoutExpired):
                    if process.wait(timeout=0.2) != 0:
                        raise failed(Ended(process.returncode, "", _said(said)), True) from error
                raise
            # tar readers stop at the end mark, before the padding
            if not stdout.closed and len(stdout.read(DRAIN)) < DRAIN and process.wait() != 0:
                raise failed(Ended(process.returncode, "", _said(said)), True)
        finally:
            _end(process)


def _said(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no client and no pipe behind."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
