"""Hostile trees, as a pull request brings them, through the commands that a CI would run: nothing gets at the host."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crossjit.engine.base import HOME
from crossjit.settings import Settings
from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Done, Driver
from tests.written import GITHUB, OURS, check

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
MIB = 1 << 20
MEMORY = 500 * MIB  # of the host's, for one command
# Of the state folder and of the engine, for one command, with what is written while the engine is being asked.
DISK = 2048 * MIB
PATIENCE = 600.0

# What stands in C for a script of validate/: a shell that runs the tree's.
PROGRAM = """\
#include <stdlib.h>
#include <unistd.h>
#include "tiny.h"
static const char script[] = {script};
int {function}
{{
    {before}
    execl("/bin/sh", "sh", "-c", script, (char *)NULL);
    return 1;
}}
"""


@dataclass(frozen=True)
class Tree:
    """A tree of trees.toml."""

    name: str
    tries: str
    verdict: tuple[str, ...]
    says: str = ""
    runner: str = ""
    probe: str = ""
    capabilities: str = ""
    build: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def changes(self, secret: Path) -> dict[str, str]:
        """Return the files that make the tiny source this tree."""
        found = dict(self.files)
        if self.runner:
            found["Python/runner.c"] = _program(
                "answer_runner(const char *order, const char *output)", self.runner, 'setenv("OUTPUT", output, 1);'
            )
        if self.probe:
            found["Python/probe.c"] = _program("answer_probe(const char *told)", self.probe)
        if self.capabilities:
            found["Python/able.c"] = _program("answer_capabilities(void)", self.capabilities)
            main = (tiny_source.TREE / "Python/main.c").read_text()
            answer = re.compile(r'(strstr\(script, "/capabilities.py"\)\) \{\n).*\n( *return) 0')
            main = answer.sub(r"\1\2 answer_capabilities()", main)
            found["Python/main.c"] = f"int answer_capabilities(void);\n{main}"
        if self.build:
            found["Tools/tiny/hold.sh"] = f"PHASE=$2\n{self.build}"
        return {name: text.replace("@SECRET@", str(secret)) for name, text in found.items()}


def _program(function: str, script: str, before: str = "") -> str:
    text = (HERE / "functions.sh").read_text() + script
    plain = {byte for byte in range(32, 127) if byte not in b'"\\?'}
    escaped = "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode())
    return PROGRAM.format(script=f'"{escaped}"', function=function, before=before)


def _trees() -> list[Tree]:
    with (HERE / "trees.toml").open("rb") as file:
        return [Tree(**{**tree, "verdict": tuple(tree["verdict"])}) for tree in tomllib.load(file)["trees"]]


class Watch:
    """Looks how much memory a process takes, and how large a state folder and what it has in the engine are."""

    def __init__(self, process: int, folder: Path) -> None:
        self.memory = 0
        self.disk = 0
        self._process = process
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        looked = 0.0
        while not self._over.wait(0.05):
            with contextlib.suppress(OSError, TypeError):
                status = Path(f"/proc/{self._process}/status").read_text()
                found = re.search(r"VmHWM:\s+(\d+) kB", status)
                self.memory = max(self.memory, int(found[1]) * 1024 if found else 0)
            if time.monotonic() - looked > 0.5:
                looked = time.monotonic()
                self.disk = max(self.disk, sum(_sizes(self._folder)) + sum(_in_engine(self._folder)))


def _sizes(folder: Path) -> Iterator[int]:
    """Yield what the files below a folder take. Not recursive: trees may be deeper than Python's limit of calls."""
    folders = [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)


def _in_engine(home: Path) -> Iterator[int]:
    """Yield what containers and volumes of a state folder take: blocks where this user may look, else what it says."""
    label = f"label={HOME}={Settings(home=home).identity}"
    for container in _asked("ps", "--all", "--quiet", "--filter", label):
        form = '{{with .GraphDriver.Data}}{{index . "UpperDir"}}{{end}}'
        folder = Path("".join(_asked("container", "inspect", "--format", form, container)))
        if folder.is_absolute() and os.access(folder, os.R_OK | os.X_OK):
            yield from _sizes(folder)
        else:
            yield sum(map(int, _asked("container", "inspect", "--size", "--format", "{{.SizeRw}}", container)))
    for volume in _asked("volume", "ls", "--quiet", "--filter", label):
        yield from _sizes(Path("".join(_asked("volume", "inspect", "--format", "{{.Mountpoint}}", volume))))


def _asked(*arguments: str) -> list[str]:
    return subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the host's that nobody else is to see."""
    path = tmp_path / "secret"
    path.write_text(f"root:x:{secrets.token_hex(16)}\n")
    return path


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("runs", "show"),
    ("runs", "show", "--json"),
    ("report", "--html", "-"),
    ("report", "--junit", "-"),
    ("report", "--markdown", "-"),
    ("report", "--json"),
    ("compare", "last", "last"),
    ("stash", "list"),
    ("stash", "list", "--json"),
)


@pytest.mark.parametrize("tree", _trees(), ids=lambda tree: tree.name)
def test_a_tree(tree: Tree, make_driver: MakeDriver, recipe: Path, secret: Path, tmp_path: Path) -> None:
    driver = make_driver(environ=GITHUB)
    source = _pull_request(tmp_path / "repository", tree.changes(secret))
    running = driver.start("validate", "--recipe", recipe, "--source", source, "--json")
    watch = Watch(running.process.pid, driver.home)
    done = running.wait(PATIENCE)
    watch.stop()
    said = [done]
    if "refused" in tree.verdict and done.returncode == 2:
        assert done.stderr.startswith("error: ") or "\nerror: " in done.stderr
    else:
        (cell,) = done.json["cells"]
        assert cell["verdict"] in tree.verdict, (cell["reasons"], cell["details"])
        assert cell["verdict"] == "pass" or cell["reasons"]
        assert re.search(tree.says, " ".join(cell["reasons"] + [str(suite["problems"]) for suite in cell["suites"]]))
        said += [driver.start(*command).wait() for command in COMMANDS]
    for each in said:
        check_output(each)
        assert secret.read_text().strip() not in each.stdout + each.stderr
    for path in driver.home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert secret.read_bytes().strip() not in path.read_bytes(), path
    assert driver.leftovers() == []
    assert watch.memory < MEMORY
    assert watch.disk < DISK


def _pull_request(folder: Path, changes: Mapping[str, str]) -> str:
    """Make a repository in which a tree is a pull request; return how CI would name it."""
    checkout = tiny_source.checkout(folder)
    for name, text in changes.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    identity = ("-c", "user.name=mallory", "-c", "user.email=mallory@example.org", "-c", "commit.gpgsign=false")
    git = ("git", "-C", str(checkout))
    _run(*git, "add", "--all")
    _run(*git, *identity, "commit", "--quiet", "--allow-empty", "-m", "harmless")
    _run(*git, "update-ref", "refs/pull/1/head", "HEAD")
    return f"file://{checkout}#pull/1/head"


def _run(*command: str) -> None:
    assert os.spawnvp(os.P_WAIT, command[0], command) == 0


def check_output(done: Done) -> None:
    """Hold what a command wrote against what nobody may be told, or take for a command."""
    written = done.stdout + done.stderr
    assert done.returncode in (0, 1, 2, 3, 4)
    assert "Traceback" not in written
    assert "this is a bug in crossjit" not in written
    assert "root:x:0:0" not in written
    check(done.stdout, also=OURS)
    check(done.stderr, also=OURS)


def test_the_trees_are_what_they_say(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """With a script that does what validate/'s do no test fails: what goes wrong above is what a tree tries."""
    honest = Tree(
        "honest",
        "nothing",
        ("pass",),
        runner="plan 000\nstart 000\n"
        'echo \'<testsuites><testsuite tests="1" errors="0" failures="0">\''
        '\'<testcase name="test.test_000.T.test_a" time="0.1"/></testsuite></testsuites>\' >"$OUTPUT/000/000.xml"\n'
        'echo a >"$OUTPUT/000/000.log"\nend 000 \'"000.xml"\' null \'"000.log"\'\nfinish\n',
        build=":",
    )
    source = _pull_request(tmp_path / "repository", honest.changes(tmp_path))
    done = driver.run("validate", "--recipe", recipe, "--source", source, "--json", expect=4)
    (cell,) = done.json["cells"]
    assert (cell["verdict"], cell["suites"][0]["run"], cell["suites"][0]["problems"]) == ("vacuous", 1, [])
