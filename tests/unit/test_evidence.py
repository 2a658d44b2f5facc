"""What a cell from the stash is judged by, and what of an emulator is in build keys, without an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.build import container
from crossjit.images import Role
from crossjit.model import Arch, CellResult, Emulator, HostAbility, Strategy
from crossjit.pipeline import context, prepare, validate_cell
from tests.fakes.engine import FakeProcess
from tests.unit import test_build_python
from tests.unit.shops import image
from tests.unit.test_build_python import ARM, X86, Shop


def ability(version: str) -> HostAbility:
    emulator = Emulator(
        ARM, "qemu-aarch64", "/usr/bin/qemu-aarch64", version, fixed=True, enabled=True, cpu="cortex-a72"
    )
    return HostAbility(X86, {ARM: emulator})


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(context, "ensure_image", lambda shop, spec, role, arch: images(role, arch))
    made = Shop(tmp_path)
    made.shop = replace(made.shop, ability=ability("7.2.22"), images=(made.spec,))
    made.probe = {"libc": "first"}
    return made


def images(role: Role, arch: Arch) -> object:
    return replace(image(role, arch), key=KEYS.get(role, "k" * 64))


KEYS: dict[Role, str] = {}


def run(shop: Shop, *, cpu: str | None = None) -> CellResult:
    order = replace(test_build_python.order("jit", ARM), cpu=cpu)
    prepared = prepare._prepare(shop.shop, order, shop.source)
    return validate_cell.run_cell(shop.shop, prepared, folder=shop.folder, validate=False)


def probes(shop: Shop) -> int:
    return sum(each.name.startswith("crossjit-probe") for each in shop.engine.started)


def changed_qemu(shop: Shop) -> None:
    shop.shop = replace(shop.shop, ability=ability("8.2.0"))


def changed_kernel(shop: Shop) -> None:
    shop.shop = replace(shop.shop, facts=replace(shop.shop.facts, kernel="6.18"))


def changed_image(shop: Shop) -> None:
    KEYS[Role.TARGET] = "n" * 64


class TestACellFromTheStash:
    @pytest.fixture(autouse=True)
    def one_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.KEYS", {})

    @pytest.mark.parametrize("change", [changed_qemu, changed_kernel, changed_image])
    def test_is_probed_again_where_something_changed(self, shop: Shop, change: object) -> None:
        assert run(shop).probe == {"libc": "first"}
        change(shop)  # type: ignore[operator]
        shop.probe = {"libc": "second"}
        again = run(shop)
        assert again.from_stash
        assert again.probe == {"libc": "second"}
        assert probes(shop) == 2
        assert not shop.engine.containers
        assert "probed again" in shop.heard.said[-1]

    def test_is_probed_again_as_another_cpu_model(self, shop: Shop) -> None:
        run(shop)
        shop.probe = {"libc": "second"}
        again = run(shop, cpu="max")
        assert again.from_stash
        assert again.probe == {"libc": "second"}
        (*_, last) = shop.engine.started
        assert last.env["QEMU_CPU"] == "max"
        assert "cpu cortex-a72 -> max" in shop.heard.said[-1]

    def test_is_judged_by_what_the_new_probe_finds(self, shop: Shop) -> None:
        before = run(shop)
        changed_qemu(shop)

        def python(process: FakeProcess) -> int:
            return 1 if process.argv[1].endswith("/probe.py") else shop.python(process)

        shop.engine.programs["python3"] = python
        again = run(shop)
        assert again.from_stash
        assert again.verdict is not before.verdict or again.reasons != before.reasons
        assert "exit status 1" in again.reasons[0]

    def test_is_not_where_nothing_did(self, shop: Shop) -> None:
        run(shop)
        shop.probe = {"libc": "second"}
        assert run(shop).probe == {"libc": "first"}
        assert probes(shop) == 1


class TestTheKeyOfAnEmulatedBuild:
    def key(self, shop: Shop, strategy: Strategy, cpu: str | None = None) -> str:
        order = replace(test_build_python.order("jit", ARM), strategy=strategy, cpu=cpu)
        return prepare._prepare(shop.shop, order, shop.source).key

    def test_has_the_emulator_and_the_cpu_model(self, shop: Shop) -> None:
        keys = [self.key(shop, Strategy.EMULATE), self.key(shop, Strategy.EMULATE, "max")]
        changed_qemu(shop)
        keys.append(self.key(shop, Strategy.EMULATE))
        assert len(set(keys)) == 3

    def test_has_neither_where_nothing_of_the_build_is_emulated(self, shop: Shop) -> None:
        before = self.key(shop, Strategy.CROSS)
        changed_qemu(shop)
        assert self.key(shop, Strategy.CROSS, "max") == before

    @pytest.mark.parametrize(("strategy", "same"), [(Strategy.EMULATE, False), (Strategy.CROSS, True)])
    def test_so_have_the_caches_of_what_runs_under_it(self, shop: Shop, strategy: Strategy, same: bool) -> None:
        order = replace(test_build_python.order("jit", ARM), strategy=strategy)

        def keyed() -> Mapping[str, str]:
            return container.cache_environment(prepare._prepare(shop.shop, order, shop.source).spec, cached=True)

        before = keyed()
        changed_qemu(shop)
        after = keyed()
        for name in ("CROSSJIT_TOOLCHAIN", "CCACHE_COMPILERCHECK"):
            assert (before[name] == after[name]) is same
