"""What an earlier run was about: taken as it was, though the checkout that it was built from has moved on."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from crossjit.config import recipes
from crossjit.engine.base import EngineFacts
from crossjit.errors import UserError
from crossjit.model import Arch, Cell, CellResult, Strategy, Verdict
from crossjit.pipeline import build_cell, earlier, prepare
from crossjit.pipeline.context import BuildContext, BuiltCell, CellRequest, PreparedCell
from crossjit.pipeline.earlier import Earlier
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.stash.artifact import Artifact
from crossjit.stash.manifest import SourceFacts
from crossjit.stash.store import Store
from tests.unit import trees
from tests.unit.build_fakes import RecordingProgress

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")

ROOT = Path(__file__).resolve().parents[2]
FACTS = EngineFacts("fake", "1", None, Arch.X86_64, 2, 8 << 30)
CELL = Cell("3.15", Arch.X86_64, "jit")
KEY = "ab" * 32
FILES = {
    "configure": "#! /bin/sh\n",
    "Include/patchlevel.h": '#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 15\n#define PY_VERSION "3.15.0"\n',
    "Tools/jit/_llvm.py": '_LLVM_VERSION = "21"\n',
    "Lib/os.py": "import sys\n",
}


@dataclass
class World:
    """A checkout, a cell that was built from it, and the run that did so and failed."""

    checkout: Path
    ctx: BuildContext
    progress: RecordingProgress
    request: CellRequest
    artifact: Artifact
    run: Run

    def as_it_was(self) -> Earlier:
        return earlier.as_it_was(self.ctx, [self.request], self.run)

    def change(self) -> None:
        (self.checkout / "Lib/os.py").write_text("import sys, more\n")

    @property
    def digest(self) -> str:
        return self.artifact.manifest.source.digest


FACTS = EngineFacts("fake", "1", None, Arch.X86_64, cores=2, memory=8 << 30)


@pytest.fixture
def world(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    checkout = tmp_path / "cpython"
    for name, text in FILES.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "one")):
        subprocess.run(["git", *arguments], cwd=checkout, check=True)
    progress = RecordingProgress()
    ctx = cast(Any, BuildContext)(
        settings, None, FACTS, None, (), None, None, Store(settings.stash), "run", {}, progress
    )
    recipe = recipes.find("3.15", ROOT / "recipes")
    request = CellRequest(CELL, recipe, recipe.variants["jit"], Strategy.NATIVE, source=str(checkout))
    source = prepare.resolve(ctx, request)
    facts = SourceFacts(
        str(source.kind), source.digest, source.origin, source.commit, source.diff_digest, regenerate=("regen-cases",)
    )
    with ctx.store.staging(KEY) as staging:
        staging.add("install", trees.stream())
        artifact = staging.commit(replace(trees.manifest(KEY, CELL), source=facts))
    with RunRecord.start(settings, ("inv", "validate"), {}, cells=(CELL,)) as record:
        record.set_cell(CellResult(CELL, Verdict.FAIL, (), artifact=artifact.id, build_key=KEY))
    return World(checkout, ctx, progress, request, artifact, record.run)


def test_a_checkout_that_has_not_changed_is_no_remark(world: World) -> None:
    then = world.as_it_was()
    assert world.progress.messages == []
    assert then.builds
    assert prepare.resolve(then.ctx, world.request).digest == world.digest
    assert prepare.resolve(then.ctx, world.request).regenerate == ("regen-cases",)


def test_a_checkout_that_has_changed_is_told_and_left_aside(world: World) -> None:
    world.change()
    assert prepare.resolve(world.ctx, world.request).digest != world.digest
    then = world.as_it_was()
    assert world.progress.messages == [
        f"{world.checkout} has changed since; using the artifact {world.artifact.id} of run {world.run.id}"
    ]
    # what is built to compare with is of the same source, too
    assert prepare.resolve(then.ctx, world.request).digest == world.digest
    assert prepare.resolve(then.ctx, replace(world.request, cell=replace(CELL, variant="nojit"))).digest == world.digest
    prepared = cast(PreparedCell, type("P", (), {"cell": CELL, "key": "cd" * 32}))
    assert then.built(prepared, Path("log")) == BuiltCell(world.artifact, from_stash=True)
    # the recipe's own source is another thing
    assert replace(world.request, source=None).wanted not in then.ctx.pinned


def test_a_checkout_that_is_gone_is_not_needed(world: World) -> None:
    shutil.rmtree(world.checkout)
    then = world.as_it_was()
    (said,) = world.progress.messages
    assert f"{world.checkout} cannot be read any more" in said
    assert prepare.resolve(then.ctx, world.request).digest == world.digest


def test_without_the_source_of_then_nothing_else_is_built(world: World) -> None:
    world.change()
    shutil.rmtree(world.ctx.settings.sources / world.digest)
    then = world.as_it_was()
    assert not then.builds
    assert "no different build can be compared with it" in world.progress.messages[0]


def test_without_the_artifact_of_then_only_the_same_is_built(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(world.artifact.folder)
    then = world.as_it_was()
    monkeypatch.setattr(build_cell, "build_cell", lambda ctx, prepared, log: prepared.key)
    same = cast(PreparedCell, type("P", (), {"cell": CELL, "key": KEY}))
    assert cast(str, then.built(same, Path("log"))) == KEY
    other = cast(PreparedCell, type("P", (), {"cell": CELL, "key": "cd" * 32}))
    with pytest.raises(UserError, match="is gone, and its source or crossjit has changed"):
        then.built(other, Path("log"))
