"""What a cell from the stash is judged by, and what of an emulator is in build keys, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.build import container
from crossjit.images import Image, ImageSpec, Role
from crossjit.model import Arch, CellResult, EmulationSupport, Emulator, Strategy
from crossjit.pipeline import prepare, validate_cell
from tests.fakes.engine import FakeProcess
from tests.unit import test_build_python
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, X86, FakeContext


def ability(version: str) -> EmulationSupport:
    emulator = Emulator(
        ARM, "qemu-aarch64", "/usr/bin/qemu-aarch64", version, fixed=True, enabled=True, cpu="cortex-a72"
    )
    return EmulationSupport(X86, {ARM: emulator})


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    made = FakeContext(tmp_path)
    made.ctx = replace(made.ctx, ability=ability("7.2.22"), images=(made.spec,), ensure_image=images)
    made.probe = {"libc": "first"}
    return made


def images(spec: ImageSpec, role: Role, arch: Arch) -> Image:
    return replace(image(role, arch), key=KEYS.get(role, "k" * 64))


KEYS: dict[Role, str] = {}


def run(ctx: FakeContext, *, cpu: str | None = None) -> CellResult:
    request = replace(test_build_python.cell_request("jit", ARM), cpu=cpu)
    prepared = prepare._prepare(ctx.ctx, request, ctx.source)
    return validate_cell.run_cell(ctx.ctx, prepared, folder=ctx.folder, validate=False)


def probes(ctx: FakeContext) -> int:
    return sum(each.name.startswith("crossjit-probe") for each in ctx.engine.started)


def changed_qemu(ctx: FakeContext) -> None:
    ctx.ctx = replace(ctx.ctx, ability=ability("8.2.0"))


def changed_kernel(ctx: FakeContext) -> None:
    ctx.ctx = replace(ctx.ctx, facts=replace(ctx.ctx.facts, kernel="6.18"))


def changed_image(ctx: FakeContext) -> None:
    KEYS[Role.TARGET] = "n" * 64


class TestACellFromTheStash:
    @pytest.fixture(autouse=True)
    def one_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.KEYS", {})

    @pytest.mark.parametrize("change", [changed_qemu, changed_kernel, changed_image])
    def test_is_probed_again_where_something_changed(self, ctx: FakeContext, change: object) -> None:
        assert run(ctx).probe == {"libc": "first"}
        change(ctx)  # type: ignore[operator]
        ctx.probe = {"libc": "second"}
        again = run(ctx)
        assert again.from_stash
        assert again.probe == {"libc": "second"}
        assert probes(ctx) == 2
        assert not ctx.engine.containers
        assert "probing it again" in ctx.progress.messages[-1]

    def test_is_probed_again_as_another_cpu_model(self, ctx: FakeContext) -> None:
        run(ctx)
        ctx.probe = {"libc": "second"}
        again = run(ctx, cpu="max")
        assert again.from_stash
        assert again.probe == {"libc": "second"}
        (*_, last) = ctx.engine.started
        assert last.env["QEMU_CPU"] == "max"
        assert "cpu cortex-a72 -> max" in ctx.progress.messages[-1]

    def test_is_judged_by_what_the_new_probe_finds(self, ctx: FakeContext) -> None:
        before = run(ctx)
        changed_qemu(ctx)

        def python(process: FakeProcess) -> int:
            return 1 if process.argv[1].endswith("/probe.py") else ctx.python(process)

        ctx.engine.programs["python3"] = python
        again = run(ctx)
        assert again.from_stash
        assert again.verdict is not before.verdict or again.reasons != before.reasons
        assert "exit status 1" in again.reasons[0]

    def test_is_not_where_nothing_did(self, ctx: FakeContext) -> None:
        run(ctx)
        ctx.probe = {"libc": "second"}
        assert run(ctx).probe == {"libc": "first"}
        assert probes(ctx) == 1


class TestTheKeyOfAnEmulatedBuild:
    def key(self, ctx: FakeContext, strategy: Strategy, cpu: str | None = None) -> str:
        request = replace(test_build_python.cell_request("jit", ARM), strategy=strategy, cpu=cpu)
        return prepare._prepare(ctx.ctx, request, ctx.source).key

    def test_has_the_emulator_and_the_cpu_model(self, ctx: FakeContext) -> None:
        keys = [self.key(ctx, Strategy.EMULATE), self.key(ctx, Strategy.EMULATE, "max")]
        changed_qemu(ctx)
        keys.append(self.key(ctx, Strategy.EMULATE))
        assert len(set(keys)) == 3

    def test_has_neither_where_nothing_of_the_build_is_emulated(self, ctx: FakeContext) -> None:
        before = self.key(ctx, Strategy.CROSS)
        changed_qemu(ctx)
        assert self.key(ctx, Strategy.CROSS, "max") == before

    @pytest.mark.parametrize(("strategy", "same"), [(Strategy.EMULATE, False), (Strategy.CROSS, True)])
    def test_so_have_the_caches_of_what_runs_under_it(self, ctx: FakeContext, strategy: Strategy, same: bool) -> None:
        request = replace(test_build_python.cell_request("jit", ARM), strategy=strategy)

        def keyed() -> Mapping[str, str]:
            return container.cache_environment(prepare._prepare(ctx.ctx, request, ctx.source).spec, cached=True)

        before = keyed()
        changed_qemu(ctx)
        after = keyed()
        for name in ("CROSSJIT_TOOLCHAIN", "CCACHE_COMPILERCHECK"):
            assert (before[name] == after[name]) is same
