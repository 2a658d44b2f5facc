"""`effect --llvm` over a fake engine: what each LLVM makes, what is the same, and what cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from crossjit.build import layout
from crossjit.errors import EngineError, ExitCode, UserError
from crossjit.model import Arch, Cell, CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.pipeline.build_cell import CellBuild
from crossjit.report import answers
from crossjit.report import compilers as as_report
from crossjit.runs import history
from crossjit.tasks import compilers, effect, runs
from crossjit.tasks.options import Request, read
from tests.example_effects import CALL, INCREMENT, PLAIN, RETURN, Written
from tests.unit.stencil_machine import StencilMachine
from tests.unit.test_build_python import ARM, X86

LONGER = {**PLAIN, "_ADD_r03": Written((INCREMENT, INCREMENT, INCREMENT, RETURN)), "_NEW_r00": Written((CALL,))}


class Machine(StencilMachine):
    def run(self, *llvms: str, arches: tuple[Arch, ...] = (X86, ARM), **fields: Any) -> ExitCode:
        body: Callable[..., ExitCode] = effect.effect.body.__wrapped__  # type: ignore[attr-defined]
        known = {name: fields.pop(name) for name in [*fields] if name in ("variants", "selection", "source", "recipes")}
        return body(None, Request(arches=arches, **known), llvm=[",".join(llvms)], **fields)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch, compilers)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_llvms_are_held_against_each_other(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.written[("22", X86)] = LONGER
    assert machine.run("21", "22") is ExitCode.PASS
    lines = shown(capsys)
    assert lines[0] == "LLVM 21 and 22 make the stencils of 3.15.0, each the same bytes twice."
    assert "source: the recipe 3.15 (3.15.0), which wants LLVM 21" in lines
    assert any(line.startswith("x86_64 21 21.1.8 forky 4 8 16 0 1 the same bytes") for line in lines)
    assert any(line.startswith("x86_64 22 22.1.8 forky 5 10 24 0 1 the same bytes") for line in lines)
    assert "LLVM 21 4 of 4 3 of 5" not in lines, "an LLVM is not compared with itself"
    assert "LLVM 21 - 3 of 5" in lines
    assert "LLVM 22 4 of 4 -" in lines
    place = lines.index("uops whose stencils differ the most on x86_64, LLVM 21 → 22:")
    assert lines[place + 2 : place + 5] == ["uop instructions bytes data", "_NEW 0 → 1 0 → 6 0", "_ADD 5 → 6 8 → 10 0"]
    assert not any("on aarch64, LLVM" in line for line in lines)
    assert any("whether tests pass with each LLVM" in line for line in lines)


def test_each_is_told_which_one_it_is(machine: Machine) -> None:
    assert machine.run("19", "22") is ExitCode.PASS
    assert machine.opened[0].variants == ("jit",)
    options = [[word for word in argv if word.startswith("--llvm")] for argv in machine.ran]
    tools = "--llvm-tools-install-dir=/crossjit/llvm"
    assert options == [[f"--llvm-version={llvm}", tools] for llvm in ("19", "19", "22", "22")] * 2
    assert {*machine.read_by} == {'import os\n_LLVM_VERSION = "21"\nx = 1\n'}
    assert {*machine.pyconfigs} == {b"#define CONFIGURED 1\n"}
    assert [len([each for each in machine.environments if "--host" in str(each)]), len(machine.environments)] == [0, 3]


def test_a_source_without_the_option_gets_a_changed_version(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.options = ""
    assert machine.run("21", "22", arches=(X86,)) is ExitCode.PASS
    texts = [f'import os\n_LLVM_VERSION = "{llvm}"\nx = 1\n' for llvm in ("21", "22")]
    assert machine.read_by == [text for text in texts for _ in range(2)]
    (remark,) = (line for line in shown(capsys) if "was changed" in line)
    assert remark.startswith("this source has no option for LLVM 22: ")


def test_the_second_time_nothing_is_cached(machine: Machine) -> None:
    machine.ctx = replace(machine.ctx, cached=True)
    machine.run("21", arches=(X86,))
    made = [each for each in machine.engine.started if "stencils" in each.name]
    assert [bool(each.volumes) for each in made] == [True, False]
    assert made[1].env["CROSSJIT_CACHE"] == layout.CACHE


def test_other_bytes_the_second_time_are_a_failure(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.again = True
    assert machine.run("21", "22", arches=(X86,)) is ExitCode.PRODUCT
    lines = shown(capsys)
    assert lines[0] == ("LLVM 21 and 22 make the stencils of 3.15.0; LLVM 21 and 22 make other bytes the second time.")
    assert any(line.startswith("x86_64 21") and "other bytes" in line for line in lines)


def test_an_llvm_that_fails_is_named(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.failing = {("22", ARM)}
    assert machine.run("21", "22") is ExitCode.PRODUCT
    lines = shown(capsys)
    assert lines[0].startswith("LLVM 21 makes the stencils of 3.15.0, the same bytes twice; LLVM 22 fails on aarch64")
    reason = "RuntimeError: Can't find clang-22!"
    assert f"3.15/aarch64/jit with LLVM 22: LLVM 22 does not make the stencils: {reason}" in lines
    assert reason in lines, "its log is shown"
    assert any(line.startswith("aarch64 22 22.1.8 forky - - - - - fails") for line in lines)


def test_an_llvm_that_cannot_be_had_is_not_the_sources_fault(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.missing["22"] = EngineError("the image cannot be built: no package clang-22")
    assert machine.run("21", "22", arches=(X86,)) is ExitCode.INFRASTRUCTURE
    lines = shown(capsys)
    assert lines[0].startswith(
        "LLVM 21 makes the stencils of 3.15.0, the same bytes twice; LLVM 22 could not be tried on x86_64"
    )
    assert any(line.startswith("x86_64 22 - - - - - - - not tried") for line in lines)


def test_a_source_that_does_not_configure(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.engine.programs["configure"] = lambda process: 1
    assert machine.run("21", "22", arches=(X86,)) is ExitCode.PRODUCT
    assert shown(capsys)[0] == "LLVM 21 fails on x86_64; LLVM 22 fails on x86_64."


def test_another_libc_is_told(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.run("19", "21", arches=(X86,))
    assert any(
        "LLVM 19 is in the image trixie with the headers of libc 2.41, not 2.42" in line for line in shown(capsys)
    )


def test_json_and_reports(machine: Machine, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    machine.written[("22", X86)] = LONGER
    machine.run("21", "22", json=True, html=str(tmp_path / "page.html"), markdown=str(tmp_path / "page.md"))
    document = json.loads(capsys.readouterr().out)
    read_again = TypeAdapter(as_report.Document).validate_python(document)
    assert as_report.document(read_again.compilers, run=read_again.run, reproduce=read_again.reproduce) == document
    first = document["compilers"]["cells"][0]
    assert first["made"][0] | {"seconds": 0, "digest": ""} == {
        "llvm": "21",
        "version": "21.1.8",
        "image": "forky",
        "libc": "2.42",
        "edited": False,
        "seconds": 0,
        "size": {"stencils": 4, "bytes": 16, "instructions": 8, "relocations": 1, "data": 0},
        "digest": "",
        "differing": [],
        "suite": None,
        "problem": None,
    }
    assert first["pairs"][0]["same"] == ["_ADD_r13", "_DEALLOC_r10", "_FATAL_ERROR_r00"]
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert runs.looked_json(recorded) == {"compilers": document}
    assert answers.recorded(recorded.folder, "html") == (tmp_path / "page.html").read_bytes()
    assert len((tmp_path / "page.md").read_text().splitlines()) < 60


@pytest.mark.parametrize(
    ("llvms", "fields", "message"),
    [
        (("21", "x"), {}, "invalid --llvm 'x': expected LLVM's major versions"),
        (("21.1",), {}, r"invalid --llvm '21\.1'"),
        (("99",), {}, "no image has LLVM 99"),
        (("21",), {"base": "main"}, "--llvm cannot be combined with --base"),
        (("21",), {"disassembly": ["all"]}, "--llvm cannot be combined with --disassembly"),
        (("21",), {"variants": ("jit", "ft-jit")}, "effect takes one variant and one recipe"),
        (("21",), {"variants": ("interp",)}, "has no stencils: the variant interp has no JIT"),
    ],
)
def test_what_cannot_be_compared_is_told(
    machine: Machine, llvms: tuple[str, ...], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        machine.run(*llvms, **fields)
    assert caught.value.hint
    assert machine.ran == []


def test_a_source_without_a_jit_is_told(machine: Machine) -> None:
    machine.source = replace(machine.source, llvm=None)
    with pytest.raises(UserError, match=r"3\.15\.0 has no JIT"):
        machine.run("21")


def test_a_source_that_wants_an_llvm_that_no_image_has(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.source = replace(machine.source, llvm="99")
    assert machine.run("21", "22", arches=(X86,)) is ExitCode.PASS
    assert "source: the recipe 3.15 (3.15.0), which wants LLVM 99" in shown(capsys)


class TestSuites:
    """With `--suite`, a build gets the stencils of each LLVM."""

    @pytest.fixture
    def suites(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
        ran: list[tuple[str, str]] = []

        def run_cell(ctx: Any, prepared: Any, *, folder: Path, validate: bool) -> CellResult:
            assert validate
            assert folder.is_dir()
            ran.append((str(prepared.cell), prepared.spec.llvm))
            bad = prepared.spec.llvm == "22"
            tests = (
                TestResult("jit", "a", Outcome.PASSED),
                TestResult("jit", "b", Outcome.FAILED if bad else Outcome.PASSED),
            )
            verdict, reasons = (Verdict.FAIL, ("1 test failed: b",)) if bad else (Verdict.PASS, ())
            return CellResult(prepared.cell, verdict, reasons, suites=(SuiteResult("jit", tests, 1.0),))

        monkeypatch.setattr("crossjit.effect.llvms.run_cell", run_cell)
        return ran

    def test_run_with_the_stencils_of_each(
        self, machine: Machine, suites: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        selection = read(suite=["jit"]).selection
        assert machine.run("21", "22", arches=(X86,), selection=selection) is ExitCode.PRODUCT
        assert suites == [("3.15/x86_64/jit", "21"), ("3.15/x86_64/jit-llvm22", "22")]
        (copied,) = machine.copied
        assert copied.startswith("cp /crossjit/tools/shipped/* . && touch .jit-stamp")
        (artifact,) = machine.ctx.store.artifacts()
        assert artifact.manifest.cell == Cell("3.15", X86, "jit-llvm22")
        assert artifact.manifest.images["toolchain"]["reference"] == "forky-toolchain-x86_64-"
        lines = shown(capsys)
        assert lines[0].endswith("the suites do not pass with LLVM 22.")
        assert "3.15/x86_64/jit with LLVM 21: pass: 2 tests ran, 0 failed" in lines
        assert "3.15/x86_64/jit with LLVM 22: fail: 2 tests ran, 1 failed; 1 test failed: b" in lines
        assert not any("whether tests pass" in line for line in lines)

    def test_take_the_build_from_the_stash(
        self, machine: Machine, suites: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        selection = read(suite=["jit"]).selection
        machine.run("22", arches=(X86,), selection=selection)
        monkeypatch.setattr(CellBuild, "run", lambda build: pytest.fail("it is in the stash"))
        machine.run("22", arches=(X86,), selection=selection)
        machine.written[("22", X86)] = LONGER
        with pytest.raises(pytest.fail.Exception):
            machine.run("22", arches=(X86,), selection=selection)

    def test_of_a_build_that_fails(
        self, machine: Machine, suites: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
    ) -> None:
        machine.broken = True
        assert machine.run("22", arches=(X86,), selection=read(suite=["jit"]).selection) is ExitCode.PRODUCT
        assert suites == []
        assert any("3.15/x86_64/jit with LLVM 22: fail: 0 tests ran" in line for line in shown(capsys))
        assert [*machine.ctx.store.artifacts()] == []
