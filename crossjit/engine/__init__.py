"""Engines: the interface (`base`), the clients of docker and podman, and the host itself (`host_engine`)."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from crossjit.engine.base import HOST
from crossjit.model import Platform

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.settings import Settings


def connect(settings: Settings) -> Engine:
    """Return the engine that the settings name: `docker` or `podman`, the first of `engines`, or `host`.

    It is not contacted yet: if it is missing or does not answer, its first use raises EngineError.
    """
    if settings.engine == HOST:
        from crossjit.engine.host_engine import HostEngine

        system = Platform.of_system(platform.system())
        return HostEngine(settings.home / HOST, more_path=system.more_path if system else ())
    # importing python-on-whales takes 0.2 s, which commands without an engine should not pay
    from crossjit.engine.cli_engine import CliEngine

    return CliEngine(settings.engine, *settings.engines[:1])
