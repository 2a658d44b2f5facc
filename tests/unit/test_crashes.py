"""Crashes and hangs: what a suite's record tells of them, and which of a run's is looked at with gdb."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from crossjit.channels import ModuleExit
from crossjit.errors import UserError
from crossjit.model import Arch, Cell, CellResult, Crash, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report.crashes import crashes_text
from crossjit.report.tables import cell_json
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.tasks import debug
from crossjit.validation import crashes, results

CELL = Cell("3.15", Arch.AARCH64, "jit")
OTHER = Cell("3.15", Arch.X86_64, "jit")
EVENT = {
    "id": "000-test_s",
    "kind": "module",
    "name": "test_s",
    "label": "stress",
    "status": -11,
    "signal": "SIGSEGV",
    "timed_out": False,
    "memory_kills": 0,
    "seconds": 1.0,
    "junit": None,
    "checks": None,
    "log": "000-test_s.log",
    "tail": "",
    "command": ["/usr/local/bin/python3", "-m", "test", "--match", "a b", "test_s"],
    "env": {"PYTHON_JIT_STRESS": "1"},
}
LOG = """\
test_w (test.test_s.C.test_w) ... Fatal Python error: this one is a subprocess's
ok
test_x (test.test_s.C.test_x) ... Fatal Python error: Segmentation fault

Current thread 0x000000550333f020 [python3.15] (most recent call first):
  File "/usr/local/lib/python3.15/test/test_s.py", line 7 in test_x

Extension modules: _testcapi (total: 1)
"""
HUNG = """\
test_y (test.test_s.C.test_y) ... Timeout (0:05:00)!
Thread 0x000000550333f020 [python3.15] (most recent call first):
  File "/usr/local/lib/python3.15/test/test_s.py", line 9 in test_y
"""


def found(folder: Path, log: str, **fields: object) -> Sequence[Crash]:
    (folder / "000-test_s.log").write_text(log)
    ended = ModuleExit.read({**EVENT, **fields})
    return crashes.of_module(ended, results.of_module("jit", ended, folder).results, folder)


def test_a_crash_has_its_command_signal_and_traceback(tmp_path: Path) -> None:
    (crash,) = found(tmp_path, LOG)
    assert (crash.test, crash.module) == ("test.test_s.C.test_x [stress]", "test_s [stress]")
    assert (crash.how, crash.log) == ("killed by SIGSEGV", "000-test_s.log")
    assert crash.command == "PYTHON_JIT_STRESS=1 /usr/local/bin/python3 -m test --match 'a b' test_s"
    assert crash.traceback[0] == "Fatal Python error: Segmentation fault"
    assert crash.traceback[3].endswith("line 7 in test_x")
    assert crash.traceback[-1].startswith("Extension modules")


def test_a_hang_has_the_stacks_of_its_time_out(tmp_path: Path) -> None:
    (crash,) = found(tmp_path, HUNG, status=1, signal=None)
    assert crash.test == "test.test_s.C.test_y [stress]"
    assert crash.traceback[0] == "Timeout (0:05:00)!"
    assert "test_y" in crash.traceback[-1]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    (crash,) = found(tmp_path, "", command=[], env={}, timed_out=True, signal="SIGKILL", status=-9)
    assert (crash.command, crash.traceback, crash.how) == ("", (), "killed after its time limit")
    earlier = {name: value for name, value in EVENT.items() if name not in ("command", "env")}
    assert ModuleExit.read(earlier).command == ()


@pytest.mark.parametrize("status", [0, 2])
def test_a_module_that_ends_by_itself_did_not_crash(tmp_path: Path, status: int) -> None:
    assert found(tmp_path, LOG, status=status, signal=None) == ()


def test_a_long_traceback_is_cut() -> None:
    lines = crashes.traceback("Fatal Python error: x\n" + '  File "x.py"\n' * 500)
    assert len(lines) == crashes.TRACEBACK + 1
    assert lines[-1] == "… and 421 more"


CRASH = Crash(
    "test.test_s.C.test_x", "test_s", "killed by SIGSEGV", "python3 -m test", ("Fatal Python error: x",), "s.log"
)


def result(cell: Cell, *tests: tuple[str, Outcome], **more: object) -> CellResult:
    suite = SuiteResult(
        "jit", tuple(TestResult("jit", name, outcome) for name, outcome in tests), 1.0, crashes=(CRASH,)
    )
    return CellResult(cell, Verdict.FAIL, ("red",), suites=(suite,), **more)  # type: ignore[arg-type]


@pytest.fixture
def state(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    return settings


def record(settings: Settings, *results: CellResult, request: object = None) -> Run:
    with RunRecord.start(settings, ("invoke", "validate"), {}, request={"jobs": 3}, cells=[OTHER, CELL]) as record:
        for each in results:
            record.set_cell(each)
    return record.run


def test_runs_show_crashes_and_the_way_to_look_at_them(state: Settings) -> None:
    run = record(state, result(CELL, ("test.test_s.C.test_x", Outcome.CRASHED)))
    text = crashes_text(run)
    for part in ("3.15/aarch64/jit: jit: test.test_s.C.test_x: killed by SIGSEGV", "$ python3 -m test", "Fatal Python"):
        assert part in text
    assert str(run.cell_folder(CELL) / "jit" / "s.log") in text
    assert f"./inv debug {run.id}" in text
    told = cell_json(run.results()[1])["suites"]
    assert isinstance(told, list)
    assert told[0]["crashes"][0]["how"] == "killed by SIGSEGV"
    quiet = record(state, CellResult(CELL, Verdict.PASS, ("green",)))
    assert crashes_text(quiet) == ""


FAILED = ("test.test_s.C.test_a", Outcome.FAILED)
HANG = ("test.test_s.C.test_h", Outcome.TIMED_OUT)
SEGFAULT = ("test.test_s.C.test_x [stress]", Outcome.CRASHED)


@pytest.mark.parametrize(
    ("results", "cell", "test"),
    [
        ([result(OTHER, FAILED, HANG), result(CELL, SEGFAULT)], CELL, SEGFAULT[0]),
        ([result(OTHER, FAILED), result(CELL, HANG)], CELL, HANG[0]),
        ([result(OTHER, SEGFAULT), result(CELL, probe={"crashed": "killed by SIGILL"})], CELL, ""),
    ],
)
def test_a_crash_is_chosen_before_a_hang(state: Settings, results: list[CellResult], cell: Cell, test: str) -> None:
    run = record(state, *results)
    wanted = debug.of_run(["last"], "")
    assert wanted.before is not None
    assert wanted.result is not None
    assert (wanted.before.id, wanted.result.cell, wanted.test, wanted.request.jobs) == (run.id, cell, test, 3)


def test_any_test_of_a_run_can_be_chosen(state: Settings) -> None:
    run = record(state, result(OTHER, SEGFAULT), result(CELL, FAILED))
    for name in ("test_s.C.test_a", "test.test_s.C.test_a"):
        assert debug.of_run([run.id], name).test == FAILED[0]
    assert debug.of_run([run.id[:-1]], "test.test_s.C.test_x").test == SEGFAULT[0]
    assert debug.of_run([run.id], SEGFAULT[0]).test == SEGFAULT[0]
    with pytest.raises(UserError, match="no test 'test_s"):
        debug.of_run([run.id], "test_s.C.test_b")


def test_the_last_run_is_one_that_came_to_something(state: Settings) -> None:
    run = record(state, result(OTHER, SEGFAULT))
    record(state)  # one that only looked
    wanted = debug.of_run(["last"], "")
    assert wanted.before is not None
    assert wanted.before.id == run.id


def test_a_run_without_a_crash_has_nothing_to_look_at(state: Settings) -> None:
    record(state, result(OTHER, FAILED))
    with pytest.raises(UserError, match="crashed or hung") as caught:
        debug.of_run(["last"], "")
    assert "--cell" in caught.value.hint
