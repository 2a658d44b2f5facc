"""Container engines: the seam (`base`), and what stands behind it: the command-line clients of docker and podman."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossjit.engine.base import Engine
    from crossjit.settings import Settings


def connect(settings: Settings) -> Engine:
    """Return the engine that the settings name, `docker` or `podman`.

    Nothing is asked of it yet: an engine that is absent or does not answer shows at the first use, as EngineError.
    """
    # python-on-whales takes 0.2 s to import, which commands that need no engine should not pay
    from crossjit.engine.cli_engine import CliEngine

    return CliEngine(settings.engine)
