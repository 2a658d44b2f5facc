"""Cells that are made of others that have other tests, without an engine: they come out as if they had been built."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import crossjit
from crossjit.build import layout, test_overlay
from crossjit.build.layout import BUILD, BUILD_PYTHON, GENERATED, INSTALL, SOURCE, SUPPORT
from crossjit.config import recipes
from crossjit.engine.base import EngineFacts
from crossjit.errors import EngineError
from crossjit.images import Role, load_all
from crossjit.model import Arch, Cell, EmulationSupport, Strategy, Verdict
from crossjit.pipeline import build_cell, context, prepare, validate_cell
from crossjit.pipeline.context import BuildContext, CellRequest
from crossjit.settings import Settings
from crossjit.sources import Kind, Source
from crossjit.stash.artifact import Artifact
from crossjit.stash.manifest import ArtifactKind
from crossjit.stash.store import Store
from tests.fakes.engine import FakeEngine, FakeProcess, Fault
from tests.unit.build_fakes import RecordingProgress, image

X86, ARM = Arch.X86_64, Arch.AARCH64
RECIPE = recipes.find("3.15", crossjit.PROJECT / "recipes")
LIBRARY = "usr/local/lib/python3.15"
TREE = {
    "configure": "#!/bin/sh",
    "Lib/os.py": "import posix",
    "Lib/test/__init__.py": "",
    "Lib/test/test_int.py": "assert 1",
    "Lib/test/data/some.txt": "some",
}


class FakeContext:
    """A workshop whose engine builds: it installs the library and byte-compiles it, by whatever Python it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress = RecordingProgress()
        self.makefile = "all:\t\tbuild_all\n"
        self.install_tests: Callable[[FakeProcess], int] = self._install_tests
        self.engine = FakeEngine(
            arch=X86,
            programs={
                "configure": lambda process: 0,
                "make": self.make,
                "python3": self.python,
                "python": self.compile,
                "python3.15": self.compile,
                "gcc": self.gcc,
                "aarch64-linux-gnu-gcc": self.gcc,
                "sh": self.sh,
            },
        )
        for role, arch in ((Role.TOOLCHAIN, X86), (Role.TARGET, X86), (Role.TARGET, ARM)):
            self.engine.add_image(image(role, arch).reference, arch=arch)
        settings = Settings(home=folder / "home")
        self.ctx = BuildContext(
            settings=settings,
            engine=self.engine,
            facts=EngineFacts("fake", "1", "1", X86, cores=2, memory=8 << 30),
            ability=EmulationSupport(X86, {}),
            images=(),
            ensure_image=lambda spec, role, arch: image(role, arch),
            ensure_base=lambda spec: "base",
            store=Store(settings.stash, progress=self.progress),
            run="run",
            labels={},
            progress=self.progress,
        )

    def make(self, process: FakeProcess) -> int:
        if "install" not in process.argv:
            process.write_file(f"{BUILD}/python", b"\x7fELF python")
            return 0
        return self.install(process)

    def install(self, process: FakeProcess) -> int:
        root = f"{INSTALL}/{LIBRARY}"
        for path in process.files.below(f"{SOURCE}/Lib"):
            if not process.files.is_folder(path):
                process.write_file(f"{root}/{path.removeprefix(f'{SOURCE}/Lib/')}", process.files.read(path))
        process.write_file(f"{root}/config-3.15-linux/Makefile", self.makefile.encode())
        process.write_file(f"{root}/lib-dynload/_json.so", b"\x7fELF json", 0o755)
        process.write_file(f"{INSTALL}/usr/local/bin/python3.15", process.files.read(f"{BUILD}/python"), 0o755)
        return 0

    def _install_tests(self, process: FakeProcess) -> int:
        assert process.files.read(test_overlay.MAKEFILE) == self.makefile.encode()
        folder = process.argv[process.argv.index("--folder") + 1]
        for path in process.files.below(f"{SOURCE}/Lib/test"):
            if not process.files.is_folder(path):
                process.write_file(
                    f"{INSTALL}/{folder}/{path.removeprefix(f'{SOURCE}/Lib/test/')}", process.files.read(path)
                )
        return 0

    def compile(self, process: FakeProcess) -> int:
        assert process.argv[1] == f"{layout.TOOLS}/compile_library.py"
        process.files.read(process.argv[1])
        python = process.files.read(process.path(process.argv[0]))
        for path in process.files.below(INSTALL):
            if path.endswith(".py"):
                where, _, name = path.rpartition("/")
                content = hashlib.sha256(python + path.encode() + process.files.read(path)).digest()
                process.write_file(f"{where}/__pycache__/{name}c", content)
        return 0

    def python(self, process: FakeProcess) -> int:
        if process.argv[1].endswith("/install_tests.py"):
            process.files.read(process.argv[1])
            return self.install_tests(process)
        if "--" in process.argv:
            return process.run(process.argv[process.argv.index("--") + 1 :])
        if process.argv[1].endswith("/probe.py"):
            process.write_line(json.dumps({"workloads": []}))
        elif process.argv[-1] == "report":
            process.write_line("{}")
        return 0

    def gcc(self, process: FakeProcess) -> int:
        process.write_line("gcc 16.2.0")
        return 0

    def sh(self, process: FakeProcess) -> int:
        if INSTALL in process.argv[-1]:  # of a build Python
            return self.install(process)
        process.write_file(f"{SUPPORT}/Tools/jit/build.py", b"print()")
        process.write_file(f"{GENERATED}/pyconfig.h", b"#define")
        return 0

    def source(self, changes: Mapping[str, str] | None = None, kind: Kind = Kind.CHECKOUT, core: str = "c") -> Source:
        """Make a source; with an empty text a file is not in it."""
        tree = {**TREE, **(changes or {})}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name in sorted(name for name, text in tree.items() if text or name.endswith("__init__.py")):
                member = tarfile.TarInfo(f"cpython/{name}")
                member.size, member.mode = len(tree[name]), 0o644
                tar.addfile(member, io.BytesIO(tree[name].encode()))
        digest = hashlib.sha256(packed.getvalue()).hexdigest()
        archive = self.folder / f"{digest}.tar"
        archive.write_bytes(packed.getvalue())
        return Source(kind, "3.15.0", (3, 15), digest, archive, "cpython", "x", llvm="21", core=core)

    def prepared(self, source: Source, arch: Arch = X86) -> context.PreparedCell:
        strategy = Strategy.NATIVE if arch is X86 else Strategy.CROSS
        request = CellRequest(Cell("3.15", arch, "jit"), RECIPE, RECIPE.variants["jit"], strategy)
        spec = load_all(crossjit.PROJECT / "images")[0]
        return prepare.make_prepared(request, source, spec, image(Role.TOOLCHAIN, X86), X86)

    def build(self, source: Source, arch: Arch = X86, *, rebuild: bool = False) -> context.BuiltCell:
        log = self.folder / "build.log"
        return build_cell.build_cell(self.ctx, self.prepared(source, arch), log=log, rebuild=rebuild)


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    return FakeContext(tmp_path)


OTHER_TESTS = {
    "Lib/test/test_int.py": "assert 2",
    "Lib/test/test_new.py": "assert 3",
    "Lib/test/data/some.txt": "",
}


def facts(artifact: Artifact) -> object:
    """Return all that two ways to the same artifact must have in common."""
    manifest = artifact.manifest
    return artifact.full_id, manifest.trees, manifest.base_key, manifest.compiler, artifact.files()


@pytest.mark.parametrize("arch", [X86, ARM])
def test_it_is_what_would_have_been_built(ctx: FakeContext, arch: Arch) -> None:
    before = ctx.build(ctx.source(), arch)
    ctx.progress.steps.clear()
    renewed = ctx.build(ctx.source(OTHER_TESTS), arch)
    assert list(renewed.seconds) == ["unpack", "tests", "compile", "pack", "probe"]
    assert ctx.progress.steps == [*renewed.seconds, "stash"]
    assert renewed.artifact.manifest.derived_from == before.artifact.full_id
    assert dict(renewed.artifact.manifest.seconds).keys() == renewed.seconds.keys()
    assert f"only tests differ from {before.artifact.id}" in ctx.progress.messages[-1]
    installed = renewed.artifact.files()["install"]
    assert f"{LIBRARY}/test/test_new.py" in installed
    assert f"{LIBRARY}/test/__pycache__/test_new.pyc" in installed
    assert f"{LIBRARY}/test/data/some.txt" not in installed
    assert not ctx.ctx.store.verify(renewed.artifact)

    built = ctx.build(ctx.source(OTHER_TESTS), arch, rebuild=True)
    assert "make" in built.seconds
    assert built.artifact.manifest.derived_from is None
    assert facts(built.artifact) == facts(renewed.artifact)


def test_one_is_made_of_another_that_was_made_so(ctx: FakeContext) -> None:
    ctx.build(ctx.source())
    second = ctx.build(ctx.source(OTHER_TESTS))
    third = ctx.build(ctx.source({"Lib/test/test_int.py": "assert 4"}))
    assert third.artifact.manifest.derived_from == second.artifact.full_id
    assert f"{LIBRARY}/test/test_new.py" not in third.artifact.files()["install"]


def test_the_result_says_of_what(ctx: FakeContext) -> None:
    before = ctx.build(ctx.source())
    result = validate_cell.run_cell(ctx.ctx, ctx.prepared(ctx.source(OTHER_TESTS)), folder=ctx.folder, validate=False)
    assert result.derived_from == before.artifact.full_id
    assert result.verdict is not Verdict.INFRA


def test_a_native_builds_python_is_where_it_was_built(ctx: FakeContext) -> None:
    """It has the library beside it, which is not its own to write to, and no other library."""
    ctx.build(ctx.source())
    seen: dict[str, object] = {}

    def compile(process: FakeProcess) -> int:
        files = process.files
        seen["python"] = files.read(f"{BUILD}/python")
        seen["extension"] = files.read(f"{BUILD}/{files.read(f'{BUILD}/pybuilddir.txt').decode()}/_json.so")
        seen["library"] = files.read(f"{SOURCE}/Lib/os.py")
        seen["owner"] = {files.stat(path).uid for path in (SOURCE, f"{SOURCE}/Lib", f"{SOURCE}/Lib/os.py")}
        seen["installed"] = files.exists(f"{INSTALL}/{LIBRARY}/os.py")
        return ctx.compile(process)

    ctx.engine.programs["python"] = compile
    ctx.build(ctx.source(OTHER_TESTS))
    assert seen == {
        "python": b"\x7fELF python",
        "extension": b"\x7fELF json",
        "library": b"import posix",
        "owner": {0},
        "installed": False,
    }


def test_a_cross_build_has_no_other_python_than_its_build_python(ctx: FakeContext) -> None:
    native = ctx.build(ctx.source())
    ctx.build(ctx.source(), ARM)
    seen = []

    def compile(process: FakeProcess) -> int:
        seen.append(process.argv[0])
        assert not process.files.exists(f"{BUILD}/python")
        assert not process.files.exists(f"{SOURCE}/Lib/os.py")
        return ctx.compile(process)

    ctx.engine.programs["python3.15"] = compile
    renewed = ctx.build(ctx.source(OTHER_TESTS), ARM)
    assert seen == [f"{BUILD_PYTHON}/usr/local/bin/python3.15"]
    # the native cell of the source before serves, though its tests are others
    assert renewed.artifact.manifest.build_python == native.artifact.full_id
    assert {each.manifest.kind for each in ctx.ctx.store.artifacts()} == {ArtifactKind.CELL}


class TestItIsBuilt:
    """Where it might come out other than built, or is asked for."""

    def built(self, ctx: FakeContext, source: Source, arch: Arch = X86) -> context.BuiltCell:
        built = ctx.build(source, arch)
        assert "make" in built.seconds
        assert built.artifact.manifest.derived_from is None
        return built

    def test_where_more_than_tests_differs(self, ctx: FakeContext) -> None:
        ctx.build(ctx.source())
        self.built(ctx, ctx.source({"Lib/os.py": "import nt"}, core="d"))

    def test_where_it_is_not_known_whether_more_differs(self, ctx: FakeContext) -> None:
        ctx.build(ctx.source(core=""))
        self.built(ctx, ctx.source(OTHER_TESTS, core=""))

    def test_where_the_other_is_of_another_arch(self, ctx: FakeContext) -> None:
        ctx.build(ctx.source())
        self.built(ctx, ctx.source(OTHER_TESTS), ARM)

    def test_where_a_build_goes_by_time_stamps_that_may_differ(self, ctx: FakeContext) -> None:
        first = ctx.build(ctx.source(kind=Kind.ARCHIVE))
        assert first.artifact.manifest.base_key is None
        self.built(ctx, ctx.source(OTHER_TESTS, Kind.ARCHIVE))
        self.built(ctx, ctx.source(OTHER_TESTS | {"Lib/test/x": "x"}))

    def test_where_something_is_made_anew_before(self, ctx: FakeContext) -> None:
        def copy(process: FakeProcess) -> int:
            process.files.move(*process.argv[-2:])
            return 0

        ctx.engine.programs["cp"] = copy
        stale = {"regenerate": ("regen-cases",)}
        ctx.build(replace(ctx.source(), **stale))  # type: ignore[arg-type]
        self.built(ctx, replace(ctx.source(OTHER_TESTS), **stale))  # type: ignore[arg-type]

    def test_where_no_cache_is_to_be_used(self, ctx: FakeContext) -> None:
        ctx.build(ctx.source())
        ctx.ctx = replace(ctx.ctx, cached=False)
        self.built(ctx, ctx.source(OTHER_TESTS))

    def test_where_the_other_is_from_before_it_had_a_core_key(self, ctx: FakeContext) -> None:
        first = ctx.build(ctx.source()).artifact
        path = first.folder / "manifest.json"
        path.write_bytes(re.sub(rb'"base_key": "\w+",', b"", path.read_bytes()))
        self.built(ctx, ctx.source(OTHER_TESTS))

    @pytest.mark.parametrize("file", ["install", "support", "generated", "files.json", "manifest.json"])
    def test_where_the_other_is_damaged(self, ctx: FakeContext, file: str) -> None:
        first = ctx.build(ctx.source()).artifact
        path = first.objects.get(file, first.folder / file)
        content = path.read_bytes()
        where = content.index(b"16.2.0") if file == "manifest.json" else len(content) // 2
        path.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
        self.built(ctx, ctx.source(OTHER_TESTS))
        assert ctx.progress.messages[-1].endswith(f"{first.id} cannot be reused, so it is built: it is damaged")

    def test_where_tests_were_run_while_the_other_was_built(self, ctx: FakeContext) -> None:
        ctx.makefile = "all:\t\tprofile-opt\n"
        ctx.build(ctx.source())
        self.built(ctx, ctx.source(OTHER_TESTS))
        assert "its tests ran while it was built" in ctx.progress.messages[-1]

    def test_where_the_makefile_installs_otherwise(self, ctx: FakeContext) -> None:
        def refuse(process: FakeProcess) -> int:
            process.write_line("the rule installs no tests")
            return 1

        ctx.build(ctx.source())
        ctx.install_tests = refuse
        self.built(ctx, ctx.source(OTHER_TESTS))
        assert ctx.progress.messages[-1].endswith("tests failed: exit status 1: the rule installs no tests")

    def test_where_more_than_tests_came_of_it(self, ctx: FakeContext) -> None:
        def stray(process: FakeProcess) -> int:
            process.write_file(f"{INSTALL}/{LIBRARY}/os.py", b"other")
            return ctx._install_tests(process)

        ctx.build(ctx.source())
        ctx.install_tests = stray
        self.built(ctx, ctx.source(OTHER_TESTS))

    def test_where_it_is_not_laid_out_as_cpython_is(self, ctx: FakeContext) -> None:
        def bare(process: FakeProcess) -> int:
            done = make(process)
            if "install" in process.argv:
                process.files.remove(f"{INSTALL}/{LIBRARY}/config-3.15-linux")
            return done

        make, ctx.engine.programs["make"] = ctx.engine.programs["make"], bare
        ctx.build(ctx.source())
        self.built(ctx, ctx.source(OTHER_TESTS))

    def test_but_an_engine_that_fails_is_a_failure(self, ctx: FakeContext) -> None:
        ctx.build(ctx.source())
        ctx.engine.faults["env"] = Fault.CONTAINER_VANISHES
        with pytest.raises(EngineError):
            ctx.build(ctx.source(OTHER_TESTS))
