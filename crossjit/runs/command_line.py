"""The command line that repeats a run."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from crossjit.settings import Settings

COMMAND_WIDTH = 200  # characters of a command on one line; whole build commands are in the logs


def reproduction(settings: Settings, argv: Sequence[str]) -> str:
    """Return a command line that repeats the run, with the settings that affect it."""
    environment = {
        "CROSSJIT_ENGINE": "" if settings.engine == "docker" else settings.engine,
        "CROSSJIT_JOBS": str(settings.jobs or ""),
        "CROSSJIT_SOURCE_MIRROR": " ".join(settings.source_mirrors),
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items() if value]
    return " ".join([*words, shlex.join(argv)] if argv else words)
