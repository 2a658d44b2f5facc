"""A crossjit that was installed from its wheel works in any folder, and is the one that a clone has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from crossjit import PROJECT

DIGESTS = "from crossjit.build import logic; print(logic.scripts_digest(), logic.whole_digest())"
FOLDERS = ("gdb", "images", "meter", "recipes", "reducer", "toolchain", "validate")


def run(python: str | Path, *arguments: str, cwd: Path, expect: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CROSSJIT_HOME"] = str(cwd / "home")
    done = subprocess.run(
        [python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout or done.stderr


def test_cells_are_those_of_a_clone(installed: Path, tmp_path: Path) -> None:
    there = run(installed.with_name("crossjit"), "cells", "--json", cwd=tmp_path)
    assert json.loads(there) == json.loads(run(sys.executable, "-m", "crossjit", "cells", "--json", cwd=PROJECT))
    assert json.loads(there)
    assert list(tmp_path.iterdir()) == []


def test_build_keys_are_those_of_a_clone(installed: Path, tmp_path: Path) -> None:
    """So that both take artifacts and caches from each other."""
    assert run(installed, "-c", DIGESTS, cwd=tmp_path) == run(sys.executable, "-c", DIGESTS, cwd=PROJECT)


def test_every_data_file_travels(installed: Path) -> None:
    (wheel,) = installed.parents[2].glob("crossjit-*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("crossjit/")}
    known = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "crossjit", *FOLDERS],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    there = [name for name in known if name and (PROJECT / name).exists()]
    assert names == {name if name.startswith("crossjit/") else f"crossjit/data/{name}" for name in there}


def test_what_is_about_the_repository_is_absent(installed: Path, tmp_path: Path) -> None:
    def tasks(python: str | Path, cwd: Path) -> set[str]:
        listed = json.loads(run(python, "-m", "crossjit", "--list", "--list-format", "json", cwd=cwd))
        return {task["name"] for task in listed["tasks"]}

    assert tasks(sys.executable, PROJECT) - tasks(installed, tmp_path) == {"docs", "lint", "schema", "test"}
    assert "validate" in tasks(installed, tmp_path)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (("runs", "show", "no-such-run"), "`crossjit runs list` shows"),
        (("biuld",), "`crossjit --list`"),
        (("validate", "--arhc", "all"), "`crossjit validate --help`"),
    ],
)
def test_hints_name_the_command_that_is_there(
    installed: Path, tmp_path: Path, command: tuple[str, ...], hint: str
) -> None:
    told = run(installed, "-m", "crossjit", *command, cwd=tmp_path, expect=2)
    assert hint in told
    assert "./inv" not in told


def test_help_names_no_file_of_a_clone(installed: Path, tmp_path: Path) -> None:
    assert "./inv" not in run(installed, "-m", "crossjit", "--help", cwd=tmp_path)
