"""Our reusable workflow and our action, run as GitHub Actions would, on the tiny source."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit import PROJECT, settings
from crossjit.model import Arch
from crossjit.runs import history
from crossjit.settings import Settings
from tests import github_actions
from tests.e2e import tiny_source
from tests.e2e.driver import Driver
from tests.github_actions import FAILURE, SUCCESS, Actions

pytestmark = pytest.mark.engine

CALLER = """\
name: crossjit
on: [pull_request]
permissions: {}
jobs:
  jit:
    permissions:
      contents: read
    uses: crossjit/crossjit/.github/workflows/matrix.yml@v1
    with:
      recipe: RECIPE
      arch: ARCHES
      variant: jit,jit-more
      shards: "2"
"""
SHARING = """\
name: crossjit
on: [push, pull_request]
permissions: {}
jobs:
  share:
    permissions:
      contents: read
      packages: write
      id-token: write
      attestations: write
    uses: crossjit/crossjit/.github/workflows/stash.yml@v1
    with:
      stash: STASH
      recipe: RECIPE
      arch: ARCHES
    secrets:
      signing-key: ${{ secrets.CROSSJIT_SIGNING_KEY }}
  jit:
    needs: share
    if: ${{ !cancelled() }}
    permissions:
      contents: read
    uses: crossjit/crossjit/.github/workflows/matrix.yml@v1
    with:
      stash: STASH
      trust: |
        [keys]
        ci = "PUBLIC"
      recipe: RECIPE
      arch: ARCHES
"""
MORE = """
[variants.jit-more]
summary = "the same"
configure = ["--enable-experimental-jit=yes"]
expects = "machine-code"
suites = ["jit"]
"""


def commit(repository: Path, message: str) -> str:
    identity = ("-c", "user.name=tiny", "-c", "user.email=tiny@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", repository, "add", "."], check=True)
    subprocess.run(["git", "-C", repository, *identity, "commit", "--quiet", "-m", message], check=True)
    done = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, arches: str) -> Path:
    """A repository that is not ours, with the workflow of docs/ci.md."""
    folder = tiny_source.checkout(tmp_path / "cpython")
    recipe = tiny_source.recipe(tmp_path / "tiny.toml", tiny_source.archive(tmp_path))
    recipe.write_text(recipe.read_text().replace('"jit-off"]', '"jit-off", "jit-more"]') + MORE)
    workflows = folder / ".github/workflows"
    workflows.mkdir(parents=True)
    (workflows / "crossjit.yml").write_text(CALLER.replace("RECIPE", str(recipe)).replace("ARCHES", arches))
    return folder


@pytest.fixture
def arches(host_arch: Arch, foreign_arch: Arch, request: pytest.FixtureRequest) -> str:
    return f"{host_arch},{foreign_arch}" if request.config.getoption("--slow") else str(host_arch)


def spoilt(name: str, attempt: int) -> Mapping[str, str]:
    """Take the engine away from one job in the first attempt."""
    return {"CROSSJIT_ENGINE": "no-such-engine"} if attempt == 1 and name.endswith("/jit-more 2/2") else {}


def merged(actions: Actions) -> dict[str, str]:
    """Return the verdicts of the newest merged run."""
    homes = sorted(actions.root.glob("job-*/workspace/state"), key=lambda path: path.stat().st_mtime)
    runs = [run for home in homes for run in history.list_runs(Settings(home=home)) if "merged" in run.facts]
    newest = max(runs, key=lambda run: run.started)
    return {str(cell): verdict.value for cell, verdict in newest.verdicts.items()}


@pytest.fixture
def root(tmp_path: Path, driver: Driver) -> Iterator[Path]:
    """The folder of the jobs; what they leave in the engine is removed at the end."""
    yield tmp_path / "actions"
    for home in (tmp_path / "actions").glob("*/job-*/workspace/state"):
        replace(driver, home=home).discard()


def test_a_matrix_is_planned_run_merged_and_judged(driver: Driver, repository: Path, root: Path) -> None:
    (repository / "fail-test").write_text("")
    red = commit(repository, "red")
    (repository / "fail-test").unlink()
    green = commit(repository, "green")
    variables = {"CROSSJIT_ENGINE": driver.client, "CROSSJIT_JOBS": "2"}
    (driver.home / "venv").symlink_to(PROJECT / ".venv")
    github = {"server_url": str(repository.parent), "repository": "cpython", "sha": green}
    workflow = repository / ".github/workflows/crossjit.yml"

    first = Actions(root / "green", github, variables, driver.home, spoilt)
    assert first.run(workflow)["jit"].result == FAILURE
    verdicts = merged(first)
    assert {cell.rpartition("/")[2]: verdict for cell, verdict in verdicts.items()}["jit"] == "pass"
    assert sorted(verdict for cell, verdict in verdicts.items() if cell.endswith("jit-more")) == ["infra"]
    assert "verdict: infra" in first.logs["jit/gate"]

    lost = {name for name in first.earlier if name.endswith("/jit-more 2/2")}
    lost |= {"jit/merge", "jit/gate"}
    again = Actions(first.root, github, variables, driver.home, spoilt, 2, lost.__contains__, first.earlier)
    assert again.run(workflow)["jit"].result == SUCCESS
    assert set(merged(again).values()) == {"pass"}
    assert "600 run" in again.summaries["jit/merge"]

    bad = Actions(root / "red", {**github, "sha": red}, variables, driver.home)
    assert bad.run(workflow)["jit"].result == FAILURE
    assert set(merged(bad).values()) == {"fail"}
    assert "::error " in bad.logs["jit/merge"]
    assert "verdict: fail" in bad.logs["jit/gate"]


def test_what_a_trusted_ref_builds_is_pushed_and_taken(
    driver: Driver, repository: Path, root: Path, tmp_path: Path
) -> None:
    public = driver.run("stash", "keygen", tmp_path / "key.pem", "--json").json["public"]
    remote = tmp_path / "shared"
    workflow = repository / ".github/workflows/crossjit.yml"
    cells = workflow.read_text().partition("      recipe: ")[2].splitlines()
    given = {"STASH": remote.as_uri(), "PUBLIC": public, "RECIPE": cells[0], "ARCHES": cells[1].split()[1]}
    text = SHARING
    for name, value in given.items():
        text = text.replace(name, value)
    workflow.write_text(text)
    variables = {"CROSSJIT_ENGINE": driver.client, "CROSSJIT_JOBS": "2"}
    (driver.home / "venv").symlink_to(PROJECT / ".venv")
    github = {
        "server_url": str(repository.parent),
        "repository": "cpython",
        "sha": commit(repository, "to share"),
        "event": {"repository": {"default_branch": "main"}},
        "actor": "someone",
    }
    secrets = {"CROSSJIT_SIGNING_KEY": (tmp_path / "key.pem").read_text()}

    request = {**github, "event_name": "pull_request", "ref": "refs/pull/1/merge"}
    stranger = Actions(root / "request", request, variables, driver.home, secrets=secrets)
    ended = stranger.run(workflow)
    assert (ended["share"].result, ended["jit"].result) == (SUCCESS, SUCCESS)
    assert not remote.exists() and not stranger.attested

    push = {**github, "event_name": "push", "ref": "refs/heads/main"}
    trusted = Actions(root / "push", push, variables, driver.home, secrets=secrets)
    ended = trusted.run(workflow)
    assert (ended["share"].result, ended["jit"].result) == (SUCCESS, SUCCESS)
    assert len([*(remote / "artifacts").iterdir()]) == len(given["ARCHES"].split(","))
    assert {path.name for path in trusted.attested} == {"generated.tar.zst", "install.tar.zst", "support.tar.zst"}
    taken = [log for name, log in trusted.logs.items() if name.startswith("jit/") and name.endswith("/jit")]
    assert taken and all(f"is taken from {remote.as_uri()}, signed by ci" in log for log in taken), [*trusted.logs]
    assert secrets["CROSSJIT_SIGNING_KEY"].splitlines()[1] not in "".join(trusted.logs.values())

    again = Actions(root / "again", push, variables, driver.home, secrets=secrets)
    assert again.run(workflow)["jit"].result == SUCCESS


@pytest.mark.slow
def test_a_matrix_of_real_cells(driver: Driver, root: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    """Four cells of CPython with two shards each; what the user's stash has already is not built again."""
    own = settings.load()
    for name in ("stash", "sources"):
        shutil.copytree(own.home / name, driver.home / name, copy_function=os.link)
    (driver.home / "venv").symlink_to(PROJECT / ".venv")
    variables = {name: value for name, value in os.environ.items() if name.startswith("CROSSJIT_")}
    github = {"server_url": "", "repository": "", "sha": ""}
    inputs = {
        "recipe": "3.15",
        "recipe_source": True,
        "arch": f"{host_arch},{foreign_arch}",
        "variant": "jit,interp",
        "shards": "2",
    }
    variables.pop("CROSSJIT_HOME", None)
    actions = Actions(root / "real", github, variables, driver.home)
    ended = actions.run(github_actions.WORKFLOWS / "matrix.yml", inputs)
    assert ended["gate"].result == SUCCESS, actions.logs
    assert set(merged(actions).values()) == {"pass"}
    assert "3.15/aarch64/jit" in actions.summaries["/merge"]
