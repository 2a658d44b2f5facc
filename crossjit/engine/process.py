"""An engine's client as a process: its output followed as it arrives, tar streams in and out, signals held back.

Clients run in a session of their own, so that a Ctrl-C at the terminal reaches only crossjit, which decides what to do.
"""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, BinaryIO, cast

from crossjit.engine.disk import CHECK_INTERVAL
from crossjit.util.budget import ANSWER, BUDGET, LogCount

LineSink = Callable[[str], None]

CHUNK = 1 << 16
DRAIN = 1 << 20  # bytes of a stream's padding that a reader may leave unread


@dataclass(frozen=True)
class ClientResult:
    """A finished client: its exit status, stdout and stderr."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Followed:
    """A finished client that was followed: its exit status, and whether it timed out."""

    returncode: int
    timed_out: bool


@contextlib.contextmanager
def held_signals() -> Iterator[None]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP; those that arrive are raised again at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (handler := signal.getsignal(number)) is not None:  # None: not set from Python, so it could not be restored
            previous[number] = handler
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for arrival in dict.fromkeys(arrived):
            signal.raise_signal(arrival)


def _client(
    command: Sequence[str],
    env: Mapping[str, str] | None,
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
    bufsize: int = -1,
    lasting: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a client in a session of its own; one that is `lasting` can be ended by `end_all`."""
    process = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, bufsize=bufsize, env=env
    )
    if lasting:
        _LASTING.add(process)
    return process


_LASTING: set[subprocess.Popen[bytes]] = set()


def end_all(prefix: Sequence[str]) -> None:
    """Kill the clients that take long and whose command line is this up to the subcommand."""
    for process in tuple(_LASTING):
        words = cast(Sequence[str], process.args)
        if tuple(words[: len(prefix)]) == tuple(prefix) and not words[len(prefix)].startswith("-"):
            process.kill()


def finish(
    command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, lasting: bool = False
) -> ClientResult:
    """Run a client and return its output, up to ANSWER bytes.

    `env` is its whole environment, None for our own; one that is `lasting` can be ended by `end_all`. Raises
    subprocess.TimeoutExpired after `timeout` seconds, OSError if it cannot start.
    """
    process = _client(command, env, bufsize=0, lasting=lasting)
    stdout, process.stdout = _PipeReader(process.stdout), None
    stderr, process.stderr = _PipeReader(process.stderr), None
    began = time.monotonic()
    try:
        stdout.join(timeout)  # first, because Popen.wait with a time-out polls
        process.wait(max(0.0, timeout - (time.monotonic() - began)))
        return ClientResult(process.returncode, stdout.text(), stderr.text())
    finally:
        _end(process)


class _PipeReader(threading.Thread):
    """Reads a pipe to its end and closes it; keeps the first ANSWER bytes."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe = cast(IO[bytes], pipe)
        self._data = bytearray()
        self.start()

    def run(self) -> None:
        """Read to the end."""
        with self._pipe as pipe:
            while data := os.read(pipe.fileno(), CHUNK):
                self._data += data[: ANSWER - len(self._data)]

    def text(self) -> str:
        """Return the data as text, without waiting for a pipe that another process holds open."""
        self.join(timeout=1)
        return self._data.decode(errors="replace")


class Lines:
    """Splits a byte stream into lines of text; one longer than the limit is cut, with a note at its end."""

    def __init__(self, sink: LineSink, limit: int = BUDGET.line) -> None:
        self._sink = sink
        self._limit = limit
        self._line = bytearray()
        self._lost = 0

    def feed(self, data: bytes) -> None:
        """Add bytes and pass on the lines that they complete."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add(line)
            self._pass_on()
        self._add(rest)

    def flush(self) -> None:
        """Pass on a last line without newline."""
        if self._line:
            self._pass_on()

    def _add(self, data: bytes) -> None:
        room = self._limit - len(self._line)
        self._line += data[:room]
        self._lost += max(0, len(data) - room)

    def _pass_on(self) -> None:
        text = self._line.decode(errors="replace")
        if self._lost:
            text += f" … ({self._lost:,} more bytes)"
        self._line.clear()
        self._lost = 0
        self._sink(text)


def follow(
    command: Sequence[str],
    *,
    on_line: LineSink,
    on_error_line: LineSink,
    timeout: float | None = None,
    on_timeout: Callable[[], None] | None = None,
    grace: float = 10.0,
    count: LogCount | None = None,
    look: Callable[[], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> Followed:
    """Run a client and pass on its stdout and stderr line by line, as they arrive.

    After `timeout` seconds `on_timeout` is called to end what the client waits for; the client itself is killed `grace`
    seconds later. Any exception, from a sink or Ctrl-C, kills the client. `count` counts the bytes read; `look` is
    called at least every CHECK_INTERVAL seconds. Both end the client by raising BudgetError. `env` is as for `finish`.
    Raises OSError if the client cannot start.
    """
    process = _client(command, env, bufsize=0)
    timed_out = False
    try:
        with selectors.DefaultSelector() as selector:
            for stream, sink in ((process.stdout, on_line), (process.stderr, on_error_line)):
                selector.register(cast(IO[bytes], stream), selectors.EVENT_READ, Lines(sink))
            deadline = None if timeout is None else time.monotonic() + timeout
            while selector.get_map():
                _take(selector, deadline, count, CHECK_INTERVAL if look is not None else None)
                if look is not None:
                    look()
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


def _take(
    selector: selectors.BaseSelector, deadline: float | None, count: LogCount | None, longest: float | None
) -> None:
    """Wait for output until the deadline, at most `longest` seconds, and pass it on."""
    waits = [max(0.0, deadline - time.monotonic())] if deadline is not None else []
    waits += [longest] if longest is not None else []
    for key, _ in selector.select(min(waits, default=None)):
        lines: Lines = key.data
        if data := os.read(key.fd, CHUNK):
            if count is not None:
                count.add(len(data))
            lines.feed(data)
        else:
            lines.flush()
            selector.unregister(key.fileobj)


def feed(command: Sequence[str], source: BinaryIO, *, env: Mapping[str, str] | None = None) -> ClientResult:
    """Run a client with `source` as its stdin. Raises OSError if it cannot start."""
    process = _client(command, env, stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, process.stdout = _PipeReader(process.stdout), None
    try:
        stdin = cast(IO[bytes], process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the client gave up; its output says why
            shutil.copyfileobj(source, stdin, CHUNK)
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        process.wait()
        return ClientResult(process.returncode, "", output.text())
    finally:
        _end(process)


@contextlib.contextmanager
def reading(
    command: Sequence[str], failed: Callable[[ClientResult, bool], Exception], *, env: Mapping[str, str] | None = None
) -> Iterator[BinaryIO]:
    """Run a client and open its stdout. A reader may stop early.

    If the client fails, the error that `failed` makes is raised; its second argument says whether there was output
    before. Raises OSError if the client cannot start.
    """
    process = _client(command, env)
    messages, process.stderr = _PipeReader(process.stderr), None
    try:
        stdout = cast(io.BufferedReader, process.stdout)
        if not stdout.peek(1) and process.wait() != 0:
            raise failed(ClientResult(process.returncode, "", messages.text()), False)
        try:
            yield stdout
        except Exception as error:
            # if the stream ended early, the client's error is the cause
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process.wait(timeout=0.2) != 0:
                    raise failed(ClientResult(process.returncode, "", messages.text()), True) from error
            raise
        # tar readers stop at the end mark, before the padding
        if not stdout.closed and len(stdout.read(DRAIN)) < DRAIN and process.wait() != 0:
            raise failed(ClientResult(process.returncode, "", messages.text()), True)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no client and no pipe behind."""
    _LASTING.discard(process)
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
