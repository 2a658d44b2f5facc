"""The repositories that apt is configured to use."""

from __future__ import annotations

import subprocess

_SECONDS = 30.0


def targets(form: str, *, release: bool = False) -> list[str]:
    """Return the command that lists the package repositories, one a line, each in the given format.

    It works even before the first `apt-get update`. With `release`, the fields of their Release files are available.
    """
    return [
        "apt-get",
        "indextargets",
        *(() if release else ("--no-release-info",)),
        *("--format", form, "Created-By: Packages"),
    ]


def repositories(form: str, *, release: bool = False) -> str:
    """Return the list of this host's apt; an empty text if there is no apt, or it does not answer."""
    try:
        result = subprocess.run(
            targets(form, release=release),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout
