from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from crossjit.engine.base import COPY, HOME, OWNED, RUN, Container, ContainerOptions, EngineObject
from crossjit.errors import EngineError
from crossjit.model import Arch
from crossjit.pipeline import cleanup
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.stash.store import Store
from tests.fakes.engine import FakeEngine
from tests.unit.trees import stream

DEAD = "20260101-000000-dead"


def labels(settings: Settings, kind: str, run: str | None = None) -> dict[str, str]:
    return {OWNED: kind, HOME: settings.identity, **({RUN: run} if run else {})}


def names(things: tuple[EngineObject, ...]) -> list[str]:
    return sorted(thing.name for thing in things)


@pytest.fixture
def engine(fake_engine: FakeEngine) -> FakeEngine:
    fake_engine.add_image("base", arch=Arch.X86_64)
    return fake_engine


@contextlib.contextmanager
def left(engine: FakeEngine, name: str, given: Mapping[str, str]) -> Iterator[Container]:
    """A container that its dead run left behind: it is there until the block ends, if nobody removes it."""
    with engine.container(ContainerOptions("base", arch=Arch.X86_64, name=name, labels=given)) as container:
        yield container


def is_there(engine: FakeEngine, container: Container) -> bool:
    return container.id in engine.containers


def test_sweep_removes_what_dead_runs_left_and_nothing_else(engine: FakeEngine, settings: Settings) -> None:
    other = Settings(home=settings.home.with_name("other"))
    with (
        RunRecord.start(settings, ["invoke", "build"], {}) as record,
        left(engine, "dead", labels(settings, "build", DEAD)) as dead,
        left(engine, "living", labels(settings, "build", record.id)) as living,
        left(engine, "other", labels(other, "build", DEAD)) as others,
        left(engine, "no-run", labels(settings, "shell")) as unknown,
        left(engine, "foreign", {"somebody": "else", RUN: DEAD}) as foreign,
    ):
        engine.volumes = {
            "dead-volume": labels(settings, "scratch", DEAD),
            "living-volume": labels(settings, "scratch", record.id),
            "cache": labels(settings, "cache"),
        }
        engine.add_image("toolchain", arch=Arch.X86_64, labels=labels(settings, "toolchain", DEAD))
        swept = cleanup.sweep(engine, settings)
        assert names(swept.removed) == ["dead", "dead-volume"]
        assert swept.lines == ("container dead", "volume dead-volume")
        assert swept.kept == ()
        assert not is_there(engine, dead)
        assert all(is_there(engine, one) for one in (living, others, unknown, foreign))
        assert sorted(engine.volumes) == ["cache", "living-volume"]
        assert engine.image("toolchain") is not None
        assert cleanup.sweep(engine, settings) == cleanup.CleanupResult()


def test_sweep_removes_the_copies_that_a_dead_run_made_of_images(engine: FakeEngine, settings: Settings) -> None:
    with RunRecord.start(settings, ["invoke", "build"], {}) as record:
        for name, run in (("dead", DEAD), ("living", record.id)):
            engine.add_image(f"{name}-copy", arch=Arch.X86_64, labels={**labels(settings, "image", run), COPY: name})
        assert names(cleanup.sweep(engine, settings).removed) == ["dead-copy"]
        assert engine.image("living-copy") is not None


def test_sweep_after_a_kill(engine: FakeEngine, settings: Settings) -> None:
    """A process that really dies in the middle of all: its container, its staging and its source in the making go."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            with (
                RunRecord.start(settings, ["invoke", "build"], {}) as record,
                Store(settings.stash).staging("ab" * 32) as staging,
            ):
                os.write(writer, record.id.encode())
                staging.add("install", stream())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    run = os.read(reader, 100).decode()
    os.close(reader)
    os.close(writer)
    work = settings.sources / "tmp" / "download"
    work.mkdir(parents=True)
    (work / "half").write_bytes(b"half")
    with left(engine, "killed", labels(settings, "build", run)) as container:
        swept = cleanup.sweep(engine, settings)
        assert names(swept.removed) == ["killed"]
        assert not is_there(engine, container)
    assert len(swept.folders) == 2
    assert swept.folders[0].startswith("stash/tmp/abababababab-")
    assert swept.folders[1] == "sources/tmp/download"
    assert not work.exists()
    assert [path.name for path in (settings.stash / "tmp").iterdir()] == [".making.lock"]


def test_clean_removes_all_of_ours(engine: FakeEngine, settings: Settings) -> None:
    engine.add_image("toolchain", arch=Arch.X86_64, labels=labels(settings, "toolchain"))
    engine.volumes = {"cache": labels(settings, "cache"), "mine": {"somebody": "else"}}
    with left(engine, "dead", labels(settings, "build", DEAD)), left(engine, "foreign", {}) as foreign:
        would = cleanup.clean(engine, settings, dry_run=True)
        assert len(engine.owned({HOME: settings.identity})) == 3
        done = cleanup.clean(engine, settings)
        assert done.removed == would.removed
        assert [thing.kind for thing in done.removed] == ["container", "volume", "image"]
        assert is_there(engine, foreign)
    assert list(engine.volumes) == ["mine"]
    assert list(engine.images) == ["base"]
    assert cleanup.clean(engine, settings) == cleanup.CleanupResult()


@pytest.mark.parametrize("kind", ["container", "volume", "image"])
def test_clean_removes_only_the_kinds_that_were_asked_for(engine: FakeEngine, settings: Settings, kind: str) -> None:
    engine.add_image("toolchain", arch=Arch.X86_64, labels=labels(settings, "toolchain"))
    engine.volumes = {"cache": labels(settings, "cache")}
    with left(engine, "dead", labels(settings, "build", DEAD)):
        done = cleanup.clean(
            engine, settings, containers=kind == "container", volumes=kind == "volume", images=kind == "image"
        )
        assert [thing.kind for thing in done.removed] == [kind]
        assert len(engine.owned({HOME: settings.identity})) == 2


def test_clean_spares_what_a_living_run_uses(engine: FakeEngine, settings: Settings) -> None:
    engine.add_image("toolchain", arch=Arch.X86_64, labels=labels(settings, "toolchain"))
    with (
        RunRecord.start(settings, ["invoke", "build"], {}) as record,
        left(engine, "living", labels(settings, "build", record.id)),
        left(engine, "dead", labels(settings, "build", DEAD)),
    ):
        engine.volumes = {"cache": labels(settings, "cache"), "scratch": labels(settings, "scratch", record.id)}
        done = cleanup.clean(engine, settings)
        assert names(done.removed) == ["dead"]
        assert {kept.thing.name: kept.reason for kept in done.kept} == {
            "living": f"run {record.id} uses it",
            "scratch": f"run {record.id} uses it",
            "cache": f"run {record.id} may use it",
            "toolchain": f"run {record.id} may use it",
        }
        done = cleanup.clean(engine, settings, own_run=record.id)
        assert names(done.removed) == ["cache", "living", "scratch", "toolchain"]


def test_what_the_engine_does_not_let_go_is_kept_with_the_reason(engine: FakeEngine, settings: Settings) -> None:
    class Holds(FakeEngine):
        def remove(self, thing: EngineObject) -> None:
            if thing.kind == "image":
                raise EngineError("docker cannot remove the image: it is in use")
            super().remove(thing)

    holds = Holds()
    holds.add_image("toolchain", arch=Arch.X86_64, labels=labels(settings, "toolchain"))
    holds.volumes = {"cache": labels(settings, "cache")}
    done = cleanup.clean(holds, settings)
    assert names(done.removed) == ["cache"]
    assert [kept.reason for kept in done.kept] == ["docker cannot remove the image: it is in use"]


def test_an_engine_that_dies_meanwhile_is_an_error(engine: FakeEngine, settings: Settings) -> None:
    class Dies(FakeEngine):
        def remove(self, thing: EngineObject) -> None:
            self.die()
            super().remove(thing)

    dying = Dies()
    dying.volumes = {"scratch": labels(settings, "scratch", DEAD)}
    with pytest.raises(EngineError, match="does not answer"):
        cleanup.sweep(dying, settings)


def test_the_identity_tells_state_folders_apart(tmp_path: Path) -> None:
    one, two = Settings(home=tmp_path / "one"), Settings(home=tmp_path / "two")
    assert one.identity != two.identity
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert Settings(home=tmp_path / "link").identity == one.identity
