"""Engines of the tests' own: a second docker daemon, and a way to a daemon over ssh."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lack
from tests.e2e.driver import PATIENCE

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class PrivateEngine:
    """A Docker daemon of the test's own, which it may kill.

    It has a network of its own, too: a daemon without a bridge removes the interface docker0 that it finds when it
    starts, and so the machine's (`removeDefaultBridgeInterface` in moby's daemon/daemon_unix.go).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self.name = f"crossjit-{secrets.token_hex(4)}"  # containerd refuses some that a temporary folder may have
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        # tests that are killed clean nothing up, so it ends by itself when they are gone
        command = ["setpriv", "--pdeathsig", "TERM", "unshare", "--net", "dockerd", "--host", self.host]
        command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        for option, place in (("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")):
            command += [option, f"{self.folder}/{place}"]
        # where the system runs a containerd, all daemons use that one
        command += [f"--containerd-namespace={self.name}", f"--containerd-plugins-namespace={self.name}-plugins"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE
        while subprocess.run(["docker", "-H", self.host, "info"], capture_output=True, check=False).returncode:
            log_text = (self.folder / "log").read_text(errors="replace")
            assert self.process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.1)

    def kill(self) -> None:
        """`kill -9` of the daemon alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it with all that it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def require() -> None:
    """Skip the test where no second daemon can be started."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("CI must have dockerd", pytrace=False)
        pytest.skip("a second engine needs root and dockerd")


@contextlib.contextmanager
def running() -> Iterator[PrivateEngine]:
    """Start a second engine for the block. Its folder has a short name: paths of sockets have at most 107 bytes."""
    require()
    folder = Path(tempfile.mkdtemp(prefix="crossjit-"))
    engine = PrivateEngine(folder)
    try:
        engine.start()
        yield engine
    finally:
        if engine.process is not None and engine.process.poll() is not None:
            with contextlib.suppress(AssertionError):
                engine.start()  # it ends what its predecessor left running
        engine.stop()
        # each daemon mounts its data root on itself, and one that is killed leaves it so
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(folder)]):
            subprocess.run(["umount", mount], check=True)
        shutil.rmtree(folder)


class SshDoor:
    """A way to this machine's own docker over ssh, with throw-away keys: `path` has an `ssh` that knows them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "bin"
        self.host = "ssh://crossjit-door"  # an alias in the client's configuration
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a server on a free port of the loopback, and write the client's configuration."""
        for key in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)], check=True, timeout=60
            )
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        (self.folder / "sshd_config").write_text(
            f"""\
ListenAddress 127.0.0.1
Port {port}
HostKey {self.folder}/host
AuthorizedKeysFile {self.folder}/authorized
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
MaxStartups 100
MaxSessions 100
"""
        )
        known = " ".join((self.folder / "host.pub").read_text().split()[:2])
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}\n")
        (self.folder / "config").write_text(
            f"""\
Host crossjit-door
  HostName 127.0.0.1
  Port {port}
  IdentityFile {self.folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {self.folder}/known_hosts
  BatchMode yes
  ControlMaster auto
  ControlPath {self.folder}/%C
  ControlPersist 60
"""
        )
        self.path.mkdir()
        client = self.path / "ssh"
        client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.folder}/config "$@"\n')
        client.chmod(0o755)
        Path("/run/sshd").mkdir(exist_ok=True)  # where the server's unprivileged part is
        command = ["setpriv", "--pdeathsig", "TERM", str(SSHD), "-D", "-e", "-f", f"{self.folder}/sshd_config"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([str(client), "crossjit-door", "true"], capture_output=True, check=False).returncode:
            log_text = (self.folder / "log").read_text(errors="replace")
            assert self.process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text
            time.sleep(0.1)

    def stop(self) -> None:
        """End the server and the connection that the clients share."""
        if self.process is not None:
            client = [str(self.path / "ssh"), "-O", "exit", "crossjit-door"]
            subprocess.run(client, capture_output=True, check=False)
            self.process.terminate()
            self.process.wait()


@contextlib.contextmanager
def ssh_door() -> Iterator[SshDoor]:
    """Start a way over ssh for the block."""
    if SSHD is None or shutil.which("ssh") is None or os.geteuid() != 0:
        lack("an ssh server", "an engine over ssh needs root, ssh, and sshd: apt-get install openssh-server")
    with tempfile.TemporaryDirectory(prefix="crossjit-") as folder:
        door = SshDoor(Path(folder))
        try:
            door.start()
            yield door
        finally:
            door.stop()
