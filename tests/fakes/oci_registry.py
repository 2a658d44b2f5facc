"""An OCI registry on this machine's loopback that takes and gives, and can be made to fail."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.fakes.http_server import serving

NAME = "team/stash"


@dataclass
class OciRegistry:
    """Blobs by digest (`sha256:…`) and manifests by tag.

    `login` is `user:password`, with `bearer` exchanged for a token at the registry's own server. A blob ends after
    `cut` bytes, `cuts` times, or comes `pause` seconds late a byte. `status` is the answer to everything, if any.
    """

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    login: str = ""
    bearer: bool = False
    cut: int = 0
    cuts: int = 0
    pause: float = 0.0
    status: int = 0
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def url(self) -> str:
        return f"oci://{self.address}/{NAME}"

    def is_authorized(self, header: str) -> bool:
        if not self.login:
            return True
        basic = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        return header == ("Bearer granted" if self.bearer else basic)

    @property
    def challenge(self) -> str:
        scope = f'scope="repository:{NAME}:pull,push"'
        return (
            f'Bearer realm="http://{self.address}/token",service="here",{scope}' if self.bearer else 'Basic realm="x"'
        )


class _Handler(BaseHTTPRequestHandler):
    registry: OciRegistry

    def handle_any(self) -> None:
        registry, path = self.registry, urlsplit(self.path).path
        registry.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        header = self.headers.get("Authorization", "")
        registry.authorizations.append(header)
        if registry.status:
            self.answer(registry.status)
        elif path == "/token":
            is_known = header == f"Basic {base64.b64encode(registry.login.encode()).decode()}"
            self.answer(200 if is_known else 401, json.dumps({"token": "granted"}).encode())
        elif not registry.is_authorized(header):
            self.answer(401, headers={"WWW-Authenticate": registry.challenge})
        elif self.command in ("GET", "HEAD"):
            self.give(path.rpartition("/")[2], registry.manifests if "/manifests/" in path else registry.blobs)
        elif self.command == "POST":
            self.answer(202, headers={"Location": f"/v2/{NAME}/blobs/uploads/1?state=x"})
        elif "/manifests/" in path:
            self.take_manifest(path.rpartition("/")[2], body)
        else:
            self.take_blob(parse_qs(urlsplit(self.path).query)["digest"][0], body)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - the names are http.server's

    def give(self, name: str, among: dict[str, bytes]) -> None:
        registry = self.registry
        if name not in among:
            return self.answer(404)
        content = among[name]
        is_cut = registry.cuts > 0 and among is registry.blobs and len(content) > registry.cut
        if self.command == "GET" and is_cut:
            registry.cuts -= 1
            self.answer(200, content[: registry.cut], length=len(content))
            self.close_connection = True
            return None
        return self.answer(200, content, slowly=among is registry.blobs)

    def take_manifest(self, tag: str, body: bytes) -> None:
        named = re.findall(r"sha256:[0-9a-f]{64}", body.decode())
        if missing := [name for name in named if name not in self.registry.blobs]:
            return self.answer(
                400, json.dumps({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN", "detail": missing}]}).encode()
            )
        self.registry.manifests[tag] = body
        return self.answer(201)

    def take_blob(self, digest: str, body: bytes) -> None:
        if digest != f"sha256:{hashlib.sha256(body).hexdigest()}":
            return self.answer(400)
        self.registry.blobs[digest] = body
        return self.answer(201)

    def answer(
        self,
        status: int,
        content: bytes = b"",
        *,
        length: int | None = None,
        headers: dict[str, str] | None = None,
        slowly: bool = False,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):
            if not (slowly and self.registry.pause):
                self.wfile.write(content)
                return
            for number in range(len(content)):
                self.wfile.write(content[number : number + 1])
                time.sleep(self.registry.pause)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def served(registry: OciRegistry) -> Iterator[OciRegistry]:
    """Serve a registry; its address is set meanwhile."""

    class Handler(_Handler):
        pass

    Handler.registry = registry
    with serving(Handler) as registry.address:
        yield registry
