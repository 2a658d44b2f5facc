"""What a stranger's source may take and leave: keys, artifacts, build Pythons and caches, without an engine."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

import crossjit
from crossjit.build import cache_volume, container, layout
from crossjit.build.layout import CACHE
from crossjit.config.recipes import Archive, Git
from crossjit.engine.base import HOME, OWNED, RUN
from crossjit.errors import EngineError
from crossjit.images import Role, load_all
from crossjit.model import Arch
from crossjit.pipeline import build_cell, cleanup, context, prepare
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.sources import trust
from crossjit.stash.manifest import ArtifactKind
from crossjit.util import budget
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit import test_build_python, test_test_overlay
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, X86

PULL_REQUEST = "https://example.org/cpython#pull/7/head"
OTHER = "https://example.org/cpython#pull/8/head"


class FakeContext(test_build_python.FakeContext):
    """One that builds sources of other trust domains, too."""

    def python(self, process: FakeProcess) -> int:
        if process.argv[-1] != "sizes":
            return super().python(process)
        process.write_line('{"configure": {"bytes": 4096, "files": 1, "limit": 8192}}')
        return 0

    def built(self, source: str | None = None, arch: Arch = X86, *, variant: str = "jit") -> context.BuiltCell:
        request = test_build_python.cell_request(variant, arch, source=source)
        prepared = prepare.make_prepared(request, self.source, self.spec, image(Role.TOOLCHAIN, X86), X86)
        return build_cell.build_cell(self.ctx, prepared, log=self.folder / "build.log")


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    return FakeContext(tmp_path)


class TestDomains:
    def test_recipes_are_trusted_and_each_stranger_is_a_domain_of_its_own(self, tmp_path: Path) -> None:
        archive = Archive(version="3.15.0", sha256="a" * 64, places=("https://example.org/a.tar.xz",))
        assert trust.domain_of(archive) == trust.RECIPES
        assert trust.domain_of(Git(url="https://example.org/cpython", ref="main")) == trust.RECIPES
        (tmp_path / "a.tar.xz").write_bytes(b"")
        for own in (str(tmp_path), f"{tmp_path}#main", str(tmp_path / "a.tar.xz"), f"file://{tmp_path}/a.tar.xz"):
            assert trust.domain_of(own) == trust.CHECKOUTS
        strangers = [
            PULL_REQUEST,
            OTHER,
            "https://example.org/cpython#main",
            "git@example.org:cpython#main",
            "https://example.org/a.tar.xz",
            f"{tmp_path}#pull/7/head",
            f"{tmp_path}#origin/pull/7/merge",
        ]
        domains = [trust.domain_of(source) for source in strangers]
        assert len(set(domains)) == len(strangers)
        assert all(map(trust.is_stranger, domains))
        assert trust.is_stranger(trust.domain_of(Git(url="https://example.org/cpython", ref="pull/7/head")))

    def test_a_place_that_is_gone_has_the_domain_that_it_had(self, tmp_path: Path) -> None:
        sources = [str(tmp_path / "x"), f"{tmp_path}/x#main", f"{tmp_path}/x#pull/7/head"]
        (tmp_path / "x").mkdir()
        before = [trust.domain_of(source) for source in sources]
        (tmp_path / "x").rmdir()
        assert [trust.domain_of(source) for source in sources] == before

    def test_credentials_do_not_make_another_domain(self) -> None:
        with_password = PULL_REQUEST.replace("://", "://user:secret@")
        assert trust.domain_of(with_password) == trust.domain_of(PULL_REQUEST)

    def test_whose_caches_and_artifacts_serve(self) -> None:
        stranger = trust.domain_of(PULL_REQUEST)
        assert trust.serving(trust.RECIPES) == (trust.RECIPES,)
        assert trust.serving(trust.CHECKOUTS) == (trust.CHECKOUTS, trust.RECIPES)
        assert trust.serving(stranger) == (stranger, trust.RECIPES)


class TestArtifacts:
    @pytest.mark.parametrize("other", [None, OTHER])
    def test_what_a_stranger_built_is_taken_for_nobody_else(self, ctx: FakeContext, other: str | None) -> None:
        theirs = ctx.built(PULL_REQUEST)
        assert ctx.built(PULL_REQUEST).from_stash
        built = ctx.built(other)
        assert not built.from_stash
        assert built.artifact.key != theirs.artifact.key
        assert built.artifact.manifest.source.digest == theirs.artifact.manifest.source.digest

    def test_what_is_trusted_serves_a_stranger(self, ctx: FakeContext) -> None:
        trusted = ctx.built()
        assert trusted.artifact.manifest.domain == trust.RECIPES
        theirs = ctx.built(PULL_REQUEST)
        assert theirs.from_stash
        assert theirs.artifact == trusted.artifact

    def test_it_is_marked(self, ctx: FakeContext) -> None:
        assert trust.is_stranger(ctx.built(PULL_REQUEST).artifact.manifest.domain)

    def test_a_strangers_cell_is_no_build_python_for_others(self, ctx: FakeContext) -> None:
        native = ctx.built(PULL_REQUEST)
        trusted = ctx.built(None, ARM)
        assert ctx.served == ["CFLAGS=-O1 -g0"], "it has one made"
        (own,) = (each for each in ctx.ctx.store.artifacts() if each.manifest.kind is ArtifactKind.BUILD_PYTHON)
        assert own.manifest.domain == trust.RECIPES
        assert trusted.artifact.manifest.build_python == own.full_id
        assert ctx.built(PULL_REQUEST, ARM, variant="ft").artifact.manifest.build_python == native.artifact.full_id

    def test_a_trusted_build_python_serves_a_stranger(self, ctx: FakeContext) -> None:
        native = ctx.built()
        assert ctx.built(PULL_REQUEST, ARM, variant="ft").artifact.manifest.build_python == native.artifact.full_id


def test_a_strangers_artifact_is_no_base_for_others(tmp_path: Path) -> None:
    ctx = test_test_overlay.FakeContext(tmp_path)

    def built(changes: dict[str, str], source: str | None) -> context.BuiltCell:
        request = test_build_python.cell_request("jit", X86, source=source)
        toolchain = image(Role.TOOLCHAIN, X86)
        prepared = prepare.make_prepared(
            request, ctx.source(changes), load_all(crossjit.PROJECT / "images")[0], toolchain, X86
        )
        return build_cell.build_cell(ctx.ctx, prepared, log=tmp_path / "build.log")

    built({}, PULL_REQUEST)
    assert built(test_test_overlay.OTHER_TESTS, None).artifact.manifest.derived_from is None
    renewed = built({"Lib/test/test_int.py": "assert 5"}, PULL_REQUEST)
    assert renewed.artifact.manifest.derived_from is not None, "their own, or the trusted one, will do"


class TestCaches:
    @pytest.fixture
    def ctx(self, ctx: FakeContext) -> FakeContext:
        ctx.ctx = replace(ctx.ctx, cached=True)
        return ctx

    def poisoning(self, ctx: FakeContext, places: tuple[str, ...]) -> None:
        """Have configure do what a hostile one may: write to every cache, and to the one below."""

        def configure(process: FakeProcess) -> int:
            for place in places:
                try:
                    process.write_file(place, b"poison")
                except OSError:
                    refused.append(place)
            return ctx.configure(process)

        refused: list[str] = []
        self.refused = refused
        ctx.engine.programs["configure"] = configure

    @pytest.mark.parametrize("part", ["configure", "stencils", "llvm", "pyc", "ccache"])
    def test_what_a_stranger_writes_is_read_by_nobody_else(self, ctx: FakeContext, part: str) -> None:
        place = f"{layout.CACHE}/{part}/entry"
        self.poisoning(ctx, (place, f"/cache-below/{part}/entry"))
        ctx.built(PULL_REQUEST)
        assert self.refused == [f"/cache-below/{part}/entry"]
        seen: list[bool] = []

        def configure(process: FakeProcess) -> int:
            seen.append(process.files.exists(place))
            return ctx.configure(process)

        ctx.engine.programs["configure"] = configure
        for source in (OTHER, str(ctx.folder), None):
            ctx.built(source)
        assert seen == [False, False, False]
        ctx.built(PULL_REQUEST, variant="ft")
        assert seen[-1], "it is their own"

    def test_a_stranger_reads_what_is_trusted(self, ctx: FakeContext) -> None:
        self.poisoning(ctx, (f"{layout.CACHE}/configure/good",))
        ctx.built()
        seen: list[bool] = []

        def configure(process: FakeProcess) -> int:
            seen.append(process.files.exists("/cache-below/configure/good"))
            seen.append(process.files.exists(f"{layout.CACHE}/configure/good"))
            return ctx.configure(process)

        ctx.engine.programs["configure"] = configure
        ctx.built(PULL_REQUEST, variant="ft")
        assert seen == [True, False]

    def test_what_is_found_in_it_is_bounded_behind_the_build(self, ctx: FakeContext) -> None:
        ctx.built(PULL_REQUEST)
        (volume,) = (name for name in ctx.engine.volumes if "source-" in name)
        *_, last = (each for each in ctx.engine.started if volume in each.volumes)
        assert last.volumes == {volume: layout.CACHE}, "nothing else is in reach"
        (argv,) = (each.argv for each in ctx.engine.commands if each.container == last.name)
        assert argv[-1] == "sizes"
        assert not ctx.engine.containers

    def test_what_cannot_be_bounded_is_removed(self, ctx: FakeContext) -> None:
        def python(process: FakeProcess) -> int:
            return 97 if process.argv[-1] == "sizes" else ctx.python(process)

        ctx.engine.programs["python3"] = python
        assert not ctx.built(PULL_REQUEST).from_stash
        assert list(ctx.engine.volumes) == [cache_volume.name(ctx.ctx.settings)]


def test_the_volumes_of_few_strangers_are_kept(tmp_path: Path) -> None:
    engine, settings = FakeEngine(), Settings(home=tmp_path / "home")
    domains = [trust.domain_of(f"https://example.org/cpython#pull/{number}/head") for number in range(7)]
    cache_volume.ensure(engine, settings)
    cache_volume.ensure(engine, settings, trust.CHECKOUTS)
    for age, domain in enumerate(domains):
        cache_volume.ensure(engine, settings, domain)
        used = 1_800_000_000 + age
        os.utime(settings.home / "strangers" / domain, (used, used))
    left = {cache_volume.domain_of(volume) for volume in cache_volume.find(engine, settings)}
    assert left == {trust.RECIPES, trust.CHECKOUTS, *domains[-cache_volume.STRANGERS :]}


def test_a_volume_in_use_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, settings = FakeEngine(), Settings(home=tmp_path / "home")

    def refuse(thing: object) -> None:
        raise EngineError("volume is in use")

    monkeypatch.setattr(engine, "remove", refuse)
    for number in range(7):
        cache_volume.ensure(engine, settings, trust.domain_of(f"https://example.org/cpython#pull/{number}/head"))
    assert len(cache_volume.find(engine, settings)) == 7
    assert len(list((settings.home / "strangers").iterdir())) == 7, "so that it goes later"


def test_volumes_say_whose_they_are(tmp_path: Path) -> None:
    engine, settings = FakeEngine(), Settings(home=tmp_path / "home")
    cache_volume.ensure(engine, settings, trust.domain_of(PULL_REQUEST), PULL_REQUEST)
    (volume,) = cache_volume.find(engine, settings)
    assert volume.labels[cache_volume.SOURCE] == PULL_REQUEST
    assert (volume.labels[OWNED], volume.labels[HOME]) == ("cache", settings.identity)
    assert RUN not in volume.labels, "it outlives its run"


@pytest.mark.parametrize(
    ("domain", "disk"),
    [
        (trust.RECIPES, budget.OWN_DISK),
        (trust.CHECKOUTS, budget.OWN_DISK),
        (trust.domain_of(PULL_REQUEST), budget.STRANGER_DISK),
    ],
)
def test_a_strangers_build_has_less_disk(domain: str, disk: int) -> None:
    assert container.build_limits(FakeEngine().facts(), domain=domain).disk == disk
    assert budget.STRANGER_DISK < budget.OWN_DISK


def test_a_strangers_build_has_smaller_caches(ctx: FakeContext) -> None:
    ctx.ctx = replace(ctx.ctx, cached=True)
    ctx.built(PULL_REQUEST)
    ctx.built()
    volume = cache_volume.name(ctx.ctx.settings, trust.domain_of(PULL_REQUEST))
    writing = [each for each in ctx.engine.started if CACHE in each.volumes.values()]
    small: dict[bool, set[str]] = {True: set(), False: set()}
    for each in writing:
        small["CROSSJIT_CACHE_SMALL" in each.env].update(name for name, at in each.volumes.items() if at == CACHE)
    assert small == {True: {volume}, False: {cache_volume.name(ctx.ctx.settings)}}


class TestStrangersBuildThatDies:
    """What it wrote to its volume is not bounded: the next command removes it."""

    def left(self, ctx: FakeContext, domain: str = trust.domain_of(PULL_REQUEST)) -> Path:
        path = cache_volume.mark(ctx.ctx.settings, domain, "20260101-000000-dead")
        cache_volume.ensure(ctx.engine, ctx.ctx.settings, domain)
        return path

    def test_the_volume_is_removed(self, ctx: FakeContext) -> None:
        mark = self.left(ctx)
        cache_volume.ensure(ctx.engine, ctx.ctx.settings)
        cache_volume.ensure(ctx.engine, ctx.ctx.settings, trust.domain_of(OTHER))
        name = cache_volume.name(ctx.ctx.settings, trust.domain_of(PULL_REQUEST))
        assert [thing.name for thing in cleanup.sweep(ctx.engine, ctx.ctx.settings).removed] == [name]
        assert name not in ctx.engine.volumes
        assert len(ctx.engine.volumes) == 2
        assert not mark.exists()
        assert cleanup.sweep(ctx.engine, ctx.ctx.settings) == cleanup.CleanupResult()

    def test_one_that_a_living_build_uses_is_kept(self, ctx: FakeContext) -> None:
        mark = self.left(ctx)
        settings = ctx.ctx.settings
        with RunRecord.start(settings, ["invoke", "build"], {}) as record:
            other = cache_volume.mark(settings, trust.domain_of(PULL_REQUEST), record.id)
            assert cleanup.sweep(ctx.engine, settings).removed == ()
            assert mark.exists()
            assert other.exists()
        assert len(cleanup.sweep(ctx.engine, settings).removed) == 1

    def test_one_that_the_engine_does_not_let_go_goes_later(
        self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mark = self.left(ctx)
        with monkeypatch.context() as patch:
            patch.setattr(ctx.engine, "remove", refuse)
            assert cleanup.sweep(ctx.engine, ctx.ctx.settings).removed == ()
            assert mark.exists()
        assert len(cleanup.sweep(ctx.engine, ctx.ctx.settings).removed) == 1

    def test_an_interrupted_build_leaves_the_note(self, ctx: FakeContext) -> None:
        def interrupted(process: FakeProcess) -> int:
            raise KeyboardInterrupt

        ctx.ctx = replace(ctx.ctx, cached=True)
        ctx.engine.programs["make"] = interrupted
        with pytest.raises(KeyboardInterrupt):
            ctx.built(PULL_REQUEST)
        assert [domain for _, domain, _ in cache_volume.unbounded(ctx.ctx.settings)] == [trust.domain_of(PULL_REQUEST)]

    def test_a_finished_build_leaves_none(self, ctx: FakeContext) -> None:
        ctx.ctx = replace(ctx.ctx, cached=True)
        ctx.built(PULL_REQUEST)
        assert (ctx.ctx.settings.home / "strangers" / "unbounded").is_dir(), "there was one"
        assert cache_volume.unbounded(ctx.ctx.settings) == []


def refuse(thing: object) -> None:
    raise EngineError("volume is in use")
