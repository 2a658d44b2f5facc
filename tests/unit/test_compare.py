"""Two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from crossjit.model import Arch, Cell, CellResult, ModuleRun, Outcome, Strategy, SuiteResult, TestResult, Verdict
from crossjit.report import compare
from crossjit.report.compare import CellComparison, Moved
from crossjit.triage.decide import Layer
from tests import example_runs

CELL = Cell("3.15", Arch.AARCH64, "jit")
STATES = {
    "passed": (Outcome.PASSED, None),
    "skipped": (Outcome.SKIPPED, None),
    "failed": (Outcome.FAILED, None),
    "crashed": (Outcome.CRASHED, None),
    "failed as expected": (Outcome.FAILED, "a reason"),
}


def cell(tests: Mapping[str, str] | None = None, verdict: Verdict = Verdict.PASS, **changes: object) -> CellResult:
    results = tuple(
        TestResult("jit", name, STATES[state][0], 1.0, f"{state}\nlast: {state}", STATES[state][1])
        for name, state in (tests or {}).items()
    )
    result = CellResult(CELL, verdict, (f"it is {verdict}",), suites=(SuiteResult("jit", results, 10.0),))
    return replace(result, **changes)  # type: ignore[arg-type]


def compared(before: CellResult, after: CellResult) -> CellComparison:
    (one,) = compare.compare([before], [after]).cells
    return one


def test_a_newly_failing_test_has_the_layer_that_triage_named() -> None:
    before, after = cell({"a": "passed", "b": "passed"}), cell({"a": "failed", "b": "failed"}, Verdict.FAIL)
    found = {(CELL, "jit", "a"): example_runs.diagnosis(CELL, "a", Layer.FLAKY, "passes and fails")}
    whole = compare.compare([before], [after], diagnoses=found)
    assert [each.layer for each in whole.cells[0].newly_failing] == ["flaky (5 of 5)", ""]
    text = compare.as_text(whole, before="x", after="y")
    assert "jit: a: passed -> failed (last: failed): flaky (5 of 5)\n" in text
    assert "jit: b: passed -> failed (last: failed)\n" in text


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("passed", "failed", "newly_failing"),
        ("skipped", "crashed", "newly_failing"),
        ("failed as expected", "failed", "newly_failing"),
        (None, "failed", "newly_failing"),
        ("failed", "passed", "fixed"),
        ("failed as expected", "passed", "fixed"),
        ("passed", "skipped", "no_longer_run"),
        ("failed", "crashed", "otherwise"),
        ("failed", "failed as expected", "otherwise"),
        ("failed", "skipped", "otherwise"),
        ("skipped", "passed", "otherwise"),
        (None, "passed", "added"),
        ("failed", None, "removed"),
        ("passed", "passed", None),
        ("failed", "failed", None),
        ("failed as expected", "failed as expected", None),
    ],
)
def test_a_test_is_of_one_kind(before: str | None, after: str | None, kind: str | None) -> None:
    one = compared(*(cell({"a": state} if state else {}) for state in (before, after)))
    kinds = ("newly_failing", "fixed", "no_longer_run", "otherwise", "added", "removed")
    found = {name: getattr(one, name) for name in kinds if getattr(one, name)}
    if kind is None:
        assert found == {}
        return
    about = f"last: {after}" if after in ("failed", "crashed") else ""
    assert found == {kind: (Moved("jit", "a", before or "not there", after or "not there", about),)}
    assert one.is_worse is (kind == "newly_failing")


def test_of_several_results_of_a_test_the_worst_counts() -> None:
    twice = (TestResult("jit", "a", Outcome.FAILED), TestResult("jit", "a", Outcome.PASSED))
    one = compared(cell({"a": "passed"}), cell(suites=(SuiteResult("jit", twice, 1.0),)))
    assert [each.name for each in one.newly_failing] == ["a"]


@pytest.mark.parametrize(
    ("before", "after", "worse"),
    [
        (Verdict.PASS, Verdict.FAIL, True),
        (Verdict.PASS, Verdict.VACUOUS, True),
        (Verdict.PASS, Verdict.INFRA, True),
        (Verdict.INFRA, Verdict.FAIL, True),
        (Verdict.FAIL, Verdict.FAIL, False),
        (Verdict.FAIL, Verdict.INFRA, False),
        (Verdict.FAIL, Verdict.PASS, False),
    ],
)
def test_a_cells_verdict_counts_whatever_its_tests_say(before: Verdict, after: Verdict, worse: bool) -> None:
    comparison = compare.compare([cell(verdict=before)], [cell(verdict=after)])
    assert comparison.is_worse is worse
    said = compare.as_text(comparison, before="A", after="B")
    if before is not after:
        assert f"3.15/aarch64/jit: {before} -> {after} (it is {after})" in said
    assert ("no longer passing: 3.15/aarch64/jit" in said) is (before is Verdict.PASS)


def test_problems_count_as_failures() -> None:
    troubled = replace(cell().suites[0], problems=("test_x did not run",))
    one = compared(cell(), cell(suites=(troubled,)))
    assert one.newly_failing == (Moved("jit", "test_x did not run", "not there", "a problem"),)
    assert not compared(cell(suites=(troubled,)), cell(suites=(troubled,))).newly_failing


def test_a_suite_that_is_gone_is_one_thing() -> None:
    before, after = cell({"a": "passed", "b": "passed"}), cell(suites=())
    one = compared(before, after)
    assert (one.suites_removed, one.removed) == (("jit",), ())
    assert compared(after, before).suites_added == ("jit",)
    said = compare.as_text(compare.compare([before], [after]), before="A", after="B")
    assert said.splitlines()[-1] == "nothing newly fails; jit did not run"


def timed(scale: float = 1.0, **others: float) -> CellResult:
    seconds = {f"test_{number}": 10.0 * scale for number in range(8)} | others
    modules = tuple(ModuleRun(name, "", value, "exit status 0", "x.log") for name, value in seconds.items())
    return cell(suites=(SuiteResult("jit", (), 1.0, modules=modules),), seconds={"make": 300.0 * scale, "jit": 80.0})


def test_what_became_slow_is_measured_against_the_machine() -> None:
    one = compared(timed(), timed(test_3=21.0, test_5=19.0))
    assert [(each.what, each.name, each.before, each.after) for each in one.newly_slow] == [
        ("module", "jit: test_3", 10.0, 21.0)
    ]
    assert one.slowdown == 1.0
    busy = compared(timed(), timed(1.9, test_3=21.0, test_5=60.0))
    assert [each.name for each in busy.newly_slow] == ["jit: test_5"]
    assert busy.slowdown == 1.9
    assert compared(timed(0.001), timed(0.1)).newly_slow == (), "seconds count, too"
    phases = compared(timed(), replace(timed(), seconds={"make": 700.0, "jit": 800.0}))
    assert [(each.what, each.name) for each in phases.newly_slow] == [("phase", "make")]


def test_slow_tests() -> None:
    def slow(seconds: float) -> CellResult:
        return cell(suites=(SuiteResult("jit", (TestResult("jit", "a", Outcome.PASSED, seconds),), 1.0),))

    assert [each.what for each in compared(slow(1.0), slow(9.0)).newly_slow] == ["test"]
    assert compared(slow(9.0), slow(1.0)).newly_slow == ()
    assert compared(slow(0.0), slow(9.0)).newly_slow == ()


def test_facts_that_changed() -> None:
    before = cell(strategy=Strategy.NATIVE, build_key="a" * 64, probe=example_runs.probe())
    emulated = replace(before.suites[0], caveats=("about speed",))
    object.__setattr__(before.suites[0], "conditions", {"qemu": "7.2", "capabilities": {}})
    object.__setattr__(emulated, "conditions", {"qemu": "10.0", "capabilities": {"ptrace": False}})
    object.__setattr__(emulated, "capabilities", {"ptrace": {"works": False, "detail": "ENOSYS"}})
    after = replace(
        before, strategy=Strategy.CROSS, build_key="b" * 64, probe=example_runs.probe(emulated=True), suites=(emulated,)
    )
    changed = {change.name: (change.before, change.after) for change in compared(before, after).changed}
    assert changed == {
        "strategy": ("native", "cross"),
        "build key": ("a" * 12, "b" * 12),
        "probe.told.emulated": ("False", "True"),
        "probe.told.cpu": (None, "cortex-a72"),
        "probe.environment.QEMU_CPU": (None, "cortex-a72"),
        "no evidence": ("without", "about speed"),
        "conditions.jit.qemu": ("7.2", "10.0"),
        "capability": (None, "known"),
    }
    unprobed = {change.name: change.after for change in compared(before, replace(before, probe={})).changed}
    assert unprobed == {"probe": None}


def test_cells_of_one_run_only_and_the_hosts() -> None:
    other = replace(cell(), cell=Cell("3.15", Arch.X86_64, "jit"))
    comparison = compare.compare(
        [cell(), other],
        [cell()],
        facts_before={"crossjit": "1", "engine": {"memory": 1}},
        facts_after={"crossjit": "2"},
    )
    assert comparison.removed == (other.cell,)
    said = compare.as_text(comparison, before="A", after="B")
    assert "only before: 3.15/x86_64/jit" in said
    assert "run.crossjit: 1 -> 2" in said
    assert "3.15/aarch64/jit: pass, nothing changed" in said
    assert not comparison.is_worse


def test_as_text_and_as_json() -> None:
    before = cell({"a": "passed", "b": "failed", **{f"c{number}": "passed" for number in range(30)}})
    after = cell({"a": "crashed", "b": "passed"}, Verdict.FAIL)
    comparison = compare.compare([before], [after])
    assert compare.as_text(comparison, before="A", after="B", limit=2).splitlines() == [
        "before: A",
        "after:  B",
        "",
        "3.15/aarch64/jit: pass -> fail (it is fail)",
        "  newly failing, 1:",
        "    jit: a: passed -> crashed (last: crashed)",
        "  fixed, 1:",
        "    jit: b: failed -> passed",
        "  removed, 30:",
        "    jit: c0: passed -> not there",
        "    jit: c1: passed -> not there",
        "    and 28 more; --json lists them all",
        "",
        "1 newly failing; no longer passing: 3.15/aarch64/jit; 30 tests no longer run",
    ]
    value = json.loads(json.dumps(compare.as_json(comparison, before="A", after="B")))
    assert (value["worse"], value["cells"][0]["cell"], value["cells"][0]["after"]) == (True, "3.15/aarch64/jit", "fail")
    assert [each["name"] for each in value["cells"][0]["newly_failing"]] == ["a"]
    assert len(value["cells"][0]["removed"]) == 30
    hostile = compare.as_text(compare.compare([cell()], example_runs.hostile()), before="A", after="B")
    assert "\x1b" not in hostile
    hostile.encode()
