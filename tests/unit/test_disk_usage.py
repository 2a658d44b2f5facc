"""Measuring what a container wrote: an engine that is slow is not the source's fault."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit.engine import disk_usage
from crossjit.engine.process import ClientResult
from crossjit.errors import EngineError, ExitCode
from crossjit.util.budget import BudgetError


def measure(script: str, root: Path | None = Path("/")) -> int:
    """Measure with a shell in place of the engine's client; the container has written a thousand bytes."""
    client: Any = SimpleNamespace(root=root, try_call=lambda *words, timeout: ClientResult(0, "1000\n", ""))
    run = ("/bin/sh", "-c", script, "client")
    return disk_usage.measure(client, "id", "crossjit-jit", run, "1000", ("/cache",), limit=5000, exact=False)


def test_the_sum() -> None:
    assert measure("printf '2000\\t/cache\\nopen 3:7 2\\nend\\n'") == 1000 + 2000 + 2 * disk_usage.BLOCK


def test_a_container_that_lets_nobody_look_is_at_fault() -> None:
    with pytest.raises(BudgetError) as caught:
        measure("echo 'cannot fork'; exit 1")
    assert caught.value.exit_code is ExitCode.PRODUCT


def test_one_that_takes_too_long_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_usage, "TIMEOUT", 0.2)
    with pytest.raises(EngineError, match="measuring what crossjit-jit wrote to disk took more than 0 s") as caught:
        measure("sleep 5")
    assert caught.value.exit_code is ExitCode.INFRASTRUCTURE


def test_an_engine_elsewhere_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_usage, "TIMEOUT", 0.1)
    assert measure("sleep 0.4; printf '2000\\t/cache\\nend\\n'", root=None) == 3000
