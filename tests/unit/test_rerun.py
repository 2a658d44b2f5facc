from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import UserError
from crossjit.images import Image, Role
from crossjit.known_failures import entries
from crossjit.known_failures.entries import FailureKind, KnownFailure
from crossjit.model import Arch, Cell, Expectation, ModuleRun, Outcome, SuiteResult, TestResult, Variant
from crossjit.progress import SilentStep
from crossjit.triage import rerun
from crossjit.triage.odds import Count
from crossjit.triage.rerun import TestRerun
from crossjit.validation import run_suite
from crossjit.validation.run_suite import Ran
from crossjit.validation.target import SCRIPTS, Target
from tests.fakes.engine import FakeEngine, FakeProcess

JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
NATIVE = TargetEnvironment((3, 15), Arch.X86_64, JIT)
EMULATED = replace(NATIVE, arch=Arch.AARCH64, emulated=True)


def result_of(*names: str, suite: str = "jit", modules: tuple[tuple[str, str], ...]) -> SuiteResult:
    results = tuple(TestResult(suite, name, Outcome.FAILED) for name in names)
    ran = tuple(ModuleRun(name, label, 1.0, "exit status 2", "x.log") for name, label in modules)
    return SuiteResult(suite, results, 1.0, modules=ran)


MODULES = (("test_capi.test_opt", ""), ("test_capi", ""), ("test_dict", "stress"), ("test_dis", ""))


@pytest.mark.parametrize(
    ("name", "module", "match", "label"),
    [
        ("test.test_dis.DisTests.test_x", "test_dis", "test.test_dis.DisTests.test_x", ""),
        ("test.test_capi.test_opt.T.test_x", "test_capi.test_opt", "test.test_capi.test_opt.T.test_x", ""),
        ("test.test_dict.DictTest.test_x [stress]", "test_dict", "test.test_dict.DictTest.test_x", "stress"),
        ("test.test_dis", "test_dis", "", ""),
        ("test.test_dis.DisTests.setUpClass", "test_dis", "test.test_dis.DisTests.*", ""),
        ("test.test_dis.setUpModule", "test_dis", "", ""),
    ],
)
def test_a_test_is_found_in_the_module_that_ran_it(name: str, module: str, match: str, label: str) -> None:
    (test,) = rerun.of_results(result_of(name, modules=MODULES), NATIVE, [name])
    assert (test.module, test.match, test.label, str(test)) == (module, match, label, name)
    assert dict(test.env) == ({"PYTHON_JIT_STRESS": "1"} if label else {})
    (slow,) = rerun.of_results(result_of(name, modules=MODULES), EMULATED, [name])
    assert slow.seconds > test.seconds


@pytest.mark.parametrize(
    ("pattern", "suite", "module", "match"),
    [
        ("test_dis", "jit", "test_dis", ""),
        ("test.test_dis", "jit", "test_dis", ""),
        ("test_dis.DisTests", "jit", "test_dis", "test.test_dis.DisTests.*"),
        ("test.test_dis.DisTests.test_x", "jit", "test_dis", "test.test_dis.DisTests.test_x"),
        ("test_capi.test_opt.T.test_x", "jit", "test_capi.test_opt", "test.test_capi.test_opt.T.test_x"),
        ("test_zipfile.C.test_x", "full", "test_zipfile", "test.test_zipfile.C.test_x"),
    ],
)
def test_a_named_test_runs_as_its_suite_runs_it(pattern: str, suite: str, module: str, match: str) -> None:
    (test,) = rerun.of_names([pattern, pattern], ["jit", "full"], NATIVE)
    assert (test.suite, test.kind, test.module, test.match) == (suite, "module", module, match)
    assert test.name == f"test.{pattern.removeprefix('test.')}"
    (slow,) = rerun.of_names([pattern], ["jit", "full"], EMULATED)
    assert slow.seconds > test.seconds


def test_a_named_check_of_a_script() -> None:
    where = replace(NATIVE, variant=replace(JIT, free_threaded=True))
    (test,) = rerun.of_names(["ft_workload.list_pop"], ["ft-smoke"], where)
    assert (test.kind, test.module, test.match, test.arguments[-1]) == (
        *("script", f"{SCRIPTS}/ft_workload.py", "", "list_pop"),
    )
    assert (test,) == rerun.of_results(
        result_of("ft_workload.list_pop", suite="ft-smoke", modules=(("ft_workload", ""),)), where, [test.name]
    )


def test_a_name_that_no_suite_has() -> None:
    with pytest.raises(UserError, match=r"none of the suites jit has 'test_nothing\.X'") as caught:
        rerun.of_names(["test_nothing.X"], ["jit"], NATIVE)
    assert "--suite full" in caught.value.hint


def test_what_no_module_ran_is_left_out() -> None:
    result = result_of("test.test_other.C.test_x", "test.test_dis.C.test_y", modules=MODULES)
    assert rerun.of_results(result, NATIVE, ["test.test_other.C.test_x"]) == ()
    assert rerun.of_results(result, NATIVE, []) == ()


def test_a_scripts_checks_are_trials_of_the_script() -> None:
    where = replace(NATIVE, variant=replace(JIT, free_threaded=True))
    result = result_of("ft_workload.list_pop", suite="ft-smoke", modules=(("ft_workload", ""),))
    (test,) = rerun.of_results(result, where, ["ft_workload.list_pop"])
    assert (test.kind, test.module, test.match) == ("script", f"{SCRIPTS}/ft_workload.py", "")
    assert test.arguments[-1] == "list_pop"


@contextlib.contextmanager
def tree() -> Iterator[BinaryIO]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("usr/local/bin/python3.15"), io.BytesIO())
    stream.seek(0)
    yield stream


@pytest.fixture
def target(fake_engine: FakeEngine) -> Target:
    info = fake_engine.add_image("crossjit/target", arch=Arch.X86_64)
    image = Image("crossjit/target", info.id, "k", Role.TARGET, Arch.X86_64, "bootstrap:forky", ())
    return Target(image, "artifact", tree, Cell("3.15", Arch.X86_64, "jit"), JIT, (3, 15), "crossjit-t", {})


def answering(engine: FakeEngine, ends: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Let the runner end each item as given by its label; return the list that its orders will be in."""
    orders: list[dict[str, Any]] = []

    def program(process: FakeProcess) -> int:
        order = json.loads(process.files.read(run_suite.ORDER))
        orders.append(order)
        jobs = [
            {"id": f"{number:03}-t", "kind": item["kind"], "name": item["name"], "label": item["label"]}
            for number, item in enumerate(order["items"])
        ]
        process.write_line(json.dumps({"event": "plan", "modules": jobs, "missing": []}))
        for item, about in zip(order["items"], jobs, strict=True):
            process.write_line(json.dumps({"event": "start", **about}))
            told = {"status": 0, "signal": None, "timed_out": False, **ends.get(item["label"], {})}
            report = told.pop("report", None)
            identity = about["id"]
            process.write_file(f"{run_suite.RESULTS}/{identity}/{identity}.log", b"")
            if report is not None:
                process.write_file(f"{run_suite.RESULTS}/{identity}/{identity}.xml", report.encode())
            end = {"memory_kills": 0, "seconds": 1.0, "junit": f"{identity}.xml" if report is not None else None}
            line = {"event": "end", **about, **told, **end, "checks": None, "log": f"{identity}.log", "tail": ""}
            process.write_line(json.dumps(line))
        process.write_line('{"event": "done"}')
        return 0

    engine.programs["python3"] = program
    return orders


def case(name: str, inside: str = "") -> str:
    failed = int("<failure" in inside)
    return (
        f'<testsuites><testsuite tests="1" errors="0" failures="{failed}">'
        f'<testcase name="{name}" time="0.1">{inside}</testcase></testsuite></testsuites>'
    )


def test_failures_crashes_and_hangs_are_counted_and_skips_are_not(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    name = "test.test_dis.C.test_x"
    test = TestRerun(name, "jit", "module", "test_dis", match=name, env=(("A", "1"),), seconds=60)
    other = replace(test, name="test.test_dis.C.test_y", match="test.test_dis.C.test_y")
    failure = case(name, "<failure>AssertionError: 2 != 3</failure>")
    orders = answering(
        fake_engine,
        {
            "0.0": {"status": 2, "report": failure},
            "0.1": {"report": case(name)},
            "0.2": {"status": -11, "signal": "SIGSEGV"},
            "0.3": {"status": -9, "signal": "SIGKILL", "timed_out": True},
            "0.4": {"report": case(name, "<skipped>no JIT</skipped>")},
            "1.0": {"report": case(other.name)},
        },
    )
    counts = rerun.run(
        fake_engine,
        target,
        [test, other],
        5,
        env={"PYTHON_JIT": "0"},
        jobs=2,
        folder=tmp_path / "t",
        step=SilentStep(),
    )
    assert counts[test].count == Count(failed=3, passed=1, absent=1, crashed=1, hung=1)
    assert "2 != 3" in counts[test].message
    assert counts[other].count == Count(passed=1, absent=4)
    runs = [each and [result.outcome for result in each] for each in counts[test].runs]
    assert runs == [[Outcome.FAILED], (), [Outcome.CRASHED], [Outcome.TIMED_OUT], None]
    (order,) = orders
    assert len(order["items"]) == 10
    assert order["items"][0]["env"] == {"A": "1", "PYTHON_JIT": "0"}
    assert order["items"][0]["arguments"][-2:] == ["--match", name]


def test_what_runs_among_others_is_judged_by_itself_or_by_their_end(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    mine, yours = "test.test_dis.C.test_mine", "test.test_dis.C.test_yours"
    alone = TestRerun(mine, "jit", "module", "test_dis", match=mine, seconds=60)
    test = rerun.with_module(alone)
    other = rerun.with_module(replace(alone, name=yours, match=yours))
    assert test is not None
    assert other is not None
    assert (test.match, test.with_others) == ("", True)
    assert rerun.with_module(test) is None
    both = (
        '<testsuites><testsuite tests="2" errors="0" failures="1">'
        f'<testcase name="{mine}" time="0.1"><failure>no</failure></testcase>'
        f'<testcase name="{yours}" time="0.1"/></testsuite></testsuites>'
    )
    orders = answering(fake_engine, {"0.0": {"status": 2, "report": both}, "0.1": {"status": -11, "signal": "SIGSEGV"}})
    counts = rerun.run(fake_engine, target, [test, other], 2, env={}, jobs=1, folder=tmp_path / "t", step=SilentStep())
    assert counts[test].count == Count(failed=2, crashed=1)
    assert counts[other].count == Count(failed=1, passed=1, crashed=1)
    (order,) = orders
    assert [(item["name"], item["arguments"]) for item in order["items"]] == [("test_dis", []), ("test_dis", [])]


def test_a_listed_crash_does_not_count_as_that_of_a_test_beside_it(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would crash the module on every experiment, whatever the test that is looked into does."""
    crash, failure = (
        KnownFailure(test=f"test.test_dis.C.test_{kind}", kind=kind, reason="because of the emulator", run=run)
        for kind, run in ((FailureKind.CRASH, False), (FailureKind.FAIL, True))
    )
    monkeypatch.setattr(entries, "load", lambda: (crash, failure))
    alone = TestRerun("test.test_dis.C.test_x", "jit", "module", "test_dis", match="test.test_dis.C.test_x")
    orders = answering(fake_engine, {})
    for test in (alone, rerun.with_module(alone)):
        assert test is not None
        rerun.run(fake_engine, target, [test], 1, env={}, jobs=1, folder=tmp_path / "t", step=SilentStep())
    assert [order["ignore"] for order in orders] == [[], [crash.test]]


def test_where_it_is_slower_a_test_gets_the_time_of_its_suite() -> None:
    test = TestRerun("test.test_dis", "jit", "module", "test_dis", seconds=100)
    suite, debug = suites.load("jit"), replace(NATIVE, variant=replace(JIT, debug=True))
    assert rerun.scale_timeout(test, NATIVE, NATIVE) == test
    assert rerun.scale_timeout(test, NATIVE, debug).seconds == 100 * suite.debug_factor
    assert rerun.scale_timeout(test, NATIVE, EMULATED).seconds == 100 * suite.emulated_factor
    assert rerun.scale_timeout(test, EMULATED, debug) == test


def test_the_control_is_a_module_that_every_suite_has_time_for() -> None:
    assert rerun.sanity_test(EMULATED).seconds > rerun.sanity_test(NATIVE).seconds
    assert suites.load("jit").timeout >= 60


@pytest.mark.parametrize(
    ("name", "results", "count"),
    [
        ("ft_workload", {"ft_workload.list_pop": Outcome.PASSED}, Count(passed=1)),  # it came to its end
        ("ft_workload", {"ft_workload.gil_is_off_after": Outcome.FAILED}, Count(absent=1)),
        (
            "ft_workload",
            {"ft_workload.list_pop": Outcome.PASSED, "ft_workload": Outcome.CRASHED},
            Count(failed=1, crashed=1),
        ),
        ("ft_workload.list_pop", {"ft_workload.list_pop": Outcome.CRASHED}, Count(failed=1, crashed=1)),
        ("ft_workload.list_pop", {"ft_workload.dict_pop": Outcome.FAILED}, Count(absent=1)),
    ],
)
def test_what_a_script_says_counts_for_what_was_tried(name: str, results: dict[str, Outcome], count: Count) -> None:
    test = TestRerun(name, "ft-smoke", "script", "/libexec/ft_workload.py")
    ran = [TestResult("ft-smoke", each, outcome) for each, outcome in results.items()]
    assert rerun._tally(test, [Ran(tuple(ran), 1.0)]).count == count
