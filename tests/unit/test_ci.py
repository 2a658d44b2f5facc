"""What a job of GitHub Actions gets from us: pinned actions, a documented workflow, outputs and annotations."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.model import Outcome, TestResult, Verdict
from crossjit.report import workflow_commands
from crossjit.runs.model import Run
from crossjit.settings import Settings
from tests import example_runs, github_actions
from tests.written import GITHUB, commands

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = (*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "action.yml")


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_actions_are_pinned_by_hash_with_their_version(path: Path) -> None:
    for uses in re.findall(r"^\s*(?:- )?uses: (.*)$", path.read_text(), re.MULTILINE):
        assert uses.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", uses), uses


def test_no_script_has_an_expression_in_it() -> None:
    """What a caller gives reaches a script as a variable only."""
    scripts = [*github_actions.scripts()]
    assert len(scripts) >= 8
    assert [script for _, script in scripts if "${{" in script] == []


def test_permissions_are_the_least() -> None:
    """Only the job that pushes, which pull requests do not run, may write."""
    pushing = {"contents": "read", "packages": "write", "id-token": "write", "attestations": "write"}
    for path in WRITTEN[:-1]:
        document = github_actions.read(path)
        assert document["permissions"] == {}
        for name, job in document["jobs"].items():
            may_push = (path.name, name) == ("stash.yml", "push")
            assert job["permissions"] in ([pushing] if may_push else [{}, {"contents": "read"}]), name


def test_the_documented_workflow_is_the_one_that_is_written() -> None:
    text = (ROOT / "docs/ci.md").read_text()
    (first, *_) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert first == (ROOT / "docs/crossjit.yml").read_text()
    assert len(first.splitlines()) == 10


def crossjit(settings: Settings, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "CROSSJIT_HOME": str(settings.home), **variables}
    command = [sys.executable, "-m", "crossjit", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_init_writes_the_workflow_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    clone = tmp_path / "cpython"
    refused = crossjit(settings, "ci", "init", "--folder", tmp_path / "nothing")
    assert (refused.returncode, "is not a git repository" in refused.stderr) == (2, True)
    subprocess.run(["git", "init", "--quiet", clone], check=True)
    path = clone / ".github/workflows/crossjit.yml"
    written = crossjit(settings, "ci", "init", "--folder", clone)
    assert written.returncode == 0 and "git add .github/workflows/crossjit.yml" in written.stdout
    assert path.read_bytes() == (ROOT / "docs/crossjit.yml").read_bytes()
    assert "is current" in crossjit(settings, "ci", "init", "--folder", clone).stdout
    path.write_text("name: mine\n")
    refused = crossjit(settings, "ci", "init", "--folder", clone)
    assert refused.returncode == 2 and "--force" in refused.stderr
    assert path.read_text() == "name: mine\n"
    assert crossjit(settings, "ci", "init", "--folder", clone, "--force").returncode == 0
    assert path.read_bytes() == (ROOT / "docs/crossjit.yml").read_bytes()


@pytest.fixture
def hostile(settings: Settings) -> Run:
    return example_runs.record(settings, example_runs.hostile(), also=())


def test_publishing_a_hostile_run(settings: Settings, hostile: Run, tmp_path: Path) -> None:
    """A test's name and output set no output, no environment and no command of their own."""
    files = {name: tmp_path / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV", "GITHUB_PATH")}
    for file in files.values():
        file.touch()
    done = crossjit(
        settings,
        *("ci", "publish", "--folder", tmp_path / "out"),
        **GITHUB,
        **{name: str(file) for name, file in files.items()},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 0 < len(lines) <= workflow_commands.MOST
    assert all(line.startswith("::error ") for line in lines)
    assert [*commands(done.stdout)] == ["error"] * len(lines)
    assert files["GITHUB_OUTPUT"].read_text() == (
        f"run={hostile.id}\nverdict=fail\nreport={tmp_path / 'out' / 'report.html'}\n"
    )
    assert files["GITHUB_ENV"].read_text() == files["GITHUB_PATH"].read_text() == ""
    assert files["GITHUB_STEP_SUMMARY"].read_text().startswith("## crossjit: ")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["junit.xml", "report.html"]


def test_an_annotation_is_at_the_tests_line() -> None:
    (result, *_) = (each for each in example_runs.results() if each.suites)
    test = TestResult("jit", "test.test_capi.test_opt.T.test_x", Outcome.FAILED, message=example_runs.TRACEBACK)
    bad = replace(result, verdict=Verdict.FAIL, suites=(replace(result.suites[0], results=(test,)),))
    (line,) = workflow_commands.commands([bad]).splitlines()
    assert line.startswith("::error file=Lib/test/test_capi/test_opt.py,line=2113,title=3.15/")
    assert "%3A test.test_capi.test_opt.T.test_x::Traceback" in line
    assert "%0AAssertionError" in line


def test_a_cell_that_failed_without_a_test_is_annotated() -> None:
    (result, *_) = example_runs.results()
    lost = replace(result, verdict=Verdict.INFRA, reasons=("no disk: 100%", "hint"), suites=())
    (line,) = workflow_commands.commands([lost]).splitlines()
    assert line == f"::error title={result.cell}%3A infra::no disk: 100%25%0Ahint"
    assert workflow_commands.commands([replace(lost, verdict=Verdict.PASS)]) == ""
