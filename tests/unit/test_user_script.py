"""validate/user_script.py, run by this Python: scripts that pass, fail, crash, and print."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crossjit import VALIDATE

SCRIPT = VALIDATE / "user_script.py"


def run(folder: Path, source: str, **order: object) -> tuple[int, list[dict[str, object]], str]:
    """Run a script's source; return the exit status, the lines of its check, and stderr."""
    path = folder / "a bug.py"
    path.write_text(source)
    whole = {"script": str(path), "arguments": [], "status": None, "text": "", "packages": "", "python": "", **order}
    done = subprocess.run(
        [sys.executable, SCRIPT, json.dumps(whole)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("source", "order", "outcome", "end"),
    [
        ("print('x')", {}, "passed", ""),
        ("raise SystemExit(3)", {}, "failed", "exit status 3, expected 0"),
        ("raise SystemExit(3)", {"status": 3}, "passed", ""),
        ("print('a')", {"status": 3}, "failed", "exit status 0, expected 3"),
        ("print('it broke'); raise SystemExit(1)", {"text": "broke"}, "passed", ""),
        ("print('fine')", {"text": "broke"}, "failed", "'broke' was not printed"),
        ("print('broke')", {"text": "broke", "status": 2}, "failed", "exit status 0, expected 2"),
        ("1/0", {}, "failed", "exit status 1, expected 0"),
    ],
)
def test_how_a_script_ends(tmp_path: Path, source: str, order: dict[str, object], outcome: str, end: str) -> None:
    status, (started, ended), _ = run(tmp_path, source, **order)
    assert status == 0
    assert started == {"check": "a_bug", "outcome": "started"}
    assert (ended["check"], ended["outcome"]) == ("a_bug", outcome)
    assert str(ended["message"]).endswith(end)


def test_a_failure_says_what_the_script_said(tmp_path: Path) -> None:
    _, (_, ended), stderr = run(tmp_path, "print('x' * 100_000); 1/0")
    assert "ZeroDivisionError: division by zero\nexit status 1, expected 0" in str(ended["message"])
    assert len(str(ended["message"])) < 5_000
    assert stderr.count("x") >= 100_000, "the log has all of it"


def test_text_over_two_reads_is_found(tmp_path: Path) -> None:
    source = "import time\nfor part in ('a nee', 'dle'):\n    print(part, end='', flush=True); time.sleep(.3)"
    _, (_, ended), _ = run(tmp_path, source, text="needle")
    assert ended["outcome"] == "passed"


def test_arguments_are_the_scripts(tmp_path: Path) -> None:
    source = "import sys; assert sys.argv[1:] == ['--', '--status', '4', 'a b'], sys.argv"
    _, (_, ended), _ = run(tmp_path, source, arguments=["--", "--status", "4", "a b"])
    assert ended["outcome"] == "passed"


def test_packages_are_the_scripts_alone(tmp_path: Path) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "attrs.py").write_text("version = 25\n")
    (folder / "resource.py").write_text("raise SystemExit('a package replaced a module of the runner')\n")
    source = "import attrs; assert attrs.version == 25"
    _, (_, ended), _ = run(tmp_path, source, packages=str(folder))
    assert ended["outcome"] == "passed"
    _, (_, ended), _ = run(tmp_path, source)
    assert "No module named 'attrs'" in str(ended["message"])


def test_a_script_runs_in_another_python(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nOTHER=1 exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    source = "import os; assert os.environ['OTHER'] == '1'"
    _, (_, ended), _ = run(tmp_path, source, python=str(python))
    assert ended["outcome"] == "passed"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_is_this_processes_end(tmp_path: Path, number: int) -> None:
    status, lines, stderr = run(tmp_path, f"import os; os.kill(os.getpid(), {int(number)})")
    assert status == -number
    assert [line["outcome"] for line in lines] == ["started"]
    if number != signal.SIGKILL:
        assert "most recent call first" in stderr
