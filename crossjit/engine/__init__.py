"""Container engines: the interface (`base`), and its implementation by the clients of docker and podman."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.settings import Settings


def connect(settings: Settings) -> Engine:
    """Return the engine that the settings name: by `docker` or `podman`, and the first of `engines`.

    It is not contacted yet: if it is missing or does not answer, its first use raises EngineError.
    """
    # importing python-on-whales takes 0.2 s, which commands without an engine should not pay
    from crossjit.engine.cli_engine import CliEngine

    return CliEngine(settings.engine, *settings.engines[:1])
