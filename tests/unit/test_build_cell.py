"""The containers of a cell's build come and go while other things are done, without an engine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import crossjit
from crossjit.engine.base import RUN
from crossjit.errors import EngineError
from crossjit.images import ImageBuilder, Role, load_all, release
from crossjit.images.base import BASE
from crossjit.images.builder import LISTING
from crossjit.model import Arch
from crossjit.pipeline import build_cell, context
from crossjit.validation import probe as probe_module
from tests.fakes.engine import FakeEngine, FakeProcess, Fault
from tests.fakes.files import FakeFiles
from tests.unit.test_build_python import ARM, X86, FakeContext


@pytest.fixture
def ctx(tmp_path: Path) -> FakeContext:
    return FakeContext(tmp_path)


def engine_of(ctx: FakeContext) -> FakeEngine:
    engine = ctx.ctx.engine
    assert isinstance(engine, FakeEngine)
    return engine


def instead_of_the_probe(ctx: FakeContext, program: Callable[[FakeProcess], None]) -> None:
    """Have something done where the built Python is asked what it does."""

    def python(process: FakeProcess) -> int:
        if process.container.started.name.startswith("crossjit-probe"):
            program(process)
        return ctx.python(process)

    engine_of(ctx).programs["python3"] = python


def test_the_container_of_the_build_does_not_wait_for_the_probe(ctx: FakeContext) -> None:
    engine = engine_of(ctx)
    left: list[str] = []

    def wait(process: FakeProcess) -> None:
        for _ in range(500):
            left[:] = [each.started.name for each in list(engine.containers.values())]
            if len(left) == 1:
                return
            time.sleep(0.01)

    instead_of_the_probe(ctx, wait)
    ctx.build("jit", X86)
    assert [name.partition("-3.15")[0] for name in left] == ["crossjit-probe"]
    assert not engine.containers


@pytest.mark.parametrize("fault", [Fault.CONTAINER_VANISHES, Fault.OUT_OF_MEMORY])
def test_no_container_is_left_by_a_probe_that_fails(ctx: FakeContext, fault: Fault) -> None:
    instead_of_the_probe(ctx, lambda process: process.suffer(fault))
    with pytest.raises(EngineError):
        ctx.build("jit", X86)
    assert not engine_of(ctx).containers
    assert not ctx.ctx.store.artifacts()


def test_no_container_is_left_by_an_interruption(ctx: FakeContext) -> None:
    def interrupt(process: FakeProcess) -> None:
        raise KeyboardInterrupt

    instead_of_the_probe(ctx, interrupt)
    with pytest.raises(KeyboardInterrupt):
        ctx.build("jit", X86)
    assert not engine_of(ctx).containers


def test_what_cannot_be_packed_ends_the_build_of_which_nothing_is_left(
    ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise EngineError("docker cannot copy")

    monkeypatch.setattr(build_cell, "pack_trees", refuse)
    with pytest.raises(EngineError, match="cannot copy"):
        ctx.build("jit", X86)
    assert not engine_of(ctx).containers
    assert not ctx.ctx.store.sweep()


def test_a_container_that_does_not_go_is_told(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = probe_module.probe

    def die(*arguments: Any, **options: Any) -> object:
        facts = probe(*arguments, **options)
        engine_of(ctx).die()
        return facts

    monkeypatch.setattr(probe_module, "probe", die)
    with pytest.raises(EngineError):
        ctx.build("jit", X86)
    assert [artifact.key for artifact in ctx.ctx.store.artifacts()], "what was built is kept"


@pytest.mark.parametrize("tree", ["install", "support"])
def test_what_is_damaged_in_the_stash_is_built_anew(ctx: FakeContext, tree: str) -> None:
    first = ctx.build("jit", X86).artifact
    assert ctx.build("jit", X86).from_stash
    path = first.objects[tree]
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    again = ctx.build("jit", X86)
    assert not again.from_stash
    assert again.artifact.full_id == first.full_id
    assert not ctx.ctx.store.verify(again.artifact)
    assert ctx.build("jit", X86).from_stash


def test_a_damaged_build_python_serves_nobody(ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    native = ctx.build("jit", X86).artifact
    path = native.objects["install"]
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    cross = ctx.build("jit", ARM).artifact
    assert cross.manifest.build_python != native.full_id
    assert ctx.served == ["CFLAGS=-O1 -g0"]


def test_what_dies_while_an_image_is_made_is_found_by_its_run(tmp_path: Path) -> None:
    """Else no later command removes the container that its packages are listed in."""
    ctx = FakeContext(tmp_path).ctx
    labels = context.labels(ctx.settings, "a-run")
    assert isinstance(ctx.engine, FakeEngine)
    (spec,) = (spec for spec in load_all(crossjit.PROJECT / "images") if spec.name == "forky")
    files = FakeFiles.base()
    files.write(LISTING, b"gcc-16 amd64 16.2.0-3\n")
    files.write(release.FILE, f"forky={'5a' * 32}\n".encode())
    ctx.engine.stages.update(toolchain=files, listing=files, release=files)
    base = {BASE: f"bootstrap:forky@{'5a' * 6}"}  # without it another is made on this host
    ctx.engine.add_image("crossjit/base-forky-amd64:bootstrap", arch=Arch.X86_64, labels=base)
    builder = ImageBuilder(ctx.engine, Arch.X86_64, ctx.settings.home, labels=labels)
    made = builder.ensure(spec, Role.TOOLCHAIN, Arch.X86_64)
    assert [each.labels[RUN] for each in ctx.engine.started] == ["a-run", "a-run"]  # for the mirror, for packages
    assert RUN not in ctx.engine.images[made.reference].labels
