"""What the real engine makes of its client's words and exit statuses."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from crossjit.engine.base import traits, unlimited
from crossjit.engine.cli_client import is_transient
from crossjit.engine.cli_container import exit_status
from crossjit.engine.cli_engine import CliEngine
from crossjit.engine.process import held_signals
from crossjit.errors import EngineError


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("net/http: TLS handshake timeout", True),
        ("dial tcp 192.0.2.1:443: i/o timeout", True),
        ("received unexpected HTTP status: 503 Service Unavailable", True),
        ("read: connection reset by peer", True),
        ("toomanyrequests: slow down", True),
        ("dial tcp: lookup none.invalid: no such host", False),
        ("lookup none.invalid on 192.0.2.1:53: read udp: i/o timeout: Temporary failure in name resolution", False),
        ("manifest for none:1 not found: manifest unknown", False),
        ("unauthorized: authentication required", False),
        ("Cannot connect to the Docker daemon", False),
    ],
)
def test_which_failures_of_a_pull_may_pass(said: str, expected: bool) -> None:
    assert is_transient(f"Error response from daemon: {said}") is expected


@pytest.mark.parametrize(
    ("code", "expected"), [(0, 0), (1, 1), (128, 128), (129, -1), (137, -9), (159, -31), (160, 160), (255, 255)]
)
def test_exit_status(code: int, expected: int) -> None:
    assert exit_status(code) == expected


# What the client of Docker 26 says, and how it ends, where no engine is behind it.
OLD_CLIENT = """#!/bin/sh
case "$*" in
    *info*) echo '{"ID":"","Containers":0,"ServerErrors":["Cannot connect to the Docker daemon"]}' ;;
    *) echo 'Cannot connect to the Docker daemon' >&2; exit 1 ;;
esac
"""


def test_an_engine_without_root_that_limits_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would start containers all the same, and ignore their limits."""
    client = tmp_path / "podman"
    client.write_text(
        """#!/bin/sh\necho '{"host": {"security": {"rootless": true}, "cgroupControllers": ["pids"]}}'\n"""
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineError, match="podman without root cannot limit memory here") as caught:
        CliEngine("podman").facts()
    assert "cgroup v2" in caught.value.hint


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"host": {"security": {"rootless": True}, "cgroupControllers": []}}, ("memory", "pids")),
        ({"host": {"security": {"rootless": True}, "cgroupControllers": ["cpu", "memory", "pids"]}}, ()),
        ({"host": {"security": {"rootless": False}, "cgroupControllers": []}}, ()),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"], "MemoryLimit": True, "PidsLimit": False}, ("pids",)),
        ({"SecurityOptions": ["name=rootless"], "MemoryLimit": True, "PidsLimit": True}, ()),
        ({"SecurityOptions": None, "MemoryLimit": False, "PidsLimit": False}, ()),
        ({}, ()),
    ],
)
def test_what_an_engine_cannot_limit(info: dict[str, object], expected: tuple[str, ...]) -> None:
    assert unlimited(info) == expected


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"Driver": "overlay2", "DriverStatus": [["Backing Filesystem", "extfs"]], "SecurityOptions": None}, ()),
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}, ("rootless",)),
        ({"SecurityOptions": ["name=userns"]}, ("user namespaces",)),
        ({"DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]]}, ("containerd image store",)),
        ({"host": {"security": {"rootless": True}}}, ("rootless",)),
        ({}, ()),
    ],
)
def test_what_is_unusual_about_an_engine(info: dict[str, object], expected: tuple[str, ...]) -> None:
    assert traits(info) == expected


def test_a_client_that_ends_well_without_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = tmp_path / "docker"
    client.write_text(OLD_CLIENT)
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EngineError, match="does not answer") as caught:
        CliEngine().facts()
    assert "./inv setup" in caught.value.hint


def test_held_signals_come_afterwards() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), held_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached == ["the end"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
