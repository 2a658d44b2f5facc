"""Builds that are begun while tests run: waited for, given up, and never left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit.bisect.ahead import Ahead, KnownImages
from crossjit.engine.base import ContainerOptions, Engine
from crossjit.errors import BuildError, EngineError
from crossjit.images import Role
from crossjit.model import Arch
from tests.fakes.engine import FakeContainer, FakeEngine
from tests.unit.build_fakes import image

OPTIONS = ContainerOptions("image", Arch.X86_64, "build", {})


class Builds:
    """What is built in a container of its own: each build waits until it is let go, or until its container is gone."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.engine.add_image("image", arch=Arch.X86_64)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.idle: list[bool] = []

    def __call__(self, name: str, engine: Engine) -> str:
        self.begun.append(name)
        with engine.container(OPTIONS) as container:
            (running,) = self.engine.containers.values()
            self.idle.append(running.started.limits.idle)
            self.started.release()
            while not self.go.wait(0.01):
                container.run(("true",))
            self.idle.append(running.started.limits.idle)
        self.ended.append(name)
        return f"{name}, built"


def ahead(make: Callable[[str, Engine], Any], engine: FakeEngine) -> Ahead[Any]:
    return Ahead(engine, make)


def test_what_is_begun_is_waited_for_in_a_hurry() -> None:
    builds = Builds()
    with ahead(builds, builds.engine) as begun:
        begun.start(("a", "b"))
        assert builds.started.acquire(timeout=10)
        assert begun.is_making("a")
        assert not begun.is_making("b")
        threading.Timer(0.05, builds.go.set).start()
        assert begun.take("a") == "a, built"
        assert not begun.is_making("a")
    # idle at first, then as fast as any; what nobody needs is not begun
    assert builds.idle == [True, False]
    assert builds.begun == ["a"]
    assert builds.engine.containers == {}


def test_what_is_not_needed_is_given_up() -> None:
    builds = Builds()
    with ahead(builds, builds.engine) as begun:
        begun.start(("a",))
        assert builds.started.acquire(timeout=10)
        assert begun.take("other") is None
        begun.start(("c",))
        assert builds.started.acquire(timeout=10)
        builds.go.set()
        assert begun.take("c") == "c, built"
    assert builds.ended == ["c"]
    assert builds.engine.containers == {}


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_nothing_is_left_at_the_end(error: type[BaseException] | None) -> None:
    builds = Builds()
    raised: list[BaseException] = []
    try:
        with ahead(builds, builds.engine) as begun:
            begun.start(("a", "b"))
            assert builds.started.acquire(timeout=10)
            if error is not None:
                raise error
    except KeyboardInterrupt as interruption:
        raised.append(interruption)
    assert len(raised) == (error is not None)
    assert builds.engine.containers == {}
    assert builds.ended == []
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_an_interruption_while_one_waits() -> None:
    """What is waited for is given up as well."""
    builds = Builds()

    def hurry(self: FakeContainer) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FakeContainer, "hurry", hurry)
        with ahead(builds, builds.engine) as begun:
            begun.start(("a",))
            assert builds.started.acquire(timeout=10)
            begun.take("a")
    assert builds.engine.containers == {}
    assert builds.ended == []


def test_the_failure_of_a_build_is_kept_and_the_engines_is_not() -> None:
    def fail(name: str, engine: Engine) -> str:
        raise (
            BuildError("make failed") if name == "broken" else (EngineError("gone") if name == "a" else ValueError("x"))
        )

    with ahead(fail, FakeEngine()) as begun:
        for name in ("a", "b"):
            begun.start((name,))
            assert begun.take(name) is None
        begun.start(("broken",))
        while not begun.is_making("broken"):
            pass
        with pytest.raises(BuildError, match="make failed"):
            begun.take("broken")


def test_a_container_that_comes_too_late_is_not_used() -> None:
    """Between the request and the container the build was given up."""
    engine, used = FakeEngine(), []
    engine.add_image("image", arch=Arch.X86_64)
    asked, go = threading.Event(), threading.Event()

    def make(name: str, own: Engine) -> None:
        asked.set()
        go.wait(10)
        with own.container(OPTIONS) as container:
            used.append(container)

    with ahead(make, engine) as begun:
        begun.start(("a",))
        assert asked.wait(10)
        begun.take("other")
        go.set()
    assert used == []


def test_images_that_were_used_are_known() -> None:
    made: list[object] = []

    def ensure(spec: object, role: Role, arch: Arch) -> object:
        made.append(spec)
        return image(role, arch)

    spec: Any = SimpleNamespace(name="forky", extra=(), mirror="")
    images = KnownImages(ensure)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="the image forky was not used before"):
        images.known(spec, Role.TARGET, Arch.X86_64)
    first = images.ensure(spec, Role.TARGET, Arch.X86_64)
    assert images.known(spec, Role.TARGET, Arch.X86_64) is first
    assert len(made) == 1
    with pytest.raises(EngineError):
        images.known(spec, Role.TARGET, Arch.AARCH64)


def test_the_fake_hurries() -> None:
    engine = FakeEngine()
    engine.add_image("image", arch=Arch.X86_64)
    with engine.container(OPTIONS) as container:
        assert isinstance(container, FakeContainer)
        container.hurry()
    with pytest.raises(EngineError):
        container.hurry()
