"""One engine's part in a run: when a cell that failed may go on elsewhere, and what is prepared ahead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit import PROJECT
from crossjit.config import recipes
from crossjit.errors import DownloadError, EngineError
from crossjit.model import Arch, Cell, CellResult, Strategy, Verdict
from crossjit.pipeline import prepare, validate_cell
from crossjit.pipeline.context import CellRequest
from crossjit.pipeline.post import EnginePost
from crossjit.pipeline.prepare import Resolved
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from tests.fakes.engine import FakeEngine
from tests.unit.build_fakes import RecordingProgress

RECIPE = recipes.load_all(PROJECT / "recipes")["3.15"]
JIT, FT = (Cell("3.15", Arch.X86_64, name) for name in ("jit", "ft"))


def request(cell: Cell) -> CellRequest:
    return CellRequest(cell, RECIPE, RECIPE.variants[cell.variant], Strategy.NATIVE)


class World:
    """A post on a fake engine, and what its cells come to."""

    def __init__(self, settings: Settings, record: RunRecord, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = FakeEngine()
        self.settings = settings
        self.verdict = Verdict.PASS
        self.unprepared: dict[Cell, str] = {}
        self.prepared: list[tuple[Cell, ...]] = []
        self.resolved = Resolved({RECIPE.source: object()})  # type: ignore[dict-item]
        self.record = record
        monkeypatch.setattr(prepare, "prepare_each", self._prepare)
        monkeypatch.setattr(validate_cell, "run_cell", self._run)

    def post(self, name: str | None = "near") -> EnginePost:
        ctx: Any = SimpleNamespace(
            engine=self.engine, settings=self.settings, engine_name=name, progress=RecordingProgress()
        )
        return EnginePost("near", ctx, self.record, request, self.resolved, validate=True)

    def _prepare(self, ctx: object, requests: Sequence[CellRequest], resolved: Resolved) -> tuple[object, ...]:
        self.prepared.append(tuple(each.cell for each in requests))
        return tuple(
            CellResult(each.cell, Verdict.INFRA, (self.unprepared[each.cell],))
            if each.cell in self.unprepared
            else SimpleNamespace(cell=each.cell, key="k" * 64)
            for each in requests
        )

    def _run(self, ctx: object, prepared: Any, *, folder: Path, **options: object) -> CellResult:
        assert folder.is_dir()
        return CellResult(prepared.cell, self.verdict, ())


@pytest.fixture
def world(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    with RunRecord.start(settings, ["crossjit", "validate"], {}) as record:
        yield World(settings, record, monkeypatch)


def test_what_was_prepared_ahead_is_not_prepared_again(world: World) -> None:
    post = world.post()
    post.prepare([JIT])
    attempt = post.run(JIT)
    assert (attempt.lost, attempt.result.verdict, attempt.result.engine) == (False, Verdict.PASS, "near")
    post.run(FT)  # it comes from another engine
    assert world.prepared == [(JIT,), (FT,)]
    assert world.post(name=None).run(JIT).result.engine is None


@pytest.mark.parametrize(
    ("verdict", "dead", "lost"),
    [
        (Verdict.INFRA, True, True),
        (Verdict.INFRA, False, False),  # the disk is full, or memory ran out: it is said
        (Verdict.FAIL, True, False),  # it was done before
        (Verdict.PASS, True, False),
    ],
)
def test_only_an_engine_that_is_gone_loses_a_cell(world: World, verdict: Verdict, dead: bool, lost: bool) -> None:
    world.verdict = verdict
    post = world.post()
    post.prepare([JIT])
    if dead:
        world.engine.die()
    assert post.run(JIT).lost is lost


def test_an_image_that_cannot_be_made_here_may_be_made_elsewhere(world: World) -> None:
    world.unprepared = {JIT: "the mirror has no package clang-21"}
    attempt = world.post().run(JIT)
    assert (attempt.lost, attempt.result.engine) == (True, "near")
    assert attempt.result.reasons == ("the mirror has no package clang-21",)


def test_a_source_that_is_nowhere_is_not_there_either(world: World) -> None:
    world.unprepared = {JIT: "no location has the file"}
    world.resolved = replace(world.resolved, failures={RECIPE.source: DownloadError("no location has the file")})
    assert not world.post().run(JIT).lost


def test_a_stopped_engine_is_stopped(world: World) -> None:
    world.post().stop()
    with pytest.raises(Exception, match="interrupted") as caught:
        world.engine.image("x")
    assert not isinstance(caught.value, EngineError)
