"""A registry of one image, on this machine's loopback, that can be made to fail."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from crossjit.model import Arch
from tests.fakes.http_server import serving

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Registry:
    """Serves `image:1` for every arch; refuses its first `failures` requests for it with a status of trouble."""

    layer: bytes
    labels: Mapping[str, str]
    failures: int = 0
    asked: int = 0
    address: str = ""
    content: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        packed = gzip.compress(self.layer, mtime=0)
        manifests = []
        for arch in Arch:
            config = {
                "architecture": arch.debian,
                "os": "linux",
                "config": {"Labels": dict(self.labels)},
                "rootfs": {"type": "layers", "diff_ids": [digest(self.layer)]},
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._keep("application/vnd.oci.image.config.v1+json", json.dumps(config).encode()),
                "layers": [self._keep("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
            }
            kept = self._keep(MANIFEST, json.dumps(manifest).encode())
            manifests.append(kept | {"platform": {"os": "linux", "architecture": arch.debian}})
        index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
        self.content["1"] = INDEX, index
        self.digest = str(self._keep(INDEX, index)["digest"])

    def _keep(self, kind: str, data: bytes) -> dict[str, object]:
        self.content[digest(data)] = kind, data
        return {"mediaType": kind, "size": len(data), "digest": digest(data)}

    def answer(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and content for a path."""
        if path == "/v2/":
            return HTTPStatus.OK, "application/json", b"{}"
        name = path.rpartition("/")[2]
        if name == "1":
            self.asked += 1
            if self.failures:
                self.failures -= 1
                return HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"try again later"
        if name in self.content:
            return HTTPStatus.OK, *self.content[name]
        return HTTPStatus.NOT_FOUND, "application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}'


@contextmanager
def served(registry: Registry) -> Iterator[Registry]:
    """Serve the registry; its address is set meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, data = registry.answer(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Docker-Content-Digest", digest(data))
            self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815 - the names are http.server's

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as registry.address:
        yield registry
