"""Who may do what in our reusable workflows: the gate on uploaded run records, and which events push."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit import PROJECT
from crossjit.model import CellResult, Verdict
from crossjit.pipeline import matrix
from crossjit.settings import Settings
from crossjit.upstream.expressions import evaluate_text
from tests.github_actions import FAILURE, SUCCESS, WORKFLOWS, Actions, JobRun, read
from tests.unit.test_merge import CELL, HALVES, record, result, suite

NAMES = tuple(f"/{CELL} {number}/2" for number in (1, 2))
GREEN = (result(suite(HALVES[0])), result(suite(HALVES[1])))
RED = result(suite(HALVES[0], failed=HALVES[0][:1]), Verdict.FAIL)


class Gate:
    """A matrix of a cell with two shards whose jobs have ended."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.logs: Mapping[str, str] = {}
        (root / "seed").mkdir()

    def upload(self, number: int, part: CellResult, attempt: int = 1) -> None:
        name = f"runs-{CELL.slug}-{number}-of-2-attempt-{attempt}"
        home = Settings(home=self._root / f"home-{name}")
        record(home, part, shard=(number, 2), attempt=attempt)
        shutil.copytree(home.runs, self._root / "artifacts" / name)

    def result(self, *ended: str, attempt: int = 1) -> str:
        planned = json.dumps(matrix.matrix([CELL], shards=2))
        earlier = {"/plan": JobRun(SUCCESS, {"matrix": planned}), **dict(zip(NAMES, map(JobRun, ended), strict=True))}
        github = {"server_url": "", "repository": "", "sha": ""}
        again = {"/merge", "/gate"}.__contains__
        actions = Actions(self._root, github, {}, self._root / "seed", attempt=attempt, again=again, earlier=earlier)
        done = actions.run(WORKFLOWS / "matrix.yml", {"recipe": "3.15"})
        self.logs = actions.logs
        self.outputs = done[""].outputs
        return done["gate"].result


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_all_shards_pass(gate: Gate) -> None:
    for number, part in enumerate(GREEN, 1):
        gate.upload(number, part)
    assert gate.result(SUCCESS, SUCCESS) == SUCCESS, gate.logs
    assert gate.outputs["verdict"] == "pass"
    assert "600 tests run" in gate.logs["/merge"]


def test_a_refused_merge_has_no_verdict(gate: Gate) -> None:
    """The newest run is then one of the imported ones, which may have passed."""
    gate.upload(1, RED)
    gate.upload(2, replace(GREEN[1], build_key="cd" * 32))
    assert gate.result(FAILURE, SUCCESS) == FAILURE
    assert gate.outputs["verdict"] == ""
    assert "are of different builds" in gate.logs["/merge"]


def test_a_job_that_is_lost_in_a_newer_attempt_is_not_green_by_the_older_one(gate: Gate) -> None:
    for number, part in enumerate(GREEN, 1):
        gate.upload(number, part)
    gate.upload(1, GREEN[0], attempt=2)
    assert gate.result(SUCCESS, FAILURE, attempt=2) == FAILURE
    assert "success failure success" in gate.logs["/gate"]


MAIN = {"ref": "refs/heads/main", "ref_name": "main"}
EVENT = {"repository": {"default_branch": "main"}}


@pytest.mark.parametrize(
    ("github", "may"),
    [
        ({"event_name": "push", **MAIN, "event": EVENT}, True),
        ({"event_name": "workflow_dispatch", **MAIN, "event": EVENT}, True),
        # such an event names no repository: https://github.com/docker/metadata-action/issues/184
        ({"event_name": "schedule", **MAIN, "event": {"schedule": "0 3 * * *"}}, True),
        ({"event_name": "push", "ref": "refs/heads/3.15", "ref_protected": True, "event": EVENT}, True),
        ({"event_name": "push", "ref": "refs/heads/x", "ref_name": "x", "event": EVENT}, False),
        ({"event_name": "push", "ref": "refs/tags/main", "ref_name": "main", "event": EVENT}, False),
        ({"event_name": "pull_request", **MAIN, "ref_protected": True, "event": EVENT}, False),
        ({"event_name": "pull_request_target", **MAIN, "event": EVENT}, False),
        ({"event_name": "workflow_run", **MAIN, "event": EVENT}, False),
        ({"event_name": "push", "ref": "refs/heads/x", "event": {}}, False),
    ],
)
def test_which_events_push_to_the_shared_stash(github: dict[str, object], may: bool) -> None:
    condition = read(WORKFLOWS / "stash.yml")["jobs"]["plan"]["if"]
    assert evaluate_text(condition, {"github": {"ref_protected": False, **github}}) is may


@pytest.mark.parametrize("new", [True, False])
def test_the_action_publishes_the_run_that_it_made(tmp_path: Path, new: bool) -> None:
    """A state folder that is kept has runs of earlier jobs: their verdict is not this one's."""
    (publish,) = (step for step in read(PROJECT / "action.yml")["runs"]["steps"] if step.get("id") == "publish")
    home, action = tmp_path / "home", tmp_path / "action"
    (home / "runs" / "20261130-100000-aaaa").mkdir(parents=True)
    (home / "runs" / "sequence").write_text("1")
    action.mkdir()
    (action / "inv").write_text('#!/bin/sh\necho "$@"\n')
    (action / "inv").chmod(0o755)
    if new:
        (home / "runs" / "20261130-110000-bbbb").mkdir()
    environ = {"ACTION": str(action), "CROSSJIT_HOME": str(home), "BEFORE": f"{home}/runs/20261130-100000-aaaa/"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", publish["run"]],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
    )
    if new:
        assert done.stdout == f"ci publish --run 20261130-110000-bbbb --folder {home}/report\n"
    else:
        assert (done.returncode, done.stdout) == (1, "no run was recorded\n")
