"""toolchain/llvm_server.c, compiled here and preloaded into a program that tells if it runs where it was loaded."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossjit.build import SCRIPTS
from tests.conftest import lack
from tests.unit.test_llvm import Llvm, program

__all__ = ["program"]  # a fixture

# Its last argument is its input.
TOOL = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int loaded;
__attribute__((constructor)) static void load(void) { loaded = getpid(); }

int main(int argc, char **argv)
{
    char here[4096], text[4096] = "";
    FILE *file = fopen(argv[argc - 1], "r");
    if (file)
        text[fread(text, 1, sizeof text - 1, file)] = 0;
    printf("%s in %s:", loaded == getpid() ? "alone" : "served", getcwd(here, sizeof here));
    for (int each = 1; each < argc; each++)
        printf(" <%s>", argv[each]);
    printf(" of %s by %s\n", getenv("WHO") ? getenv("WHO") : "nobody", strrchr(argv[0], '/') + 1);
    for (int byte; (byte = getchar()) != EOF;)
        putchar(byte);
    fflush(stdout);
    if (strstr(text, "warned"))
        fputs("warning\n", stderr);
    if (strstr(text, "killed"))
        raise(SIGSEGV);
    if (strstr(text, "endless"))
        while (!access(argv[argc - 1], F_OK))
            usleep(10000);
    if (getenv("LD_PRELOAD") || getenv("CROSSJIT_LLVM_SOCKET"))
        return 9;
    exit(strstr(text, "broken") ? 3 : 0);
}
"""


def compiled(source: str | Path, target: Path, *options: str) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        lack("a compiler", "there is no gcc here")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", *options, "-o", str(target), str(source)]
    subprocess.run(command, check=True)
    return target


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tool")
    (folder / "tool.c").write_text(TOOL)
    return compiled(folder / "tool.c", folder / "tool")


MOST = 5  # at a time


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With room for few at a time, so that some have to wait."""
    target = tmp_path_factory.mktemp("server") / "server.so"
    return compiled(SCRIPTS / "llvm_server.c", target, "-shared", "-fPIC", f"-DMOST={MOST}")


class Served(Llvm):
    """A tool with a server of it."""

    def __init__(self, folder: Path, program: Path, tool: Path, library: Path, sockets: Path) -> None:
        super().__init__(folder, program)
        self.real = folder / "llvm" / "bin" / "llvm-objdump"
        self.real.unlink()
        shutil.copy(tool, self.real)
        self.socket = sockets / "llvm-objdump"
        self.environ["CROSSJIT_LLVM_SERVERS"] = str(sockets)
        environ = {**os.environ, "LD_PRELOAD": str(library), "CROSSJIT_LLVM_SOCKET": str(self.socket)}
        self.server = subprocess.Popen([self.real], env=environ, stdin=subprocess.DEVNULL, start_new_session=True)
        until(self.socket.exists)

    def ask(self, content: str = "", *arguments: str, stdin: str = "", **environ: str) -> tuple[int, str, str]:
        """Have it read a file; return its status and what it printed."""
        (self.folder / "x.o").write_text(content)
        command = [str(self.folder / "names" / "llvm-objdump"), *arguments, "x.o"]
        done = subprocess.run(
            command,
            env={**self.environ, **environ},
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def children(self) -> list[str]:
        """The processes of those that it serves."""
        return Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()

    def end(self) -> None:
        if self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()


def until(true: object) -> None:
    deadline = time.monotonic() + 30
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def served(tmp_path: Path, program: Path, tool: Path, library: Path) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="servers-", dir="/tmp") as sockets:  # a socket's path has to be short
        made = Served(tmp_path, program, tool, library, Path(sockets))
        try:
            yield made
        finally:
            made.end()


def test_a_server_goes_on_with_all_that_it_is_asked_with(served: Served) -> None:
    said = f"served in {served.folder}: <--a b> <> <x.o> of me by llvm-objdump\ntyped"
    assert served.ask("", "--a b", "", stdin="typed", WHO="me") == (0, said, "")
    again = served.ask("", WHO="you")
    assert again == (0, f"served in {served.folder}: <x.o> of you by llvm-objdump\n", "")


def test_what_a_server_says_is_kept(served: Served) -> None:
    first = served.ask("content")
    served.end()
    assert served.ask("content") == first
    assert served.log() == ["llvm miss", "llvm hit"]


@pytest.mark.parametrize(
    ("content", "status", "err"), [("broken", 3, ""), ("killed", 128 + 11, ""), ("warned", 0, "warning\n")]
)
def test_it_ends_as_it_would_alone(served: Served, content: str, status: int, err: str) -> None:
    said = f"in {served.folder}: <x.o> of nobody by llvm-objdump\n"
    assert served.ask(content) == (status, f"served {said}", err)
    assert served.ask(content, CROSSJIT_LLVM_SERVERS="/nonexistent") == (status, f"alone {said}", err)
    assert served.entries() == []


def test_many_are_served_at_a_time_or_wait(served: Served) -> None:
    (served.folder / "x.o").write_text("")
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda number: served.run("llvm-objdump", f"--{number}", "x.o"), range(100)))
    for number, ran in enumerate(found):
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.startswith(f"served in {served.folder}: <--{number}> <x.o>")


def test_no_more_are_served_at_a_time_than_there_is_room_for(served: Served) -> None:
    file = served.folder / "x.o"
    file.write_text("endless")
    with ThreadPoolExecutor(MOST + 3) as threads:
        asked = [threads.submit(served.run, "llvm-objdump", "x.o") for _ in range(MOST + 3)]
        try:
            until(lambda: len(served.children()) >= MOST)
            time.sleep(0.5)  # in which the others would be there, too
            assert len(served.children()) == MOST
        finally:
            file.unlink()
        assert {(each.result(60).status, each.result().err) for each in asked} == {(0, "")}


def test_where_no_server_listens_the_program_runs(served: Served) -> None:
    served.end()
    assert served.socket.exists()
    assert served.ask()[1].startswith("alone")
    served.socket.unlink()
    assert served.ask("other")[1].startswith("alone")
    assert served.ask("another", CROSSJIT_LLVM_SERVERS="/" + "long" * 50)[1].startswith("alone")


def test_a_server_that_is_gone_before_it_has_told_is_a_failure(served: Served) -> None:
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(served.ask, "endless")
        until(served.children)
        served.end()
        status, _, err = asked.result(60)
    assert (status, err) == (1, f"{served.real}: its server has ended\n")
    assert served.entries() == []


def test_the_program_is_itself_where_it_has_no_socket(tool: Path, library: Path) -> None:
    for socket in ({}, {"CROSSJIT_LLVM_SOCKET": "/" + "long" * 50}):
        done = subprocess.run(
            [tool, "x"], env={"LD_PRELOAD": str(library), **socket}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.stdout.startswith("alone in ")
