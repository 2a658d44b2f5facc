"""The host as an engine, with the tiny source: the whole way of a cell, and what is left when it is stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from crossjit.host.tools import LLVM_TOOLS
from crossjit.pipeline.on_host import UNISOLATED
from tests.e2e import tiny_source
from tests.e2e.driver import Driver, Running

CHECK = "routes=$(sed 1d /proc/net/route)"  # tiny's configure refuses to run where there is a network


@pytest.fixture
def llvm(tmp_path: Path) -> Path:
    """An LLVM by its version; the tiny source's stencils need none."""
    folder = tmp_path / "llvm"
    (folder / "bin").mkdir(parents=True)
    for tool in LLVM_TOOLS:
        program = folder / "bin" / tool
        program.write_text("#!/bin/sh\necho clang version 21.1.8\n")
        program.chmod(0o755)
    return folder


@pytest.fixture
def driver(tmp_path: Path, llvm: Path) -> Driver:
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    cwd.mkdir()
    return Driver(home, cwd, {"LLVM_TOOLS_INSTALL_DIR": str(llvm)}, client="host")


def recipe(folder: Path, **more: str) -> Path:
    """A recipe of the tiny source as it can be built on a host, which has a network."""
    configure = (tiny_source.TREE / "configure").read_text()
    assert CHECK in configure
    changes = {"configure": configure.replace(CHECK, "routes="), **more}
    return tiny_source.recipe(folder / "tiny.toml", tiny_source.archive(folder, changes))


def containers(driver: Driver) -> list[str]:
    """What there is of containers in the state folder: their folders."""
    return sorted(path.name for path in (driver.home / "host").glob("*") if path.name != "volumes")


def processes(driver: Driver) -> list[str]:
    """The command lines of the processes whose files are in a container's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(driver.home / "host") in process.environ().get("TMPDIR", ""):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_from_archive_to_verdict(driver: Driver, tmp_path: Path) -> None:
    options = ("--recipe", recipe(tmp_path), "--variant", "jit", "--json")
    (planned,) = driver.run("plan", *options).json
    assert planned["strategy"] == "native"
    first = driver.run("validate", *options).json
    (cell,) = first["cells"]
    assert cell["verdict"] == "pass"
    assert UNISOLATED in cell["reasons"]
    assert cell["suites"][0]["run"] == 600
    assert containers(driver) == processes(driver) == []

    again = driver.run("validate", *options).json["cells"][0]
    assert (again["from_stash"], again["artifact"]) == (True, cell["artifact"])
    assert UNISOLATED in again["reasons"]
    (planned,) = driver.run("plan", *options).json
    assert planned["artifact"] == cell["artifact"]

    rebuilt = driver.run("build", *options, "--rebuild").json["cells"][0]
    assert rebuilt["artifact"] == cell["artifact"], "in the same place it is the same, byte for byte"
    assert driver.run("cache", "show").stdout
    assert "volume" in driver.run("clean", "--dry-run").stdout
    driver.run("clean")
    assert list((driver.home / "host" / "volumes").iterdir()) == []


def test_another_compiler_is_another_build(driver: Driver, tmp_path: Path, llvm: Path) -> None:
    options = ("--recipe", recipe(tmp_path), "--variant", "jit", "--json")
    first = driver.run("build", *options).json["cells"][0]
    (llvm / "bin" / "clang").write_text("#!/bin/sh\necho clang version 21.1.9\n")
    second = driver.run("build", *options).json["cells"][0]
    assert not second["from_stash"]
    assert first["build_key"] != second["build_key"]


def test_a_strangers_source(driver: Driver, tmp_path: Path) -> None:
    """It is refused before anything is fetched, recorded or built."""
    options = ("--recipe", recipe(tmp_path), "--variant", "jit", "--source", "https://example.invalid/x#pull/1/head")
    done = driver.run("validate", *options, expect=2)
    assert "nothing isolates it on this host" in done.stderr
    assert "--trust" in done.stderr
    assert driver.runs() == ()
    done = driver.run("validate", *options, "--trust", expect=3)
    assert "nothing isolates it" not in done.stderr


def test_without_an_llvm(driver: Driver, tmp_path: Path) -> None:
    bare = driver.with_environ(LLVM_TOOLS_INSTALL_DIR=str(tmp_path / "none"), PATH="/usr/bin:/bin")
    done = bare.run("build", "--recipe", recipe(tmp_path), "--variant", "jit", "--json", expect=3)
    (reason,) = done.json["cells"][0]["reasons"][:1]
    assert reason.startswith("this machine has no LLVM 21")


def test_an_interruption_leaves_nothing(driver: Driver, tmp_path: Path) -> None:
    running = held(driver, tmp_path)
    running.signal(signal.SIGINT)
    assert running.wait().returncode == 130
    assert containers(driver) == processes(driver) == []


def test_what_a_kill_leaves_goes_with_the_next_command(driver: Driver, tmp_path: Path) -> None:
    held(driver, tmp_path).kill()
    assert containers(driver)
    assert processes(driver)
    done = driver.run("build", "--recipe", recipe(tmp_path), "--variant", "jit")
    assert "removed leftovers of a run that died: container crossjit-build" in done.stderr + done.stdout
    assert containers(driver) == processes(driver) == []


def held(driver: Driver, folder: Path) -> Running:
    """Start a build that waits in make, for what never comes."""
    more = {"Tools/tiny/hold.sh": '[ "$2" != make ] || { echo holding; sleep 999; }\n'}
    running = driver.start("build", "--recipe", recipe(folder, **more), "--variant", "jit")
    running.until("holding in make", lambda: "holding" in driver.logs() or None)
    return running
