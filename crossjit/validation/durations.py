"""Recorded durations of modules, so that the next run starts the longest first. Only that order depends on them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import InfrastructureError
from crossjit.model import ModuleRun
from crossjit.util import files


def load(home: Path, suite: str, env: TargetEnvironment) -> dict[str, float]:
    """Return seconds by module key, such as `test_dict [stress]`; nothing if the file is missing or unreadable."""
    try:
        record = json.loads(_file(home, suite, env).read_bytes())
        return {str(name): float(seconds) for name, seconds in record.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def record(home: Path, suite: str, env: TargetEnvironment, modules: Iterable[ModuleRun]) -> None:
    """Record the durations of modules; those of other modules stay. Raises InfrastructureError."""
    record_seconds(home, suite, env, {module.key: module.seconds for module in modules})


def record_seconds(home: Path, suite: str, env: TargetEnvironment, seconds: Mapping[str, float]) -> None:
    """Record durations by their keys; those with other keys stay. Raises InfrastructureError."""
    durations = load(home, suite, env) | dict(seconds)
    file = _file(home, suite, env)
    with files.translate_os_errors(InfrastructureError, "cannot record module times", home):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, json.dumps(durations, indent=1, sort_keys=True).encode())


def _file(home: Path, suite: str, env: TargetEnvironment) -> Path:
    words = (suite, env.arch, "emulated" if env.emulated else "native", *(["debug"] if env.variant.debug else []))
    return home / "durations" / f"{'-'.join(words)}.json"
