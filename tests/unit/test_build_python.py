"""What serves as a cross build's own Python, without an engine."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import crossjit
from crossjit.build import build_python, layout
from crossjit.config import recipes
from crossjit.config.recipes import Recipe
from crossjit.engine.base import EngineFacts
from crossjit.errors import BuildError
from crossjit.images import ImageSpec, Role, load_all
from crossjit.model import Arch, Cell, EmulationSupport, Strategy
from crossjit.pipeline import build_cell, context, forecast, prepare
from crossjit.pipeline.context import BuildContext, CellRequest
from crossjit.pipeline.plan import Available
from crossjit.settings import Settings
from crossjit.sources import Kind, Source
from crossjit.stash.manifest import ArtifactKind
from crossjit.stash.store import Store
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.build_fakes import RecordingProgress, image

X86, ARM = Arch.X86_64, Arch.AARCH64
RECIPE = recipes.find("3.15", crossjit.PROJECT / "recipes")
PYTHON = "usr/local/bin/python3.15"


def cell_request(variant: str, arch: Arch, *, recipe: Recipe = RECIPE, source: str | None = None) -> CellRequest:
    strategy = Strategy.NATIVE if arch is X86 else Strategy.CROSS
    return CellRequest(Cell(recipe.name, arch, variant), recipe, recipe.variants[variant], strategy, source)


class FakeContext:
    """A build context whose fake engine builds: an installed Python reports its variant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress = RecordingProgress()
        self.probe: Mapping[str, object] = {"workloads": []}
        self.served: list[str] = []
        self.environments: list[Mapping[str, str]] = []
        self.broken = False
        self.engine = engine = FakeEngine(
            arch=X86,
            programs={
                "configure": self.configure,
                "make": self.make,
                "python3": self.python,
                "python": lambda process: 0,
                "python3.15": lambda process: 0,
                "gcc": lambda process: 0,
                "aarch64-linux-gnu-gcc": lambda process: 0,
                "sh": self.sh,
            },
        )
        for role, arch in ((Role.TOOLCHAIN, X86), (Role.TARGET, X86), (Role.TARGET, ARM)):
            engine.add_image(image(role, arch).reference, arch=arch)
        settings = Settings(home=folder / "home")
        self.ctx = BuildContext(
            settings=settings,
            engine=engine,
            facts=EngineFacts("fake", "1", "1", X86, cores=2, memory=8 << 30),
            ability=EmulationSupport(X86, {}),
            images=(),
            ensure_image=lambda spec, role, arch: image(role, arch),
            ensure_base=lambda spec: "base",
            store=Store(settings.stash),
            run="run",
            labels={},
            progress=self.progress,
            cached=False,
        )
        archive = folder / "source.tar"
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo("Python-3.15.0/configure")
            tar.addfile(member, io.BytesIO())
        self.source = Source(Kind.ARCHIVE, "3.15.0", (3, 15), "d" * 64, archive, "Python-3.15.0", "x", llvm="21")
        self.spec: ImageSpec = load_all(crossjit.PROJECT / "images")[0]

    def configure(self, process: FakeProcess) -> int:
        options = [argument for argument in process.argv[1:] if "jit" in argument or "O1" in argument]
        process.write_file(f"{layout.BUILD}/configured", " ".join(options).encode() or b"nojit")
        self.environments.append(dict(process.env))
        for argument in process.argv:
            if argument.startswith("--with-build-python="):
                self.served.append(process.files.read(argument.partition("=")[2]).decode())
        return 0

    def make(self, process: FakeProcess) -> int:
        if self.broken:
            return 2
        return self.install(process) if "install" in process.argv else 0

    def sh(self, process: FakeProcess) -> int:
        return self.install(process) if layout.INSTALL in process.argv[-1] else 0

    def install(self, process: FakeProcess) -> int:
        process.write_file(f"{layout.INSTALL}/{PYTHON}", process.files.read(f"{layout.BUILD}/configured"))
        return 0

    def python(self, process: FakeProcess) -> int:
        if "--" in process.argv:
            return process.run(process.argv[process.argv.index("--") + 1 :])
        asked = {"configure": {"hit": 1, "miss": 0}} if process.argv[-1] == "report" else self.probe
        process.write_line(json.dumps(asked))
        return 0

    def build(self, variant: str, arch: Arch, *, digest: str = "d" * 64) -> context.BuiltCell:
        source = replace(self.source, digest=digest)
        toolchain = image(Role.TOOLCHAIN, X86)
        prepared = prepare.make_prepared(cell_request(variant, arch), source, self.spec, toolchain, X86)
        log = self.folder / f"{variant}-{arch}.log"
        return build_cell.build_cell(self.ctx, prepared, log=log)


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    return FakeContext(tmp_path)


def test_variants_that_differ_in_the_jit_alone_may_serve_the_plainest_first() -> None:
    assert build_python.serving(RECIPE) == ("nojit", "interp", "jit")
    tail = replace(RECIPE.variants["jit"], name="tail", configure=("--with-tail-call-interp",))
    assert "tail" not in build_python.serving(replace(RECIPE, variants={"tail": tail}))


def test_its_own_depends_on_no_tests_and_stands_for_plain_builds(ctx: FakeContext) -> None:
    def specified(**changes: Any) -> build_python.BuildPython:
        source = replace(ctx.source, **{"core": "c", **changes})
        return build_python.make_spec(RECIPE, source, X86, image(Role.TOOLCHAIN, X86))

    wanted, other_tests = specified(), specified(digest="e" * 64)
    assert wanted.own.key == other_tests.own.key
    assert wanted.cells["jit"].key != other_tests.cells["jit"].key
    assert wanted.own.key != specified(core="d").own.key
    assert wanted.own.base_key is None
    assert {spec.python for spec in wanted.cells.values()} == {wanted.own.python}


class TestACrossBuild:
    def test_takes_the_python_of_a_native_cell(self, ctx: FakeContext) -> None:
        native = ctx.build("jit", X86)
        cross = ctx.build("jit", ARM)
        assert ctx.served == ["--enable-experimental-jit=yes"]
        assert cross.artifact.manifest.build_python == native.artifact.full_id
        assert {each.manifest.kind for each in ctx.ctx.store.artifacts()} == {ArtifactKind.CELL}
        assert ctx.progress.messages == [
            f"3.15/aarch64/jit: 3.15/x86_64/jit ({native.artifact.id}) is its build Python"
        ]
        assert ctx.environments[-1]["PYTHON_JIT"] == "0"
        assert "PYTHON_JIT" not in ctx.environments[0]

    def test_tells_how_often_the_caches_had_an_answer(self, ctx: FakeContext) -> None:
        assert ctx.build("jit", ARM).caches == {"configure": (1, 0)}

    def test_takes_the_plainest(self, ctx: FakeContext) -> None:
        for variant in ("jit", "interp", "nojit"):
            ctx.build(variant, X86)
        ctx.build("ft", ARM)
        assert ctx.served == ["nojit"]

    @pytest.mark.parametrize("variant", ["ft", "jit-debug"])
    def test_makes_its_own_where_none_will_do(self, ctx: FakeContext, variant: str) -> None:
        ctx.build(variant, X86)
        cross = ctx.build("jit", ARM)
        assert ctx.served == ["CFLAGS=-O1 -g0"]
        (own,) = (each for each in ctx.ctx.store.artifacts() if each.manifest.kind is ArtifactKind.BUILD_PYTHON)
        assert cross.artifact.manifest.build_python == own.full_id
        assert not ctx.progress.messages

    def test_makes_its_own_where_the_cell_is_of_another_source(self, ctx: FakeContext) -> None:
        ctx.build("jit", X86, digest="e" * 64)
        ctx.build("jit", ARM)
        assert ctx.served == ["CFLAGS=-O1 -g0"]

    def test_takes_what_was_made_for_a_source_that_has_other_tests(self, ctx: FakeContext) -> None:
        ctx.source = replace(ctx.source, core="c" * 64)
        first = ctx.build("jit", ARM)
        second = ctx.build("jit", ARM, digest="e" * 64)
        assert not second.from_stash
        assert second.artifact.manifest.build_python == first.artifact.manifest.build_python

    def test_takes_a_cell_of_a_source_that_has_other_tests(self, ctx: FakeContext) -> None:
        ctx.source = replace(ctx.source, kind=Kind.CHECKOUT, core="c" * 64)
        native = ctx.build("jit", X86)
        cross = ctx.build("jit", ARM, digest="e" * 64)
        assert cross.artifact.manifest.build_python == native.artifact.full_id
        ctx.source = replace(ctx.source, core="a" * 64)
        ctx.build("jit", ARM, digest="f" * 64)
        assert ctx.served == ["--enable-experimental-jit=yes", "CFLAGS=-O1 -g0"]

    def test_makes_its_own_where_the_cell_crashed_in_its_probe(self, ctx: FakeContext) -> None:
        ctx.probe = {"crashed": "SIGSEGV"}
        ctx.build("jit", X86)
        ctx.build("jit", ARM)
        assert ctx.served == ["CFLAGS=-O1 -g0"]

    def test_is_unpacked_while_its_python_is_made(self, ctx: FakeContext) -> None:
        ctx.build("jit", ARM)
        opened = [each.name.removeprefix("crossjit-").partition("-run-")[0] for each in ctx.engine.started]
        assert opened == ["build-3.15-aarch64-jit", "build-build-Python-3.15.0", "probe-3.15-aarch64-jit"]

    def test_leaves_nothing_where_its_python_cannot_be_made(self, ctx: FakeContext) -> None:
        ctx.broken = True
        with pytest.raises(BuildError, match="make failed"):
            ctx.build("jit", ARM)
        assert not ctx.engine.containers
        assert not list(ctx.ctx.store.artifacts())

    def test_has_the_same_key_whichever_served(self, ctx: FakeContext) -> None:
        cross = ctx.build("jit", ARM)
        ctx.build("nojit", X86)
        again = ctx.build("jit", ARM)
        assert again.from_stash
        assert again.artifact.full_id == cross.artifact.full_id


class TestInstalling:
    """What a build Python is installed by, with a real shell: its folders stand in a folder of the test's."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        library = ("os.py", "json/__init__.py", "test/test_os.py", "ctypes/test/test_it.py", "json/__pycache__/a.py")
        for name in (*library, "idlelib/run.py", "LICENSE.txt"):
            self.write(tmp_path, f"{layout.SOURCE}/Lib/{name}")
        built = f"{layout.BUILD}/build/lib.linux-x86_64-3.15"
        self.write(tmp_path, f"{layout.BUILD}/pybuilddir.txt", "build/lib.linux-x86_64-3.15")
        self.write(tmp_path, f"{layout.BUILD}/python", "python").chmod(0o755)
        self.write(tmp_path, f"{layout.BUILD}/Modules/math.so", "math")
        self.write(tmp_path, f"{built}/_sysconfigdata__linux_x86_64-linux-gnu.py")
        (tmp_path / built.lstrip("/") / "math.so").symlink_to("../../Modules/math.so")
        return tmp_path

    def write(self, root: Path, name: str, text: str = "") -> Path:
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def install(self, root: Path) -> subprocess.CompletedProcess[str]:
        source = Source(Kind.ARCHIVE, "3.15.0", (3, 15), "d" * 64, Path(), "Python-3.15.0", "x", llvm="21")
        own = build_python.make_spec(RECIPE, source, X86, image(Role.TOOLCHAIN, X86)).own
        (command,) = (each for each in own.commands if each.phase == "install")
        argv = [word.replace(layout.ROOT, f"{root}{layout.ROOT}") for word in command.argv]
        where = f"{root}{command.cwd}"
        return subprocess.run(argv, cwd=where, text=True, capture_output=True, check=False)

    def test_has_what_the_tools_need_and_no_more(self, root: Path) -> None:
        done = self.install(root)
        assert (done.returncode, done.stderr) == (0, "")
        installed = root / layout.INSTALL.lstrip("/") / "usr/local"
        library = "lib/python3.15"
        assert sorted(str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()) == [
            "bin/python3.15",
            f"{library}/_sysconfigdata__linux_x86_64-linux-gnu.py",
            f"{library}/json/__init__.py",
            f"{library}/lib-dynload/math.so",
            f"{library}/os.py",
        ]
        assert os.access(installed / "bin/python3.15", os.X_OK)
        assert not (installed / library / "lib-dynload/math.so").is_symlink(), "it would point into the build folder"

    def test_needs_no_module_that_is_a_file_of_its_own(self, root: Path) -> None:
        (root / layout.BUILD.lstrip("/") / "build/lib.linux-x86_64-3.15/math.so").unlink()
        assert self.install(root).returncode == 0
        library = root / layout.INSTALL.lstrip("/") / "usr/local/lib/python3.15"
        assert (library / "lib-dynload").is_dir(), "Python looks for it"

    @pytest.mark.parametrize("missing", ["pybuilddir.txt", "python", "Modules/math.so"])
    def test_fails_where_something_is_missing(self, root: Path, missing: str) -> None:
        (root / layout.BUILD.lstrip("/") / missing).unlink()
        assert self.install(root).returncode != 0

    def test_fails_where_a_file_cannot_be_written(self, root: Path) -> None:
        self.write(root, f"{layout.INSTALL}/usr/local/lib/python3.15/json")
        assert self.install(root).returncode != 0


class TestOrders:
    """A command's cells, and what their plan says."""

    def test_native_cells_come_first_in_each_recipe(self) -> None:
        other = recipes.find("3.14", crossjit.PROJECT / "recipes")
        requests = [
            cell_request("jit", ARM),
            cell_request("jit", X86),
            cell_request("ft", X86),
            cell_request("jit", ARM, recipe=other),
        ]
        arranged = [str(each.cell) for each in forecast.arranged(requests)]
        assert arranged == ["3.15/x86_64/jit", "3.15/x86_64/ft", "3.15/aarch64/jit", "3.14/aarch64/jit"]

    def available(self, folder: Path, wanted: CellRequest, *before: CellRequest) -> Available:
        settings = Settings(home=folder)
        return forecast.forecast(wanted, settings, X86, (), Store(settings.stash), None, before=before).known

    def test_the_plan_knows_what_will_serve(self, tmp_path: Path) -> None:
        wanted = cell_request("jit", ARM)
        others = (cell_request("jit", X86), cell_request("ft", X86), cell_request("interp", X86))
        assert self.available(tmp_path, wanted, *others) == Available(build_python="3.15/x86_64/interp")

    def test_the_plan_knows_what_will_not(self, tmp_path: Path) -> None:
        wanted = cell_request("jit", ARM)
        other = recipes.find("3.14", crossjit.PROJECT / "recipes")
        useless = (
            cell_request("ft", X86),
            cell_request("jit", X86, recipe=other),
            cell_request("jit", X86, source="../cpython"),
        )
        assert self.available(tmp_path, wanted, *useless) == Available()
        assert self.available(tmp_path, cell_request("jit", X86), cell_request("nojit", X86)) == Available()
