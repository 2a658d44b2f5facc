"""Sweeping and cleaning, on what a killed process really leaves in a real engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from crossjit.engine.base import HOME, OWNED, RUN, EngineObject
from crossjit.pipeline import cleanup
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from tests.contract.bench import HOST_ARCH, Bench


def ours(bench: Bench, settings: Settings) -> list[EngineObject]:
    return list(bench.engine.owned({HOME: settings.identity}))


def tidied(bench: Bench, settings: Settings) -> Iterator[Bench]:
    yield bench
    for thing in ours(bench, settings):
        bench.engine.remove(thing)


@pytest.fixture
def tidy(live_bench: Bench, settings: Settings) -> Iterator[Bench]:
    """The bench; whatever a test that fails leaves goes at its end."""
    yield from tidied(live_bench, settings)


@pytest.fixture
def tidy_images(real_bench: Bench, settings: Settings) -> Iterator[Bench]:
    """The same for an engine that has images."""
    yield from tidied(real_bench, settings)


def start_and_die(bench: Bench, settings: Settings) -> str:
    """Have a process start a run and a container and be killed; return the container's name."""
    name = f"crossjit-cleaning-{uuid4().hex[:12]}"
    if (child := os.fork()) == 0:
        try:
            with RunRecord.start(settings, ["invoke", "build"], {}) as record:
                labels = {OWNED: "build", HOME: settings.identity, RUN: record.id}
                with bench.container(name=name, labels=labels):
                    os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    return name


def test_sweep_removes_the_container_of_a_killed_run_only(tidy: Bench, settings: Settings) -> None:
    dead = start_and_die(tidy, settings)
    assert [(thing.kind, thing.name) for thing in ours(tidy, settings)] == [("container", dead)]
    with RunRecord.start(settings, ["invoke", "build"], {}) as record:
        labels = {OWNED: "build", HOME: settings.identity, RUN: record.id}
        living = f"crossjit-cleaning-{uuid4().hex[:12]}"
        with tidy.container(name=living, labels=labels) as container:
            assert cleanup.sweep(tidy.engine, settings).lines == (f"container {dead}",)
            assert [thing.name for thing in ours(tidy, settings)] == [living]
            assert container.run(["true"]).returncode == 0
            assert cleanup.sweep(tidy.engine, settings) == cleanup.CleanupResult()
    assert ours(tidy, settings) == []


def test_clean_removes_containers_and_images(tidy_images: Bench, settings: Settings) -> None:
    tidy = tidy_images
    tag = f"crossjit-cleaning-{uuid4().hex[:12]}:own"
    labels = {OWNED: "toolchain", HOME: settings.identity}
    tidy.engine.import_image(tidy.rootfs, tag=tag, arch=HOST_ARCH, labels=labels)
    dead = start_and_die(tidy, settings)
    assert {thing.kind for thing in ours(tidy, settings)} == {"container", "image"}
    done = cleanup.clean(tidy.engine, settings)
    assert [thing.kind for thing in done.removed] == ["container", "image"]
    assert done.removed[0].name == dead
    assert done.kept == ()
    assert ours(tidy, settings) == []
    assert tidy.engine.image(tag) is None
    assert tidy.engine.image(tidy.image) is not None  # not this state folder's
