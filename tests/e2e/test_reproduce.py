"""A job of a source's own CI, on the tiny source with a workflow: listed, and run as a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.model import Arch
from crossjit.stash.store import Store
from tests.e2e import tiny_source
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

WORKFLOW = """\
name: JIT
on: push
jobs:
  linux:
    name: ${{ matrix.target }} (${{ matrix.debug && 'Debug' || 'Release' }})
    runs-on: ${{ matrix.runner }}
    strategy:
      matrix:
        target: [x86_64, aarch64, windows]
        debug: [true]
        include:
          - {target: x86_64, runner: ubuntu-26.04}
          - {target: aarch64, runner: ubuntu-26.04-arm}
          - {target: windows, runner: windows-2025}
    steps:
      - name: Build
        run: |
          export CC=gcc
          ./configure --enable-experimental-jit ${{ matrix.debug && '--with-pydebug' || '' }} --prefix="$(pwd)/x"
          make all --jobs 4
      - name: Test
        if: matrix.run_tests != false
        run: ${{ matrix.env }} PYTHON_JIT_STRESS=1 ./python -m test --multiprocess 0
"""
LOG = "2026-08-21T10:02:24.1Z FAIL: test_003 (test.test_generated_cases.Tests.test_003)\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of the tiny source with a workflow that is not committed."""
    folder = tiny_source.checkout(tmp_path / "cpython")
    workflows = folder / ".github/workflows"
    workflows.mkdir(parents=True)
    (workflows / "jit.yml").write_text(WORKFLOW)
    return folder


def test_jobs_are_listed(driver: Driver, checkout: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    listed = {job["job"]: job for job in driver.run("reproduce", "--list", "--source", checkout, "--json").json}
    assert listed[f"JIT / {host_arch} (Debug)"]["here"] == "natively"
    assert listed[f"JIT / {foreign_arch} (Debug)"]["here"] == f"cross, tests under QEMU ({foreign_arch})"
    assert listed["JIT / windows (Debug)"]["here"] == "no: it runs on Windows, which no container provides"
    assert listed[f"JIT / {host_arch} (Debug)"]["configure"] == "--enable-experimental-jit --with-pydebug --prefix=…/x"
    # the committed tree has no workflow
    refused = driver.run("reproduce", "--list", "--source", f"{checkout}#main", expect=2)
    assert "has no workflow that is known" in refused.stderr
    tiny_source.commit(checkout, "CI")
    committed = driver.run("reproduce", "--list", "--source", f"{checkout}#main", "--json").json
    assert [job["job"] for job in committed] == list(listed)


def test_a_job_is_a_cell(driver: Driver, checkout: Path, foreign_arch: Arch, tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text(LOG)
    done = driver.run("reproduce", "--job", f"{foreign_arch} (debug)", "--source", checkout, "--log", log, "--json")
    (cell,) = done.json["cells"]
    assert cell["verdict"] == "pass"
    assert cell["cell"].endswith(f"/{foreign_arch}/jit-{foreign_arch}-debug")
    assert [suite["suite"] for suite in cell["suites"]] == ["full"]
    assert (
        "unlike upstream: upstream skips these tests (jit.yml:21: `matrix.run_tests != false` is false)" in done.stderr
    )
    (artifact,) = (each for each in Store(driver.settings.stash).artifacts() if each.manifest.cell)
    assert "--enable-experimental-jit --with-pydebug" in artifact.manifest.configure
    assert "/x" not in artifact.manifest.configure
    # what is recorded is enough to do it again, and to go on with
    assert "--job" in done.json["reproduce"]
    recipe = driver.settings.home / "upstream" / f"{cell['cell'].split('/')[0]}.toml"
    (planned,) = driver.run("plan", "--recipe", recipe, "--arch", foreign_arch, "--json").json
    assert planned["cell"] == cell["cell"]


def test_a_job_that_cannot_run(driver: Driver, checkout: Path, tmp_path: Path) -> None:
    windows = driver.run("reproduce", "--job", "windows (Debug)", "--source", checkout, expect=2)
    assert "cannot be run here: it runs on Windows" in windows.stderr
    unknown = driver.run("reproduce", "--job", "x86_64 (Debgu)", "--source", checkout, expect=2)
    assert "did you mean 'x86_64 (Debug)'" in unknown.stderr
    (tmp_path / "green.log").write_text("0:00:02 [1/1] test_ok passed\n")
    green = ("--log", tmp_path / "green.log")
    passed = driver.run("reproduce", "--job", "x86_64 (Debug)", "--source", checkout, *green, expect=2)
    assert "has no failed test" in passed.stderr
    both = driver.run(
        "reproduce", "--job", "x86_64 (Debug)", "--source", checkout, *green, "--tests", "test_x", expect=2
    )
    assert "--log and --tests both choose tests" in both.stderr
    script = driver.run("reproduce", "bug.py", "--suite", "jit", expect=2)
    assert "--suite, --shard and --tests are about a job" in script.stderr
    assert driver.runs() == ()


def test_a_part_of_a_jobs_tests(driver: Driver, checkout: Path, host_arch: Arch) -> None:
    selected = ("--suite", "jit", "--tests", "test_generated_cases")
    done = driver.run("reproduce", "--job", f"{host_arch} (debug)", "--source", checkout, *selected, "--json")
    (cell,) = done.json["cells"]
    assert [suite["suite"] for suite in cell["suites"]] == ["jit"]
    assert cell["verdict"] == "pass"
