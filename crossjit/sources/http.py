"""HTTP requests through urllib3: every wait has a time limit, and every error a reason."""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import BinaryIO
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, HTTPError, ProtocolError, ProxyError, ReadTimeoutError, SSLError
from urllib3.util import make_headers, parse_url

from crossjit.sources.cache import CHUNK
from crossjit.sources.locations import PlaceError, Timeouts, TransientError

TRANSIENT_STATUS = (408, 425, 429, 500, 502, 503, 504)
MOST_REDIRECTS = 10


@dataclass(frozen=True)
class Answer:
    """A response: its body in chunks, and its size in bytes if the server sends it. Headers ignore case."""

    status: int
    reason: str
    headers: Mapping[str, str]
    total: int | None
    chunks: Iterator[bytes]

    def require_success(self) -> None:
        """Raise PlaceError for a status that is not 2xx, TransientError if another try may succeed."""
        if not 200 <= self.status < 300:
            kind = TransientError if self.status in TRANSIENT_STATUS else PlaceError
            raise kind(f"the server answers {self.status} {self.reason}".rstrip())


@contextlib.contextmanager
def asking(url: str, timeouts: Timeouts) -> Iterator[Answer]:
    """Request a file. Raises PlaceError if that fails, TransientError if another try may succeed."""
    with sending("GET", url, timeouts) as answer:
        answer.require_success()
        yield answer


@contextlib.contextmanager
def sending(
    method: str,
    url: str,
    timeouts: Timeouts,
    *,
    headers: Mapping[str, str] | None = None,
    body: BinaryIO | bytes | None = None,
) -> Iterator[Answer]:
    """Send a request, whose answer may have any status. Redirects are followed unless there is a body.

    `headers` have names in lower case. Raises PlaceError if that fails, TransientError if another try may succeed.
    """
    with _translated_errors(timeouts):
        response = _ask(method, url, timeouts, headers or {}, body)
    with contextlib.closing(response):
        length = response.headers.get("Content-Length", "")
        yield Answer(
            response.status,
            response.reason or "",
            response.headers,
            int(length) if length.isdecimal() else None,
            _chunks(response, timeouts),
        )


def _chunks(response: urllib3.BaseHTTPResponse, timeouts: Timeouts) -> Iterator[bytes]:
    with _translated_errors(timeouts):
        while chunk := response.read1(CHUNK):  # returns without waiting for a whole chunk
            yield chunk


def _ask(
    method: str, url: str, timeouts: Timeouts, more: Mapping[str, str], body: BinaryIO | bytes | None
) -> urllib3.BaseHTTPResponse:
    """Send the request with the URL's credentials, if it has any; they are not sent to the target of a redirect."""
    headers = make_headers(
        user_agent=_agent(), basic_auth=parse_url(url).auth_decoded_joined, basic_auth_encoding="utf-8"
    )
    headers.update(more)
    for _ in range(MOST_REDIRECTS):
        url = parse_url(url)._replace(auth=None).url
        response = _pool_manager(url, timeouts).request(
            method,
            url,
            body=body,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            enforce_content_length=False,  # the caller counts the bytes
        )
        location = response.get_redirect_location()
        if not location or body is not None:
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


def _pool_manager(url: str, timeouts: Timeouts) -> urllib3.PoolManager:
    """Make a client that uses the environment's proxy for this URL, if there is one."""

    class Plain(_Connection):
        limits = timeouts

    class Secure(_Connection, HTTPSConnection):
        limits = timeouts

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    parsed = parse_url(url)
    proxy = None if proxy_bypass(parsed.netloc or "") else getproxies().get(parsed.scheme or "")
    if proxy:
        address = parse_url(proxy)
        credentials = make_headers(proxy_basic_auth=address.auth_decoded_joined, proxy_basic_auth_encoding="utf-8")
        proxy = address._replace(scheme=address.scheme or "http", auth=None).url
        manager: urllib3.PoolManager = urllib3.ProxyManager(proxy, timeout=timeouts.stall, proxy_headers=credentials)
    else:
        manager = urllib3.PoolManager(timeout=timeouts.stall)
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


class _Connection(HTTPConnection):
    """A connection with its own time limit; TLS and proxy tunnels have the limit of the response."""

    limits = Timeouts()

    def _new_conn(self) -> socket.socket:
        addresses = _count_addresses(self.host, self.port, self.limits.name)
        self.timeout = self.limits.connect / addresses
        try:
            connection = super()._new_conn()
        except ConnectTimeoutError as error:
            cause = error.__cause__
            refused = isinstance(cause, OSError) and not isinstance(cause, TimeoutError) and cause.strerror
            reason = refused or f"no answer within {self.limits.connect:g} s"
            raise PlaceError(f"cannot connect to {self.host}:{self.port}: {reason}", dead=True) from error
        connection.settimeout(self.limits.stall)
        return connection


def _count_addresses(host: str, port: int, seconds: float) -> int:
    """Resolve a name in a thread, because the system's resolver cannot be interrupted."""
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
def _translated_errors(timeouts: Timeouts) -> Iterator[None]:
    """Turn urllib3's errors into PlaceErrors."""
    try:
        yield
    except (HTTPError, ValueError) as error:  # ValueError: an invalid URL
        raise _as_place_error(error, timeouts) from error


def _as_place_error(error: Exception, timeouts: Timeouts) -> PlaceError:
    cause = error.args[-1] if isinstance(error, (ProxyError, ProtocolError, SSLError)) else error
    match cause:
        case ReadTimeoutError():
            return PlaceError(f"stalled: no byte for {timeouts.stall:g} s", dead=True)
        case ssl.SSLCertVerificationError():
            return PlaceError(f"its certificate is not trusted: {cause.verify_message}", dead=True)
    if isinstance(error, (ProxyError, ProtocolError, SSLError)):
        return TransientError(f"the connection was lost: {cause or type(cause).__name__}")
    return PlaceError(str(error))
