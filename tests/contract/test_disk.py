"""What a container writes to the engine's disk: bounded, with the volumes that it may write to."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from crossjit.engine import disk, disk_usage, host_usage
from crossjit.engine.base import Container, EngineObject, Limits
from crossjit.engine.cli_engine import CliEngine
from crossjit.errors import EngineError
from crossjit.util.budget import BudgetError
from tests.contract.bench import FILLERS, FRUGAL, Bench, processes, sh
from tests.contract.test_engine import tar_of

MIB = 1 << 20


@contextmanager
def limited(bench: Bench, size: int) -> Iterator[Container]:
    """A container that may write so many bytes, with a volume."""
    volume = f"crossjit-contract-{uuid4().hex[:12]}"
    bench.engine.ensure_volume(volume, bench.labels)
    try:
        with bench.container(user=bench.worker, limits=Limits(disk=size), volumes={volume: "/cache"}) as container:
            # engines differ in who may write to a new volume
            container.put(tar_of(("cache", b"", {"type": tarfile.DIRTYPE, "mode": 0o1777})), "/")
            yield container
    finally:
        bench.engine.remove(EngineObject("volume", volume, volume, {}))


def running(bench: Bench, container: Container) -> list[str]:
    """What runs in a container; of a real engine not asked with a command, since the container has too much already."""
    if isinstance(bench.engine, CliEngine):
        return bench.engine.cli.call("look", "container", "top", container.id).splitlines()
    return processes(bench, container)


@pytest.mark.parametrize("filler", ["a file", "a file without a name", "a volume"])
def test_a_command_that_fills_the_disk(bench: Bench, filler: str) -> None:
    with limited(bench, 64 * MIB) as container:
        with pytest.raises(
            BudgetError, match=r"sh and the processes beside it wrote more than 64 MiB to disk"
        ) as caught:
            container.run(sh(FILLERS[filler]), timeout=100)
        assert caught.value.exit_code == 1
        assert not [line for line in running(bench, container) if "sleep 907" in line]


@pytest.mark.parametrize("filler", ["small files", "folders that nobody may read"])
def test_a_command_that_hides_what_it_writes(live_bench: Bench, monkeypatch: pytest.MonkeyPatch, filler: str) -> None:
    monkeypatch.setattr(disk, "RETRY_DELAY", 0.5)
    monkeypatch.setattr(disk, "MEASURE_STEP", 4 * MIB)
    with limited(live_bench, 8 * MIB) as container, pytest.raises(BudgetError, match="to disk"):
        container.run(sh(FILLERS[filler]), timeout=100)


@pytest.mark.parametrize("seen", [True, False])
def test_a_command_that_writes_little(bench: Bench, monkeypatch: pytest.MonkeyPatch, seen: bool) -> None:
    """Holes are nothing, whoever looks: an engine here or elsewhere."""
    asked: list[int] = []

    def measure(*arguments: Any, **options: Any) -> int:
        asked.append(disk_usage_measure(*arguments, **options))
        return asked[-1]

    module = host_usage if bench.is_host else disk_usage
    disk_usage_measure = module.measure
    monkeypatch.setattr(module, "measure", measure)
    hidden = not (seen or bench.is_host)  # a host always sees its own disk
    monkeypatch.setattr(disk, "MEASURE_INTERVAL_HIDDEN" if hidden else "MEASURE_INTERVAL", 0.5)
    if not seen and isinstance(bench.engine, CliEngine):
        monkeypatch.setattr(bench.engine.cli, "root", None)
    with limited(bench, 64 * MIB) as container:
        assert container.run(sh(FRUGAL), timeout=100).returncode == 0
    if bench.real:
        assert 15 * MIB < asked[-1] < 30 * MIB


def test_a_command_that_writes_nothing_costs_no_question(live_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # other tests fill this disk meanwhile
    monkeypatch.setattr(disk, "shutil", SimpleNamespace(disk_usage=lambda root: SimpleNamespace(free=1 << 40)))
    for module in (disk_usage, host_usage):
        monkeypatch.setattr(module, "measure", None)
    with limited(live_bench, 64 * MIB) as container:
        assert container.run(["sleep", "2"]).returncode == 0


def test_an_engine_that_cannot_tell_is_borne_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | EngineError] = [
        *(EngineError("busy"), EngineError("busy"), 5),
        *(EngineError("busy"), EngineError("busy"), EngineError("gone")),
    ]

    def measure(exact: bool) -> int:
        answer = answers.pop(0)
        if isinstance(answer, EngineError):
            raise answer
        return answer

    for name in ("CHECK_INTERVAL", "MEASURE_INTERVAL_HIDDEN", "RETRY_DELAY"):
        monkeypatch.setattr(disk, name, 0.0)
    clock = count()  # each look at it is a second later
    monkeypatch.setattr(disk, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    watch = disk.DiskWatch(measure, 10, None)
    for _ in range(5):
        watch.look("make")
    with pytest.raises(EngineError, match="gone"):
        watch.look("make")
    assert not answers
