"""reducer/reduce_script.py, run by this Python, with a shrinkray that only leaves out lines."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crossjit import PACKAGE, PROJECT, VALIDATE
from crossjit.validation.failure import Failure

SHRINKRAY = """\
import pathlib, shlex, subprocess, sys, tempfile
*options, check, path = sys.argv[1:]
assert options[options.index("--input-type") + 1] == "arg", options
path = pathlib.Path(path)
with tempfile.TemporaryDirectory() as folder:
    candidate = pathlib.Path(folder, path.name)
    lines = path.read_text().splitlines(keepends=True)
    if "TROUBLE" in lines[0]:
        sys.exit("no such luck")
    for number in reversed(range(len(lines))):
        shorter = lines[:number] + lines[number + 1 :]
        candidate.write_text("".join(shorter))
        if subprocess.run([*shlex.split(check), str(candidate)]).returncode == 0:
            lines = shorter
            path.write_text("".join(lines))
"""
HERE = {"python": sys.executable, "packages": "", "env": {"WHERE": "here"}}
THERE = {"python": sys.executable, "packages": "", "env": {"WHERE": "there"}}
ONLY_HERE = "import os\nhere = os.environ['WHERE'] == 'here'\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as in the container: our script with what it imports, and shrinkray."""
    (tmp_path / "crossjit/validation").mkdir(parents=True)
    for name in ("__init__.py", "validation/__init__.py", "validation/failure.py", "validation/reason.py"):
        shutil.copy(PACKAGE / name, tmp_path / "crossjit" / name)
    shutil.copy(PROJECT / "reducer/reduce_script.py", tmp_path)
    libraries = tmp_path / "libraries/shrinkray"
    libraries.mkdir(parents=True)
    (libraries / "__init__.py").touch()
    (libraries / "__main__.py").write_text(SHRINKRAY)
    return tmp_path


def reduce(folder: Path, source: str, **order: Any) -> tuple[list[dict[str, Any]], str]:
    """Shrink a script; return what it told, and what became of the script."""
    script, path = folder / "bug.py", folder / "order.json"
    script.write_text(source)
    whole = {
        "script": str(script),
        "order": {"arguments": [], "status": None, "text": ""},
        "runner": str(VALIDATE / "user_script.py"),
        "failing": HERE,
        "passing": [THERE],
        "cheap": 0,
        "runs": 1,
        "seconds": 30,
        "hang_seconds": 1,
        "minutes": 2,
        "jobs": 1,
        "libraries": str(folder / "libraries"),
        **order,
    }
    path.write_text(json.dumps(whole))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, folder / "reduce_script.py", path],
        capture_output=True,
        text=True,
        timeout=100,
        env=environ,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()], script.read_text()


@pytest.mark.parametrize("cheap", [0, 1])
def test_only_what_fails_in_the_same_way_stays(folder: Path, cheap: int) -> None:
    told, left = reduce(
        folder, f"first = 1\n{ONLY_HERE}second = {{}}\nassert not here, 'x'\nprint('never')\n", cheap=cheap
    )
    assert left == f"{ONLY_HERE}assert not here, 'x'\n"
    assert told[0]["failure"] == dataclasses.asdict(Failure.of("failed", "AssertionError: x"))
    assert told[-1] == {"ended": "smallest", "tried": 6, "said": ""}
    assert told[1]["lines"] == 6


def test_without_a_contrast_any_failure_of_the_kind_will_do(folder: Path) -> None:
    _, left = reduce(folder, "assert 0\nvalue = 0\nassert value\n", passing=[])
    assert left == "assert 0\n"


def test_a_crash_stays_a_crash(folder: Path) -> None:
    source = f"{ONLY_HERE}import signal\nother = 3\nif here: os.kill(os.getpid(), signal.SIGSEGV)\nraise ValueError\n"
    told, left = reduce(folder, source, passing=[])
    assert told[0]["failure"]["how"] == "crashed"
    assert told[0]["failure"]["kind"] == "killed by SIGSEGV, Fatal Python error: Segmentation fault"
    assert left == f"{ONLY_HERE}import signal\nif here: os.kill(os.getpid(), signal.SIGSEGV)\n"


def test_a_hang_stays_a_hang(folder: Path) -> None:
    told, left = reduce(folder, "import time\nother = 1\ntime.sleep(60)\n", passing=[], seconds=2)
    assert told[0] == {"failure": dataclasses.asdict(Failure("hung")), "limit": 1}
    assert left == "import time\ntime.sleep(60)\n"


def test_a_rare_failure_gets_several_runs(folder: Path) -> None:
    # fails every third time
    source = (
        "import pathlib\nother = 1\ncounter = pathlib.Path(__file__).parents[0] / 'count'\n"
        f"counter = pathlib.Path({str(folder)!r}, 'count')\n"
        "number = int(counter.read_text()) if counter.exists() else 0\ncounter.write_text(str(number + 1))\n"
        "assert number % 3 != 2\n"
    )
    told, left = reduce(folder, source, passing=[], runs=3)
    assert told[-1]["ended"] == "smallest"
    assert "other" not in left
    assert "assert number" in left


@pytest.mark.parametrize(
    ("source", "ended"), [("print(1)\n", "passes"), ("1/0\n", "fails everywhere"), ("# TROUBLE\n1/0\n", "failed")]
)
def test_what_cannot_be_reduced(folder: Path, source: str, ended: str) -> None:
    told, left = reduce(folder, source, passing=[] if ended == "failed" else [THERE])
    assert told[-1]["ended"] == ended
    assert left == source
    if ended == "failed":
        assert "no such luck" in told[-1]["said"]


def test_the_time_is_up(folder: Path) -> None:
    source = "import time\ntime.sleep(0.5)\n" + "a = 1\n" * 50 + "1/0\n"
    told, left = reduce(folder, source, passing=[], minutes=0.1)
    assert told[-1]["ended"] == "time"
    assert "a = 1" in left
    assert left.endswith("1/0\n")
