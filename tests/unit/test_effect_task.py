"""`effect`, over a fake engine: both builds on both archs, the record, reports, and what cannot be compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from crossjit.build import layout
from crossjit.config.test_selection import TestSelection
from crossjit.effect import base as bases
from crossjit.effect import execution
from crossjit.effect.base import Base
from crossjit.effect.work import ProgramWork
from crossjit.errors import CrossjitError, ExitCode, InfrastructureError, UserError
from crossjit.images import Role
from crossjit.measure import programs
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.cell import Built
from crossjit.model import Arch, Outcome, SuiteResult, TestResult
from crossjit.model.results import ModuleRun
from crossjit.pipeline import build_cell, context, prepare, validate_cell
from crossjit.progress import Progress
from crossjit.report import answers
from crossjit.report import effect as as_report
from crossjit.runs import history
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.sources import Kind
from crossjit.tasks import effect, options, report, runs
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession
from tests.example_effects import CALL, INCREMENT, PLAIN, RETURN, Written, header
from tests.fakes.engine import FakeProcess, Fault
from tests.unit.build_fakes import image
from tests.unit.test_bisect_history import Repository
from tests.unit.test_build_python import ARM, PYTHON, X86, FakeContext, cell_request
from tests.unit.test_effect_uops import elf
from tests.unit.test_effect_work import program

SYMBOLS = ("_Py_Dealloc",)
PROGRAM = elf((1, 2, 1040), (1, 3, 50))  # whose bytes are text, as this fake's build Python is read as it
LARGER = elf((1, 2, 1056), (1, 3, 50))
CHANGED = {**PLAIN, "_ADD_r03": Written((INCREMENT, RETURN))}


REQUESTED = ("arches", "variants", "recipes", "selection")


class Machine(FakeContext):
    """A build context over a repository of two commits; the stencils of each are in `headers`, by arch."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.repository = Repository(folder / "cpython")
        (self.repository.path / "Include").mkdir()
        patchlevel = "#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 15\n"
        (self.repository.path / "Include/patchlevel.h").write_text(patchlevel)
        self.base = self.repository.commit("base")
        self.change = self.repository.commit("change", file="changed")
        self.headers: dict[tuple[str, Arch], Mapping[str, Written]] = {
            (commit, arch): PLAIN for commit in (self.base, self.change) for arch in (X86, ARM)
        }
        self.programs: dict[str, bytes] = {}
        self.failing: dict[tuple[str, Arch], str] = {}
        self.faults: dict[tuple[str, Arch], Fault] = {}
        self.building: tuple[str, Arch] = ("", X86)
        self.built: list[tuple[str, Arch]] = []
        self.opened: list[Request] = []
        self.changes: str | None = None  # a digest of what is not committed
        self.work: dict[Arch, tuple[ProgramWork, ...] | CrossjitError] = {}
        self.prepared_as = ""  # a commit whose files all sources have
        self.executed: list[tuple[list[str], frozenset[str]]] = []
        own_build = build_cell.build_cell

        def build(ctx: context.BuildContext, prepared: context.PreparedBuild, *, log: Path) -> context.BuiltCell:
            self.building = (str(prepared.source.commit), prepared.cell.arch)
            if fault := self.faults.get(self.building):
                self.engine.faults["make"] = fault
            return own_build(ctx, prepared, log=log)

        monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
        monkeypatch.setattr(build_cell, "build_cell", build)
        monkeypatch.setattr(prepare, "prepare", lambda ctx, requests: tuple(map(self.prepared, requests)))
        monkeypatch.setattr(effect, "opened", self.open)
        monkeypatch.setattr(execution, "compare", self.execute)

    def execute(
        self,
        ctx: context.BuildContext,
        before: Built,
        after: Built,
        benchmarks: Sequence[Benchmark],
        contents: Mapping[str, bytes],
        changed: frozenset[str],
    ) -> tuple[ProgramWork, ...]:
        self.executed.append(([benchmark.name for benchmark in benchmarks], changed))
        found = self.work.get(after[0].cell.arch, ())
        if isinstance(found, CrossjitError):
            raise found
        return found

    def make(self, process: FakeProcess) -> int:
        if self.building in self.failing and "install" not in process.argv:
            process.write_line(self.failing[self.building])
            return 2
        return super().make(process)

    def install(self, process: FakeProcess) -> int:
        commit, arch = self.building
        self.built.append(self.building)
        process.write_file(f"{layout.INSTALL}/{PYTHON}", self.programs.get(commit, PROGRAM))
        written = self.headers.get(self.building)
        if written is not None:
            text = header(written, SYMBOLS).encode()
            process.write_file(f"{layout.GENERATED}/jit_stencils-{arch}-unknown-linux-gnu.h", text)
        process.write_file(f"{layout.GENERATED}/jit_stencils.h", b"#include")
        return 0

    def prepared(self, request: context.CellRequest) -> context.PreparedCell:
        place, _, ref = str(request.source).partition("#")
        commit = self.repository.git("rev-parse", ref or "HEAD")
        changes = None if ref else self.changes
        digest = hashlib.sha256(f"{self.prepared_as or commit}{changes}".encode()).hexdigest()
        kind = Kind.GIT if ref else Kind.CHECKOUT
        source = replace(self.source, kind=kind, digest=digest, commit=commit, diff_digest=changes, origin=place)
        return prepare.make_prepared(request, source, self.spec, image(Role.TOOLCHAIN, X86), X86)

    @contextlib.contextmanager
    def open(self, request: Request, *, looks: bool) -> Iterator[RunSession]:
        self.opened.append(request)
        requests = tuple(
            replace(cell_request(request.variants[0], arch, source=request.source), selection=request.selection)
            for arch in request.arches
        )
        cells = tuple(each.cell for each in requests)
        with RunRecord.start(self.ctx.settings, ("./inv", "effect"), {}, cells=cells, looks=looks) as record:
            yield RunSession({"docker": replace(self.ctx, run=record.id)}, record, requests)

    def run(self, source: str = "#main", **fields: Any) -> ExitCode:
        known = {key: fields.pop(key) for key in [*fields] if key in REQUESTED}
        body: Callable[..., ExitCode] = effect.effect.body.__wrapped__  # type: ignore[attr-defined]
        return body(None, Request(source=f"{self.repository.path}{source}", **known), **fields)

    def recorded(self) -> Run:
        (found,) = history.list_runs(self.ctx.settings)
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_a_change_on_one_arch(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, ARM] = CHANGED
    machine.programs = {machine.change: LARGER}
    assert machine.run() is ExitCode.PASS
    assert machine.opened[0].arches == (X86, ARM)
    assert (machine.opened[0].recipes, machine.opened[0].variants) == (("3.15",), ("jit",))
    assert [each for each in machine.built if each[0] == machine.base] == [(machine.base, X86), (machine.base, ARM)]
    lines = shown(capsys)
    assert lines[:4] == [
        "Machine code changed: no uop on x86_64 and 1 uop (1 instruction fewer) on aarch64.",
        "",
        f"change: {machine.change[:12]} (3.15.0)",
        f"base: {machine.base[:12]} (3.15.0, the commit before it)",
    ]
    assert "_ADD changed = = = 5 → 4 8 → 6 0" in lines
    assert "3.15/x86_64/jit 4 8 16 1 0" in lines
    assert "3.15/aarch64/jit 4 8 → 7 16 → 14 1 0" in lines
    assert "3.15/aarch64/jit python3.15 1,040 → 1,056 50 0" in lines
    assert machine.engine.containers == {}
    recorded = machine.recorded()
    assert (recorded.exit_code, recorded.looks) == (0, True)
    assert sorted(path.name for path in recorded.cell_folder(recorded.cells[0]).iterdir()) == [
        "build-base.log",
        "build.log",
    ]


def test_no_effect_is_a_result(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert machine.run() is ExitCode.PASS
    lines = shown(capsys)
    assert lines[0] == "No machine code changed on either arch."
    assert not any(line.startswith("uop ") for line in lines)
    assert machine.run(arches=(X86,)) is ExitCode.PASS
    assert shown(capsys)[0] == "No machine code changed on x86_64."


def all_programs(*found: ProgramWork) -> tuple[ProgramWork, ...]:
    """Return as many programs as there are small ones, with these as the first, and after them one benchmark."""
    names = programs.benchmark().results
    same = (program(name, warm=1000, jit=500) for name in names[len(found) :])
    return (*found, *same, program("nbody", warm=4000, jit=2000, jit_after=1000))


def test_what_is_executed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, X86] = CHANGED
    machine.programs = {machine.change: LARGER}
    machine.work = {arch: all_programs(program("a.b", warm=1000, jit=500, jit_after=400)) for arch in (X86, ARM)}
    assert machine.run(only=["nbody"]) is ExitCode.PASS
    assert machine.executed == [(["programs", "nbody"], frozenset({"_ADD"})), (["programs", "nbody"], frozenset())]
    lines = shown(capsys)
    assert "small programs on x86_64: -0.18 % instructions of JIT code" in lines[0]
    assert "benchmarks on aarch64: -50.00 % instructions of JIT code" in lines[0]
    assert "a.b -20.00 %; all -10.00 % -20.00 %; all -10.00 %" in lines
    assert "3.15/x86_64/jit: what becomes of _ADD, which no program executed" in lines


def test_builds_that_are_the_same_execute_the_same(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.prepared_as = machine.base
    machine.run()
    assert machine.executed == []
    told = "3.15/x86_64/jit: what programs execute: both builds are the same artifact"
    assert told in shown(capsys)


def test_what_was_compared_is_shown_when_the_meter_fails(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, X86] = CHANGED
    machine.work = {X86: InfrastructureError("the meter counts wrongly", hint="report it")}
    assert machine.run() is ExitCode.INFRASTRUCTURE
    lines = shown(capsys)
    assert "_ADD changed 5 → 4 8 → 6 0 = = =" in lines
    assert "3.15/x86_64/jit: the programs: the meter counts wrongly" in lines
    assert "hint: report it" in lines


def suite_result(*outcomes: Outcome, problems: tuple[str, ...] = ()) -> SuiteResult:
    """Return the result of a suite with so many tests in two modules."""
    names = ("test.test_one.T.test_a", "test.test_two.T.test_b")
    results = tuple(TestResult("jit", name, outcome) for name, outcome in zip(names, outcomes, strict=True))
    modules = tuple(ModuleRun(name, "", 1.0, "exit status 0", "log") for name in ("test_one", "test_two"))
    return SuiteResult("jit", results, 2.0, problems=problems, modules=modules)


SELECTION = TestSelection(suites=("jit",))
PASSED, FAILED = Outcome.PASSED, Outcome.FAILED


@pytest.mark.parametrize(
    ("change", "base", "code", "line"),
    [
        ((PASSED, PASSED), None, ExitCode.PASS, "3.15/x86_64/jit: jit: 2 tests ran"),
        ((FAILED, PASSED), (PASSED, PASSED), ExitCode.PRODUCT, "newly failing: test.test_one.T.test_a:"),
        ((PASSED, FAILED), (PASSED, FAILED), ExitCode.PASS, "2 tests ran, 1 fail in the base as well"),
    ],
)
def test_tests_that_newly_fail(
    machine: Machine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: tuple[Outcome, ...],
    base: tuple[Outcome, ...] | None,
    code: ExitCode,
    line: str,
) -> None:
    asked: list[tuple[str | None, TestSelection]] = []

    def validate(
        ctx: context.BuildContext, prepared: context.PreparedCell, built: context.BuiltCell, *, folder: Path
    ) -> tuple[SuiteResult, ...]:
        commit = prepared.source.commit if prepared.source else None
        asked.append((commit, prepared.request.selection))
        outcomes = change if commit == machine.change else base
        assert outcomes is not None
        return (suite_result(*outcomes),)

    monkeypatch.setattr(validate_cell, "validate_cell", validate)
    assert machine.run(arches=(X86,), selection=SELECTION) is code
    lines = shown(capsys)
    assert any(line in each for each in lines), lines
    module = "test_one" if change[0] is FAILED else "test_two"
    again = [] if base is None else [(machine.base, TestSelection(suites=("jit",), tests=(module,)))]
    assert asked == [(machine.change, SELECTION), *again]
    assert ("1 test newly failing on x86_64" in lines[0]) is (code is ExitCode.PRODUCT)
    assert ("no test newly fails on x86_64" in lines[0]) is (code is not ExitCode.PRODUCT)


def test_a_suite_with_a_problem_proves_too_little(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (suite_result(PASSED, PASSED, problems=("the driver died",)),)
    monkeypatch.setattr(validate_cell, "validate_cell", lambda *arguments, **options: found)
    assert machine.run(arches=(X86,), selection=SELECTION) is ExitCode.VACUOUS
    assert "problem: the driver died" in shown(capsys)


def test_what_changed_is_taken_from_the_stash_the_next_time(machine: Machine) -> None:
    machine.run()
    built = len(machine.built)
    assert built == 4
    machine.run()
    assert len(machine.built) == built


def test_instructions_side_by_side(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, X86] = {**CHANGED, "_DEALLOC_r10": Written((CALL, RETURN))}
    assert machine.run(disassembly=["_ADD,_DEALOC", "_NOTHING"]) is ExitCode.PASS
    lines = shown(capsys)
    start = lines.index("3.15/x86_64/jit: _ADD_r03, before and after")
    assert lines[start + 1 : start + 4] == ["- 0: incl %eax", "2: incl %eax 0: incl %eax", "4: retq 2: retq"]
    assert "_DEALOC: no machine code of it changed; did you mean '_DEALLOC'?" in lines
    assert "_NOTHING: no machine code of it changed" in lines
    machine.run(disassembly=["all"])
    lines = shown(capsys)
    start = lines.index("3.15/x86_64/jit: _DEALLOC_r10, before and after")
    assert lines[start + 1] == "~ 0: callq *(%rip) # 0x8 [_Py_Dealloc] 0: callq *(%rip) # 0x8"


def test_json_has_the_form_of_its_schema(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, X86] = CHANGED
    assert machine.run(json=True) is ExitCode.PASS
    document = json.loads(capsys.readouterr().out)
    read = TypeAdapter(as_report.Document).validate_python(document)
    assert as_report.document(read.effect, run=read.run, reproduce=read.reproduce) == document
    first, second = document["effect"]["cells"]
    (uop,) = first["stencils"]["uops"]
    assert (uop["name"], uop["kind"], uop["before"]["bytes"], uop["after"]["bytes"]) == ("_ADD", "changed", 8, 6)
    assert uop["variants"][0]["before"]["listing"][0] == {"offset": 0, "text": "incl %eax", "relocations": []}
    assert (second["stencils"]["uops"], second["problems"]) == ([], [])
    assert document["effect"]["base"]["commit"] == machine.base
    recorded = machine.recorded()
    assert json.loads((recorded.folder / "effect.json").read_text()) == document
    assert runs.looked_json(recorded) == {"effect": document}


def test_reports_are_written_on_request_and_recorded(
    machine: Machine, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    page, summary = tmp_path / "page.html", tmp_path / "summary.md"
    machine.headers[machine.change, X86] = CHANGED
    machine.run(html=str(page), markdown=str(summary))
    headline = "Machine code changed: 1 uop (1 instruction fewer) on x86_64 and no uop on aarch64"
    assert f"<h1>{headline}</h1>" in page.read_text()
    assert summary.read_text().startswith("## crossjit: Machine code changed: 1 uop")
    seen = capsysbinary.readouterr()
    assert seen.out.decode().startswith(headline)
    assert seen.err.decode().splitlines()[-2:] == [f"wrote {page}", f"wrote {summary}"]
    recorded = machine.recorded()
    assert headline in runs.described(recorded, steps=False)
    for form in ("html", "markdown"):
        assert report._render(form, recorded, ()) == answers.recorded(recorded.folder, form)
    machine.run(html="-")
    assert capsysbinary.readouterr().out.startswith(b"<!DOCTYPE html>"), "a page on stdout has no text before it"


def test_a_change_that_does_not_build_on_one_arch(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.headers[machine.change, X86] = CHANGED
    machine.failing[machine.change, ARM] = "Python/ceval.c:7:1: error: unknown type name 'oops'"
    assert machine.run() is ExitCode.PRODUCT
    lines = shown(capsys)
    assert lines[0] == (
        "The change does not build on aarch64; machine code changed: 1 uop (1 instruction fewer) on x86_64."
    )
    assert any(line.startswith("3.15/aarch64/jit: the change: make failed") for line in lines)
    assert "Python/ceval.c:7:1: error: unknown type name 'oops'" in lines
    assert "_ADD changed 5 → 4 8 → 6 0" in lines
    assert machine.engine.containers == {}
    assert machine.recorded().exit_code == 1


def test_a_base_that_does_not_build_proves_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.failing[machine.base, ARM] = "error: no"
    assert machine.run() is ExitCode.VACUOUS
    assert shown(capsys)[0] == "The base does not build on aarch64; no machine code changed on x86_64."


def test_a_change_did_not_break_what_was_broken_before(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.failing = {(commit, arch): "error: no" for commit in (machine.base, machine.change) for arch in (X86, ARM)}
    assert machine.run() is ExitCode.VACUOUS
    expected = "The change does not build on x86_64 and aarch64; the base does not build on x86_64 and aarch64."
    assert shown(capsys)[0] == expected


def test_an_engine_that_dies_ends_with_3(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.faults[machine.change, ARM] = Fault.ENGINE_DIES
    assert machine.run() is ExitCode.INFRASTRUCTURE
    lines = shown(capsys)
    assert lines[0] == "No machine code changed on x86_64."
    assert any(line.startswith("3.15/aarch64/jit: the change: ") for line in lines)
    assert any(line.startswith("hint: ") for line in lines)


@pytest.mark.parametrize("written", [None, {}])
def test_a_build_without_stencils(
    machine: Machine, capsys: pytest.CaptureFixture[str], written: Mapping[str, Written] | None
) -> None:
    if written is None:
        del machine.headers[machine.change, X86]
    else:
        machine.headers[machine.change, X86] = written
    assert machine.run(arches=(X86,)) is ExitCode.INFRASTRUCTURE
    lines = shown(capsys)
    assert lines[0] == "Nothing could be compared."
    problem = "3.15/x86_64/jit: the change: the stencils of this build have an unknown form: its headers have none"
    assert problem in lines


def test_a_checkout_has_changes_that_are_not_committed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.changes = "c" * 64
    machine.headers[machine.change, X86] = CHANGED
    machine.run("")
    lines = shown(capsys)
    assert lines[2] == f"change: {machine.change[:12]} (3.15.0, with uncommitted changes)"
    assert lines[3] == f"base: {machine.change[:12]} (3.15.0, the commit that is checked out)"


def test_the_base_in_a_remote_repository_is_fetched_first(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def fetched(source: str, settings: Settings, progress: Progress) -> Base:
        asked.extend([source, settings, progress])
        return Base(f"{machine.repository.path}#{machine.base}", "the merge base")

    monkeypatch.setattr(bases, "find", lambda source, wanted: None)
    monkeypatch.setattr(bases, "fetched", fetched)
    assert machine.run() is ExitCode.PASS
    assert asked == [f"{machine.repository.path}#main", machine.ctx.settings, machine.progress]
    assert {commit for commit, _ in machine.built} == {machine.base, machine.change}


@pytest.mark.parametrize(("source", "base"), [("", ""), ("#main", "main"), ("#main~1", "HEAD~1")])
def test_a_source_that_is_its_own_base(machine: Machine, source: str, base: str) -> None:
    with pytest.raises(UserError, match="and its base are the same source: there is no change to compare") as refused:
        machine.run(source, base=base)
    assert "--base HEAD^" in refused.value.hint
    assert machine.built == []
    assert machine.recorded().exit_code == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"variants": ("jit", "ft-jit")}, "effect takes one variant and one recipe"),
        ({"variants": ("all",)}, "effect takes one variant and one recipe"),
        ({"recipes": ("3.15", "main")}, "effect takes one variant and one recipe"),
        ({"html": "-", "json": True}, "only one report at a time can go to stdout"),
        ({"source": "#main~1"}, "the base of {base} is not known: no commit is before it in {path}"),
        ({"base": "nowhere"}, "{path} has no ref nowhere"),
    ],
)
def test_refusals(machine: Machine, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(CrossjitError) as refused:
        machine.run(**fields)
    names = {"base": machine.base[:12], "path": str(machine.repository.path)}
    assert refused.value.message == message.format(**names)
    assert refused.value.hint
    assert refused.value.exit_code == 2
    assert machine.opened == []


def test_a_source_is_needed(machine: Machine) -> None:
    body = effect.effect.body.__wrapped__  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="effect needs --source"):
        body(None, Request())


@pytest.mark.parametrize("variant", ["nojit", "interp"])
def test_a_variant_without_stencils(machine: Machine, variant: str) -> None:
    with pytest.raises(UserError, match=f"3.15/x86_64/{variant} has no stencils") as refused:
        machine.run(variants=(variant,))
    assert refused.value.hint
    assert machine.built == []


def test_a_source_without_a_jit(machine: Machine) -> None:
    patchlevel = machine.repository.path / "Include/patchlevel.h"
    patchlevel.write_text("#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 12\n")
    machine.repository.commit("older")
    with pytest.raises(UserError, match=r"#main has no JIT: it is CPython 3\.12") as refused:
        machine.run()
    assert refused.value.hint
    assert machine.opened == []


def test_an_interruption_ends_the_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(process: FakeProcess) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "install", interrupt)
    with pytest.raises(KeyboardInterrupt):
        machine.run()
    assert machine.recorded().exit_code == ExitCode.INTERRUPTED


def test_the_base_is_written_in_full_where_it_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main").mkdir()
    (tmp_path / "old.tar").write_bytes(b"")
    argv = ["effect", "--base", "main", "--base=old.tar", "--base", "./main#v1"]
    assert options.in_full(argv) == [
        *("effect", "--base", "main", f"--base={tmp_path}/old.tar", "--base", f"{tmp_path}/main#v1")
    ]
