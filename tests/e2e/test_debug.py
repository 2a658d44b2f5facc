"""A crash from the red run to the faulting instruction, on the tiny source: gdb's own child, and under QEMU."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import subprocess
import tarfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit import PROJECT, settings, sources
from crossjit.config import recipes
from crossjit.model import Arch
from crossjit.progress import Silent
from tests.e2e import tiny_source
from tests.e2e.driver import PATIENCE, Driver

pytestmark = pytest.mark.engine

PROMPT = "(gdb) "
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")  # colours, and what a terminal is told of pasting


def talk(driver: Driver, arguments: Sequence[str], commands: Sequence[str]) -> tuple[int, list[str]]:
    """Type a command at each of gdb's prompts; return crossjit's exit status, and what was said before each."""
    ours, theirs = pty.openpty()
    try:
        running = driver.start(*arguments, terminal=theirs)
        os.close(theirs)
        said, left, deadline = [""], [*commands], time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1.0)[0]:
                continue
            try:
                data = os.read(ours, 1 << 16)
            except OSError:  # the other side is closed
                break
            said[-1] += data.decode(errors="replace")
            if PROMPT in said[-1] and left:
                os.write(ours, f"{left.pop(0)}\n".encode())
                said.append("")
        return running.wait().returncode, [_CONTROL.sub("", text) for text in said]
    finally:
        os.close(ours)


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
    assert f"./inv debug {red['run']}" in shown

    seen = driver.run("debug", "last", "--batch", "--json").json
    stop = seen["stop"]
    assert (seen["about"], stop["signal"], stop["function"], stop["place"]) == (name, "SIGSEGV", "fall", "the program")
    assert stop["source"].endswith("Python/crash.c:8")
    texts = {section["title"]: section["text"] for section in seen["sections"]}
    assert [frame in texts["native stack"] for frame in ("fall", "crash", "main")] == [True, True, True]
    assert f"=> {stop['pc']}" in texts["machine code"]
    assert "bin/python3.15" in texts["mappings"].partition("=>")[2].partition("\n")[0]
    looked = driver.last_run()
    assert "SIGSEGV (Segmentation fault) in the program, fall" in driver.run("runs", "show", looked.id).stdout
    folder = looked.cell_folder(looked.cells[0])
    assert "running a test" in (folder / "program.log").read_text()
    beside = next(run for run in driver.runs() if run.id == red["run"])
    assert (beside.cell_folder(beside.cells[0]) / "debug.txt").read_text() == (folder / "debug.txt").read_text()
    assert str(beside.cell_folder(beside.cells[0]) / "debug.txt") in driver.run("runs", "show", red["run"]).stdout

    status, said = talk(
        driver, ("debug", red["run"]), ("backtrace", "print $pc", "place", "again", "list crash", "quit")
    )
    assert status == 0
    first, backtrace, pc, place, again, listed, _ = said
    assert "SIGSEGV" in first
    assert "fall ()" in backtrace
    assert "<fall+" in pc
    assert "is in the program" in place
    assert "main (" in again
    assert "return 1;" in listed
    assert driver.leftovers() == []


def test_words_of_ones_own_arrive_whole_and_a_failure_is_warned_of(
    driver: Driver, tmp_path: Path, host_arch: Arch
) -> None:
    """The tiny program can run no such thing: that it did not crash proves nothing."""
    recipe = tiny_source.recipe(tmp_path / "tiny.toml", tiny_source.archive(tmp_path))
    cell = f"{recipe}/{host_arch}/jit"
    words = ("-c", "import os; os.abort()")
    seen = driver.run("debug", "--cell", cell, "--batch", "--json", "--", *words, expect=4).json
    assert (seen["about"], seen["stop"], seen["exit_code"]) == (
        "/usr/local/bin/python3 -c 'import os; os.abort()'",
        None,
        2,
    )
    assert seen["output"] == ["tiny: I cannot run -c"]
    shown = driver.run("debug", "--cell", cell, "--batch", "--", *words, expect=4).stdout
    assert "warning: it failed in a different way, or did not do what was asked" in shown
    assert "    tiny: I cannot run -c\n" in shown


def test_a_run_is_looked_into_as_it_was(driver: Driver, tmp_path: Path, host_arch: Arch) -> None:
    """Its checkout has moved on, and the command is typed in another folder."""
    checkout = tiny_source.checkout(tmp_path / "cpython")
    (checkout / "crash-test").touch()
    recipe = tiny_source.recipe(tmp_path / "tiny.toml", tiny_source.archive(tmp_path))
    there = replace(driver, cwd=tmp_path)
    chosen = ("--recipe", recipe.name, "--source", "cpython", "--arch", host_arch)
    red = there.run("validate", *chosen, "--json", expect=1).json
    (cell,) = red["cells"]
    assert red["reproduce"] == f"CROSSJIT_JOBS=2 {PROJECT}/inv " + shlex.join(
        ["validate", "--recipe", str(recipe), "--source", str(checkout), "--arch", host_arch, "--json"]
    )
    (checkout / "crash-test").unlink()
    done = driver.run("debug", red["run"], "--batch", "--json")
    assert done.json["stop"]["signal"] == "SIGSEGV"
    assert f"{checkout} has changed since; using the artifact {cell['artifact']} of run {red['run']}" in (done.stderr)
    assert "make" not in done.stderr, "something was built"


DEFECT = PROJECT / "tests" / "defects" / "aarch64-segfault.patch"


@pytest.mark.slow
def test_a_segfault_in_a_stencil_is_found_down_to_the_uop(tmp_path: Path) -> None:
    """With the user's own state folder, whose caches spare most of the build."""
    loaded = settings.load()
    source = sources.resolve(recipes.find("3.15", PROJECT / "recipes").built_from, loaded, progress=Silent())
    with sources.open_tar(source) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(tmp_path, filter="tar")
    tree = tmp_path / source.top
    identity = ("-c", "user.name=test", "-c", "user.email=test@crossjit.invalid", "-c", "gc.auto=0")
    for command in (("init", "-q"), ("add", "--all", "--force"), ("commit", "-qm", "3.15"), ("apply", str(DEFECT))):
        subprocess.run(["git", "-C", str(tree), *identity, *command], check=True)
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    driver = Driver(loaded.home, cwd)
    chosen = ("--arch", "aarch64", "--variant", "jit", "--source", tree)
    running = driver.start("validate", *chosen, "--tests", "test_contains", "--json")
    assert running.process.wait() == 1, running.stderr
    red = running.wait().json
    (crash,) = red["cells"][0]["suites"][0]["crashes"]
    assert (crash["module"], crash["how"]) == ("test_contains [stress]", "killed by SIGSEGV")
    assert crash["command"].startswith("PYTHON_JIT_STRESS=1 ")

    seen = driver.run("debug", red["run"], "--batch", "--json").json
    stop = seen["stop"]
    assert (stop["signal"], stop["place"], stop["executor"]["uop"]) == ("SIGSEGV", "JIT code", "_CONTAINS_OP_SET_r23")
    assert stop["instruction"] == "str w8, [x8]"
    texts = {section["title"]: section["text"] for section in seen["sections"]}
    assert '.py", line ' in texts["Python stack"]
    assert "py::jit:executor" in texts["native stack"].splitlines()[0]
    assert "_CONTAINS_OP_SET_r23" in texts["executor"].partition("=>")[2].partition("\n")[0]

    status, said = talk(driver, ("debug", red["run"]), ("x/i $pc", "py-bt", "quit"))
    assert status == 0
    assert "SIGSEGV" in said[0]
    assert "str\tw8, [x8]" in said[1]
    assert '.py", line ' in said[2]
