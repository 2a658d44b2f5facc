"""configure's answers for a build to come: when it is asked for them, and what becomes of that, without an engine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.build import layout, preconfigure
from crossjit.engine.base import Container
from crossjit.errors import EngineError
from crossjit.images import Role
from crossjit.model import Arch, Cell, Strategy
from crossjit.pipeline import build_cell, context, prepare, shell
from crossjit.pipeline.context import CellRequest, PreparedCell
from crossjit.sources import Kind
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.shops import image
from tests.unit.test_build_python import ARM, RECIPE, X86, Shop


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(context, "ensure_image", lambda ctx, spec, role, arch: image(role, arch))
    monkeypatch.setattr(context, "require_emulator", lambda ctx, arch: None)
    made = Shop(tmp_path)
    made.ctx = replace(made.ctx, cached=True)
    return made


def prepared(ctx: Shop, arch: Arch, strategy: Strategy | None = None) -> PreparedCell:
    strategy = strategy or (Strategy.NATIVE if arch is X86 else Strategy.CROSS)
    order = CellRequest(Cell("3.15", arch, "jit"), RECIPE, RECIPE.variants["jit"], strategy)
    return prepare.make_prepared(order, ctx.source, ctx.spec, image(Role.TOOLCHAIN, X86), X86)


def made(ctx: Shop, cell: PreparedCell, following: PreparedCell | None = None) -> list[str]:
    """Build a cell, and name the containers that were configured in, without what makes their names unique."""
    engine = ctx.ctx.engine
    assert isinstance(engine, FakeEngine)
    before = len(engine.commands)
    build_cell.build_cell(ctx.ctx, cell, log=ctx.folder / "build.log", following=following)
    assert engine.containers == {}
    configured = [each.container for each in engine.commands[before:] if "configure" in each.argv]
    return [name.removeprefix("crossjit-").partition("-run-")[0] for name in configured]


OWN = "build-build-Python-3.15.0"
NATIVE, CROSS = "build-3.15-x86_64-jit", "build-3.15-aarch64-jit"
ASKED = "configure-3.15-aarch64-jit"


class TestConfigureIsAsked:
    def test_while_a_cross_builds_own_python_is_built(self, ctx: Shop) -> None:
        found = made(ctx, prepared(ctx, ARM))
        assert sorted(found) == sorted([ASKED, OWN, CROSS])
        assert found[-1] == CROSS, "by then the answers are there"
        asked, own = ctx.served
        assert asked == (layout.SCRIPTS / "build_python.sh").read_text(), "the Python is not there yet"
        assert "O1" in own

    def test_while_the_cell_before_it_is_built(self, ctx: Shop) -> None:
        assert sorted(made(ctx, prepared(ctx, X86), prepared(ctx, ARM))) == sorted([NATIVE, ASKED])
        assert made(ctx, prepared(ctx, ARM)) == [CROSS]

    def test_of_what_it_is_asked_in_the_build(self, ctx: Shop) -> None:
        """Whatever differed would make another key in the cache."""
        made(ctx, prepared(ctx, X86), prepared(ctx, ARM))
        made(ctx, prepared(ctx, ARM))
        engine = ctx.ctx.engine
        assert isinstance(engine, FakeEngine)
        started = {each.name.partition("-run-")[0]: each for each in engine.started}
        asked, built = started[f"crossjit-{ASKED}"], started[f"crossjit-{CROSS}"]
        assert replace(asked, name=built.name, limits=built.limits) == built
        shares = [each.limits.memory for each in (asked, built)]
        assert sum(share or 0 for share in shares) <= engine.memory * 9 // 10  # they run at one time
        asking, building = (
            next(each for each in engine.commands if each.container == where.name and "configure" in each.argv)
            for where in (asked, built)
        )
        assert (asking.cwd, asking.env) == (building.cwd, building.env)
        assert asking.argv == building.argv[building.argv.index("--") + 1 :], "but for what runs beside it"

    def test_for_a_checkout_of_what_was_built_from_an_archive(self, ctx: Shop) -> None:
        made(ctx, prepared(ctx, ARM))
        ctx.source = replace(ctx.source, kind=Kind.CHECKOUT, digest="e" * 64)
        assert sorted(made(ctx, prepared(ctx, X86), prepared(ctx, ARM))) == sorted([ASKED, NATIVE])


class TestConfigureIsNotAsked:
    def test_without_a_cache(self, ctx: Shop) -> None:
        ctx.ctx = replace(ctx.ctx, cached=False)
        assert made(ctx, prepared(ctx, ARM)) == [OWN, CROSS]

    def test_where_all_cores_have_work(self, ctx: Shop) -> None:
        ctx.ctx = replace(ctx.ctx, settings=replace(ctx.ctx.settings, jobs=1))
        assert made(ctx, prepared(ctx, ARM)) == [OWN, CROSS]

    def test_for_what_was_built_before(self, ctx: Shop) -> None:
        made(ctx, prepared(ctx, ARM))
        ctx.source = replace(ctx.source, digest="e" * 64)
        assert made(ctx, prepared(ctx, X86), prepared(ctx, ARM)) == [NATIVE]

    def test_for_a_shell_in_which_nothing_is_built(self, ctx: Shop) -> None:
        engine = ctx.engine
        engine.programs["bash"] = lambda process: 0
        (ctx.ctx.settings.runs / ctx.ctx.run).mkdir(parents=True)
        assert shell.toolchain_shell(ctx.ctx, prepared(ctx, ARM)) == 0
        assert [each.name.partition("-run-")[0] for each in engine.started] == [
            f"crossjit-{OWN}",
            "crossjit-shell-3.15-aarch64-jit",
        ]

    def test_while_nothing_is_built(self, ctx: Shop) -> None:
        made(ctx, prepared(ctx, X86))
        assert made(ctx, prepared(ctx, X86), prepared(ctx, ARM)) == []

    def test_under_emulation_which_takes_longer_than_what_it_is_beside(self, ctx: Shop) -> None:
        emulated = prepared(ctx, ARM, Strategy.EMULATE)
        assert made(ctx, prepared(ctx, X86), emulated) == [NATIVE]


class TestAsking:
    """`asked` by itself."""

    def opened(self, engine: FakeEngine) -> contextlib.AbstractContextManager[Container]:
        engine.add_image("toolchain", arch=X86)
        return engine.container("toolchain", arch=X86, name="c", labels={})

    def test_ends_before_the_block_is_left(self) -> None:
        engine, done = FakeEngine(arch=X86), []
        with preconfigure.asked(self.opened(engine), lambda container: done.append(container.id)):
            pass
        assert len(done) == 1
        assert engine.containers == {}

    def test_may_fail(self) -> None:
        engine = FakeEngine(arch=X86)

        def ask(container: Container) -> None:
            raise EngineError("it does not answer")

        with preconfigure.asked(self.opened(engine), ask):
            pass
        assert engine.containers == {}

    def test_has_no_bugs_that_nobody_hears_of(self) -> None:
        engine = FakeEngine(arch=X86)

        def ask(container: Container) -> None:
            raise KeyError("configure")

        with pytest.raises(KeyError), preconfigure.asked(self.opened(engine), ask):
            pass
        assert engine.containers == {}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, EngineError])
    def test_is_given_up_with_the_block(self, error: type[BaseException]) -> None:
        """Its command ends because its container goes."""
        asking, went = threading.Event(), []

        def sleep(process: FakeProcess) -> int:
            asking.set()
            went.append(gone.wait(10))
            return 0

        engine, gone = FakeEngine(arch=X86, programs={"configure": sleep}), threading.Event()

        @contextlib.contextmanager
        def watched() -> Iterator[Container]:
            try:
                with self.opened(engine) as container:
                    yield container
            finally:
                gone.set()

        def ask(container: Container) -> None:
            container.run(("configure",))

        with pytest.raises(error), preconfigure.asked(watched(), ask):
            assert asking.wait(30)
            raise error("stop")
        assert went == [True], "it did not have to end by itself"
        assert engine.containers == {}
