"""The command line that does a run again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from crossjit.settings import Settings

COMMAND_WIDTH = 200  # as much of a command as is worth a line; builds' whole commands are in their logs


def reproduction(settings: Settings, argv: Sequence[str]) -> str:
    """Return a command line that does the same again, with the settings that decide what is done."""
    environment = {
        "CROSSJIT_ENGINE": "" if settings.engine == "docker" else settings.engine,
        "CROSSJIT_JOBS": str(settings.jobs or ""),
        "CROSSJIT_SOURCE_MIRROR": " ".join(settings.source_mirrors),
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items() if value]
    return " ".join([*words, shlex.join(argv)] if argv else words)
