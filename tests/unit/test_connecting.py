"""Which engines a command connects to, and what is set up for them on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit import engine, host
from crossjit.config.engines import NamedEngine
from crossjit.errors import EngineError, UserError
from crossjit.model import Arch, EmulationSupport, Emulator
from crossjit.settings import Settings
from crossjit.tasks import engines
from tests.fakes.engine import FakeEngine

X86, ARM = Arch.X86_64, Arch.AARCH64
QEMU = Emulator(ARM, "qemu-aarch64", "", "9.2", fixed=True, enabled=True, cpu="max")


@dataclass
class World:
    """Engines by their names. `local` says which are on this machine, where `set_up` are the archs asked for."""

    engines: dict[str, FakeEngine]
    local: set[str]
    set_up: list[tuple[str, tuple[Arch, ...]]] = field(default_factory=list)
    emulates_here: bool = False

    def connect(self, settings: Settings) -> FakeEngine:
        return self.engines[settings.engine_name]

    def inspect(self, settings: Settings, shell: object) -> Any:
        name = settings.engine_name
        emulators = {ARM: QEMU} if self.emulates_here and name in self.local else {}
        ability = EmulationSupport(self.engines[name].arch, emulators, name in self.local)
        look = SimpleNamespace(version="28.2.2")
        return Info(ability, look)

    def ensure(self, settings: Settings, *_: object, arches: Sequence[Arch], bootstrap: bool) -> Any:
        self.set_up.append((settings.engine_name, tuple(arches)))
        self.emulates_here = self.emulates_here or ARM in arches
        return SimpleNamespace(host=self.inspect(settings, None))


@dataclass(frozen=True)
class Info:
    ability: EmulationSupport
    engine: Any


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(
        {"docker": FakeEngine(), "local": FakeEngine(identity="a"), "arm": FakeEngine(arch=ARM, identity="b")},
        {"docker", "local"},
    )
    monkeypatch.setattr(engine, "connect", world.connect)
    monkeypatch.setattr(host, "ensure", world.ensure)
    monkeypatch.setattr(host, "inspect", world.inspect)
    return world


def named(tmp_path: Path, *names: str) -> Settings:
    addresses = {"arm": "ssh://box"}
    return Settings(tmp_path, engines=tuple(NamedEngine(name, addresses.get(name, "")) for name in names))


def test_one_engine_is_set_up_for_all_that_is_asked_for(world: World, tmp_path: Path) -> None:
    (connected,) = engines.connect_all(Settings(tmp_path), [X86, ARM])
    assert world.set_up == [("docker", (X86, ARM))]
    assert (connected.name, connected.ability.runs(ARM)) == ("docker", True)


def test_nothing_is_installed_for_what_another_engine_runs(world: World, tmp_path: Path) -> None:
    local, arm = engines.connect_all(named(tmp_path, "local", "arm"), [X86, ARM])
    assert world.set_up == [("local", ()), ("arm", ())]
    assert (local.ability.runs(ARM), arm.ability.arch, arm.ability.local) == (False, ARM, False)
    assert arm.settings.engine_home == tmp_path / "engines/arm"


def test_this_machine_is_set_up_for_what_no_engine_runs(world: World, tmp_path: Path) -> None:
    world.engines["arm"].arch = X86  # so it is no Arm at all
    local, other = engines.connect_all(named(tmp_path, "local", "arm"), [X86, ARM])
    assert world.set_up == [("local", ()), ("arm", ()), ("local", (ARM,))]
    assert (local.ability.runs(ARM), other.ability.runs(ARM)) == (True, False)


def test_an_engine_elsewhere_is_asked(world: World, tmp_path: Path) -> None:
    world.engines["arm"].arch = X86
    world.engines["arm"].emulated = {ARM: QEMU}
    _, other = engines.connect_all(named(tmp_path, "local", "arm"), [ARM])
    assert other.ability == EmulationSupport(X86, {ARM: QEMU}, local=False)
    assert world.set_up == [("local", ()), ("arm", ())]


def test_two_names_of_one_engine(world: World, tmp_path: Path) -> None:
    world.engines["arm"] = world.engines["local"]
    with pytest.raises(UserError, match="'local' and 'arm' are the same engine"):
        engines.connect_all(named(tmp_path, "local", "arm"), [X86])


def test_an_engine_that_does_not_answer_ends_it(world: World, tmp_path: Path) -> None:
    world.engines["arm"].die()
    with pytest.raises(EngineError, match="does not answer"):
        engines.connect_all(named(tmp_path, "local", "arm"), [X86])


@pytest.mark.parametrize(("arches", "chosen"), [([ARM], "arm"), ([X86], "local"), ([X86, ARM], "local"), ([], "local")])
def test_a_command_that_uses_one_takes_the_native_one(
    world: World, tmp_path: Path, arches: list[Arch], chosen: str
) -> None:
    assert engines.connect_one(named(tmp_path, "local", "arm"), arches).name == chosen


def test_a_plan_goes_on_without_an_engine(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.engines["arm"].die()
    both = named(tmp_path, "local", "arm")
    assert [each.name for each in engines.reach(both, X86)] == ["local"]
    assert "arm is left out: the container engine (docker) does not answer" in capsys.readouterr().err
    world.engines["local"].die()
    (machine,) = engines.reach(both, X86)
    assert (machine.name, machine.client, machine.ability.arch) == ("local", None, X86)
    assert world.set_up == []
    assert replace(both, engines=()).each_engine == (replace(both, engines=()),)
