"""`stencils build` and `verify` over a fake engine: what is made, and whether shipped stencils are the same."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.build import layout
from crossjit.distribution import archive
from crossjit.errors import BuildError, ExitCode, InfrastructureError, UserError
from crossjit.model import Arch
from crossjit.runs import history
from crossjit.sources import Kind
from crossjit.tasks import runs, stencils
from crossjit.tasks.options import Request
from tests.example_effects import INCREMENT, PLAIN, RETURN, Written
from tests.fakes.engine import FakeProcess
from tests.unit.stencil_machine import StencilMachine
from tests.unit.test_build_python import ARM, X86

OTHER = {**PLAIN, "_ADD_r03": Written((INCREMENT, RETURN))}
NAME = "jit_stencils-x86_64-unknown-linux-gnu.h"


class Machine(StencilMachine):
    def make_stencils(self, *arches: Arch, **fields: Any) -> ExitCode:
        body: Callable[..., ExitCode] = stencils.build.body.__wrapped__  # type: ignore[attr-defined]
        fields.setdefault("output", str(self.folder / "out"))
        return body(None, Request(arches=arches, variants=fields.pop("variants", ())), **fields)

    def verify(self, *paths: Path, **fields: Any) -> ExitCode:
        body: Callable[..., ExitCode] = stencils.verify.body.__wrapped__  # type: ignore[attr-defined]
        known = {name: fields.pop(name) for name in [*fields] if name in ("variants", "recipes", "source")}
        return body(None, Request(**known), path=[str(path) for path in paths], **fields)

    def shipped(self, *arches: Arch, **fields: Any) -> list[Path]:
        self.make_stencils(*arches, **fields)
        return sorted((self.folder / "out").iterdir())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch, stencils)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


class TestBuild:
    def test_writes_an_archive_for_each_cell(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        assert machine.make_stencils(X86, ARM) is ExitCode.PASS
        assert (machine.opened[0].variants, machine.resolved) == (("jit",), 1)
        names = [f"stencils-3.15.0-{arch}-jit-llvm21.1.8.tar.gz" for arch in (X86, ARM)]
        assert sorted(each.name for each in (machine.folder / "out").iterdir()) == sorted(names)
        first = archive.read(machine.folder / "out" / names[0])
        assert [*first.files] == [NAME, "jit_stencils.h"]
        assert first.pyconfig == b"#define CONFIGURED 1\n"
        about = first.description
        assert about is not None
        assert (about.llvm, about.libc, about.image, about.source.llvm) == ("21.1.8", "2.42", "forky", "21")
        assert about.command[-2:] == ("--llvm-version=21", "--llvm-tools-install-dir=/crossjit/llvm")
        lines = shown(capsys)
        assert lines[0] == str(machine.folder / "out" / names[0])
        assert lines[1] == f"3.15.0 x86_64, LLVM 21.1.8, inputs {about.digest}"

    def test_with_another_llvm(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        assert machine.make_stencils(X86, llvm="22", json=True) is ExitCode.PASS
        document = json.loads(capsys.readouterr().out)
        assert runs.looked_json(history.list_runs(machine.ctx.settings)[0]) == {"stencils": document}
        (found,) = document["archives"]
        assert (found["llvm"], Path(found["path"]).name) == ("22.1.8", "stencils-3.15.0-x86_64-jit-llvm22.1.8.tar.gz")
        about = archive.read(Path(found["path"])).description
        assert about is not None
        assert (about.digest, about.variant, about.source.llvm) == (found["digest"], "jit", "21")

    def test_that_fails_writes_nothing(self, machine: Machine) -> None:
        machine.failing = {("21", X86)}
        with pytest.raises(BuildError, match="LLVM 21 does not make the stencils: RuntimeError: Can't find clang-21!"):
            machine.make_stencils(X86)
        assert not (machine.folder / "out").exists()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"output": ""}, "-o is missing"),
            ({"llvm": "99"}, "no image has LLVM 99"),
            ({"llvm": "x"}, "invalid --llvm 'x'"),
            ({"variants": ("nojit",)}, "has no stencils: the variant nojit has no JIT"),
        ],
    )
    def test_of_what_cannot_be_is_refused(self, machine: Machine, fields: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            machine.make_stencils(X86, **fields)
        assert caught.value.hint
        assert machine.ran == []

    def test_of_a_source_without_a_jit_is_refused(self, machine: Machine) -> None:
        machine.source = replace(machine.source, llvm=None)
        with pytest.raises(UserError, match=r"3\.15\.0 has no JIT"):
            machine.make_stencils(X86)

    @pytest.mark.parametrize("makefile", [b"", b"\t$(PYTHON_FOR_REGEN) $(srcdir)/Tools/jit/build.py 'x86"])
    def test_of_a_makefile_that_is_not_known(self, machine: Machine, makefile: bytes) -> None:
        own = machine.engine.programs["configure"]

        def configure(process: FakeProcess) -> int:
            own(process)
            process.write_file(f"{layout.BUILD}/Makefile", makefile)
            return 0

        machine.engine.programs["configure"] = configure
        with pytest.raises(InfrastructureError, match="the Makefile has no known command for stencils"):
            machine.make_stencils(X86)

    def test_of_a_checkout_takes_regenerated_files_along(self, machine: Machine) -> None:
        machine.source = replace(machine.source, kind=Kind.CHECKOUT, regenerate=("regen-cases",))
        seen: list[bytes] = []

        def make(process: FakeProcess) -> int:
            assert process.argv[1] == "regen-cases"
            for folder in ("Include", "Python"):
                process.write_file(f"{layout.SOURCE}/{folder}/cases.h", b"regenerated")
            return 0

        def python(process: FakeProcess) -> int:
            if process.argv[1].endswith(f"{layout.SOURCE}/Tools/jit/build.py"):
                seen.append(process.files.read(f"{layout.SOURCE}/Python/cases.h"))
            return machine.python(process)

        machine.engine.programs |= {"make": make, "python3": python, "cp": copy}
        assert machine.make_stencils(X86) is ExitCode.PASS
        assert seen == [b"regenerated"]


def copy(process: FakeProcess) -> int:
    process.files.move(process.path(process.argv[-2]), process.path(process.argv[-1]))
    return 0


class TestVerify:
    def test_an_archive(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        first, second = machine.shipped(X86, ARM)
        shown(capsys)
        assert machine.verify(second) is ExitCode.PASS
        assert (machine.opened[-1].arches, machine.opened[-1].recipes) == ((X86,), ("3.15",))
        lines = shown(capsys)
        assert lines[0] == "These are the stencils that LLVM 21.1.8 makes of 3.15.0 (3.15/x86_64/jit)."
        assert f"{NAME} the same bytes" in lines
        assert machine.verify(first, json=True) is ExitCode.PASS
        document = json.loads(capsys.readouterr().out)
        assert (document["verdict"], document["cell"]["arch"]) == ("pass", "aarch64")
        assert runs.looked_json(history.list_runs(machine.ctx.settings)[0]) == {"stencils": document}

    def test_an_archive_of_another_version_gets_its_recipe(self, machine: Machine) -> None:
        machine.source = replace(machine.source, version="3.14.7", llvm="19")
        machine.vendor = "pc"
        (path,) = machine.shipped(X86)
        assert [*archive.read(path).files] == ["jit_stencils-x86_64-pc-linux-gnu.h", "jit_stencils.h"]
        machine.verify(path)
        assert machine.opened[-1].recipes == ("3.14",)
        machine.verify(path, recipes=("3.13",))
        assert machine.opened[-1].recipes == ("3.13",)

    def test_can_be_done_again_from_any_folder(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (path,) = machine.shipped(X86)
        (path.parent / "p.h").write_bytes(b"#define CONFIGURED 1\n")
        monkeypatch.chdir(path.parent)
        shown(capsys)
        monkeypatch.setattr(sys, "argv", ["crossjit", "stencils", "verify", path.name, "--pyconfig=p.h", "--jobs", "2"])
        machine.verify(Path(path.name), pyconfig="p.h")
        (line,) = (each for each in shown(capsys) if each.startswith("reproduce:"))
        assert line.endswith(f"stencils verify {path} --pyconfig={path.parent / 'p.h'} --jobs 2")

    def test_makes_them_without_caches(self, machine: Machine) -> None:
        (path,) = machine.shipped(X86)
        machine.ctx = replace(machine.ctx, cached=True)
        machine.verify(path)
        assert [bool(each.volumes) for each in machine.engine.started if "stencils-" in each.name] == [False, False]

    def test_a_header(self, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (path,) = machine.shipped(X86)
        header = tmp_path / "renamed.h"
        header.write_bytes(archive.read(path).files[NAME])
        assert machine.verify(header) is ExitCode.PASS
        header.write_bytes(header.read_bytes().replace(b"0xff, 0xc0", b"0xff, 0xc8", 1))
        shown(capsys)
        assert machine.verify(header) is ExitCode.PRODUCT
        lines = shown(capsys)
        assert lines[0].startswith("These are not the stencils")
        assert "_ADD_r03 code 5 5" in lines

    def test_those_of_another_llvm(self, machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
        (path,) = machine.shipped(X86, llvm="22")
        assert machine.verify(path) is ExitCode.PASS
        assert machine.ran[-1][-2] == "--llvm-version=22"
        machine.written[("21", X86)] = OTHER
        assert machine.verify(path, llvm="21") is ExitCode.VACUOUS
        assert any(line.startswith("Nothing is proved: LLVM 22.1.8 is said to have made") for line in shown(capsys))
        machine.written[("22", X86)] = OTHER
        assert machine.verify(path) is ExitCode.PRODUCT

    def test_with_their_pyconfig(self, machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (path,) = machine.shipped(X86)
        header, config = tmp_path / NAME, tmp_path / "pyconfig.h"
        header.write_bytes(archive.read(path).files[NAME])
        config.write_bytes(b"#define CONFIGURED 2\n")
        assert machine.verify(header, pyconfig=str(config)) is ExitCode.PASS
        assert machine.pyconfigs[-1] == b"#define CONFIGURED 2\n"
        assert "+#define CONFIGURED 2" in shown(capsys)

    def test_those_of_a_debug_build(self, machine: Machine, tmp_path: Path) -> None:
        (path,) = machine.shipped(X86)
        header = tmp_path / NAME
        header.write_bytes(archive.read(path).files[NAME].replace(b"--output-dir", b"--debug --output-dir"))
        machine.verify(header)
        assert machine.opened[-1].variants == ("jit-debug",)
        machine.verify(header, variants=("ft-jit",))
        assert machine.opened[-1].variants == ("ft-jit",)

    def test_that_fails_to_make_them(self, machine: Machine) -> None:
        (path,) = machine.shipped(X86)
        machine.failing = {("21", X86)}
        with pytest.raises(BuildError, match="LLVM 21 does not make the stencils"):
            machine.verify(path)

    def test_what_is_no_header_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        (tmp_path / "x.h").write_text("#include <stdio.h>\n")
        for paths, message in (
            ([], "stencils verify takes one header or archive"),
            ([tmp_path, tmp_path], "stencils verify takes one header or archive"),
            ([tmp_path / "x.h"], "is neither a header with stencils nor an archive of them"),
            ([tmp_path / "gone.h"], "cannot be read: no such file or directory"),
        ):
            with pytest.raises(UserError, match=message):
                machine.verify(*paths)
        assert machine.opened == []

    def test_what_does_not_say_its_arch_is_refused(self, machine: Machine, tmp_path: Path) -> None:
        (path,) = machine.shipped(X86)
        text = archive.read(path).files[NAME].replace(b"x86_64-pc-linux-gnu", b"it")
        (tmp_path / "jit_stencils.h").write_bytes(text)
        with pytest.raises(UserError, match="does not say which architecture") as caught:
            machine.verify(tmp_path / "jit_stencils.h")
        assert NAME in caught.value.hint

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"llvm": "99"}, "no image has LLVM 99"),
            ({"variants": ("jit", "ft-jit")}, "takes one variant and one recipe"),
            ({"variants": ("interp",)}, "has no stencils"),
            ({"pyconfig": "/none/pyconfig.h"}, "cannot be read"),
        ],
    )
    def test_options_that_do_not_fit(self, machine: Machine, fields: dict[str, Any], message: str) -> None:
        (path,) = machine.shipped(X86)
        with pytest.raises(UserError, match=message) as caught:
            machine.verify(path, **fields)
        assert caught.value.hint
