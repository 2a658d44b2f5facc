"""Pythons that were built elsewhere: Debian's packages, folders and archives, with a fake engine."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.config.pythons import DebianPython, InstalledPython, parse_debian
from crossjit.errors import CrossjitError, DownloadError, ExitCode, InfrastructureError, UserError
from crossjit.images import Role
from crossjit.model import Arch, Cell, CellResult, Expectation, Strategy, Verdict
from crossjit.pipeline import build_cell, context, earlier, installed, prepare, validate_cell
from crossjit.pipeline.context import CellRequest, PreparedPython
from crossjit.pythons import debian, traits
from crossjit.runs.record import RunRecord
from crossjit.validation.target import HOME, TESTER
from tests.fakes.engine import FakeProcess
from tests.fakes.files import FakeFiles
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, X86, FakeContext

FORKY = DebianPython("forky", "python3.15")
FACTS = {
    "implementation": "cpython",
    "version": "3.15.0",
    "configure": "'--enable-shared' '--enable-experimental-jit=yes-off' 'CC=gcc'",
    "compiler": "GCC 16.2.0",
    "debug": False,
    "free_threaded": False,
    "macros": {"_Py_JIT": 1, "_Py_TIER2": 3},
    "jit": {"available": True, "enabled": False},
}
TREE = {"usr/bin/python3.15": b"elf", "usr/lib/python3.15/test/libregrtest/__init__.py": b""}


def elf(arch: Arch) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, arch.elf_number) + b"rest"


class FakeMirror(FakeContext):
    """A mirror that has one Python, and target images in which programs say what they are told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names = ["python3.14", "python3.15", "libpython3.15-testsuite"]
        self.version = "3.15.0-1"
        self.answers = True
        self.expired = False
        self.downloads = 0
        self.facts: Mapping[str, object] = FACTS
        self.tree = dict(TREE)
        self.rows = ""
        self.fetched: list[str] = []
        self.engine.add_image("base", arch=X86)
        for arch in Arch:
            files = FakeFiles.base()
            files.make_folder(HOME, uid=TESTER, gid=TESTER)
            self.engine.add_image(image(Role.TARGET, arch).reference, arch=arch, files=files)
        self.engine.programs |= {
            "apt-get": self.apt_get,
            "apt-cache": self.apt_cache,
            "sh": self.shell,
            "cp": lambda process: 0,
            "ldconfig": lambda process: 0,
        }
        self.ctx = replace(self.ctx, images=(self.spec,), ensure_image=lambda spec, role, arch: image(role, arch))

    def apt_get(self, process: FakeProcess) -> int:
        if "update" in process.argv:
            if self.expired and "Acquire::Check-Valid-Until=true" in process.argv:
                process.write_line("E: Release file for http://mirror/InRelease is expired (invalid since 1d)")
                return 100
            return 0 if self.answers else 100
        if "--download-only" in process.argv:
            self.downloads += 1
            self.fetched = [word for word in process.argv if "=3." in word]
            return 0
        if self.rows:
            process.write_line(self.rows)
            return 0
        wanted = [word for word in process.argv if "python3" in word]
        if not {*wanted} <= {*self.names, "python3"}:
            return 100
        for name, digest in (("python3.15", "a"), ("libpython3.15-testsuite", "b")):
            if name == "libpython3.15-testsuite" and name not in wanted:
                continue
            process.write_line(f"'http://mirror/x.deb' {name}_{self.version}_amd64.deb 1 SHA256:{digest * 64}")
        return 0

    def apt_cache(self, process: FakeProcess) -> int:
        if "pkgnames" in process.argv:
            prefix = process.argv[2]
            for name in self.names:
                if name.startswith(prefix):
                    process.write_line(name)
            return 0
        for line in (
            "Package: python3.15",
            "Version: 3.15.0-0",
            "Build-Depends: clang-20",
            "",
            "Package: python3.15",
            "Version: 3.15.0-1",
            "Build-Depends: gcc, clang-21 [amd64 arm64], llvm-21 [amd64]",
        ):
            process.write_line(line)
        return 0

    def shell(self, process: FakeProcess) -> int:
        if "dpkg-deb" in process.argv[2]:
            for path, content in self.tree.items():
                process.write_file(f"{debian.TREE}/{path}", content)
        return 0

    def python(self, process: FakeProcess) -> int:
        if process.argv[1].endswith("/build_facts.py"):
            process.write_line(json.dumps(self.facts) if self.facts else "Illegal instruction")
            return 0 if self.facts else 132
        if process.argv[1].endswith("/compile_library.py"):
            return 0
        return super().python(process)

    def request(self, arch: Arch = X86, *, python: InstalledPython = FORKY) -> CellRequest:
        recipe = installed.recipe_of(python)
        cell = Cell(recipe.name, arch, traits.NAME)
        return CellRequest(cell, recipe, recipe.variants[traits.NAME], Strategy.INSTALLED)

    def prepared(self, arch: Arch = X86, *, python: InstalledPython = FORKY) -> PreparedPython:
        (prepared,) = prepare.prepare(self.ctx, [self.request(arch, python=python)])
        assert isinstance(prepared, PreparedPython)
        return prepared

    def nothing_is_left(self) -> bool:
        stash = self.ctx.settings.stash
        left = (path for path in stash.rglob("*") if path.is_file() and path.suffix != ".lock")
        return not self.engine.containers and not [*left]


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMirror:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    return FakeMirror(tmp_path)


class TestAPackageOfDebian:
    def test_is_a_cell_with_the_variant_of_its_build(self, ctx: FakeMirror) -> None:
        prepared = ctx.prepared()
        assert str(prepared.cell) == "forky-python3.15/x86_64/installed"
        variant = prepared.request.variant
        assert (variant.expects, variant.debug, variant.free_threaded) == (Expectation.MACHINE_CODE, False, False)
        assert variant.environment == {"PYTHON_JIT": "1"}
        assert variant.suites == ("jit",)
        assert (prepared.version, prepared.python) == ("3.15.0", (3, 15))
        assert prepared.has_tests

    def test_is_in_the_stash_with_its_packages(self, ctx: FakeMirror) -> None:
        manifest = ctx.prepared().artifact.manifest
        assert [(each.name, each.version, each.sha256) for each in manifest.packages] == [
            ("libpython3.15-testsuite", "3.15.0-1", "b" * 64),
            ("python3.15", "3.15.0-1", "a" * 64),
        ]
        assert manifest.source.origin == "debian:forky/python3.15"
        assert manifest.llvm == "21 (by Build-Depends of python3.15 3.15.0-1)"
        assert manifest.schema == 2, "older versions do not know such artifacts"
        assert ctx.fetched == ["libpython3.15-testsuite=3.15.0-1", "python3.15=3.15.0-1"]

    def test_may_have_no_tests(self, ctx: FakeMirror) -> None:
        ctx.names.remove("libpython3.15-testsuite")
        assert [each.name for each in ctx.prepared().artifact.manifest.packages] == ["python3.15"]

    def test_may_be_the_default_one(self, ctx: FakeMirror) -> None:
        ctx.names.append("python3")
        packages = ctx.prepared(python=DebianPython("forky", "python3")).artifact.manifest.packages
        assert [each.name for each in packages] == ["libpython3.15-testsuite", "python3.15"]

    def test_is_fetched_once(self, ctx: FakeMirror) -> None:
        first, second = ctx.prepared(), ctx.prepared()
        assert (first.from_stash, second.from_stash) == (False, True)
        assert first.artifact == second.artifact
        assert ctx.downloads == 1
        built = build_cell.build_cell(ctx.ctx, second, log=ctx.folder / "log")
        assert (built.artifact, built.from_stash) == (second.artifact, True)

    def test_is_fetched_again_where_the_mirror_has_another(self, ctx: FakeMirror) -> None:
        first = ctx.prepared()
        ctx.version = "3.15.1-1"
        assert ctx.prepared().key != first.key
        assert ctx.downloads == 2

    def test_is_the_stashed_one_where_the_mirror_does_not_answer(self, ctx: FakeMirror) -> None:
        first = ctx.prepared()
        ctx.answers = False
        assert ctx.prepared().artifact == first.artifact
        assert "using the one in the stash" in ctx.progress.messages[-1]

    def test_of_an_expired_release_is_told(self, ctx: FakeMirror) -> None:
        ctx.expired = True
        ctx.prepared()
        assert any("has expired" in message for message in ctx.progress.messages)

    def test_runs_its_container_unprivileged_and_only_apts_has_the_network(self, ctx: FakeMirror) -> None:
        ctx.prepared()
        networked = {each.name.rpartition("-")[0]: each.network for each in ctx.engine.started}
        assert [name for name, network in networked.items() if network] == [
            "crossjit-apt-forky-python3.15-x86_64-installed-run"
        ]
        assert {each.user for each in ctx.engine.started} == {"1000:1000"}
        apt = [each.argv for each in ctx.engine.commands if each.argv[0] == "apt-get"]
        assert all("Acquire::AllowInsecureRepositories=false" in argv for argv in apt)

    def test_of_an_earlier_run_is_taken_from_it(self, ctx: FakeMirror) -> None:
        first = ctx.prepared()
        with RunRecord.start(ctx.ctx.settings, ("inv", "validate"), {}, cells=(first.cell,)) as record:
            record.set_cell(CellResult(first.cell, Verdict.FAIL, (), artifact=first.artifact.id, build_key=first.key))
        then = earlier.as_it_was(ctx.ctx, [ctx.request()], record.run)
        assert then.builds
        assert then.artifacts == {first.cell: first.artifact}
        ctx.ctx = then.ctx
        ctx.version = "3.15.1-1"
        assert ctx.prepared().artifact == first.artifact

    def test_goes_through_to_a_verdict(self, ctx: FakeMirror) -> None:
        ctx.facts = {**FACTS, "macros": {}, "jit": {"available": False, "enabled": False}}
        ctx.probe = {
            "executable": {"machine": "EM_X86_64"},
            "gil": {"disabled_in_build": False, "enabled": True},
            "debug": False,
            "modules": {"failed": {"_tkinter": "ModuleNotFoundError: No module named '_tkinter'"}},
            "workloads": [],
        }
        result = validate_cell.run_cell(ctx.ctx, ctx.prepared(), folder=ctx.folder, validate=False)
        assert result.verdict is Verdict.PASS
        assert result.reasons == ("this build has no JIT, so nothing is proved about one",)
        assert result.strategy is Strategy.INSTALLED

    def test_without_tests_is_vacuous(self, ctx: FakeMirror) -> None:
        del ctx.tree["usr/lib/python3.15/test/libregrtest/__init__.py"]
        prepared = ctx.prepared()
        built = build_cell.build_cell(ctx.ctx, prepared, log=ctx.folder / "log")
        (suite,) = validate_cell.validate_cell(ctx.ctx, prepared, built, folder=ctx.folder)
        assert suite.unproved == (
            "this Python comes without CPython's tests (the package `test`), so the suite cannot run",
        )


class TestAPackageIsRefused:
    def refused(self, ctx: FakeMirror, python: DebianPython = FORKY, arch: Arch = X86) -> CrossjitError:
        with pytest.raises(CrossjitError) as raised:
            ctx.prepared(arch, python=python)
        assert ctx.nothing_is_left()
        assert raised.value.hint
        return raised.value

    @pytest.mark.parametrize(
        "text", ["debian:forky", "debian:forky/vim", "debian:/python3", "debian:forky/python3.15;x"]
    )
    def test_for_an_invalid_name(self, text: str) -> None:
        with pytest.raises(UserError, match="expected debian:SUITE/PACKAGE"):
            parse_debian(text)

    def test_of_a_suite_without_an_image(self, ctx: FakeMirror) -> None:
        error = self.refused(ctx, DebianPython("sid", "python3.15"))
        assert error.message == "there is no image of Debian sid"
        assert "forky" in error.hint
        assert error.exit_code is ExitCode.USER

    def test_that_the_suite_does_not_have(self, ctx: FakeMirror) -> None:
        error = self.refused(ctx, DebianPython("forky", "python3.16"), ARM)
        assert error.message == "forky has no package python3.16 for aarch64; did you mean 'python3.15'?"
        assert error.hint == "it has python3.14, python3.15"
        assert error.exit_code is ExitCode.USER

    def test_that_the_mirror_does_not_give(self, ctx: FakeMirror) -> None:
        ctx.answers = False
        error = self.refused(ctx)
        assert isinstance(error, DownloadError)
        assert error.exit_code is ExitCode.INFRASTRUCTURE

    def test_without_a_digest(self, ctx: FakeMirror) -> None:
        ctx.rows = "'http://mirror/x.deb' python3.15_3.15.0-1_amd64.deb 1 MD5Sum:abc"
        assert "SHA256" in self.refused(ctx).message

    def test_that_needs_newer_packages_than_the_image_has(self, ctx: FakeMirror) -> None:
        ctx.rows = f"'http://mirror/x.deb' clang-21_22_amd64.deb 1 SHA256:{'a' * 64}"
        error = self.refused(ctx)
        assert isinstance(error, InfrastructureError)
        assert "clang-21" in error.message
        assert "images update" in error.hint

    def test_that_does_not_run(self, ctx: FakeMirror) -> None:
        ctx.facts = {}
        error = self.refused(ctx)
        assert error.message.endswith("does not run as a CPython: killed by SIGILL")
        assert error.details == ("Illegal instruction",)

    def test_that_is_no_cpython(self, ctx: FakeMirror) -> None:
        ctx.facts = {**FACTS, "implementation": "pypy"}
        assert "it is pypy" in self.refused(ctx).message


class TestTheVariant:
    @pytest.mark.parametrize(
        ("facts", "expects", "environment", "suites"),
        [
            ({}, Expectation.MACHINE_CODE, {"PYTHON_JIT": "1"}, ("jit",)),
            ({"macros": {"_Py_JIT": 1, "_Py_TIER2": 1}, "jit": None}, Expectation.MACHINE_CODE, {}, ("jit",)),
            ({"macros": {"_Py_TIER2": 6}, "jit": None}, Expectation.UOPS, {"PYTHON_JIT": "1"}, ("jit",)),
            ({"macros": {}, "jit": None}, Expectation.NONE, {}, ("jit",)),
            ({"macros": {}}, Expectation.MACHINE_CODE, {"PYTHON_JIT": "1"}, ("jit",)),
            ({"macros": {}, "jit": None, "free_threaded": True}, Expectation.NONE, {}, ("ft-smoke",)),
            ({"free_threaded": True}, Expectation.MACHINE_CODE, {"PYTHON_JIT": "1"}, ("ft-smoke", "jit")),
        ],
    )
    def test_is_what_the_build_says(
        self,
        ctx: FakeMirror,
        facts: Mapping[str, object],
        expects: Expectation,
        environment: Mapping[str, str],
        suites: tuple[str, ...],
    ) -> None:
        ctx.facts = {**FACTS, **facts}
        variant = ctx.prepared().request.variant
        assert (variant.expects, variant.environment, variant.suites) == (expects, environment, suites)
        assert variant.packaged
