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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, BinaryIO, cast

from crossjit.engine.disk import LOOK
from crossjit.util.budget import ANSWER, BUDGET, LogCount

LineSink = Callable[[str], None]

CHUNK = 1 << 16
DRAIN = 1 << 20  # bytes of a stream's padding that a reader may leave behind unread


@dataclass(frozen=True)
class ClientResult:
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


def _client(
    command: Sequence[str],
    env: Mapping[str, str] | None,
    *,
    stdin: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
    bufsize: int = -1,
) -> subprocess.Popen[bytes]:
    """Start a client in a session of its own."""
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, bufsize=bufsize, env=env
    )


def finish(command: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None) -> ClientResult:
    """Run a client to its end and keep what it says, up to ANSWER bytes.

    `env` is its whole environment, None for our own. Raises subprocess.TimeoutExpired after `timeout` seconds, OSError
    if it cannot start.
    """
    process = _client(command, env, bufsize=0)
    stdout, process.stdout = _Said(process.stdout), None
    stderr, process.stderr = _Said(process.stderr), None
    began = time.monotonic()
    try:
        stdout.join(timeout)  # before the process: Popen.wait with a time-out looks only now and then
        process.wait(max(0.0, timeout - (time.monotonic() - began)))
        return ClientResult(process.returncode, stdout.text(), stderr.text())
    finally:
        _end(process)


class _Said(threading.Thread):
    """Reads a pipe to its end, however long that is, keeps the beginning, and closes it."""

    def __init__(self, pipe: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self._pipe = cast(IO[bytes], pipe)
        self._kept = bytearray()
        self.start()

    def run(self) -> None:
        """Read."""
        with self._pipe as pipe:
            while data := os.read(pipe.fileno(), CHUNK):
                self._kept += data[: ANSWER - len(self._kept)]

    def text(self) -> str:
        """Return what was kept; a pipe that another process holds open is not waited for."""
        self.join(timeout=1)
        return self._kept.decode(errors="replace")


class Lines:
    """Cuts a byte stream into lines of text; one that is longer than the budget loses its end, and says so."""

    def __init__(self, sink: LineSink, limit: int = BUDGET.line) -> None:
        self._sink = sink
        self._limit = limit
        self._line = bytearray()
        self._lost = 0

    def feed(self, data: bytes) -> None:
        """Take some bytes and pass on the lines that they complete."""
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add(line)
            self._pass_on()
        self._add(rest)

    def flush(self) -> None:
        """Pass on the last line, which has no newline."""
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
    """Run a client and pass on its stdout and stderr line by line, as they come.

    After `timeout` seconds `on_timeout` is called to end what the client waits for; the client itself is killed `grace`
    seconds later. An exception, from a sink or from Ctrl-C, kills the client on its way. `count` is told of all that is
    read, and ends it by raising BudgetError; so does `look`, which is called at least every LOOK seconds. `env` is as
    `finish` takes it. Raises OSError if the client cannot start.
    """
    process = _client(command, env, bufsize=0)
    timed_out = False
    try:
        with selectors.DefaultSelector() as selector:
            for stream, sink in ((process.stdout, on_line), (process.stderr, on_error_line)):
                selector.register(cast(IO[bytes], stream), selectors.EVENT_READ, Lines(sink))
            deadline = None if timeout is None else time.monotonic() + timeout
            while selector.get_map():
                _take(selector, deadline, count, LOOK if look is not None else None)
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
    """Wait for output until the deadline, no longer than `longest` seconds, and pass on what there is."""
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
    said, process.stdout = _Said(process.stdout), None
    try:
        stdin = cast(IO[bytes], process.stdin)
        with contextlib.suppress(BrokenPipeError):  # the client gave up, and says why
            shutil.copyfileobj(source, stdin, CHUNK)
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        process.wait()
        return ClientResult(process.returncode, "", said.text())
    finally:
        _end(process)


@contextlib.contextmanager
def reading(
    command: Sequence[str], failed: Callable[[ClientResult, bool], Exception], *, env: Mapping[str, str] | None = None
) -> Iterator[BinaryIO]:
    """Run a client and open its stdout. A reader may stop early.

    A client that fails raises what `failed` makes of it; its second argument says whether there was any output before.
    Raises OSError if the client cannot start.
    """
    process = _client(command, env)
    said, process.stderr = _Said(process.stderr), None
    try:
        stdout = cast(io.BufferedReader, process.stdout)
        if not stdout.peek(1) and process.wait() != 0:
            raise failed(ClientResult(process.returncode, "", said.text()), False)
        try:
            yield stdout
        except Exception as error:
            # a reader that trips over a stream's sudden end should learn why it ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                if process.wait(timeout=0.2) != 0:
                    raise failed(ClientResult(process.returncode, "", said.text()), True) from error
            raise
        # tar readers stop at the end mark, before the padding
        if not stdout.closed and len(stdout.read(DRAIN)) < DRAIN and process.wait() != 0:
            raise failed(ClientResult(process.returncode, "", said.text()), True)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave no client and no pipe behind."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
