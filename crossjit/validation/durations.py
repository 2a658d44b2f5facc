"""How long modules took here, so that the next run begins with the longest. Nothing but that order depends on it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import InfrastructureError
from crossjit.model import ModuleRun
from crossjit.util import files


def load(home: Path, suite: str, where: TargetEnvironment) -> dict[str, float]:
    """Return seconds by module, as `test_dict [stress]`; what is not there or cannot be read is left out."""
    try:
        found = json.loads(_file(home, suite, where).read_bytes())
        return {str(name): float(seconds) for name, seconds in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def record(home: Path, suite: str, where: TargetEnvironment, modules: Iterable[ModuleRun]) -> None:
    """Remember how long modules took; others keep what is known of them. Raises InfrastructureError."""
    known = load(home, suite, where) | {module.key: module.seconds for module in modules}
    file = _file(home, suite, where)
    with files.translate_os_errors(InfrastructureError, "cannot record module times", home):
        file.parent.mkdir(parents=True, exist_ok=True)
        files.replace(file, json.dumps(known, indent=1, sort_keys=True).encode())


def _file(home: Path, suite: str, where: TargetEnvironment) -> Path:
    words = (suite, where.arch, "emulated" if where.emulated else "native", *(["debug"] if where.variant.debug else []))
    return home / "durations" / f"{'-'.join(words)}.json"
