"""A real OCI registry: Debian's docker-registry, started on this machine's loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

PACKAGE = "docker-registry"
PATIENCE = 30.0


class MissingError(Exception):
    """The registry is not on PATH, and apt does not have it."""


def program(folder: Path) -> Path:
    """Return the registry's program: the one on PATH, or one that is unpacked into a folder, which needs no root."""
    if found := shutil.which(PACKAGE):
        return Path(found)
    unpacked = folder / "usr" / "bin" / PACKAGE
    folder.mkdir(exist_ok=True)
    with filelock.FileLock(folder / "lock"):
        if not unpacked.exists():
            _unpack(folder)
    return unpacked


def _unpack(folder: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise MissingError(f"{PACKAGE} is not on PATH, and there is no apt to get it with")
    said = _apt("download", PACKAGE, folder=folder)
    if not list(folder.glob("*.deb")) and os.geteuid() == 0:  # nobody has asked for the lists yet, or they are old
        _apt("update", folder=folder)
        said = _apt("download", PACKAGE, folder=folder)
    packages = list(folder.glob("*.deb"))
    if not packages:
        raise MissingError(f"apt-get download {PACKAGE}: {said.strip()[-300:]}")
    subprocess.run(["dpkg-deb", "-x", packages[0], folder], check=True)


def _apt(*arguments: str, folder: Path) -> str:
    command = ["apt-get", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300).stderr


@dataclass
class RunningRegistry:
    """A registry that runs: where, its process, and its folder."""

    address: str
    process: subprocess.Popen[bytes]
    storage: Path

    @property
    def url(self) -> str:
        return f"oci://{self.address}/tests/stash"

    def blob(self, digest: str) -> Path:
        """Return the file of a blob."""
        return self.storage / "docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"

    def die(self) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(binary: Path, folder: Path) -> Iterator[RunningRegistry]:
    """Run a registry for the block; `folder` gets its configuration, its log and what is pushed."""
    storage, port = folder / "storage", free_port()
    folder.mkdir()
    configuration = folder / "config.yml"
    configuration.write_text(
        f"""\
version: 0.1
log: {{level: warn}}
storage:
  filesystem: {{rootdirectory: {storage}}}
http:
  addr: 127.0.0.1:{port}
"""
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([binary, "serve", configuration], stdout=log, stderr=log)
    try:
        _await(f"http://127.0.0.1:{port}/v2/", process, folder / "log")
        yield RunningRegistry(f"127.0.0.1:{port}", process, storage)
    finally:
        process.kill()
        process.wait()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), opener.open(url, timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"the registry does not answer: {log.read_text()}")


@contextlib.contextmanager
def dying(registry: RunningRegistry, after: int) -> Iterator[str]:
    """Relay to a registry, which dies when it has sent so many bytes on one connection; return the address."""
    host, _, port = registry.address.partition(":")

    def relay(client: socket.socket) -> None:
        with client, socket.create_connection((host, int(port))) as server:
            forward = threading.Thread(target=_copy, args=(client, server), daemon=True)
            forward.start()
            if _copy(server, client, after):
                registry.die()
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                if registry.process.poll() is not None:
                    listener.close()
                    client.close()
                    return
                threading.Thread(target=relay, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _copy(source: socket.socket, target: socket.socket, most: int = 1 << 60) -> bool:
    """Copy what a socket sends until it ends; return whether it was stopped after `most` bytes."""
    with contextlib.suppress(OSError):
        while data := source.recv(min(1 << 16, most)):
            target.sendall(data)
            most -= len(data)
            if most <= 0:
                return True
    return False
