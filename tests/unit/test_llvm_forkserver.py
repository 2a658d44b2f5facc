"""toolchain/llvm_forkserver.c, compiled here and preloaded into a program that tells if it runs where it was loaded."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from crossjit.build.layout import SCRIPTS
from tests.unit.test_llvm_cache import SANITIZED, SANITIZER, Llvm, compile_c, program

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


def compiled(source: Path, target: Path, *options: str) -> Path:
    return compile_c(source, target, "-O1", "-Wall", "-Wextra", "-Werror", *SANITIZED, *options)


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
    return compiled(SCRIPTS / "llvm_forkserver.c", target, "-shared", "-fPIC", f"-DMOST={MOST}")


def preloaded(library: Path) -> dict[str, str]:
    """The environment in which a program begins with the library; the sanitizers' own has to come before it."""
    done = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return {**SANITIZER, "LD_PRELOAD": f"{done.stdout.strip()} {library}"}


class Served(Llvm):
    """A tool with a server of it."""

    def __init__(self, folder: Path, program: Path, tool: Path, library: Path, sockets: Path) -> None:
        super().__init__(folder, program)
        self.real = folder / "llvm" / "bin" / "llvm-objdump"
        self.real.unlink()
        shutil.copy(tool, self.real)
        self.socket = sockets / "llvm-objdump"
        self.environ["CROSSJIT_LLVM_SERVERS"] = str(sockets)
        environ = {**os.environ, **preloaded(library), "CROSSJIT_LLVM_SOCKET": str(self.socket)}
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
    where = "alone" if status else "served"  # what does not end well is run once more
    assert served.ask(content) == (status, f"{where} {said}", err)
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


@pytest.mark.parametrize("killed", ["all", "the server", "the program"])
def test_what_dies_on_the_server_is_run_by_itself(served: Served, killed: str) -> None:
    """As where the kernel kills for memory: nothing of it is seen by who asked."""
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(served.ask, "endless")
        until(served.children)
        (child,) = served.children()
        if killed == "all":
            served.end()
        else:
            os.kill(served.server.pid if killed == "the server" else int(child), signal.SIGKILL)
        if killed != "the server":
            until(lambda: not Path(f"/proc/{child}").exists())
        (served.folder / "x.o").unlink()
        assert asked.result(60) == (0, f"alone in {served.folder}: <x.o> of nobody by llvm-objdump\n", "")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0", b"\0\0\0", bytes([0, 3, 0, 0]), bytes([11, 0, 0, 0]), bytes([9, 0, 0, 0]), b"\xff" * 4],
    ids=["none", "a byte", "three bytes", "exit status 3", "SIGSEGV", "SIGKILL", "no status at all"],
)
def test_a_server_decides_nothing(served: Served, answer: bytes) -> None:
    """One that has printed half of something, on both streams, and then tells this."""
    served.end()
    served.socket.unlink()
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(1) as thread:
        listener.bind(str(served.socket))
        listener.listen()
        asked = thread.submit(served.ask, "content")
        connection, _ = listener.accept()
        with connection:
            _, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
            for each in files[1:]:
                os.write(each, b"half of ")
            for each in files:
                os.close(each)
            while connection.recv(1 << 16):
                pass
            connection.sendall(answer)
        said = (0, f"alone in {served.folder}: <x.o> of nobody by llvm-objdump\n", "")
        assert asked.result(60) == said
    assert served.ask("content") == said
    assert served.log() == ["llvm miss", "llvm hit"]


def test_the_program_is_itself_where_it_has_no_socket(tool: Path, library: Path) -> None:
    for path in ({}, {"CROSSJIT_LLVM_SOCKET": "/" + "long" * 50}):
        done = subprocess.run(
            [tool, "x"], env={**preloaded(library), **path}, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.stdout.startswith("alone in ")
