from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from crossjit.config.conditions import TargetEnvironment, When
from crossjit.known_failures import audit
from crossjit.known_failures import entries as entries_module
from crossjit.known_failures.audit import History, State, Subject
from crossjit.known_failures.entries import FailureKind, KnownFailure, LocatedEntry
from crossjit.known_failures.test_inventory import Inventory
from crossjit.model import Arch, Cell, CellResult, Outcome, SuiteResult, TestResult, Variant, Verdict
from crossjit.runs.history import list_runs
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.stash.artifact import INSTALL
from crossjit.stash.store import Store
from crossjit.tasks.known_failures import check_known_failures, list_known_failures
from tests.unit.trees import File, manifest, stream

JIT = Variant("jit", "", (), ())
EMULATED = TargetEnvironment((3, 15), Arch.AARCH64, JIT, emulated=True, qemu="7.2.22", capabilities={"pty": False})
NATIVE = TargetEnvironment((3, 15), Arch.X86_64, JIT)
TEST = "test.test_a.C.test_x"
REASON = "it needs vfork, which QEMU has not"

SUBJECT = Subject("3.15", (3, 15), Inventory(frozenset({TEST, "test.test_a.C.test_y"}), frozenset({"test.test_open."})))


def listed(test: str = TEST, kind: FailureKind = FailureKind.FAIL, **fields: Any) -> LocatedEntry:
    return LocatedEntry(KnownFailure(test, kind, REASON, **fields), Path("emulation.toml"), 4)


def history(run: str, *outcomes: Outcome, where: TargetEnvironment = EMULATED, test: str = TEST) -> History:
    return History(run, where, {test: frozenset(outcomes)})


def judge(
    each: LocatedEntry, histories: Iterable[History] = (), subjects: Iterable[Subject] = (SUBJECT,)
) -> tuple[State, str]:
    (judged,) = audit.judge([each], tuple(subjects), tuple(histories))
    assert judged.listed is each
    return judged.state, judged.why


def test_an_entry_that_a_run_needed() -> None:
    said = judge(
        listed(), [history("r3", Outcome.PASSED), history("r2", Outcome.FAILED), history("r1", Outcome.FAILED)]
    )
    assert said == (State.NEEDED, "failed so in run r2 and 1 other")
    groups = history("r1", Outcome.PASSED, Outcome.FAILED)
    assert judge(listed("test.test_a.*"), [groups]) == (State.NEEDED, "failed so in run r1")


def test_an_entry_that_no_run_needed() -> None:
    assert judge(listed(), [history("r2", Outcome.PASSED), history("r1", Outcome.PASSED)]) == (
        State.NOT_NEEDED,
        "passed in run r2 and 1 other, and fail in none",
    )
    assert judge(listed(), [history("r1", Outcome.TIMED_OUT)])[1] == "timed out in run r1, and fail in none"
    assert State.NOT_NEEDED.is_wrong


@pytest.mark.parametrize(
    ("each", "histories", "why"),
    [
        (listed(), [], "no run recorded its environment"),
        (listed(when=When(emulated=False)), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (listed(when=When(qemu=">=8.2")), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (listed(when=When(lacks=("ptrace",))), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (
            listed(when=When(lacks=("pty",))),
            [history("r1", Outcome.SKIPPED)],
            "its tests ran in no run where it applies",
        ),
        (
            listed(),
            [history("r1", Outcome.PASSED, test="test.test_b.C.test_x")],
            "its tests ran in no run where it applies",
        ),
        (listed(run=False), [history("r1", Outcome.SKIPPED)], "it is deselected, so no run can tell"),
    ],
)
def test_an_entry_that_was_not_tried(each: LocatedEntry, histories: list[History], why: str) -> None:
    assert judge(each, histories) == (State.NOT_TRIED, why)
    assert not State.NOT_TRIED.is_wrong


def test_an_entry_whose_tests_are_nowhere() -> None:
    state, why = judge(listed("test.test_a.C.test_xx"))
    assert state is State.NO_TEST
    assert state.is_wrong
    assert why == f"no test of 3.15 matches; did you mean {TEST!r}?"
    assert judge(listed("test.nowhere.*"))[0] is State.NO_TEST
    # what failed in a run is there, whatever the sources say
    assert (
        judge(listed("test.test_a.C.test_xx"), subjects=[replace(SUBJECT, seen=frozenset({"test.test_a.C.test_xx"}))])[
            0
        ]
        is State.NOT_TRIED
    )


@pytest.mark.parametrize(
    ("test", "when", "state"),
    [
        ("test.test_open.Made.test_x", When(), State.NOT_TRIED),
        ("builtins.float.hex", When(), State.NOT_TRIED),
        ("ft_workload.collector", When(), State.NOT_TRIED),
        ("*.test_timer", When(), State.NOT_TRIED),
        ("tests.test_a.C.test_x", When(), State.NO_TEST),
        ("test_a", When(), State.NO_TEST),
        # no sources of such a Python are here
        ("test.test_old.C.test_x", When(python="<3.14"), State.NOT_TRIED),
        ("test.test_old.C.test_x", When(python=">=3.14"), State.NO_TEST),
    ],
)
def test_what_the_sources_cannot_tell_is_no_alarm(test: str, when: When, state: State) -> None:
    assert judge(listed(test, when=when))[0] is state


def test_without_sources_nothing_is_said_of_a_tests_name() -> None:
    assert judge(listed("test.test_xyz.C.test_x"), subjects=[])[0] is State.NOT_TRIED
    seen = Subject("3.15", (3, 15), None, frozenset({TEST}))
    assert judge(listed("test.test_xyz.C.test_x"), subjects=[seen])[0] is State.NOT_TRIED


# -- from the stash and the run records

CELL = Cell("3.15", Arch.AARCH64, "jit")


def suite(*results: TestResult, where: TargetEnvironment = EMULATED) -> SuiteResult:
    capabilities: dict[str, object] = {
        "pty": {"works": False, "detail": "ENOSYS"},
        "ptrace": {"works": None, "detail": "the feature check went wrong"},
    }
    return SuiteResult("jit", results, 1.0, conditions=where.facts(), capabilities=capabilities)


def record(settings: Settings, *suites: SuiteResult) -> str:
    with RunRecord.start(settings, ("inv",), {}, cells=(CELL,)) as run:
        run.set_cell(CellResult(CELL, Verdict.PASS, (), suites=suites))
        return run.id


def recorded(settings: Settings) -> audit.Recorded:
    return [(run.id, result) for run in list_runs(settings) for result in run.results()]


@pytest.fixture
def stash(settings: Settings) -> Store:
    store = Store(settings.stash)
    text = b"import unittest\nclass C(unittest.TestCase):\n    def test_x(self): pass\n"
    for number, version in enumerate(("3.15", "3.13")):
        key = f"{number}" * 64
        with store.lock(key), store.staging(key) as staging:
            staging.add(INSTALL, stream({f"usr/local/lib/python{version}/test/test_a.py": File(text)}))
            staging.commit(replace(manifest(key), recipe=version, version=f"{version}.1"))
            text = text.replace(b"test_x", b"test_old")
    return store


def test_tests_are_known_from_artifacts_and_from_runs(settings: Settings, stash: Store) -> None:
    record(
        settings,
        suite(
            TestResult("jit", f"{TEST} [stress]", Outcome.FAILED, known=REASON),
            TestResult("jit", "test.test_a.C.test_seen", Outcome.SKIPPED),
            TestResult("jit", "test.test_a.C.test_left_out", Outcome.SKIPPED, known=REASON),
        ),
        SuiteResult("old", (TestResult("old", "test.test_a.C.test_unknown", Outcome.PASSED),), 1.0),
    )
    found = audit.subjects(stash.artifacts(), recorded(settings), ["test.test_a.*"])
    assert [(each.recipe, each.python) for each in found] == [("3.13", (3, 13)), ("3.15", (3, 15))]
    old, new = found
    assert new.seen == {TEST, "test.test_a.C.test_seen"}
    assert new.may_have(TEST)
    assert not new.may_have("test.test_a.C.test_old")
    assert old.may_have("test.test_a.C.test_old")
    (history,) = audit.histories(recorded(settings))
    assert history.outcomes == {TEST: {Outcome.FAILED}, "test.test_a.C.test_seen": {Outcome.SKIPPED}}
    assert history.where.capabilities == {"pty": False}
    assert history.where.facts() == EMULATED.facts()


@pytest.fixture
def home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    return settings


def entries(monkeypatch: pytest.MonkeyPatch, *found: LocatedEntry) -> None:
    monkeypatch.setattr(entries_module, "listed", lambda: found)


def test_the_check_says_what_is_wrong_and_where(
    home: Settings, stash: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(home, suite(TestResult("jit", TEST, Outcome.PASSED)))
    entries(
        monkeypatch, listed(), listed("test.test_a.D.*"), listed("test.test_a.C.test_old", when=When(python="<3.14"))
    )
    with pytest.raises(Exit) as ended:
        check_known_failures(Context())
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        f"emulation.toml:4: {TEST}: not needed: passed in run {run}, and fail in none",
        "emulation.toml:4: test.test_a.D.*: no such test: no test of 3.13, 3.15 matches "
        "(those of 3.14, main are not in the stash; an entry about them says `python`)",
        "emulation.toml:4: test.test_a.C.test_old: not tried: its conditions applied in no run",
        "3 known failures: 1 not tried, 1 not needed, 1 no such test",
    ]
    with pytest.raises(Exit):
        check_known_failures(Context(), json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["wrong"], said["recipes"]) == (2, ["3.13", "3.15"])
    assert [each["state"] for each in said["entries"]] == ["not needed", "no such test", "not tried"]
    assert said["entries"][0] | {"why": ""} == {
        "file": "emulation.toml",
        "line": 4,
        "test": TEST,
        "kind": "fail",
        "run": True,
        "when": "",
        "reason": REASON,
        "link": "",
        "state": "not needed",
        "why": "",
    }


def test_the_check_of_what_is_needed_and_not_tried_passes(
    home: Settings, stash: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(home, suite(TestResult("jit", TEST, Outcome.FAILED, known=REASON)))
    entries(monkeypatch, listed(), listed(kind=FailureKind.HANG, run=False, when=When(arch=(Arch.X86_64,))))
    check_known_failures(Context())
    assert "2 known failures: 1 needed, 1 not tried" in capsys.readouterr().out


def test_the_shipped_list_can_be_listed_and_checked_with_nothing_there(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    list_known_failures(Context())
    number = len(entries_module.listed())
    assert capsys.readouterr().out.count(".toml:") == number
    list_known_failures(Context(), json=True)
    assert len(json.loads(capsys.readouterr().out)) == number
    check_known_failures(Context())
    said = capsys.readouterr()
    assert f"{number} not tried" in said.out
    assert "the stash is empty" in said.err
