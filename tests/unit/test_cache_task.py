"""`cache show` and `cache clear`, with an engine in memory."""

from __future__ import annotations

import json

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from crossjit import engine
from crossjit.build import cache_volume, layout
from crossjit.engine.base import ContainerOptions
from crossjit.images import Role
from crossjit.pipeline import cleanup
from crossjit.settings import Settings
from crossjit.sources import trust
from crossjit.tasks import cache as tasks
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.build_fakes import image
from tests.unit.test_build_python import X86

PULL_REQUEST = "https://example.org/cpython#pull/7/head"
SIZES = {"configure": {"bytes": 4096, "files": 1, "limit": 8192}, "ccache": {"bytes": 1, "files": 1, "limit": 2}}


@pytest.fixture
def fake(fake_engine: FakeEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    toolchain = image(Role.TOOLCHAIN, X86)
    fake_engine.add_image(toolchain.reference, arch=X86)
    fake_engine.programs["python3"] = sizes
    monkeypatch.setattr(engine, "connect", lambda settings: fake_engine)
    monkeypatch.setattr(tasks, "_toolchain", lambda client, settings: toolchain)
    monkeypatch.setattr("crossjit.settings.load", lambda: settings)
    return fake_engine


def sizes(process: FakeProcess) -> int:
    process.write_line(json.dumps(SIZES))
    return 0


def filled(fake: FakeEngine, settings: Settings) -> list[str]:
    """Have a volume of each kind, and return their names."""
    domains = {trust.RECIPES: "", trust.CHECKOUTS: "", trust.domain_of(PULL_REQUEST): PULL_REQUEST}
    return [cache_volume.ensure(fake, settings, domain, source) for domain, source in domains.items()]


def test_all_volumes_are_shown(fake: FakeEngine, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    names = filled(fake, settings)
    tasks.show_cache(Context(), json=True)
    shown = json.loads(capsys.readouterr().out)
    assert {(each["volume"], each["name"]) for each in shown} == {(name, part) for name in names for part in SIZES}
    assert {each["source"] for each in shown} == {"", PULL_REQUEST}
    tasks.show_cache(Context())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(names) * len(SIZES)
    assert sum(PULL_REQUEST in line for line in lines) == len(SIZES)
    assert sum(line.startswith(trust.CHECKOUTS) for line in lines) == len(SIZES)


def test_what_looks_into_a_volume_reaches_no_other(fake: FakeEngine, settings: Settings) -> None:
    names = filled(fake, settings)
    tasks.show_cache(Context(), json=True)
    assert [each.volumes for each in fake.started] == [{name: layout.CACHE} for name in sorted(names)]
    assert not any(each.network for each in fake.started)


def test_another_commands_sweep_leaves_it_alone(fake: FakeEngine, settings: Settings) -> None:
    cache_volume.ensure(fake, settings)
    swept: list[str] = []

    def meanwhile(process: FakeProcess) -> int:
        swept.extend(cleanup.sweep(fake, settings).lines)
        return sizes(process)

    fake.programs["python3"] = meanwhile
    tasks.show_cache(Context(), json=True)
    assert swept == []
    assert not fake.containers


def test_what_it_left_when_it_was_killed_is_swept(fake: FakeEngine, settings: Settings) -> None:
    filled(fake, settings)
    tasks.show_cache(Context(), json=True)
    labels = fake.started[-1].labels
    with fake.container(ContainerOptions(image(Role.TOOLCHAIN, X86).reference, arch=X86, name="left", labels=labels)):
        assert cleanup.sweep(fake, settings).lines == ("container left",)


@pytest.mark.parametrize("said", ["", "[]", '{"configure": {"bytes": "many", "files": 1}}', '{"a": 1}', "\ufffd"])
def test_what_cannot_be_told_is_said(fake: FakeEngine, settings: Settings, said: str) -> None:
    filled(fake, settings)

    def odd(process: FakeProcess) -> int:
        process.write_line(said)
        return 0

    fake.programs["python3"] = odd
    with pytest.raises(Exit, match=r"the contents of the cache volume .* are unknown"):
        tasks.show_cache(Context(), json=True)


def test_all_volumes_are_cleared(fake: FakeEngine, settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    names = filled(fake, settings)
    fake.ensure_volume("somebody-elses", {"crossjit.owned": "cache", "crossjit.home": "other"})
    tasks.clear_cache(Context(), json=True)
    assert json.loads(capsys.readouterr().out)["removed"] == sorted(names)
    assert list(fake.volumes) == ["somebody-elses"]
    tasks.clear_cache(Context())
    assert capsys.readouterr().out == "there are no caches\n"
