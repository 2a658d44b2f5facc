"""A crash from the red run to the faulting instruction, on the tiny source: gdb's own child, and under QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("foreign", [False, True], ids=["native", "emulated"])
def test_one_command_from_the_red_run_to_the_fault(
    driver: Driver, tmp_path: Path, host_arch: Arch, foreign_arch: Arch, foreign: bool
) -> None:
    crashing = tmp_path / "crashing"
    crashing.mkdir()
    recipe = tiny_source.recipe(tmp_path / "crashing.toml", tiny_source.archive(crashing, {"crash-test": ""}))
    arch = foreign_arch if foreign else host_arch
    red = driver.run("validate", "--recipe", recipe, "--arch", arch, "--json", expect=1).json
    (crash,) = red["cells"][0]["suites"][0]["crashes"]
    name = "test.test_capi.test_opt.Tests.test_007"
    assert (crash["test"], crash["how"]) == (name, "killed by SIGSEGV")
    assert crash["command"] == "A=1 python3 -m test test_capi.test_opt"
    assert crash["traceback"][0] == "Fatal Python error: Segmentation fault"
    shown = driver.run("runs", "show").stdout
    assert f"$ {crash['command']}" in shown
    assert f"invoke debug {red['run']}" in shown

    seen = driver.run("debug", "last", "--batch", "--json").json
    stop = seen["stop"]
    assert (seen["about"], stop["signal"], stop["function"], stop["place"]) == (name, "SIGSEGV", "fall", "the program")
    assert stop["source"].endswith("Python/crash.c:8")
    texts = {section["title"]: section["text"] for section in seen["sections"]}
    assert [frame in texts["native stack"] for frame in ("fall", "crash", "main")] == [True, True, True]
    assert f"=> {stop['pc']}" in texts["machine code"]
    assert "bin/python3.15" in texts["mappings"].partition("=>")[2].partition("\n")[0]
    folder = driver.last_run().cell_folder(driver.last_run().cells[0])
    assert "running a test" in (folder / "program.log").read_text()
    beside = next(run for run in driver.runs() if run.id == red["run"])
    assert (beside.cell_folder(beside.cells[0]) / "debug.txt").read_text() == (folder / "debug.txt").read_text()
    assert str(beside.cell_folder(beside.cells[0]) / "debug.txt") in driver.run("runs", "show", red["run"]).stdout
    assert driver.leftovers() == []
