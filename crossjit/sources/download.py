"""Fetching a file from one place, over HTTP or from a folder: quick to give up a dead one, patient with a slow one."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import tenacity
import urllib3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError, ProxyError, ReadTimeoutError, SSLError
from urllib3.util import make_headers, parse_url

from crossjit import budget, durable
from crossjit.progress import Step
from crossjit.sources.cache import CHUNK, storing
from crossjit.sources.places import Place

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
MOST_REDIRECTS = 10


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
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(patience.attempts),
            wait=tenacity.wait_exponential_jitter(multiplier=0.3, max=3.0),
            reraise=True,
        ):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    step.update(done=0, detail=f"{place.name}, attempt {attempt.retry_state.attempt_number}")
                return _download(place.url, target, step, patience)
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
        durable.sync_file(file)
    return Fetched(digest.hexdigest(), size)


def _download(url: str, target: Path, step: Step, patience: Patience) -> Fetched:
    def chunks(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        with _explained(patience):
            while chunk := response.read1(CHUNK):  # what has come, at once, not when a whole chunk is there
                yield chunk

    with _explained(patience):
        response = _ask(url, patience)
    with contextlib.closing(response):
        if not 200 <= response.status < 300:
            kind = TransientError if response.status in TRANSIENT_STATUS else PlaceError
            raise kind(f"the server answers {response.status} {response.reason or ''}".rstrip())
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
        fetched = _receive(chunks(response), target, step, total)
    if total is not None and fetched.size != total:
        raise TransientError(f"cut short: {fetched.size} of {total} bytes came")
    return fetched


def _ask(url: str, patience: Patience) -> urllib3.BaseHTTPResponse:
    """Ask with the URL's credentials, if it has any, and do not pass them on where a redirect leads to."""
    headers = make_headers(
        user_agent=_agent(), basic_auth=parse_url(url).auth_decoded_joined, basic_auth_encoding="utf-8"
    )
    for _ in range(MOST_REDIRECTS):
        url = parse_url(url)._replace(auth=None).url
        response = _pool_manager(url, patience).request(
            "GET",
            url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,  # _download names what is missing
        )
        location = response.get_redirect_location()
        if not location:
            return response
        response.close()
        url = urljoin(url, location)
        headers.pop("authorization", None)
    raise PlaceError(f"more than {MOST_REDIRECTS} redirects")


def _agent() -> str:
    try:
        return f"crossjit/{metadata.version('crossjit')}"
    except metadata.PackageNotFoundError:
        return "crossjit"


def _pool_manager(url: str, patience: Patience) -> urllib3.PoolManager:
    """Make a client for HTTP and HTTPS that asks the environment's proxy for this URL, if there is one."""

    class Plain(_Connection):
        timeouts = patience

    class Secure(_Connection, HTTPSConnection):
        timeouts = patience

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    asked = parse_url(url)
    proxy = None if proxy_bypass(asked.netloc or "") else getproxies().get(asked.scheme or "")
    if proxy:
        address = parse_url(proxy)
        credentials = make_headers(proxy_basic_auth=address.auth_decoded_joined, proxy_basic_auth_encoding="utf-8")
        proxy = address._replace(scheme=address.scheme or "http", auth=None).url
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, timeout=patience.stall, proxy_headers=credentials)
    else:
        manager = urllib3.PoolManager(timeout=patience.stall)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


class _Connection(HTTPConnection):
    """A connection that is made soon or not at all; TLS and proxies' tunnels have as long as the answer has."""

    timeouts = PATIENCE

    def _new_conn(self) -> socket.socket:
        addresses = _count_addresses(self.host, self.port, self.timeouts.name)
        self.timeout = self.timeouts.connect / addresses
        try:
            connection = super()._new_conn()
        except ConnectTimeoutError as error:
            cause = error.__cause__
            refused = isinstance(cause, OSError) and not isinstance(cause, TimeoutError) and cause.strerror
            reason = refused or f"no answer within {self.timeouts.connect:g} s"
            raise PlaceError(f"cannot connect to {self.host}:{self.port}: {reason}", dead=True) from error
        connection.settimeout(self.timeouts.stall)
        return connection


def _count_addresses(host: str, port: int, seconds: float) -> int:
    """Resolve a name in a thread: nothing can interrupt the system's resolver when its servers are silent."""
    answers: queue.Queue[int | OSError | UnicodeError] = queue.Queue()

    def ask() -> None:
        try:
            answers.put(len(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name=f"look up {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise PlaceError(f"cannot resolve {host}: no answer within {seconds:g} s", dead=True) from None
    if isinstance(answer, Exception):
        reason = getattr(answer, "strerror", None) or answer
        raise PlaceError(f"cannot resolve {host}: {reason}", dead=True) from answer
    return max(answer, 1)


@contextlib.contextmanager
def _explained(patience: Patience) -> Iterator[None]:
    """Turn what urllib3 raises into PlaceErrors."""
    try:
        yield
    except (HTTPError, ValueError) as error:  # ValueError: a URL that cannot be one
        raise _as_place_error(error, patience) from error


def _as_place_error(error: Exception, patience: Patience) -> PlaceError:
    cause = error.args[-1] if isinstance(error, (ProxyError, ProtocolError, SSLError)) else error
    match cause:
        case ReadTimeoutError():
            return PlaceError(f"stalled: no byte for {patience.stall:g} s", dead=True)
        case ssl.SSLCertVerificationError():
            return PlaceError(f"its certificate is not trusted: {cause.verify_message}", dead=True)
    if isinstance(error, (ProxyError, ProtocolError, SSLError)):
        return TransientError(f"the connection was lost: {cause or type(cause).__name__}")
    return PlaceError(str(error))
