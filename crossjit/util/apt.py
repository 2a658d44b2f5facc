"""The repositories that apt is set to."""

from __future__ import annotations

import subprocess

_SECONDS = 30.0


def targets(form: str, *, release: bool = False) -> list[str]:
    """Return the command that lists the repositories that packages come from, one a line, each in the given form.

    They are listed even before the first `apt-get update`; with `release`, what their Release files say is known, too.
    """
    return [
        "apt-get",
        "indextargets",
        *(() if release else ("--no-release-info",)),
        *("--format", form, "Created-By: Packages"),
    ]


def repositories(form: str, *, release: bool = False) -> str:
    """Return what this host's apt lists; nothing where there is none, or it does not answer."""
    try:
        done = subprocess.run(
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
    return done.stdout
