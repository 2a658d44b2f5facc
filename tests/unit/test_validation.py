from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from crossjit.channels import ModuleExit
from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment, in_range
from crossjit.config.test_selection import ALL_TESTS, TestSelection, parse_shard
from crossjit.errors import DocumentError, EngineError, InfrastructureError, OutOfMemoryError, UserError
from crossjit.images import Image, Package, Role
from crossjit.known_failures import entries
from crossjit.known_failures.entries import FailureKind, KnownFailure
from crossjit.model import (
    Arch,
    Cell,
    CellResult,
    Expectation,
    ModuleRun,
    Outcome,
    SuiteResult,
    TestResult,
    Variant,
    Verdict,
)
from crossjit.progress import Silent, SilentStep
from crossjit.report import tables
from crossjit.tasks import options
from crossjit.validation import durations, job_list, run_suite
from crossjit.validation import probe as probe_module
from crossjit.validation.results import deselected, mark_known, of_module
from crossjit.validation.resume import SuiteLog
from crossjit.validation.target import Target
from crossjit.validation.verdict import judge
from tests.fakes.engine import FakeEngine, FakeProcess, Fault, Program

JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
INTERP = replace(JIT, name="interp", expects=Expectation.UOPS)
NOJIT = replace(JIT, name="nojit", expects=Expectation.NONE)
FT = replace(NOJIT, name="ft", free_threaded=True)
FT_JIT = replace(FT, name="ft-jit", expects=Expectation.MACHINE_CODE)
CELL = Cell("3.15", Arch.AARCH64, "jit")
EMULATED = TargetEnvironment((3, 15), Arch.AARCH64, JIT, emulated=True, cpu="cortex-a72")
NATIVE = TargetEnvironment((3, 15), Arch.X86_64, JIT)


def facts(*executors: str, **changed: object) -> dict[str, object]:
    """Make what a probe says, with executors of these kinds."""
    found = [
        {"function": "count", "offset": 8, "kind": kind, "bytes": 4096 if kind == "machine code" else None}
        for kind in executors
    ]
    return {
        "executable": {"machine": "EM_AARCH64"},
        "gil": {"disabled_in_build": False, "enabled": True},
        "debug": False,
        "jit": {"available": True, "enabled": True},
        "environment": {},
        "configure": "'--enable-experimental-jit'",
        "workloads": [{"name": "loop", "correct": True, "executors": found, "unavailable": None}],
        "executable_memory": {"regions": 1, "bytes": 8192, "machine_code_in_it": executors.count("machine code")},
        "modules": {"imported": ["math"], "failed": {}, "absent": {}},
        "errors": {},
        **changed,
    }


NO_GIL = {"gil": {"disabled_in_build": True, "enabled": False}}


def suite_of(*results: TestResult, **fields: Any) -> SuiteResult:
    return SuiteResult("jit", results, 1.0, **fields)


PASSED = TestResult("jit", "test.test_a.C.test_x", Outcome.PASSED)
SKIPPED = TestResult("jit", "test.test_a.C.test_y", Outcome.SKIPPED)
FAILED = TestResult("jit", "test.test_a.C.test_z", Outcome.FAILED, message="AssertionError")
CRASHED = TestResult("jit", "test.test_b.C.test_z", Outcome.CRASHED)


# -- the verdict


def test_machine_code_and_tests_that_ran_pass() -> None:
    verdict, reasons = judge(CELL, JIT, facts("machine code"), [suite_of(PASSED, SKIPPED)])
    assert verdict is Verdict.PASS
    assert reasons == ("the probe found 1 executor with 4,096 bytes of machine code", "jit: 1 tests run, 1 skipped")


@pytest.mark.parametrize(
    ("variant", "seen", "words"),
    [
        (JIT, facts("uops"), "no machine code: the hot loops ran as uops (1 executor)"),
        (JIT, facts(), "no machine code: its hot loops made no executor"),
        (
            JIT,
            facts(jit={"available": True, "enabled": False}, configure="'--enable-experimental-jit=yes-off'"),
            "the JIT is built in, but off, configured with --enable-experimental-jit=yes-off",
        ),
        (JIT, facts(jit={"available": False, "enabled": False}), "the build has no JIT"),
        (JIT, facts(environment={"PYTHON_JIT": "0"}), "PYTHON_JIT=0 is in the environment"),
        (FT_JIT, facts(**NO_GIL), "the free-threaded build never runs JIT code"),
        (INTERP, facts("machine code"), "no executors of the tier-2 interpreter: the hot loops ran as machine code"),
        (
            JIT,
            facts("machine code", executable_memory={"regions": 0, "bytes": 0, "machine_code_in_it": 0}),
            "machine code is nowhere in the process's executable memory",
        ),
        (
            JIT,
            facts(workloads=None, errors={"workloads": "Traceback …\nAttributeError: get_executor\n"}),
            "its workloads did not run (AttributeError: get_executor)",
        ),
    ],
)
def test_no_proof_is_vacuous_whatever_the_tests_say(variant: Variant, seen: dict[str, object], words: str) -> None:
    for results in (suite_of(PASSED), suite_of(PASSED, FAILED)):
        verdict, reasons = judge(CELL, variant, seen, [results])
        assert verdict is Verdict.VACUOUS
        assert words in reasons[0]
    assert "test.test_a.C.test_z" in reasons[1]


@pytest.mark.parametrize(
    ("variant", "seen", "words"),
    [
        (
            JIT,
            {"crashed": "killed by SIGSEGV", "output": ["Fatal"]},
            "did not finish: killed by SIGSEGV; Fatal",
        ),
        (JIT, {}, "no facts"),
        (JIT, facts("machine code", executable={"machine": "EM_X86_64"}), "for EM_X86_64, not EM_AARCH64"),
        (JIT, facts("machine code", **NO_GIL), "the build is free-threaded, and the variant is not"),
        (FT, facts(), "the GIL is part of the build"),
        (FT, facts(gil={"disabled_in_build": True, "enabled": True}), "the GIL can be off, but is on"),
        (JIT, facts("machine code", debug=True), "the build is a debug build, unlike the variant"),
        (
            JIT,
            facts("machine code", modules={"failed": {"_ssl": "ImportError: no"}}),
            "_ssl was built and does not import",
        ),
        (
            JIT,
            facts(workloads=[{"name": "loop", "correct": False, "executors": [], "unavailable": None}]),
            "computed a wrong result",
        ),
        (
            JIT,
            facts("machine code", gil=None, errors={"gil": "OSError: gone"}),
            "it is unknown whether there is a GIL (OSError: gone)",
        ),
    ],
)
def test_a_build_that_is_not_the_cells_fails(variant: Variant, seen: dict[str, object], words: str) -> None:
    verdict, reasons = judge(CELL, variant, seen, [suite_of(PASSED)])
    assert verdict is Verdict.FAIL
    assert any(words in reason for reason in reasons), reasons


def test_failures_are_named_in_full_and_known_ones_are_not_failures() -> None:
    verdict, reasons = judge(CELL, JIT, facts("machine code"), [suite_of(PASSED, FAILED, CRASHED)])
    assert verdict is Verdict.FAIL
    assert reasons == ("jit: 2 tests failed: test.test_a.C.test_z, test.test_b.C.test_z (crashed)",)
    many = [replace(FAILED, name=f"test.t.C.test_{number}") for number in range(9)]
    assert judge(CELL, JIT, facts("machine code"), [suite_of(*many)])[1][0].endswith("test.t.C.test_4 and 4 more")
    known = replace(FAILED, known="QEMU has no vfork, so errors get lost")
    verdict, reasons = judge(CELL, JIT, facts("machine code"), [suite_of(PASSED, known)])
    assert verdict is Verdict.PASS
    assert reasons[-1] == "jit: 2 tests run, 0 skipped, 1 failed as expected"


def test_a_suites_problem_fails_and_what_it_leaves_unproved_is_vacuous() -> None:
    seen = facts("machine code")
    assert judge(CELL, JIT, seen, [suite_of(PASSED, problems=("the runner ended early",))])[0] is Verdict.FAIL
    assert judge(CELL, JIT, seen, [suite_of(PASSED, unproved=("0 tests of test_opt ran",))])[0] is Verdict.VACUOUS
    assert judge(CELL, JIT, seen, [suite_of(SKIPPED)]) == (Verdict.VACUOUS, ("jit: no test ran",))
    assert judge(CELL, JIT, seen, [suite_of(FAILED, unproved=("0 tests of test_opt ran",))])[0] is Verdict.FAIL


def test_variants_without_the_jit_need_no_machine_code() -> None:
    assert judge(CELL, NOJIT, facts(), [suite_of(PASSED)])[0] is Verdict.PASS
    verdict, reasons = judge(CELL, FT, facts(**NO_GIL), [suite_of(PASSED)])
    assert (verdict, reasons[0]) == (Verdict.PASS, "the GIL is off")
    assert judge(CELL, INTERP, facts("uops"), [suite_of(PASSED)])[0] is Verdict.PASS


# -- suites and known failures: the data


def test_all_data_is_valid() -> None:
    for name in suites.names():
        loaded = suites.load(name)
        assert loaded.groups or loaded.scripts
        for script in loaded.scripts:
            assert (suites.VALIDATE / script.file).is_file()
        for where in (EMULATED, NATIVE):
            known = entries.holding(entries.load(), where)
            order = job_list.order(loaded, where, known, "/scripts", ALL_TESTS)
            assert order["items"]
    assert {"jit", "ft-smoke"} <= set(suites.names())


def test_emulation_gets_more_time_and_caveats() -> None:
    loaded = suites.load("jit")
    slow, fast = (job_list.order(loaded, where, (), "/s", ALL_TESTS) for where in (EMULATED, NATIVE))
    assert slow["limit"] == loaded.limit * loaded.emulated_factor
    assert fast["limit"] == loaded.limit
    said = " ".join(suites.caveats("ft-smoke", EMULATED))
    assert "memory ordering" in said
    assert "pointer authentication" in said
    assert not any("pointer" in text for text in suites.caveats("ft-smoke", replace(EMULATED, cpu="max")))
    assert not suites.caveats("jit", NATIVE)


def test_stress_needs_a_jit_and_a_python_that_knows_it() -> None:
    def stressed(where: TargetEnvironment) -> bool:
        items: Any = job_list.order(suites.load("jit"), where, (), "/s", ALL_TESTS)["items"]
        return any("PYTHON_JIT_STRESS" in item["env"] for item in items)

    assert stressed(EMULATED)
    assert not stressed(replace(EMULATED, python=(3, 14)))
    assert not stressed(replace(EMULATED, variant=NOJIT))


def test_the_optimizers_own_tests_run_without_stress_and_once() -> None:
    items: Any = job_list.order(suites.load("jit-stress"), NATIVE, (), "/s", ALL_TESTS)["items"]
    optimizer = "test_capi.test_opt"
    by_name = {item["name"]: item for item in items}
    assert by_name[optimizer]["env"] == {}
    package = by_name["test_capi.*"]
    assert package["env"] == {"PYTHON_JIT_STRESS": "1"}
    assert package["without"] == [optimizer]


def test_lists_of_modules_stand_where_they_are_named(tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    suite = tmp_path / "suites" / "s.toml"
    (tmp_path / "modules.toml").write_text(
        '[sets]\nlanguage = ["test_b", "test_c"]\n[weights]\ntest_b = 7\ntest_c = 8\n'
    )
    suite.write_text(
        'summary = "s"\ntimeout = 1\nlimit = 1\n[[groups]]\nmodules = ["test_b", "@language"]\n'
        '[[groups]]\nmodules = ["test_b"]\n[[groups]]\nlabel = "stress"\nmodules = ["test_b"]\n'
    )
    loaded = suites.load("s", tmp_path)
    assert loaded.groups[0].modules == ("test_b", "test_c")
    items: Any = job_list.order(loaded, NATIVE, (), "/s", ALL_TESTS)["items"]
    assert [(item["name"], item["label"]) for item in items] == [("test_b", ""), ("test_c", ""), ("test_b", "stress")]
    suite.write_text(
        'summary = "s"\ntimeout = 1\nlimit = 1\n[[groups]]\nmodules = ["@language", "test_p.*"]\n'
        'without = ["test_b", "test_p.test_x"]\n[[groups]]\nmodules = ["test_c"]\n'
        '[weights]\ntest_c = 9\n"test_p.test_y" = 5\n'
    )
    items = job_list.order(suites.load("s", tmp_path), NATIVE, (), "/s", ALL_TESTS)["items"]
    assert [(item["name"], item["without"], item["weights"]) for item in items] == [
        ("test_c", [], {"test_c": 9}),
        ("test_p.*", ["test_b", "test_p.test_x"], {"test_p.test_y": 5}),
    ]
    suite.write_text('summary = "s"\ntimeout = 1\nlimit = 1\n[[groups]]\nmodules = ["@langage"]\n')
    with pytest.raises(UserError, match="did you mean 'language'"):
        suites.load("s", tmp_path)


def test_the_options_help_names_all_suites() -> None:
    assert sorted(options.SUITES) == sorted(suites.names())


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "1/2/3", "-1/2"])
def test_a_shard_is_one_of_several(text: str) -> None:
    assert parse_shard("2/3") == (2, 3)
    assert parse_shard("") is None
    with pytest.raises(UserError, match=r"invalid --shard .*: expected I/N with 1 ≤ I ≤ N"):
        parse_shard(text)


def test_durations_are_remembered_by_what_they_depend_on(tmp_path: Path) -> None:
    assert durations.load(tmp_path, "jit", EMULATED) == {}
    durations.record(
        tmp_path, "jit", EMULATED, [ModuleRun("test_a", "", 3.0, "", ""), ModuleRun("test_b", "s", 1.0, "", "")]
    )
    durations.record(tmp_path, "jit", EMULATED, [ModuleRun("test_a", "", 5.0, "", "")])
    assert durations.load(tmp_path, "jit", EMULATED) == {"test_a": 5.0, "test_b [s]": 1.0}
    assert durations.load(tmp_path, "jit", NATIVE) == {}
    assert durations.load(tmp_path, "jit", replace(EMULATED, variant=replace(JIT, debug=True))) == {}
    (file,) = (tmp_path / "durations").iterdir()
    file.write_text("[broken")
    assert durations.load(tmp_path, "jit", EMULATED) == {}


def test_ranges_of_versions() -> None:
    assert in_range((3, 15), ">=3.14, <3.16")
    assert not in_range((3, 13), ">=3.14, <3.16")
    assert in_range((3, 9), "<3.10")
    with pytest.raises(ValueError, match="invalid version range"):
        in_range((3, 15), ">=3")


def test_a_wrong_range_and_an_unknown_suite_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "known_failures"
    folder.mkdir()
    (folder / "emulation.toml").write_text(
        '[[failures]]\ntest = "test.test_x"\nkind = "fail"\nreason = "it cannot work, for it needs vfork"\n'
        'when = { python = "3.15" }\n'
    )
    with pytest.raises(DocumentError) as caught:
        entries.load(tmp_path)
    assert caught.value.details[0].startswith(f"{folder / 'emulation.toml'}:5:")
    assert "invalid version range" in caught.value.details[0]
    with pytest.raises(UserError, match="did you mean 'jit'"):
        suites.load("jitt")


def test_required_tests_that_did_not_run_are_told() -> None:
    ran = [replace(PASSED, name=f"test.test_x.C.test_{number}") for number in range(600)]
    generated = replace(PASSED, name="test.test_generated_cases.C.test_x")
    skipped = replace(SKIPPED, name="test.test_capi.test_opt.C.test_x")
    (said,) = job_list.missing(suites.load("jit"), EMULATED, [*ran, generated, skipped])
    assert "test.test_capi.test_opt.*" in said
    assert "nothing tested the optimizer" in said
    stressed = replace(PASSED, name="test.test_capi.test_opt.C.test_x [stress]")
    assert not job_list.missing(suites.load("jit"), EMULATED, [*ran, generated, stressed])
    assert not job_list.missing(suites.load("jit"), replace(EMULATED, variant=NOJIT), [*ran, generated, skipped])


def known(test: str, kind: FailureKind = FailureKind.FAIL, **fields: Any) -> KnownFailure:
    return KnownFailure(test, kind, "it needs vfork, which QEMU has not", **fields)


def test_failing_as_listed_is_known_failing_otherwise_is_not() -> None:
    (marked,), notes = mark_known([FAILED], [known("test.test_a.*")])
    assert marked.known == "it needs vfork, which QEMU has not"
    assert not notes
    (marked,), notes = mark_known([FAILED], [known("test.test_a.*", FailureKind.CRASH)])
    assert marked.known is None
    (marked,), notes = mark_known(
        [replace(CRASHED, name="test.test_b.C.test_z [stress]")], [known("test.test_b.C.test_z", FailureKind.CRASH)]
    )
    assert marked.known


def test_a_listed_test_that_passes_is_marked_and_noted_unless_others_of_the_entry_fail() -> None:
    (marked,), notes = mark_known([PASSED], [known("test.test_a.*")])
    assert marked.xpassed
    assert not marked.xfailed
    assert marked.known == "it needs vfork, which QEMU has not"
    assert notes == ("unexpected pass: test.test_a.* is listed as a known fail (it needs vfork, which QEMU has not)",)
    results, notes = mark_known([PASSED, FAILED], [known("test.test_a.*")])
    assert [result.xpassed for result in results] == [False, False]
    assert not notes
    assert not mark_known([SKIPPED], [known("test.test_a.*")])[1]


def test_what_is_not_run_is_ignored_by_regrtest_and_counted_as_skipped() -> None:
    entry = known("test.test_a.C.test_hang", FailureKind.HANG, run=False)
    assert job_list.order(suites.load("jit"), EMULATED, [entry], "/s", ALL_TESTS)["ignore"] == [
        "test.test_a.C.test_hang"
    ]
    (result,) = deselected("jit", [entry, known("test.test_a.*")], ["test_a"])
    assert result.outcome is Outcome.SKIPPED
    assert not deselected("jit", [entry], ["test_b"])


# -- outcomes: what regrtest of 3.13 wrote, shortened

REPORT = """<testsuites tests="9" errors="3" failures="3"><testsuite start="2026-11-23 04:39:57" tests="9" errors="3" failures="3">
<testcase name="test.test_s.Plain.test_error" status="run" result="completed" time="0.25"><system-out /><error type="E" message="E: x">Traceback
ZeroDivisionError: division by zero
</error></testcase>
<testcase name="test.test_s.Plain.test_expected" status="run" result="completed" time="0.1"><output type="A">AssertionError</output></testcase>
<testcase name="test.test_s.Plain.test_fail" status="run" result="completed" time="0.1"><failure type="A">AssertionError: no good</failure></testcase>
<testcase name="test.test_s.Plain.test_ok" status="run" result="completed" time="0.1" />
<testcase name="test.test_s.Plain.test_skip" status="run" result="completed" time="0.1"><skipped>not today</skipped></testcase>
<testcase />
<testcase name="test.test_s.Plain.test_sub_skip (k=(1, 2))" status="run" result="completed" time="0.1"><skipped>no</skipped></testcase>
<testcase name="test.test_s.Plain.test_unexpected" status="run" result="completed" time="0.1"><outcome>UNEXPECTED_SUCCESS</outcome></testcase>
</testsuite></testsuites>"""  # noqa: E501

LINE, DASHES = "=" * 70, "-" * 70
LOG = f"""test_sub (test.test_s.Plain.test_sub) ...
  test_sub (test.test_s.Plain.test_sub) (i=1) ... FAIL

{LINE}
ERROR: setUpClass (test.test_s.Broken)
{DASHES}
Traceback (most recent call last):
OSError: no class

{LINE}
ERROR: test_error (test.test_s.Plain.test_error)
{DASHES}
ZeroDivisionError: division by zero

{LINE}
FAIL: test_sub (test.test_s.Plain.test_sub) (i=1)
A docstring.
{DASHES}
AssertionError: 1 == 1

{LINE}
FAIL: test_sub (test.test_s.Plain.test_sub) (i=3)
{DASHES}
AssertionError: 3 == 3

{DASHES}
Ran 9 tests in 0.008s

FAILED (failures=3, errors=3)
"""


def event(**fields: object) -> dict[str, Any]:
    return {
        "event": "end",
        "id": "000-test_s",
        "kind": "module",
        "name": "test_s",
        "label": "",
        "status": 0,
        "signal": None,
        "timed_out": False,
        "memory_kills": 0,
        "seconds": 3.0,
        "junit": None,
        "checks": None,
        "log": "000-test_s.log",
        "tail": "",
        **fields,
    }


def found(folder: Path, log: str = "", **fields: object) -> dict[str, TestResult]:
    (folder / "000-test_s.log").write_text(log)
    module = of_module("jit", ModuleExit.read(event(tail=log[-6000:], **fields)), folder)
    return {result.name: result for result in module.results}


def test_the_report_and_what_it_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "r.xml").write_text(REPORT)
    results = found(tmp_path, LOG, status=2, junit="r.xml")
    short = {name.removeprefix("test.test_s."): result.outcome.value for name, result in results.items()}
    assert short == {
        "Plain.test_error": "error",
        "Plain.test_expected": "passed",
        "Plain.test_fail": "failed",
        "Plain.test_ok": "passed",
        "Plain.test_skip": "skipped",
        "Plain.test_sub_skip": "skipped",
        "Plain.test_unexpected": "failed",
        "Broken.setUpClass": "error",
        "Plain.test_sub": "failed",
    }
    assert results["test.test_s.Plain.test_skip"].message == "not today"
    assert results["test.test_s.Plain.test_error"].seconds == 0.25
    assert results["test.test_s.Broken.setUpClass"].message.endswith("OSError: no class")
    assert results["test.test_s.Plain.test_sub"].message.startswith("(i=1)")


@pytest.mark.parametrize(
    ("fields", "log", "name", "outcome", "words"),
    [
        ({"status": 0}, "test_s skipped -- No module named 'x'\n", "test.test_s", "skipped", "No module named 'x'"),
        ({"status": 4}, "Result: NO TESTS RAN\n", "test.test_s", "skipped", "no tests ran"),
        (
            {"status": 2},
            "Traceback\nModuleNotFoundError: No module named 'y'\ntest_s failed\n",
            "test.test_s",
            "error",
            "exit status 2, ModuleNotFoundError: No module named 'y'",
        ),
        (
            {"status": -11, "signal": "SIGSEGV"},
            "test_a (test.test_s.C.test_a) ... ok\n"
            "test_b (test.test_s.C.test_b)\nDoc. ... Fatal Python error: Segmentation fault\n",
            "test.test_s.C.test_b",
            "crashed",
            "killed by SIGSEGV, Fatal Python error: Segmentation fault",
        ),
        (
            {"status": -6, "signal": "SIGABRT"},
            "test_a (test.test_s.C.test_a) ... python3: ../Python/jit.c:7: emit: Assertion `a != 'b'' failed.\n"
            "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n",
            "test.test_s.C.test_a",
            "crashed",
            "killed by SIGABRT, ../Python/jit.c:7: emit: Assertion `a != 'b'' failed",
        ),
        (
            {"status": -6, "signal": "SIGABRT"},
            "test_a (test.test_s.C.test_a) ... ok\nFatal Python error: at the end\n",
            "test.test_s",
            "crashed",
            "killed by SIGABRT",
        ),
        (
            {"status": 1},
            "test_a (test.test_s.C.test_a) ... Timeout (0:05:00)!\nThread 0x1 (most recent call first):\n",
            "test.test_s.C.test_a",
            "timed out",
            "exit status 1",
        ),
        (
            {"status": -9, "signal": "SIGKILL", "timed_out": True},
            "test_a (test.test_s.C.test_a) ... ",
            "test.test_s.C.test_a",
            "timed out",
            "killed after its time limit",
        ),
        ({"status": 1}, "OSError: no space left\n", "test.test_s", "crashed", "exit status 1, OSError: no space left"),
        ({"status": 2, "junit": "torn.xml"}, "", "test.test_s", "error", "cannot be read"),
    ],
)
def test_each_end_is_one_outcome(
    tmp_path: Path, fields: Mapping[str, object], log: str, name: str, outcome: str, words: str
) -> None:
    (tmp_path / "torn.xml").write_text("<testsuites><testsuite")
    (result,) = found(tmp_path, log, **fields).values()
    assert (result.name, result.outcome.value) == (name, outcome)
    assert words in result.message


def test_an_altered_environment_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "000-test_s.log").write_text("")
    ended = ModuleExit.read(event(status=3))
    assert "altered" in of_module("jit", ended, tmp_path).notes[0]


def test_a_groups_label_is_part_of_the_name(tmp_path: Path) -> None:
    assert set(found(tmp_path, "", status=2, label="stress")) == {"test.test_s [stress]"}


def test_a_scripts_checks_are_results(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        '{"check": "list_pop", "outcome": "passed", "seconds": 0.5, "message": ""}\n'
        '{"check": "dict_pop", "outcome": "failed", "seconds": 0.5, "message": "two items were lost"}\n'
        "not a check\n"
    )
    results = found(
        tmp_path, "", kind="script", name="/x/ft_workload.py", checks="c.jsonl", status=-11, signal="SIGSEGV"
    )
    assert results["ft_workload.list_pop"].outcome is Outcome.PASSED
    assert results["ft_workload.dict_pop"].message == "two items were lost"
    assert results["ft_workload"].outcome is Outcome.CRASHED


@pytest.mark.parametrize(("status", "signal"), [(-11, "SIGSEGV"), (1, None)])
def test_a_script_that_crashes_names_the_check_that_it_was_in(tmp_path: Path, status: int, signal: str | None) -> None:
    lines = (
        '{"check": "list_pop", "outcome": "started"}',
        '{"check": "list_pop", "outcome": "passed", "seconds": 0.5, "message": ""}',
        '{"check": "dict_pop", "outcome": "started"}',
    )
    script = {"kind": "script", "name": "/x/ft_workload.py", "checks": "c.jsonl"}
    for number, crashed in ((3, "ft_workload.dict_pop"), (2, "ft_workload")):
        (tmp_path / "c.jsonl").write_text("\n".join(lines[:number]))
        results = found(tmp_path, "", **script, status=status, signal=signal)
        assert results["ft_workload.list_pop"].outcome is Outcome.PASSED
        assert results[crashed].outcome is Outcome.CRASHED
        assert len(results) == 2


# -- in a container: the fake engine


def tar_of(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@contextlib.contextmanager
def tree() -> Iterator[BinaryIO]:
    with io.BytesIO(tar_of({"usr/local/bin/python3.15": b"\x7fELF", "usr/local/lib/python3.15/os.py": b""})) as stream:
        yield stream


@contextlib.contextmanager
def support() -> Iterator[BinaryIO]:
    with io.BytesIO(tar_of({"Tools/cases_generator/analyzer.py": b"pass"})) as stream:
        yield stream


@pytest.fixture
def target(fake_engine: FakeEngine) -> Target:
    info = fake_engine.add_image("crossjit/target", arch=Arch.AARCH64)
    image = Image("crossjit/target", info.id, "k", Role.TARGET, Arch.AARCH64, "bootstrap:forky", ())
    emulation = {"QEMU_CPU": "cortex-a72"}
    return Target(
        image, "artifact", tree, CELL, JIT, (3, 15), "crossjit-suite", {"crossjit.run": "r"}, support, emulation
    )


ABLE = json.dumps({"capabilities": {"pty": {"works": True, "detail": "it is a terminal"}}})


def capable(program: Program, said: str = ABLE, status: int = 0) -> Program:
    """Add to a program that stands for `python3` what `capabilities.py` says and ends with."""

    def answering(process: FakeProcess) -> int:
        if not process.argv[1].endswith("capabilities.py"):
            return program(process)
        assert process.env["PYTHON_JIT"] == "0"
        process.write_line(said)
        return status

    return answering


def runner(*events: Mapping[str, object], files: Mapping[str, bytes], status: int = 0) -> Program:
    """Make a program that stands for `python3 runner.py`: it says these events and leaves these files."""

    def program(process: FakeProcess) -> int:
        assert process.argv[1].endswith("runner.py")
        assert process.env["PYTHON_JIT"] == "0"
        for name, content in files.items():
            process.write_file(f"{run_suite.RESULTS}/{name.partition('.')[0]}/{name}", content)
        for each in events:
            if each.get("event") == "end" and each["log"] not in files:
                process.write_file(f"{run_suite.RESULTS}/{each['id']}/{each['log']}", b"")
            process.write_line(json.dumps(each))
        return status

    return capable(program)


PLAN = {"event": "plan", "modules": [{"id": "000-test_s", "name": "test_s"}], "missing": []}
START = {"event": "start", "id": "000-test_s", "kind": "module", "name": "test_s", "label": ""}
DONE = {"event": "done"}
GREEN = (
    b'<testsuites><testsuite tests="1" errors="0" failures="0">'
    b'<testcase name="test.test_s.C.test_x" time="0.1" /></testsuite></testsuites>'
)
FILES = {"000-test_s.xml": GREEN, "000-test_s.log": b"test_x (test.test_s.C.test_x) ... ok\n"}


def go(engine: FakeEngine, target: Target, folder: Path, **options: Any) -> SuiteResult:
    return run_suite.run_suite(engine, target, "jit", jobs=2, folder=folder, progress=Silent(), **options)


def test_a_suite_runs_locked_in_and_its_files_are_kept(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    fake_engine.programs["python3"] = runner(PLAN, START, event(junit="000-test_s.xml"), DONE, files=FILES)
    result = go(fake_engine, target, tmp_path)
    assert [(each.name, each.outcome) for each in result.results] == [("test.test_s.C.test_x", Outcome.PASSED)]
    assert not result.problems
    assert any("pointer authentication" in caveat for caveat in result.caveats)
    assert any("test_opt" in reason for reason in result.unproved)
    assert {path.name for path in (tmp_path / "jit").iterdir()} == {*FILES, "runner.log", "order.json"}
    (started,) = fake_engine.started
    assert started.user == "1000:1000"
    assert started.network is False
    assert started.capabilities == ()
    assert started.limits.memory is not None
    assert started.limits.pids == 2048
    assert started.limits.file_size_may_be_raised  # test_resource insists on it
    assert started.env["QEMU_CPU"] == "cortex-a72"
    assert not fake_engine.containers


def test_everything_is_where_the_target_looks_for_it(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    seen: dict[str, bytes] = {}

    def program(process: FakeProcess) -> int:
        order = process.argv[process.argv.index("--suite-json") + 1]
        for path in (order, process.argv[1], "/usr/local/lib/Tools/cases_generator/analyzer.py"):
            seen[path] = process.files.read(path)
        process.write_file(f"{run_suite.RESULTS}/x.log", b"")
        process.write_line(json.dumps(DONE))
        return 0

    fake_engine.programs["python3"] = capable(program)
    go(fake_engine, target, tmp_path)
    assert json.loads(seen[run_suite.ORDER])["limit"] > 0
    assert seen["/usr/local/libexec/validate/runner.py"] == (suites.VALIDATE / "runner.py").read_bytes()


def ordered(engine: FakeEngine, *events: Mapping[str, object]) -> list[dict[str, Any]]:
    """Let the runner say these events; return the list that its orders will be in."""
    orders: list[dict[str, Any]] = []
    play = runner(*events, files=FILES)

    def program(process: FakeProcess) -> int:
        orders.append(json.loads(process.files.read(run_suite.ORDER)))
        return int(play(process))

    engine.programs["python3"] = capable(program)
    return orders


END = event(junit="000-test_s.xml")
OTHER = event(id="001-test_t", name="test_t", label="stress", log="001-test_t.log", status=4)
OTHER_START = {**START, "id": "001-test_t", "name": "test_t", "label": "stress"}
BOTH = {
    "event": "plan",
    "modules": [{"id": each["id"], "name": each["name"], "label": each["label"]} for each in (START, OTHER_START)],
    "missing": [],
}


def test_a_run_that_died_is_taken_up_where_it_stopped(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ordered(fake_engine, BOTH, START, END, OTHER_START)
    assert "the runner did not finish" in go(fake_engine, target, first).problems[0]
    orders = ordered(fake_engine, BOTH, OTHER_START, OTHER, DONE)
    result = go(fake_engine, target, second, earlier=first, durations={"test_t [stress]": 4.0})
    assert orders[0]["done"] == ["test_s"]
    assert orders[0]["seconds"] == {"test_t [stress]": 4.0}
    assert [each.name for each in result.results] == ["test.test_s.C.test_x", "test.test_t [stress]"]
    assert [module.key for module in result.modules] == ["test_s", "test_t [stress]"]
    assert not result.problems
    assert any("1 module taken from an earlier run" in note for note in result.notes)
    # and once more, from what has been taken over itself
    orders = ordered(fake_engine, BOTH, DONE)
    third = go(fake_engine, target, tmp_path / "third", earlier=second)
    assert orders[0]["done"] == ["test_s", "test_t [stress]"]
    assert third.results == result.results


def test_a_module_without_its_files_is_run_again(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    ordered(fake_engine, PLAN, START, END)
    go(fake_engine, target, tmp_path / "first")
    (tmp_path / "first" / "jit" / "000-test_s.xml").unlink()
    orders = ordered(fake_engine, PLAN, START, END, DONE)
    go(fake_engine, target, tmp_path / "second", earlier=tmp_path / "first")
    assert orders[0]["done"] == []


def test_two_halves_of_different_things_are_no_result(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    ordered(fake_engine, PLAN, START, END)
    go(fake_engine, target, tmp_path / "first")
    with pytest.raises(UserError, match="changed since then: artifact"):
        go(fake_engine, replace(target, artifact="another"), tmp_path / "second", earlier=tmp_path / "first")
    with pytest.raises(UserError, match="changed since then: shard"):
        go(fake_engine, target, tmp_path / "second", earlier=tmp_path / "first", selection=TestSelection(shard=(1, 2)))
    assert len(fake_engine.started) == 1


def test_a_part_need_not_have_run_what_the_whole_must(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    orders = ordered(fake_engine, PLAN, START, END, DONE)
    result = go(fake_engine, target, tmp_path, selection=TestSelection(shard=(2, 3), tests=("test_s",)))
    assert (orders[0]["shard"], orders[0]["tests"]) == ([2, 3], ["test_s"])
    assert result.unproved == ()
    assert "only a part of it ran: shard 2/3; tests test_s" in result.notes


FAILS = {
    "000-test_s.xml": GREEN.replace(b" />", b"><failure>AssertionError</failure></testcase>").replace(
        b'failures="0"', b'failures="1"'
    ),
    "000-test_s.log": b"test_x (test.test_s.C.test_x) ... FAIL\n",
}
LISTED = """
[[failures]]
test = "test.test_s.C.test_x"
kind = "fail"
reason = "there is no terminal for it to be had"
when = { lacks = ["pty"], qemu = "<8.2" }

[[failures]]
test = "test.test_s.C.test_hang"
kind = "hang"
run = false
reason = "there is no terminal for it to be had"
when = { lacks = ["pty"] }
"""
NO_PTY = json.dumps({"capabilities": {"pty": {"works": False, "detail": "ENOSYS"}}})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Our own data, with known failures that rest on a capability."""
    folder = tmp_path / "validate"
    shutil.copytree(suites.VALIDATE, folder, ignore=shutil.ignore_patterns("known_failures", "*.py", "__pycache__"))
    (folder / "known_failures").mkdir()
    (folder / "known_failures" / "emulation.toml").write_text(LISTED)
    return folder


def test_known_failures_rest_on_what_the_target_is_found_to_lack(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, data: Path
) -> None:
    target = replace(target, qemu="7.2.22")
    play = runner(PLAN, START, event(junit="000-test_s.xml", status=2), DONE, files=FAILS)
    ignored: list[Any] = []

    def program(process: FakeProcess) -> int:
        ignored.append(json.loads(process.files.read(run_suite.ORDER))["ignore"])
        return play(process)

    fake_engine.programs["python3"] = capable(program, NO_PTY)
    result = go(fake_engine, target, tmp_path, data=data)
    outcome = {each.name: (each.outcome, each.known is not None) for each in result.results}
    assert outcome == {
        "test.test_s.C.test_x": (Outcome.FAILED, True),
        "test.test_s.C.test_hang": (Outcome.SKIPPED, True),
    }
    assert ignored == [["test.test_s.C.test_hang"]]
    assert "missing in the target, so tests fail as expected: pty (ENOSYS)" in result.notes
    assert result.capabilities == {"pty": {"works": False, "detail": "ENOSYS"}}
    assert result.conditions["qemu"] == "7.2.22"
    described = tables.cell_json(CellResult(CELL, Verdict.PASS, (), suites=(result,)))
    assert described["suites"][0]["capabilities"] == result.capabilities  # type: ignore[index]
    assert described["suites"][0]["conditions"] == result.conditions  # type: ignore[index]

    fake_engine.programs["python3"] = capable(program)  # with terminals, the same is a failure
    result = go(fake_engine, target, tmp_path, data=data)
    assert [(each.outcome, each.known) for each in result.results] == [(Outcome.FAILED, None)]
    assert ignored[1] == []

    fake_engine.programs["python3"] = capable(program, NO_PTY)  # and under a QEMU that should know better
    (failed, _) = go(fake_engine, replace(target, qemu="8.2.0"), tmp_path, data=data).results[::-1]
    assert failed.known is None


def test_a_run_is_taken_up_though_more_is_left_out_now(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, data: Path
) -> None:
    listed = data / "known_failures" / "emulation.toml"
    listed.write_text(LISTED.replace("run = false\n", ""))
    fake_engine.programs["python3"] = capable(runner(PLAN, START, event(junit="000-test_s.xml"), files=FILES), NO_PTY)
    go(fake_engine, target, tmp_path / "first", data=data)
    # one that hung is listed as such, and the run goes on without it
    listed.write_text(LISTED)
    fake_engine.programs["python3"] = capable(runner(PLAN, DONE, files={}), NO_PTY)
    result = go(fake_engine, target, tmp_path / "second", data=data, earlier=tmp_path / "first")
    assert "test.test_s.C.test_x" in [each.name for each in result.results]
    # and what is no longer left out would have to be run
    listed.write_text(LISTED.replace("run = false\n", ""))
    with pytest.raises(UserError, match="changed since then: ignore"):
        go(fake_engine, target, tmp_path / "third", data=data, earlier=tmp_path / "second")


@pytest.mark.parametrize(("ended", "done"), [({"status": -11, "signal": "SIGSEGV"}, []), ({"status": 2}, ["test_s"])])
def test_a_module_runs_again_without_the_test_that_killed_it(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, data: Path, ended: dict[str, object], done: list[str]
) -> None:
    listed = data / "known_failures" / "emulation.toml"
    listed.write_text(LISTED.replace("run = false\n", ""))
    end = event(junit="000-test_s.xml", **ended)
    fake_engine.programs["python3"] = capable(runner(PLAN, START, end, files=FAILS), NO_PTY)
    go(fake_engine, target, tmp_path / "first", data=data)
    listed.write_text(LISTED)
    orders = ordered(fake_engine, PLAN, START, END, DONE)
    fake_engine.programs["python3"] = capable(fake_engine.programs["python3"], NO_PTY)
    go(fake_engine, target, tmp_path / "second", data=data, earlier=tmp_path / "first")
    assert orders[0]["done"] == done


def test_capabilities_that_cannot_be_probed_are_a_problem_and_excuse_nothing(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, data: Path
) -> None:
    play = runner(PLAN, START, event(junit="000-test_s.xml", status=2), DONE, files=FAILS)
    fake_engine.programs["python3"] = capable(play, "Fatal Python error: Segmentation fault", 139)
    result = go(fake_engine, replace(target, qemu="7.2.22"), tmp_path, data=data)
    assert result.problems == (
        "the target's capabilities could not be probed (killed by SIGSEGV; Fatal Python error: Segmentation fault)",
    )
    assert [(each.outcome, each.known) for each in result.results] == [(Outcome.FAILED, None)]
    assert result.capabilities == {}
    assert judge(CELL, JIT, facts("machine code"), [result])[0] is Verdict.FAIL


def test_a_known_crash_leaves_unproved_what_it_took_along(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, data: Path
) -> None:
    listed = data / "known_failures" / "emulation.toml"
    listed.write_text(
        '[[failures]]\ntest = "test.test_s.C.test_x"\nkind = "crash"\nreason = "QEMU has no such thing"\n'
    )
    log = b"test_x (test.test_s.C.test_x) ... "
    crashed = event(status=-11, signal="SIGSEGV", tail=log.decode())
    fake_engine.programs["python3"] = runner(PLAN, START, crashed, DONE, files={"000-test_s.log": log})
    result = go(fake_engine, target, tmp_path, data=data)
    assert [(each.outcome, each.known is not None) for each in result.results] == [(Outcome.CRASHED, True)]
    assert any("the other tests of test.test_s did not run" in reason for reason in result.unproved)
    assert judge(CELL, JIT, facts("machine code"), [result])[0] is Verdict.VACUOUS
    asked_for = go(fake_engine, target, tmp_path, data=data, selection=TestSelection(tests=("test.test_s.C.test_x",)))
    assert asked_for.unproved == ()


def test_a_runner_that_dies_is_a_problem_with_what_it_was_doing(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    fake_engine.programs["python3"] = runner(PLAN, START, files={}, status=139)
    result = go(fake_engine, target, tmp_path)
    assert "killed by SIGSEGV" in result.problems[0]
    assert "test_s was running" in result.problems[0]
    assert judge(CELL, JIT, facts("machine code"), [result])[0] is Verdict.FAIL


def test_modules_that_are_missing_or_did_not_run_are_told(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    missing = [
        {"name": "test_old", "label": "", "optional": False},
        {"name": "test_new", "label": "", "optional": True},
    ]
    late = {**START, "event": "not started", "reason": "the suite's time was over"}
    fake_engine.programs["python3"] = runner({**PLAN, "missing": missing}, late, DONE, files={})
    result = go(fake_engine, target, tmp_path)
    assert result.problems == (
        "test_old: this Python has no such test module",
        "test_s did not run: the suite's time was over",
    )
    assert result.notes == ("test_new: this Python has no such test module",)


def test_a_module_killed_for_memory_is_our_side_not_the_tests(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    killed = event(status=-9, signal="SIGKILL", memory_kills=1)
    fake_engine.programs["python3"] = runner(PLAN, START, killed, DONE, files={"000-test_s.log": b"x"})
    with pytest.raises(OutOfMemoryError, match="killed test_s"):
        go(fake_engine, target, tmp_path)
    assert (tmp_path / "jit" / "000-test_s.log").exists()


@pytest.mark.parametrize("fault", list(Fault))
def test_an_engines_failure_is_never_a_tests(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, fault: Fault
) -> None:
    fake_engine.faults["/usr/local/bin/python3"] = fault
    with pytest.raises(EngineError):
        go(fake_engine, target, tmp_path)


def probe(engine: FakeEngine, target: Target) -> dict[str, object]:
    variant, emulation = target.variant, target.emulation
    with probe_module.probing(
        engine,
        engine.facts(),
        target.image,
        variant=variant,
        emulation=emulation,
        name="crossjit-probe",
        labels={},
    ) as container:
        return probe_module.probe(
            container,
            tree,
            cell=CELL,
            variant=variant,
            emulation=emulation,
            progress=Silent(),
            support=target.support,
            packages=target.packages,
        )


LACKS_ASAN = (
    "/usr/local/bin/python3: error while loading shared libraries: libasan.so.8: cannot open shared object file: "
    "No such file or directory"
)


def saying(facts: Mapping[str, object]) -> Program:
    def program(process: FakeProcess) -> int:
        process.write_line(json.dumps(facts))
        return 0

    return program


def unloadable(process: FakeProcess) -> int:
    process.write_line(LACKS_ASAN)
    return 127


def test_a_library_that_the_target_lacks_is_not_the_builds_failure(fake_engine: FakeEngine, target: Target) -> None:
    fake_engine.programs["python3"] = unloadable
    target = replace(target, packages=(Package("libasan8", "amd64", "16.2.0-3"),))
    with pytest.raises(InfrastructureError, match=r"the target image lacks libasan\.so\.8") as caught:
        probe(fake_engine, target)
    assert caught.value.hint == "add its package to the variant: packages.target = ['libasan8']"


def test_nor_is_it_a_suites(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    fake_engine.programs["python3"] = unloadable
    with pytest.raises(InfrastructureError, match=r"the target image lacks libasan\.so\.8"):
        go(fake_engine, target, tmp_path)


def test_nor_is_a_module_that_cannot_be_loaded(fake_engine: FakeEngine, target: Target) -> None:
    error = "ImportError: libtk8.6.so: cannot open shared object file: No such file or directory"
    facts = {"modules": {"imported": [], "failed": {"_tkinter": error}, "absent": {}}}
    fake_engine.programs["python3"] = saying(facts)
    with pytest.raises(InfrastructureError, match=r"the target image lacks libtk8\.6\.so"):
        probe(fake_engine, target)


def test_a_build_without_its_own_library_is_at_fault(fake_engine: FakeEngine, target: Target) -> None:
    def program(process: FakeProcess) -> int:
        process.write_line(LACKS_ASAN.replace("libasan.so.8", "libpython3.15.so.1.0"))
        return 127

    fake_engine.programs["python3"] = program
    verdict, _ = judge(CELL, JIT, probe(fake_engine, target), ())
    assert verdict is Verdict.FAIL


def test_the_loaders_cache_is_made_where_a_library_of_its_own_is_installed(
    fake_engine: FakeEngine, target: Target
) -> None:
    made: list[int] = []

    def ldconfig(process: FakeProcess) -> int:
        assert process.files.read("/usr/local/bin/python3.15")
        made.append(process.uid)
        return 0

    fake_engine.programs |= {"ldconfig": ldconfig, "python3": saying({})}
    probe(fake_engine, target)
    assert made == [], "nothing is to be found"
    probe(fake_engine, replace(target, variant=replace(JIT, configure=("--enable-shared",))))
    assert made == [0]


def test_what_a_variant_is_run_with_is_in_the_environment_of_all(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    variant = replace(JIT, environment={"UBSAN_OPTIONS": "suppressions={tools}/ubsan/suppressions.txt"})
    target = replace(target, variant=variant)
    had: list[bytes] = []

    def program(process: FakeProcess) -> int:
        had.append(process.files.read("/usr/local/lib/Tools/cases_generator/analyzer.py"))
        process.write_line("{}")
        return 0

    fake_engine.programs["python3"] = program
    probe(fake_engine, target)
    with contextlib.suppress(InfrastructureError):
        go(fake_engine, target, tmp_path)
    wanted = "suppressions=/usr/local/lib/Tools/ubsan/suppressions.txt"
    assert {started.env.get("UBSAN_OPTIONS") for started in fake_engine.started} == {wanted}
    assert had, "the probe has CPython's Tools where its environment names them"


def test_the_probe_is_told_of_the_emulator_and_its_warnings_are_no_facts(
    fake_engine: FakeEngine, target: Target
) -> None:
    def program(process: FakeProcess) -> int:
        process.write_line("qemu-aarch64: warning: something")
        process.write_line(json.dumps({"told": json.loads(process.argv[-1])}))
        return 0

    fake_engine.programs["python3"] = program
    assert probe(fake_engine, target) == {"told": {"emulated": True, "cpu": "cortex-a72"}}


def test_a_probe_that_crashes_is_a_finding(fake_engine: FakeEngine, target: Target) -> None:
    def program(process: FakeProcess) -> int:
        process.write_line("Fatal Python error: Segmentation fault")
        return 139

    fake_engine.programs["python3"] = program
    seen = probe(fake_engine, target)
    assert seen["crashed"] == "killed by SIGSEGV"
    verdict, reasons = judge(CELL, JIT, seen, ())
    assert verdict is Verdict.FAIL
    assert "Segmentation fault" in reasons[0]


def test_what_the_target_wrote_cannot_leave_the_folder(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    ended = ModuleExit.read(event())
    fine = tar_of({f"{ended.id}/../../escaped": b"x", f"{ended.id}/{ended.log}": b"y", f"/results/{ended.log}": b"z"})
    SuiteLog(logs).save(io.BytesIO(fine), ended)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == {logs / ended.log: b"y"}


def test_a_suite_tells_how_long_it_will_take(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    told: list[tuple[int | None, float | None]] = []

    class Step(SilentStep):
        def update(
            self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
        ) -> None:
            told.append((done, left))

    class Listener(Silent):
        @contextlib.contextmanager
        def step(self, name: str, subject: str = "") -> Iterator[SilentStep]:
            yield Step()

    ordered(fake_engine, BOTH, START, END, OTHER_START, OTHER, DONE)
    known = {"test_s": 500.0, "test_t [stress]": 2000.0}
    run_suite.run_suite(fake_engine, target, "jit", jobs=2, folder=tmp_path, progress=Listener(), durations=known)
    assert told[2] == (0, 2000.0)
    assert told[-1] == (2, 0.0)
    assert all(left is not None for _, left in told[2:])
