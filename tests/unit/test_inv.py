"""The wrapper, with a pretend Python that makes a pretend .venv: what is tried is when it is made, and what is run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

INV = Path(__file__).parents[2] / "inv"
TOOLS = ("sh", "dirname", "readlink", "cksum", "cat", "mv", "rm", "cp", "ls", "mkdir", "tail", "sed", "sleep", "touch")

PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c import sys; sys.exit(sys"*) [ ! -f "$STUB/old" ] ;;
    "-c import venv"*) [ ! -f "$STUB/no-venv" ] ;;
    "-c "*"import pathlib, shlex"*) echo "crossjit $3" >>"$STUB/log"; cp "$STUB/crossjit" "$4/bin/crossjit" ;;
    "-c "*) exec "{real}" "$@" ;;
    "-m venv") echo venv >>"$STUB/log"; rm -rf "$4"; mkdir -p "$4/bin"; touch "$4/pyvenv.cfg"
        cp "$STUB/bin/python3" "$4/bin/python" ;;
    "-m pip")
        [ "$3" != --version ] || exit 0
        echo "$@" >>"$STUB/log"
        [ ! -f "$STUB/slow" ] || sleep 0.3
        if [ -f "$STUB/no-index" ]; then echo "ERROR: No matching distribution found for invoke" >&2; exit 1; fi ;;
    "--version ") echo "Python 3.99.0" ;;
esac
"""
CROSSJIT = """#!/bin/sh
printf 'prepare=%s\\n' "$CROSSJIT_PREPARE"
for argument in "$@"; do printf '<%s>' "$argument"; done
exit 7
"""


@dataclass
class Clone:
    folder: Path
    stub: Path

    def run(
        self, *arguments: str, inv: Path | None = None, cwd: Path | None = None, venv: str = ""
    ) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self.stub / "bin"), "STUB": str(self.stub), "CROSSJIT_VENV": venv}
        command = [str(inv or self.folder / "inv"), *arguments]
        return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)

    def log(self) -> list[str]:
        file = self.stub / "log"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    folder, stub = tmp_path / "a clone", tmp_path / "stub"
    folder.mkdir()
    (stub / "bin").mkdir(parents=True)
    for tool in TOOLS:
        real = shutil.which(tool)
        assert real, tool
        (stub / "bin" / tool).symlink_to(real)
    for path, text in ((stub / "bin/python3", PYTHON.format(real=sys.executable)), (stub / "crossjit", CROSSJIT)):
        path.write_text(text)
        path.chmod(0o755)
    shutil.copy(INV, folder / "inv")
    (folder / "requirements.lock").write_text("invoke==3.0.3\n")
    return Clone(folder, stub)


def test_the_first_run_makes_the_venv_and_the_next_only_runs_crossjit(clone: Clone) -> None:
    first = clone.run("build", "--arch", "aarch64")
    assert first.returncode == 7
    assert first.stdout == "prepare=1\n<build><--arch><aarch64>"
    assert "making" in first.stderr
    assert clone.log() == [
        "venv",
        "-m pip install --quiet --disable-pip-version-check --no-input"
        " --require-hashes --requirement requirements.lock",
        f"crossjit {clone.folder}",
    ]
    second = clone.run("build", "--arch", "aarch64")
    assert (second.returncode, second.stdout, second.stderr) == (7, first.stdout, "")
    assert len(clone.log()) == 3


def test_arguments_arrive_as_they_were_given(clone: Clone) -> None:
    odd = ["a b", "", "*", "$HOME", "it's", '"', "--", "-x=\\n"]
    assert clone.run(*odd).stdout.endswith("".join(f"<{argument}>" for argument in odd))


def test_without_arguments_it_lists_the_tasks(clone: Clone) -> None:
    assert clone.run().stdout.endswith("<--list>")


def test_it_works_from_anywhere_and_through_links(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/inv").symlink_to("../second")
    (tmp_path / "second").symlink_to(clone.folder / "inv")
    done = clone.run("plan", inv=tmp_path / "bin/inv", cwd=Path("/"))
    assert "<plan>" in done.stdout
    assert clone.log()[-1] == f"crossjit {clone.folder}"


def test_a_changed_lock_installs_again_and_keeps_the_venv(clone: Clone) -> None:
    clone.run()
    (clone.folder / "requirements.lock").write_text("invoke==3.0.4\n")
    clone.run()
    assert [line.split()[0] for line in clone.log()] == ["venv", "-m", "crossjit", "-m", "crossjit"]


def test_a_moved_clone_makes_it_anew(clone: Clone, tmp_path: Path) -> None:
    clone.run()
    clone.folder = clone.folder.rename(tmp_path / "moved")
    assert clone.run().returncode == 7
    assert clone.log()[-1] == f"crossjit {tmp_path / 'moved'}"
    assert clone.log().count("venv") == 2


def test_what_was_interrupted_is_done_again(clone: Clone) -> None:
    clone.run()
    (clone.folder / ".venv/.crossjit-stamp").unlink()
    (clone.folder / ".venv/.crossjit-place").unlink()
    assert clone.run().returncode == 7
    assert [line.split()[0] for line in clone.log()] == ["venv", "-m", "crossjit"] * 2


def test_two_at_once_make_it_once(clone: Clone) -> None:
    (clone.stub / "slow").touch()
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: clone.run("plan"), range(4)))
    assert [each.returncode for each in done] == [7] * 4
    assert len(clone.log()) == 3


def test_a_pip_that_fails_is_shown_and_tried_again_next_time(clone: Clone) -> None:
    (clone.stub / "no-index").touch()
    done = clone.run()
    assert done.returncode == 3
    assert "error: pip install failed" in done.stderr
    assert "No matching distribution found for invoke" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert done.stdout == ""
    (clone.stub / "no-index").unlink()
    assert clone.run().returncode == 7


@pytest.mark.parametrize(
    ("flag", "message"), [("old", "no Python 3.11 or later"), ("no-venv", "python3 has no venv module")]
)
def test_without_a_fitting_python_it_says_what_to_install(clone: Clone, flag: str, message: str) -> None:
    (clone.stub / flag).touch()
    done = clone.run()
    assert done.returncode == 2
    assert message in done.stderr
    assert "apt-get install python3" in done.stderr
    assert not (clone.folder / ".venv").exists()


def test_no_python_at_all(clone: Clone) -> None:
    (clone.stub / "bin/python3").unlink()
    done = clone.run()
    assert done.returncode == 2
    assert "none there" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(clone: Clone, tmp_path: Path) -> None:
    clone.folder.chmod(0o555)
    try:
        refused = clone.run()
        elsewhere = clone.run("plan", venv=str(tmp_path / "venv"))
    finally:
        clone.folder.chmod(0o755)
    assert refused.returncode == 2
    assert "CROSSJIT_VENV" in refused.stderr
    assert (elsewhere.returncode, elsewhere.stdout) == (7, "prepare=1\n<plan>")


@pytest.mark.parametrize("where", ["/proc/x", "file", "file/below"])
def test_a_place_for_the_venv_that_cannot_be(clone: Clone, where: str) -> None:
    (clone.folder / "file").touch()
    done = clone.run("plan", venv=where, cwd=clone.folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{where} cannot be written" in done.stderr
    assert "CROSSJIT_VENV=" in done.stderr


def test_the_venv_can_be_elsewhere(clone: Clone, tmp_path: Path) -> None:
    for _ in range(2):
        assert clone.run("plan", venv="my venv", cwd=tmp_path).stdout == "prepare=1\n<plan>"
    assert (tmp_path / "my venv/bin/crossjit").exists()
    assert not (clone.folder / ".venv").exists()
    assert clone.log().count("venv") == 1


def test_a_folder_with_something_else_in_it_is_not_emptied(clone: Clone, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    done = clone.run("plan", venv=str(tmp_path / "mine"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "not a virtual environment" in done.stderr
    assert (tmp_path / "mine/thesis.tex").exists()


def test_the_lock_names_what_pyproject_does_each_with_hashes_and_no_index() -> None:
    text = (INV.parent / "requirements.lock").read_text()
    locked = re.findall(
        r"^([a-z0-9-]+)==\S+(?: ; [^\\\n]+)? \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.MULTILINE
    )
    names = {name for name, _ in locked}
    assert len(locked) == len(re.findall("^[^ #\n]", text, re.MULTILINE)), "something has no hash"
    project = tomllib.loads((INV.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {re.match(r"[\w.-]+", each)[0].lower().replace(".", "-") for each in wanted} <= names  # type: ignore[index]
    assert not re.search("https?://|--(extra-)?index|--find-links", text)
