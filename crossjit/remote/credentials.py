"""Logins for registries, as docker and podman keep them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_HELPER_SECONDS = 10


def find(host: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return `user:password` for a registry, None if nobody has logged in. Unreadable files count as no login."""
    for path in _files(environ):
        try:
            config = json.loads(path.read_bytes())
            if login := _stored(config, host) or _helped(config, host):
                return login
        except (OSError, ValueError, KeyError, TypeError, AttributeError, subprocess.SubprocessError):
            continue
    return None


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    if named := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(named)
    if folder := environ.get("DOCKER_CONFIG"):
        yield Path(folder, "config.json")
    elif home := environ.get("HOME"):
        yield Path(home, ".docker", "config.json")
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers", "auth.json")


def _stored(config: Any, host: str) -> str | None:
    auths = config.get("auths", {})
    for name in (host, f"https://{host}", f"https://{host}/v2/"):
        if encoded := auths.get(name, {}).get("auth"):
            return base64.b64decode(encoded).decode()
    return None


def _helped(config: Any, host: str) -> str | None:
    """Ask the credential helper that is configured for a registry, if one is."""
    helper = config.get("credHelpers", {}).get(host) or config.get("credsStore")
    if not helper:
        return None
    done = subprocess.run(
        [f"docker-credential-{helper}", "get"],
        input=host,
        capture_output=True,
        text=True,
        timeout=_HELPER_SECONDS,
        check=True,
    )
    answer = json.loads(done.stdout)
    return f"{answer['Username']}:{answer['Secret']}" if answer["Username"] != "<token>" else None
