"""What containers say may be anything: none of it gets at the host, and what is wrong fails the cell, in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.config import suites
from crossjit.errors import OutOfMemoryError
from crossjit.model import CellResult, Outcome, SuiteResult, Verdict
from crossjit.report import tables, terminal_style
from crossjit.util.budget import Budget
from crossjit.validation import results, run_suite
from crossjit.validation.target import Target
from crossjit.validation.verdict import judge
from tests.fakes.engine import FakeEngine, FakeProcess, Program
from tests.fakes.files import Entry
from tests.unit.test_validation import (
    CELL,
    DONE,
    END,
    FAILS,
    FILES,
    JIT,
    PLAN,
    START,
    capable,
    event,
    facts,
    go,
    probe,
    runner,
    target,
)

__all__ = ["target"]  # a fixture

SECRET = "root:the-secret:1"
GREEN_PROBE = facts("machine code")


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "host" / "shadow"
    path.parent.mkdir()
    path.write_text(f"Fatal Python error: {SECRET}\n")
    return path


def everything(result: SuiteResult, folder: Path) -> str:
    """Return all that came of a suite: its result and what it left on disk."""
    files = [path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file()]
    told = tables.cell_json(CellResult(CELL, Verdict.FAIL, (), suites=(result,)), whole=True)
    return "\n".join([json.dumps(told), *files])


def verdict(result: SuiteResult) -> Verdict:
    return judge(CELL, JIT, GREEN_PROBE, [replace(result, unproved=())])[0]


# -- files


@pytest.mark.parametrize("way", ["{up}", "{whole}"])
@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "script", "name": "/x/ft_workload.py", "checks": "@"},
        {"log": "@", "status": -11, "signal": "SIGSEGV"},
        {"junit": "@"},
    ],
)
def test_a_file_of_the_host_is_in_nothing(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, secret: Path, way: str, fields: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    name = way.format(up=f"../../../../../../../../../../..{secret}", whole=secret)
    end = event(**{key: name if value == "@" else value for key, value in fields.items()})
    start = {**START, "kind": end["kind"], "name": end["name"]}
    plan = {**PLAN, "modules": [{key: start[key] for key in ("id", "kind", "name", "label")}]}

    def program(process: FakeProcess) -> int:
        process.write_file(f"{run_suite.RESULTS}/000-test_s/000-test_s.log", b"")
        for each in (plan, start, end, DONE):
            process.write_line(json.dumps(each))
        return 0

    fake_engine.programs["python3"] = capable(program)
    result = go(fake_engine, target, folder)
    assert SECRET not in everything(result, folder)
    assert verdict(result) is Verdict.FAIL
    assert any("cannot be used" in problem for problem in result.problems)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_log_that_is_no_file_is_a_problem(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, secret: Path, kind: bytes
) -> None:
    def program(process: FakeProcess) -> int:
        process.files.add(f"{run_suite.RESULTS}/000-test_s/000-test_s.log", Entry(kind, 0o644, target=str(secret)))
        for each in (PLAN, START, event(), DONE):
            process.write_line(json.dumps(each))
        return 0

    fake_engine.programs["python3"] = capable(program)
    result = go(fake_engine, target, tmp_path / "run")
    assert SECRET not in everything(result, tmp_path / "run")
    assert any("000-test_s.log" in problem for problem in result.problems)
    assert verdict(result) is Verdict.FAIL


def test_what_a_module_leaves_cannot_become_the_record(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    others = {f"000-test_s/{name}": b"{}" for name in ("order.json", "runner.log", "result.json", "001-test_t.log")}
    files = {f"{run_suite.RESULTS}/{name}": content for name, content in others.items()}

    def program(process: FakeProcess) -> int:
        for name, content in files.items():
            process.write_file(name, content)
        return int(runner(PLAN, START, END, DONE, files=FILES)(process))

    fake_engine.programs["python3"] = capable(program)
    go(fake_engine, target, tmp_path)
    folder = tmp_path / "jit"
    assert {path.name for path in folder.iterdir()} == {*FILES, "runner.log", "order.json"}
    assert json.loads((folder / "order.json").read_text())["subject"]["artifact"] == "artifact"
    assert '"event": "end"' in (folder / "runner.log").read_text()


@pytest.mark.parametrize("identity", ["..", ".", "../../run", "runner", "a/b", "000-a/../../b", "", "000-" + "x" * 300])
def test_a_modules_folder_is_below_the_results(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, identity: str
) -> None:
    def program(process: FakeProcess) -> int:
        process.write_file(f"{run_suite.RESULTS}/{identity}/log", b"x")
        job = {"id": identity, "kind": "module", "name": "test_s", "label": ""}
        for each in (
            {"event": "plan", "modules": [job], "missing": []},
            {**START, **job},
            event(id=identity, log="log"),
            DONE,
        ):
            process.write_line(json.dumps(each))
        return 0

    fake_engine.programs["python3"] = capable(program)
    result = go(fake_engine, target, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "jit").iterdir()} == {"order.json", "runner.log"}
    assert verdict(result) is Verdict.FAIL


def test_a_log_without_an_end_is_cut_off_and_told(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossjit.util.safe_files.STREAM", 200_000)
    large = {"000-test_s.log": b"x" * 300_000, "000-test_s.xml": FILES["000-test_s.xml"]}
    fake_engine.programs["python3"] = runner(PLAN, START, END, DONE, files=large)
    result = go(fake_engine, target, tmp_path)
    assert any("more than" in problem and "bytes" in problem for problem in result.problems)
    assert sum(path.stat().st_size for path in (tmp_path / "jit").iterdir()) < 250_000
    assert verdict(result) is Verdict.FAIL


def test_all_that_a_suite_leaves_is_bounded(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossjit.validation.resume.BUDGET", replace(Budget(), results=10))
    fake_engine.programs["python3"] = runner(PLAN, START, END, DONE, files=FILES)
    result = go(fake_engine, target, tmp_path)
    assert any("more than 10 bytes" in problem for problem in result.problems)


# -- the runner's events


WRONG = [
    "{",
    "{}",
    '{"event": []}',
    '{"event": "end"}',
    '{"event": "plan"}',
    '{"event": "plan", "modules": 7, "missing": []}',
    '{"event": "plan", "modules": [{"id": ["x"]}], "missing": [7]}',
    '{"event": "start", "id": {}}',
    '{"event": "not started", "id": "000-test_s"}',
    json.dumps({**START, "id": "777-nobody"}),
    json.dumps(event(id="777-nobody")),
    json.dumps(event(status="zero")),
    json.dumps(event(seconds=-1)),
    json.dumps(event(seconds=float("nan"))),
    json.dumps(event(seconds=1e300)),
    json.dumps(event(memory_kills=-3)),
    json.dumps(event(kind="else")),
    json.dumps(event(log=None)),
    json.dumps(event(log=["a"])),
    json.dumps(event(label=None)),
    json.dumps(event(env={"A": 1})),
    json.dumps(event(command="rm")),
    json.dumps(event(tail="x" * 100_000)),
    json.dumps(event(name="test_other")),
    json.dumps(event(status=-11)),
    json.dumps(event(unheard_of=1)),
    json.dumps({**DONE, "x": 1}),
    json.dumps(DONE),  # test_s runs
    json.dumps(PLAN),  # after the start
    "[" * 100_000,
    "{" + '"a":{' * 100_000,
]


@pytest.mark.parametrize("line", WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_a_wrong_line_is_the_cells_failure_in_words(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, line: str
) -> None:
    def program(process: FakeProcess) -> int:
        for name, content in FILES.items():
            process.write_file(f"{run_suite.RESULTS}/000-test_s/{name}", content)
        for each in (json.dumps(PLAN), json.dumps(START), line, json.dumps(END), json.dumps(DONE)):
            process.write_line(each)
        return 0

    fake_engine.programs["python3"] = capable(program)
    result = go(fake_engine, target, tmp_path)
    assert [each.name for each in result.results] == ["test.test_s.C.test_x"]
    if line.startswith("{"):
        (problem,) = result.problems
        assert "a line of the runner cannot be used" in problem
        assert len(problem) < 1000
        assert verdict(result) is Verdict.FAIL


def test_no_module_ends_twice_or_without_a_start(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    fake_engine.programs["python3"] = runner(PLAN, END, START, END, END, DONE, DONE, files=FILES)
    result = go(fake_engine, target, tmp_path)
    assert len(result.modules) == len(result.results) == 1
    assert len(result.problems) == 3
    assert verdict(result) is Verdict.FAIL


def test_an_end_before_the_end_is_told(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    fake_engine.programs["python3"] = runner(PLAN, START, DONE, files={})
    result = go(fake_engine, target, tmp_path)
    assert any("test_s did not end" in problem for problem in result.problems)
    assert verdict(result) is Verdict.FAIL


def test_of_many_wrong_lines_a_few_are_shown(fake_engine: FakeEngine, target: Target, tmp_path: Path) -> None:
    fake_engine.programs["python3"] = runner(PLAN, START, *[{"event": number} for number in range(500)], files={})
    result = go(fake_engine, target, tmp_path)
    assert len(result.problems) < 10
    assert any("495 more lines" in problem for problem in result.problems)


def test_an_earlier_record_is_believed_no_more_than_the_runner(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, secret: Path
) -> None:
    """It may have been written by a version that believed everything."""
    fake_engine.programs["python3"] = runner(PLAN, START, END, files=FILES)
    go(fake_engine, target, tmp_path / "first")
    with (tmp_path / "first" / "jit" / "runner.log").open("a") as log:
        for name in (f"../../../../../../../../../../..{secret}", str(secret), "order.json"):
            log.write(json.dumps(event(id="001-test_t", name="test_t", log=name)) + "\n")
        log.write('{"event": "end"}\n{"event": "end", "id": []}\n')
        log.write("x\u2028" + json.dumps(event(id="002-test_u", name="test_u", log="000-test_s.log")) + "\n")
    orders: list[Any] = []
    play = runner(PLAN, DONE, files={})

    def program(process: FakeProcess) -> int:
        orders.append(json.loads(process.files.read(run_suite.ORDER)))
        return int(play(process))

    fake_engine.programs["python3"] = capable(program)
    result = go(fake_engine, target, tmp_path / "second", earlier=tmp_path / "first")
    assert orders[0]["done"] == ["test_s"]
    assert SECRET not in everything(result, tmp_path / "second")


# -- limits that are ours


def test_the_suites_time_is_ours_and_the_modules_is_the_tests(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    killed = {"status": -9, "signal": "SIGKILL", "timed_out": True}
    log = {"000-test_s.log": b"test_x (test.test_s.C.test_x) ... "}
    ours = event(**killed, suite_timed_out=True)
    fake_engine.programs["python3"] = runner(PLAN, START, ours, DONE, files=log)
    result = go(fake_engine, target, tmp_path / "first")
    assert result.results == ()
    assert "test_s did not finish: the suite reached its time limit" in result.problems[0]
    assert verdict(result) is Verdict.INFRA
    # and it runs again
    fake_engine.programs["python3"] = runner(PLAN, START, END, DONE, files=FILES)
    again = go(fake_engine, target, tmp_path / "second", earlier=tmp_path / "first")
    assert [each.outcome for each in again.results] == [Outcome.PASSED]
    fake_engine.programs["python3"] = runner(PLAN, START, event(**killed), DONE, files=log)
    result = go(fake_engine, target, tmp_path / "third")
    assert [each.outcome for each in result.results] == [Outcome.TIMED_OUT]
    assert verdict(result) is Verdict.FAIL


def test_a_failure_is_one_whatever_our_limits_cut_short(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    other = {**START, "id": "001-test_t", "name": "test_t"}
    plan = {**PLAN, "modules": [*PLAN["modules"], {"id": "001-test_t", "name": "test_t"}]}
    late = {**other, "event": "not started", "reason": "the suite's time was over"}
    for files, status, expected in ((FAILS, 2, Verdict.FAIL), (FILES, 0, Verdict.INFRA)):
        end = event(junit="000-test_s.xml", status=status)
        fake_engine.programs["python3"] = runner(plan, START, end, late, DONE, files=files)
        result = go(fake_engine, target, tmp_path)
        assert verdict(result) is expected
        assert judge(CELL, JIT, GREEN_PROBE, [result])[1][-1] == "jit: test_t did not run: the suite's time was over"


@pytest.mark.parametrize(
    "fields", [{"status": 2}, {"status": 1}, {"status": -9, "signal": "SIGKILL", "timed_out": True}]
)
def test_a_test_whose_child_was_killed_for_memory_is_our_side(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, fields: dict[str, Any]
) -> None:
    end = event(junit="000-test_s.xml", memory_kills=1, **fields)
    fake_engine.programs["python3"] = runner(PLAN, START, end, DONE, files=FAILS)
    with pytest.raises(OutOfMemoryError, match="killed test_s"):
        go(fake_engine, target, tmp_path)


def test_a_test_that_passes_though_something_was_killed_passes(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    fake_engine.programs["python3"] = runner(PLAN, START, {**END, "memory_kills": 3}, DONE, files=FILES)
    result = go(fake_engine, target, tmp_path)
    assert verdict(result) is Verdict.PASS


def test_a_runner_that_we_end_says_nothing_about_cpython(
    fake_engine: FakeEngine, target: Target, tmp_path: Path
) -> None:
    def hangs(process: FakeProcess) -> int:
        for each in (PLAN, START):
            process.write_line(json.dumps(each))
        process.sleep(1_000_000)
        return 0

    fake_engine.programs["python3"] = capable(hangs)
    assert verdict(go(fake_engine, target, tmp_path)) is Verdict.INFRA

    def unable(process: FakeProcess) -> int:
        if process.argv[1].endswith("capabilities.py"):
            process.sleep(10_000)
        return int(runner(PLAN, START, END, DONE, files=FILES)(process))

    fake_engine.programs["python3"] = unable
    assert verdict(go(fake_engine, target, tmp_path)) is Verdict.INFRA


# -- the probe


def slow(seconds: float) -> Program:
    def program(process: FakeProcess) -> int:
        process.sleep(seconds)
        process.write_line(json.dumps(GREEN_PROBE))
        return 0

    return program


def shell(seconds: float) -> Program:
    def program(process: FakeProcess) -> int:
        process.sleep(seconds)
        return 0

    return program


def test_a_slow_probe_is_not_a_broken_build(fake_engine: FakeEngine, target: Target) -> None:
    native = replace(target, emulation={})
    fake_engine.programs |= {"python3": slow(400), "sh": shell(500)}
    assert judge(CELL, JIT, probe(fake_engine, target), ())[0] is Verdict.PASS  # emulated: everything takes longer
    seen = probe(fake_engine, native)
    found, reasons = judge(CELL, JIT, seen, ())
    assert found is Verdict.INFRA
    assert reasons[0].startswith("the probe did not finish: not finished in 300 s, and a control did not finish either")


def test_a_probe_that_hangs_where_the_machine_is_well_is_a_finding(fake_engine: FakeEngine, target: Target) -> None:
    fake_engine.programs |= {"python3": slow(1_000_000), "sh": shell(1)}
    for each, seconds in ((target, "3,000"), (replace(target, emulation={}), "300")):
        found, reasons = judge(CELL, JIT, probe(fake_engine, each), ())
        assert found is Verdict.FAIL
        assert f"not finished in {seconds} s, where the machine ran a control in 1.0 s" in reasons[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "cannot be read"),
        ("no facts", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"workloads": 7}', "workloads"),
        ('{"workloads": [{"name": "loop"}]}', "workloads.0.correct"),
        ('{"executable": {"machine": ["EM_AARCH64"]}}', "executable.machine"),
        ('{"gil": {"enabled": "no"}}', "gil"),
        ('{"steps_active": 1e999}', "steps_active"),
        ('{"crashed": "not at all"}', "crashed"),
        ('{"unfinished": "the machine is to blame"}', "unfinished"),
        ('{"errors": {"gil": 7}}', "errors.gil"),
        ('{"modules": [[[[]]]]}', "modules"),
        ('{"debug": ' + "[" * 5000, "Invalid JSON"),
    ],
)
def test_facts_of_wrong_types_are_a_finding_in_words(
    fake_engine: FakeEngine, target: Target, line: str, words: str
) -> None:

    def program(process: FakeProcess) -> int:
        process.write_line(line)
        return 0

    fake_engine.programs["python3"] = program
    seen = probe(fake_engine, target)
    found, reasons = judge(CELL, JIT, seen, ())
    assert found is Verdict.FAIL
    assert "its facts cannot be read" in reasons[0]
    assert words in reasons[0]


@pytest.mark.parametrize(
    "recorded",
    [
        {"executable": [], "gil": 7},
        {"workloads": [{}]},
        {"workloads": {"name": 1}},
        {"crashed": ["x"], "output": 7},
        {"modules": {"failed": [1]}, "gil": {}},
        {"told": float("nan")},
    ],
)
def test_what_a_manifest_says_of_a_probe_is_not_believed_either(recorded: Mapping[str, object]) -> None:
    """It may be of a version that believed everything."""
    found, reasons = judge(CELL, JIT, recorded, ())
    assert found is Verdict.FAIL
    assert "cannot be read" in reasons[0]


def test_a_record_of_another_version_is_read() -> None:
    gil = {"disabled_in_build": False, "enabled": True, "told_later": 1}
    assert judge(CELL, JIT, {**GREEN_PROBE, "told_later": [1], "gil": gil}, ())[0] is Verdict.PASS


# -- reports and caches


@pytest.mark.parametrize(
    "report",
    [
        "",
        "<testsuites>",
        "<testsuites/>" * 2,
        '<testsuites><testsuite errors="abc"/></testsuites>',
        '<testsuites><testsuite failures="-1"/></testsuites>',
        '<testsuites><testsuite errors="1e9"/></testsuites>',
        '<testsuites><testsuite><testcase name="test.test_s.C.test_x" time="x"/></testsuite></testsuites>',
        '<testsuites><testsuite><testcase name="test.test_s.C.test_x" time="nan"/></testsuite></testsuites>',
        '<testsuites><testsuite><testcase name="test.test_s.C.test_x" time="-1"/></testsuite></testsuites>',
        '<testsuites><testsuite><testcase name="' + "x" * 10_000 + '"/></testsuite></testsuites>',
        "<a>" * 5_000,
        "<other/>",
        '<?xml version="1.0" encoding="no-such"?><testsuites/>',
        '<!DOCTYPE a [<!ENTITY b "c">]><testsuites><testsuite><testcase name="&b;"/></testsuite></testsuites>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><testsuites/>',
        "<testsuites><testsuite><testcase name='a'>" + "<error/>" * 100 + "</testcase></testsuite></testsuites>",
    ],
    ids=str,
)
def test_a_report_that_is_none_is_one_error(
    fake_engine: FakeEngine, target: Target, tmp_path: Path, report: str
) -> None:
    files = {**FILES, "000-test_s.xml": report.encode()}
    fake_engine.programs["python3"] = runner(PLAN, START, END, DONE, files=files)
    result = go(fake_engine, target, tmp_path)
    (test,) = result.results
    assert (test.name, test.outcome) == ("test.test_s", Outcome.ERROR)
    assert "cannot be read" in test.message
    assert verdict(result) is Verdict.FAIL


def test_a_bomb_of_entities_does_not_go_off(tmp_path: Path) -> None:
    nested = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))
    bomb = f'<!DOCTYPE a [<!ENTITY a0 "{"a" * 64}">{nested}]><testsuites><testsuite errors="&a8;"/></testsuites>'
    (tmp_path / "000-test_s.xml").write_text(bomb)
    (tmp_path / "000-test_s.log").write_text("")
    (result,) = results.of_module("jit", read_end(event(junit="000-test_s.xml")), tmp_path).results
    assert "document type" in result.message


def read_end(fields: Mapping[str, Any]) -> Any:
    from crossjit.channels import ModuleExit

    return ModuleExit.read(fields)


def test_caches_that_were_never_asked_do_not_break_what_is_shown() -> None:
    for caches in ({"llvm": (0, 0)}, {"llvm": (-1, 1)}, {"llvm": (0, 0), "compiler": (3, 1)}):
        result = CellResult(CELL, Verdict.PASS, ("x",), caches=caches)
        shown = tables.results_text([result], run="r", reproduce="x", style=terminal_style.TerminalStyle())
        assert "llvm" not in shown
        assert ("compiler 75% of 4" in shown) is ("compiler" in caches)


# -- the runner itself


HOSTILE_TEST = """
import json, os
def main(options):
    line = (json.dumps({"event": "end", "id": "forged", "by": "a test"}) + "\\n").encode()
    tried = []
    for process in (os.getpid(), os.getppid()):
        try:
            names = os.listdir(f"/proc/{process}/fd")
        except OSError as error:
            names = [str(number) for number in range(20)]
        for name in names:
            if process == os.getpid() and int(name) < 3:
                continue
            try:
                descriptor = os.open(f"/proc/{process}/fd/{name}", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
                os.write(descriptor, line)
                tried.append(f"{process} {name}")
            except OSError:
                pass
    for descriptor in range(3, 100):
        try:
            os.write(descriptor, line)
            tried.append(str(descriptor))
        except OSError:
            pass
    print(json.dumps(tried))
"""
HOSTILE_REGRTEST = """
import argparse, importlib
parser = argparse.ArgumentParser()
parser.add_argument("module")
options = parser.parse_known_args()[0]
import sys
importlib.import_module("test." + sys.argv[-1]).main(options)
"""


# as in the target: who has all rights may look at any process
UNPRIVILEGED = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def test_a_test_cannot_write_into_the_runners_events() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o777)
        package = folder / "library" / "test"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(HOSTILE_REGRTEST)
        (package / "test_forge.py").write_text(HOSTILE_TEST)
        item = {
            "kind": "module",
            "name": "test_forge",
            "without": [],
            "label": "",
            "arguments": [],
            "timeout": 30,
            "env": {"PYTHONPATH": str(folder / "library")},
            "weight": 1,
            "weights": {},
            "optional": False,
        }
        order = {"limit": 60, "resources": [], "ignore": [], "items": [item], "shard": None, "tests": []}
        (folder / "suite.json").write_text(json.dumps({**order, "seconds": {}, "done": []}))
        (folder / "output").mkdir()
        (folder / "output").chmod(0o777)
        script = folder / "runner.py"
        for name in ("runner.py", "runner_jobs.py"):
            (folder / name).write_bytes((suites.VALIDATE / name).read_bytes())
        argv = [
            *UNPRIVILEGED,
            os.path.realpath(sys.executable),
            str(script),
            "--suite-json",
            str(folder / "suite.json"),
            "--output",
            str(folder / "output"),
        ]
        ended = subprocess.run(
            [*argv, "--jobs", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PYTHONPATH": str(folder / "library"), "PATH": os.environ["PATH"]},
            timeout=120,
            check=False,
        )
        events = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [each["event"] for each in events] == ["plan", "start", "end", "done"], ended.stdout
    assert json.loads(events[2]["tail"]) == []
