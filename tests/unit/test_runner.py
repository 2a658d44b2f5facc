from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crossjit.channels import read_event
from crossjit.config.suites import VALIDATE

RUNNER = VALIDATE / "runner.py"

# Takes regrtest's command line as the runner uses it, and lets the module do the rest.
REGRTEST = """
import argparse, importlib, json, os, sys
parser = argparse.ArgumentParser()
for option in ("--junit-xml", "--timeout", "--tempdir", "--use"):
    parser.add_argument(option, required=True)
parser.add_argument("--verbose", action="store_true", required=True)
parser.add_argument("--fail-env-changed", action="store_true", required=True)
parser.add_argument("--ignore", action="append", default=[])
parser.add_argument("--match", action="append", default=[])
parser.add_argument("--parallel-threads")
parser.add_argument("module")
options = parser.parse_args()
importlib.import_module("test." + options.module).main(options)
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Make a folder with a test package of our own, to be found before the standard library's."""
    package = tmp_path / "library" / "test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(REGRTEST)
    return package


class Job(dict[str, Any]):
    def __init__(self, name: str, **fields: object) -> None:
        super().__init__(
            {
                "kind": "module",
                "name": name,
                "without": [],
                "label": "",
                "arguments": [],
                "env": {},
                "timeout": 30,
                "weight": 1,
                "weights": {},
                "optional": False,
                **fields,
            }
        )


def run(library: Path, *jobs: Job, at_once: int = 1, limit: float = 60, **suite: object) -> list[dict[str, Any]]:
    output = library.parent.parent / "output"
    for job in jobs:
        job["env"] = {"PYTHONPATH": str(library.parent), **job["env"]}
    order = {
        "limit": limit,
        "resources": [],
        "ignore": [],
        "items": jobs,
        "shard": None,
        "tests": [],
        "seconds": {},
        "done": [],
        **suite,
    }
    file = library.parent.parent / "suite.json"
    file.write_text(json.dumps(order))
    argv = [sys.executable, str(RUNNER), "--suite-json", str(file), "--output", str(output), "--jobs", str(at_once)]
    environment = {**os.environ, "PYTHONPATH": str(library.parent), "PYTHON_JIT": "0"}
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


def ends(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {event["name"]: event for event in events if event["event"] == "end"}


def write(library: Path, name: str, body: str) -> None:
    path = library.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(exist_ok=True)
    for folder in (path.parent, *path.parent.parents):
        if folder == library.parent:
            break
        (folder / "__init__.py").touch()
    path.write_text(
        "import json, os, signal, subprocess, sys, time\ndef main(options):\n    " + body.replace("\n", "\n    ")
    )


def test_each_module_has_a_process_a_session_and_a_folder_of_its_own(library: Path) -> None:
    said = (
        "print(json.dumps({'pid': os.getpid(), 'session': os.getsid(0), 'cwd': os.getcwd(), 'temp': options.tempdir,"
        " 'TMPDIR': os.environ['TMPDIR'], 'stdin': sys.stdin.read()}))\n"
        "open(os.path.join(options.tempdir, 'left'), 'w').close()"
    )
    write(library, "test_one", said)
    write(library, "test_two", said)
    ended = ends(run(library, Job("test_one"), Job("test_two"), at_once=2))
    one, two = (json.loads(ended[name]["tail"]) for name in ("test_one", "test_two"))
    for each in (one, two):
        assert each["pid"] == each["session"]
        assert each["cwd"] == each["temp"] == each["TMPDIR"]
        assert each["stdin"] == ""
        assert not Path(each["temp"]).exists()
    assert one["session"] != two["session"]
    assert one["temp"] != two["temp"]


def test_a_module_gets_the_suites_environment_and_none_of_the_runners(library: Path) -> None:
    write(library, "test_env", "print(json.dumps({k: v for k, v in os.environ.items() if k.startswith('PYTHON')}))")
    ended = ends(run(library, Job("test_env", env={"PYTHON_JIT_STRESS": "1"})))["test_env"]
    assert json.loads(ended["tail"]) == {"PYTHON_JIT_STRESS": "1", "PYTHONPATH": str(library.parent)}


def test_python_is_not_told_to_ignore_the_environment(library: Path) -> None:
    write(library, "test_flags", "print(sys.flags.ignore_environment, sys.flags.isolated, options.use, options.ignore)")
    events = run(library, Job("test_flags"), resources=["cpu", "walltime"], ignore=["test.test_flags.C.test_x"])
    assert ends(events)["test_flags"]["tail"].split(maxsplit=2) == [
        "0",
        "0",
        "cpu,walltime ['test.test_flags.C.test_x']\n",
    ]


def test_a_crash_is_one_outcome_and_not_the_end(library: Path) -> None:
    write(library, "test_crash", "print('about to crash', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)")
    write(library, "test_fine", "open(options.junit_xml, 'w').write('<testsuites/>')\nsys.exit(0)")
    events = run(library, Job("test_crash", weight=5), Job("test_fine"))
    ended = ends(events)
    assert (ended["test_crash"]["status"], ended["test_crash"]["signal"]) == (-11, "SIGSEGV")
    assert ended["test_crash"]["junit"] is None
    assert "about to crash" in ended["test_crash"]["tail"]
    assert ended["test_fine"]["status"] == 0
    fine = ended["test_fine"]
    assert (library.parent.parent / "output" / fine["id"] / fine["junit"]).read_text() == "<testsuites/>"
    assert events[-1] == {"event": "done"}


def test_a_hang_is_killed_with_all_that_it_started(library: Path) -> None:
    write(
        library,
        "test_hang",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)",
    )
    started = time.monotonic()
    ended = ends(run(library, Job("test_hang"), limit=2))["test_hang"]
    assert time.monotonic() - started < 30
    assert ended["timed_out"] is True
    assert ended["signal"] == "SIGKILL"
    grandchild = int(ended["tail"])
    assert _dies(grandchild)


def _dies(pid: int) -> bool:
    """Whether a process is dead, or is so soon: a busy kernel takes its time to carry out a SIGKILL."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_what_a_module_leaves_running_is_ended_too(library: Path) -> None:
    write(
        library,
        "test_leaves",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\nprint(child.pid)",
    )
    ended = ends(run(library, Job("test_leaves")))["test_leaves"]
    assert (ended["status"], ended["timed_out"]) == (0, False)
    assert _dies(int(ended["tail"]))


def test_what_the_limit_leaves_no_time_for_is_told(library: Path) -> None:
    write(library, "test_hang", "time.sleep(600)")
    write(library, "test_late", "pass")
    events = run(library, Job("test_hang", weight=9), Job("test_late"), limit=1)
    assert ends(events)["test_hang"]["timed_out"] is True
    (late,) = (event for event in events if event["event"] == "not started")
    assert (late["name"], late["reason"]) == ("test_late", "the suite's time was over")


def test_packages_are_expanded_and_the_longest_run_first(library: Path) -> None:
    for name in ("test_a", "test_b", "helper", "test_sub.test_c", "test_d"):
        write(library, f"test_pack.{name}", "pass")
    write(library, "test_alone", "pass")
    (library / "test_pack" / "test_data").mkdir()
    jobs = [
        Job("test_alone", weight=2),
        Job("test_pack.*", weights={"test_pack.test_b": 7}, without=["test_pack.test_d"]),
        Job("test_nowhere", optional=True),
        Job("test_alone.*"),
    ]
    events = run(library, *jobs)
    plan = events[0]
    assert plan["event"] == "plan"
    assert [module["name"] for module in plan["modules"]] == [
        "test_pack.test_b",
        "test_alone",
        "test_pack.test_a",
        "test_pack.test_sub",
    ]
    assert [(each["name"], each["optional"]) for each in plan["missing"]] == [
        ("test_nowhere", True),
        ("test_alone.*", False),
    ]
    assert [event["name"] for event in events if event["event"] == "start"] == [
        module["name"] for module in plan["modules"]
    ]


def test_several_run_at_once(library: Path) -> None:
    """Each of two modules waits for the other's file, so neither can end alone."""
    meeting = library.parent.parent
    for mine, other in (("one", "two"), ("two", "one")):
        write(
            library,
            f"test_{mine}",
            f"open({str(meeting / mine)!r}, 'w').close()\n"
            f"while not os.path.exists({str(meeting / other)!r}): time.sleep(0.01)",
        )
    ended = ends(run(library, Job("test_one"), Job("test_two"), at_once=2, limit=20))
    assert [ended[name]["status"] for name in ("test_one", "test_two")] == [0, 0]


def test_a_scripts_checks_and_its_errors_are_kept_apart(library: Path) -> None:
    script = library.parent.parent / "our_script.py"
    script.write_text(
        "import sys\nprint('{\"check\": 1}')\nprint('a warning', file=sys.stderr)\nsys.exit(len(sys.argv))\n"
    )
    ended = ends(run(library, Job(str(script), kind="script", arguments=["--scale", "4"])))[str(script)]
    output = library.parent.parent / "output" / ended["id"]
    assert ended["status"] == 3
    assert (output / ended["checks"]).read_text() == '{"check": 1}\n'
    assert (output / ended["log"]).read_text() == "a warning\n"
    assert ended["checks"] == "000-our_script.py.jsonl"


def test_the_same_module_in_two_groups_has_two_files(library: Path) -> None:
    write(library, "test_one", "print('here')")
    events = run(library, Job("test_one"), Job("test_one", label="stress"))
    logs = {event["log"] for event in events if event["event"] == "end"}
    assert logs == {"000-test_one.log", "001-test_one-stress.log"}


def planned(events: list[dict[str, Any]]) -> list[str]:
    return [module["name"] for module in events[0]["modules"]]


@pytest.fixture
def several(library: Path) -> list[Job]:
    for name in ("test_a", "test_b", "test_c", "test_d", "test_e"):
        write(library, name, "pass")
    return [Job(f"test_{letter}", weight=weight) for letter, weight in zip("abcde", (1, 8, 3, 4, 2), strict=True)]


def test_shards_hold_each_module_once_and_weigh_alike(library: Path, several: list[Job]) -> None:
    shards = []
    for number in (1, 2):
        shutil.rmtree(library.parent.parent / "output", ignore_errors=True)
        # what is known of durations here must not change what a shard is
        shards.append(planned(run(library, *several, shard=[number, 2], seconds={"test_a": 900 * number})))
    assert sorted(shards[0] + shards[1]) == ["test_a", "test_b", "test_c", "test_d", "test_e"]
    assert sorted(shards[0]) == ["test_a", "test_b"]


def test_what_took_longest_before_runs_first(library: Path, several: list[Job]) -> None:
    seconds = {"test_a": 100, "test_c [stress]": 50, "test_d": 0.5}
    jobs = [*several, Job("test_c", label="stress")]
    events = run(library, *jobs, seconds=seconds)
    assert planned(events)[:3] == ["test_a", "test_c", "test_b"]
    assert events[0]["modules"][1]["label"] == "stress"
    assert planned(events)[-1] == "test_d"


def test_what_is_done_is_planned_but_not_run(library: Path, several: list[Job]) -> None:
    events = run(library, *several, Job("test_b", label="stress"), done=["test_b", "test_c"])
    assert len(planned(events)) == 6
    started = [(event["name"], event["label"]) for event in events if event["event"] == "start"]
    assert sorted(started) == [("test_a", ""), ("test_b", "stress"), ("test_d", ""), ("test_e", "")]


def test_all_that_regrtest_has(library: Path) -> None:
    for name in ("test_alone", "test_os.test_posix", "test_capi.test_opt", "test_whole.test_part", "helper"):
        write(library, name, "pass")
    for package in ("test_os", "test_capi", "test_whole"):
        (library / package / "__init__.py").write_text("")
    (library / "test_whole" / "__init__.py").write_text("def main(options): pass")
    (library / "libregrtest").mkdir()
    (library / "libregrtest" / "findtests.py").write_text("SPLITTESTDIRS: set[str] = {'test_os', 'test_not_here'}\n")
    assert sorted(planned(run(library, Job("*")))) == [
        "test_alone",
        "test_capi.test_opt",
        "test_os.test_posix",
        "test_whole",
    ]


@pytest.mark.parametrize(
    ("patterns", "modules"),
    [
        (["test_dis"], {"test_dis": []}),
        (["test.test_dis"], {"test_dis": []}),
        (["test_capi"], {"test_capi.test_a": [], "test_capi.test_b": []}),
        (["test_di*"], {"test_dis": [], "test_dict": []}),
        (["test_dis.Dis.test_x"], {"test_dis": ["test.test_dis.Dis.test_x", "test.test_dis.Dis.test_x.*"]}),
        (["test_dis.Dis"], {"test_dis": ["test.test_dis.Dis", "test.test_dis.Dis.*"]}),
        (["test.test_dis.Dis*"], {"test_dis": ["test.test_dis.Dis*"]}),
        (["test.test_di*.X*"], {"test_dis": ["test.test_di*.X*"], "test_dict": ["test.test_di*.X*"]}),
        (
            ["test_dict", "test.test_dis.A.b"],
            {"test_dict": [], "test_dis": ["test.test_dis.A.b", "test.test_dis.A.b.*"]},
        ),
        (
            ["*generator*"],
            {name: ["test.*generator*"] for name in ("test_capi.test_a", "test_capi.test_b", "test_dict", "test_dis")},
        ),
        (
            ["test_resume"],
            {name: ["test_resume"] for name in ("test_capi.test_a", "test_capi.test_b", "test_dict", "test_dis")},
        ),
        (["test_nowhere.C.test_x"], {}),
    ],
)
def test_only_modules_that_can_have_such_tests_run(
    library: Path, patterns: list[str], modules: dict[str, list[str]]
) -> None:
    for name in ("test_dis", "test_dict", "test_capi.test_a", "test_capi.test_b"):
        write(library, name, "print(options.match)")
    jobs = [Job("test_dis"), Job("test_dict"), Job("test_capi.*"), Job("test_missing")]
    events = run(library, *jobs, tests=patterns)
    assert {name: ast.literal_eval(end["tail"]) for name, end in ends(events).items()} == modules
    assert events[0]["missing"] == []


@pytest.mark.parametrize(("own", "suites"), [(1, 60), (60, 1)])
def test_whose_time_was_over_is_told(library: Path, tmp_path: Path, own: int, suites: int) -> None:
    script = tmp_path / "sleeps.py"
    script.write_text("import time; time.sleep(600)")
    (ended,) = ends(run(library, Job(str(script), kind="script", timeout=own), limit=suites)).values()
    assert ended["timed_out"] is True
    assert ended["suite_timed_out"] is (suites < own)


def test_a_plan_of_many_comes_in_parts_and_every_line_is_an_event(library: Path) -> None:
    for number in range(250):
        write(library, f"test_{number:03}", "pass")
    names = [f"test_{number:03}" for number in range(250)]
    write(library, "test_last", "print('\U0001f600' * 9000)")
    events = run(library, Job("*"), done=names)
    lines = [json.dumps(event) for event in events]
    assert max(map(len, lines)) < 65_536
    assert [type(read_event(line)).__name__ for line in lines] == ["Plan"] * 3 + ["Start", "ModuleExit", "Done"]
    assert sorted(each["name"] for event in events[:3] for each in event["modules"]) == [*names, "test_last"]
    assert ends(events)["test_last"]["tail"].strip("\U0001f600\n") == ""
