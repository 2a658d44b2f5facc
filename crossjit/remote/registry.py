"""A remote in an OCI registry, by the distribution specification: artifacts are tagged with their build keys."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import BinaryIO
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import parse_http_list, parse_keqv_list

from crossjit.remote import credentials
from crossjit.remote.base import Blob, OpenBlob
from crossjit.remote.bundle import MANIFEST_TYPE, MOST_MANIFEST, Layer
from crossjit.sources import http
from crossjit.sources.http import Answer
from crossjit.sources.locations import PlaceError, Timeouts

_MOST_TOKEN = 1 << 20


class Registry:
    """One name in a registry, over HTTPS; over HTTP on this machine's loopback, as docker does."""

    def __init__(self, host: str, name: str, timeouts: Timeouts) -> None:
        self.name = f"oci://{host}/{name}"
        self._host = host
        self._timeouts = timeouts
        self._base = f"{'http' if _is_loopback(host) else 'https'}://{host}/v2/{name}/"
        self._authorization = ""

    def manifest(self, key: str) -> bytes | None:
        """Return the manifest tagged with a build key."""
        with self._sending("GET", f"manifests/{key}", {"accept": MANIFEST_TYPE}) as answer:
            if answer.status == 404:
                return None
            answer.require_success()
            return _read(answer, MOST_MANIFEST)

    @contextlib.contextmanager
    def blob(self, layer: Layer) -> Iterator[Blob]:
        """Request a blob."""
        with self._sending("GET", f"blobs/sha256:{layer.digest}") as answer:
            answer.require_success()
            yield Blob(answer.total, answer.chunks)

    def has(self, layer: Layer) -> bool:
        """Ask for a blob without its content."""
        with self._sending("HEAD", f"blobs/sha256:{layer.digest}") as answer:
            if answer.status != 404:
                answer.require_success()
            return answer.status != 404

    def put_blob(self, layer: Layer, content: OpenBlob) -> None:
        """Open an upload, and send the blob to where the registry wants it."""
        with self._sending("POST", "blobs/uploads/", {"content-length": "0"}) as answer:
            answer.require_success()
            place = urljoin(self._base, answer.headers.get("Location", ""))
        mark = "&" if urlsplit(place).query else "?"
        headers = {"content-type": "application/octet-stream", "content-length": str(layer.size)}
        with self._sending("PUT", f"{place}{mark}digest=sha256:{layer.digest}", headers, content) as answer:
            answer.require_success()

    def put_manifest(self, key: str, content: bytes) -> None:
        """Tag a manifest with a build key."""
        headers = {"content-type": MANIFEST_TYPE, "content-length": str(len(content))}
        with self._sending("PUT", f"manifests/{key}", headers, lambda: io.BytesIO(content)) as answer:
            answer.require_success()

    @contextlib.contextmanager
    def _sending(
        self, method: str, place: str, headers: Mapping[str, str] | None = None, content: OpenBlob | None = None
    ) -> Iterator[Answer]:
        """Send a request; if the registry asks who we are, log in and send it again."""
        url = urljoin(self._base, place)
        for is_last in (False, True):
            body: AbstractContextManager[BinaryIO | None] = content() if content else contextlib.nullcontext()
            sent = {**(headers or {}), **self._credentials(url)}
            with body as stream, http.sending(method, url, self._timeouts, headers=sent, body=stream) as answer:
                if answer.status == 403 or (answer.status == 401 and is_last):
                    raise PlaceError(
                        f"the registry refuses {method} ({answer.status}): `docker login {self._host}` keeps a login",
                        dead=True,
                    )
                if answer.status != 401:
                    yield answer
                    return
                challenge = answer.headers.get("WWW-Authenticate", "")
            self._authorization = self._log_in(challenge)

    def _credentials(self, url: str) -> Mapping[str, str]:
        """Return the header for a URL of the registry's own; an upload may go to another host."""
        is_own = urlsplit(url)[:2] == urlsplit(self._base)[:2]
        return {"authorization": self._authorization} if self._authorization and is_own else {}

    def _log_in(self, challenge: str) -> str:
        """Answer a challenge with the user's login, or as nobody; return the value of the header."""
        login = credentials.find(self._host)
        basic = f"Basic {base64.b64encode(login.encode()).decode()}" if login else ""
        scheme, _, rest = challenge.partition(" ")
        if scheme.lower() == "bearer":
            return f"Bearer {self._token(rest, basic)}"
        if scheme.lower() == "basic" and basic:
            return basic
        raise PlaceError(f"the registry wants a login: `docker login {self._host}` keeps one", dead=True)

    def _token(self, challenge: str, basic: str) -> str:
        """Get a token from the server that a challenge names."""
        try:
            asked = parse_keqv_list(parse_http_list(challenge))
            realm = urlsplit(asked["realm"])
        except (ValueError, KeyError, IndexError):
            raise PlaceError(f"the registry asks for a token in an unknown way: {challenge[:100]!r}") from None
        if realm.scheme != "https" and not _is_loopback(realm.netloc):
            raise PlaceError(f"the registry wants a login to be sent without encryption, to {realm.netloc}", dead=True)
        query = urlencode([(name, asked[name]) for name in ("service", "scope") if name in asked])
        url = realm._replace(query=f"{realm.query}&{query}".strip("&")).geturl()
        headers = {"authorization": basic} if basic else {}
        with http.sending("GET", url, self._timeouts, headers=headers) as answer:
            if answer.status in (401, 403):
                raise PlaceError(f"{realm.netloc} refuses the login for {self._host}", dead=True)
            answer.require_success()
            content = _read(answer, _MOST_TOKEN)
        try:
            granted = json.loads(content)
            return str(granted.get("token") or granted["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise PlaceError(f"{realm.netloc} answers without a token") from None


def _is_loopback(host: str) -> bool:
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name in ("localhost", "[::1]") or name.startswith("127.")


def _read(answer: Answer, most: int) -> bytes:
    content = bytearray()
    for chunk in answer.chunks:
        content += chunk
        if len(content) > most:
            raise PlaceError(f"the answer has more than {most:,} bytes")
    return bytes(content)
