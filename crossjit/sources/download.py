"""Fetching a file from one place, over HTTP or from a folder: quick to give up a dead one, patient with a slow one."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import queue
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

import stamina

from crossjit import budget, durable
from crossjit.progress import Step
from crossjit.sources.cache import CHUNK, storing
from crossjit.sources.places import Place

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Patience:
    """How long, in seconds: `name` for a host's address, `connect` for a connection, `stall` without a byte.

    `attempts` is how often what is transient is tried.
    """

    name: float = 1.5
    connect: float = 1.5
    stall: float = 30.0
    attempts: int = 3


PATIENCE = Patience()


class PlaceError(Exception):
    """A place did not give the file; the message says why. `dead` if nothing else can be had from its host either."""

    def __init__(self, reason: str, *, dead: bool = False) -> None:
        super().__init__(reason)
        self.dead = dead


class TooLargeError(PlaceError):
    """What the place gives is larger than any archive of CPython's."""

    def __init__(self) -> None:
        super().__init__(f"it has more than {budget.BUDGET.archive:,} bytes")


class TransientError(PlaceError):
    """It may work if it is asked again."""


@dataclass(frozen=True)
class Fetched:
    """What came: its sha256 and its size in bytes."""

    digest: str
    size: int


def fetch(place: Place, target: Path, step: Step, patience: Patience) -> Fetched:
    """Bring what is at a place into a new file, synced; bytes done and in total go to `step`.

    What is transient (a lost connection, a server's 5xx) is tried again, after a moment. Raises PlaceError if the place
    does not give it or gives too much, StashError if it cannot be written; then no file is left.
    """
    try:
        if place.path is not None:
            return _copy(place.path, target, step)
        if place.url is None:
            raise PlaceError(place.missing)
        # stamina's own hook warns through logging, which ends on stderr; who watches the step learns of it there.
        stamina.instrumentation.set_on_retry_hooks(())
        for attempt in stamina.retry_context(
            on=TransientError, attempts=patience.attempts, wait_initial=0.3, wait_max=3.0, timeout=None
        ):
            with attempt:
                if attempt.num > 1:
                    step.update(done=0, detail=f"{place.name}, attempt {attempt.num}")
                return _download(place.url, target, step, patience)
        raise AssertionError("unreachable: retry_context raises the last error")
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
        durable.sync_file(file)
    return Fetched(digest.hexdigest(), size)


def _download(url: str, target: Path, step: Step, patience: Patience) -> Fetched:
    def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
        with _explained(patience):
            while chunk := response.read1(CHUNK):  # what has come, at once, not when a whole chunk is there
                yield chunk

    with _explained(patience):
        response = _opener(patience).open(_request(url))
    with response:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        fetched = _receive(chunks(response), target, step, total)
    if total is not None and fetched.size != total:
        raise TransientError(f"cut short: {fetched.size} of {total} bytes came")
    return fetched


def _request(url: str) -> urllib.request.Request:
    """Ask with the URL's credentials, if it has any, and do not pass them on where a redirect leads to."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    credentials, _, host = authority.rpartition("@")
    request = urllib.request.Request(  # noqa: S310 - see _opener
        f"{scheme}://{host}{slash}{path}", headers={"User-Agent": _agent()}
    )
    if credentials:
        token = base64.b64encode(urllib.parse.unquote_to_bytes(credentials)).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


@contextlib.contextmanager
def _explained(patience: Patience) -> Iterator[None]:
    """Turn what urllib, http.client and the socket raise into PlaceErrors."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        kind = TransientError if error.code in TRANSIENT_STATUS else PlaceError
        raise kind(f"the server answers {error.code} {error.reason}".rstrip()) from error
    except urllib.error.URLError as error:
        raise _as_place_error(error.reason if isinstance(error.reason, OSError) else error, patience) from error
    except (OSError, http.client.HTTPException) as error:
        raise _as_place_error(error, patience) from error
    except ValueError as error:  # a URL that cannot be one
        raise PlaceError(str(error)) from error


def _as_place_error(error: Exception, patience: Patience) -> PlaceError:
    match error:
        case _UnreachableError():
            return PlaceError(str(error), dead=True)
        case TimeoutError():
            return PlaceError(f"stalled: no byte for {patience.stall:g} s", dead=True)
        case ssl.SSLCertVerificationError():
            return PlaceError(f"its certificate is not trusted: {error.verify_message}", dead=True)
        case ConnectionError() | http.client.HTTPException() | ssl.SSLError():
            return TransientError(f"the connection was lost: {error or type(error).__name__}")
    return PlaceError(str(error))


def _agent() -> str:
    try:
        return f"crossjit/{metadata.version('crossjit')}"
    except metadata.PackageNotFoundError:
        return "crossjit"


def _opener(patience: Patience) -> urllib.request.OpenerDirector:
    """Make an opener that speaks HTTP and HTTPS only, through the environment's proxies, and follows redirects."""

    def http_connection(host: str, /, **options: object) -> http.client.HTTPConnection:
        return _impatient(http.client.HTTPConnection(host, timeout=patience.stall), patience)

    def https_connection(host: str, /, **options: object) -> http.client.HTTPConnection:
        return _impatient(http.client.HTTPSConnection(host, timeout=patience.stall, context=_trust()), patience)

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(http_connection, request)

    class Secure(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(https_connection, request)

    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        Plain(),
        Secure(context=_trust()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@cache
def _trust() -> ssl.SSLContext:
    return ssl.create_default_context()


def _impatient(connection: http.client.HTTPConnection, patience: Patience) -> http.client.HTTPConnection:
    # The one hook between "connect" and "read" that http.client has for proxies' tunnels and TLS alike: without it both
    # have one time-out, and a dead host costs as much as a stalled download.
    def create(address: tuple[str, int], *_: object, **__: object) -> socket.socket:
        return connect(address[0], address[1], patience)

    connection._create_connection = create  # type: ignore[attr-defined]
    return connection


class _UnreachableError(OSError):
    """There is no connection to be had to a host."""


def connect(host: str, port: int, patience: Patience) -> socket.socket:
    """Connect to a host, or give up soon: each of its addresses gets its share of the time."""
    addresses = _look_up(host, port, patience.name)
    deadline = time.monotonic() + patience.connect
    reason: OSError = _UnreachableError(f"{host} has no address")
    for index, (family, kind, protocol, _, address) in enumerate(addresses):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(max((deadline - time.monotonic()) / (len(addresses) - index), 0.05))
            connection.connect(address)
        except OSError as error:
            connection.close()
            reason = error
        else:
            connection.settimeout(patience.stall)
            return connection
    what = f"no answer within {patience.connect:g} s" if isinstance(reason, TimeoutError) else reason.strerror
    raise _UnreachableError(f"cannot connect to {host}:{port}: {what or reason}") from reason


_Sockaddr = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, _Sockaddr]


def _look_up(host: str, port: int, seconds: float) -> Sequence[_Address]:
    """Resolve a name in a thread: nothing can interrupt the system's resolver when its servers are silent."""
    answers: queue.Queue[Sequence[_Address] | OSError | UnicodeError] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise _UnreachableError(f"cannot resolve {host}: no answer within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise _UnreachableError(f"cannot resolve {host}: {getattr(answer, 'strerror', None) or answer}") from answer
    return answer
