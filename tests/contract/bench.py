"""What the contract is tried on: an engine with a tiny image, and what the shell scripts mean to the fake one."""

from __future__ import annotations

import contextlib
import functools
import io
import platform
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from crossjit.engine.base import HOST, OWNED, Container, ContainerOptions, Engine, traits
from crossjit.engine.cli_engine import CliEngine
from crossjit.engine.host_engine import HostEngine
from crossjit.model import Arch
from tests.fakes.engine import FakeProcess

PROGRAMS = (
    "sh", "true", "false", "echo", "cat", "env", "id", "mkdir", "mv", "rm", "touch", "sleep", "pwd", "tr", "tar", "ls",
    "setsid", "head", "truncate", "du", "find", "sort", "stat", "chmod",
)  # fmt: skip

HOST_ARCH = Arch.AARCH64 if platform.machine() in ("aarch64", "arm64") else Arch.X86_64
OTHER_ARCH = Arch.X86_64 if HOST_ARCH is Arch.AARCH64 else Arch.AARCH64

MARK = "crossjit.contract"


@dataclass
class Bench:
    """An engine with two images: one of the host's arch with a shell, one of the other arch that is never run."""

    engine: Engine
    real: bool
    rootfs: Path
    image: str
    other_image: str
    mark: str = field(default_factory=lambda: uuid4().hex)

    @property
    def is_podman(self) -> bool:
        """Whether it is podman, which differs in a few ways that crossjit does not depend on."""
        return isinstance(self.engine, CliEngine) and self.engine.name == "podman"

    @property
    def is_host(self) -> bool:
        """Whether it is this machine without containers, which refuses what other engines isolate and make."""
        return self.image == HOST

    @property
    def home(self) -> Path:
        """The state folder of an engine that has its objects there."""
        return self.engine.folder.parent if isinstance(self.engine, HostEngine) else Path("/")

    @property
    def worker(self) -> str | None:
        """The unprivileged user; the host has only the user who runs the tests."""
        return None if self.is_host else "worker"

    @property
    def tells_owners(self) -> bool:
        """Whether files come out with their owners in the container; crossjit does not depend on it."""
        return not (self.is_podman or self.maps_users or self.is_host)

    @functools.cached_property
    def maps_users(self) -> bool:
        """Whether it is docker with `userns-remap`."""
        return isinstance(self.engine, CliEngine) and "user namespaces" in traits(self.engine.cli.info())

    @property
    def labels(self) -> dict[str, str]:
        return {OWNED: "contract", MARK: self.mark}

    def container(self, **options: Any) -> AbstractContextManager[Container]:
        return self.engine.container(self.options(**options))

    def options(self, **options: Any) -> ContainerOptions:
        name = f"crossjit-contract-{uuid4().hex[:12]}"
        given: dict[str, Any] = {"image": self.image, "name": name, "labels": self.labels, "arch": HOST_ARCH}
        if self.is_host:  # its home folder is there, as an image's folders are
            given |= {"isolated": False, "env": {"HOME": "/work", **options.pop("env", {})}}
        given |= options
        return ContainerOptions(**given)


def lines_of(container: Container, argv: list[str], **options: Any) -> list[str]:
    """Run a command that must succeed, and return its output."""
    lines: list[str] = []
    assert container.run(argv, on_line=lines.append, **options).returncode == 0, lines
    return lines


# -- shell scripts, and what they are to the fake

SCRIPTS: dict[str, Callable[[FakeProcess], int]] = {}


def sh(script: str) -> list[str]:
    """Return the command that runs a script."""
    assert script in SCRIPTS, "the fake engine has no meaning for this script"
    return ["sh", "-c", script]


def run_script(process: FakeProcess) -> int:
    """The fake's `sh`."""
    return SCRIPTS[process.argv[2]](process)


def script(text: str) -> Callable[[Callable[[FakeProcess], int]], str]:
    """Say what a script means; the name becomes the script."""

    def take(function: Callable[[FakeProcess], int]) -> str:
        SCRIPTS[text] = function
        return text

    return take


def exits(code: int) -> str:
    return script(f"exit {code}")(lambda process: code)


def dies(name: str, number: int) -> str:
    def die(process: FakeProcess) -> int:
        process.kill(number)
        raise AssertionError("killed processes do not go on")

    return script(f"kill -{name} $$")(die)


@script("i=0; while [ $i -lt 200 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done")
def ALTERNATE(process: FakeProcess) -> int:  # noqa: N802 - names a constant
    for number in range(200):
        process.write_line(f"out {number}")
        process.write_line(f"err {number}")
    return 0


@script(r"printf 'a\n\n\377b\nlast'")
def RAGGED(process: FakeProcess) -> int:  # noqa: N802
    for line in ("a", "", "�b", "last"):
        process.write_line(line)
    return 0


@script("sleep 901 & setsid sleep 902 & (setsid sleep 903 &); echo ready; sleep 904")
def OFFSPRING(process: FakeProcess) -> int:  # noqa: N802
    for number in (901, 902, 903):
        process.start(("sleep", str(number)))
    process.write_line("ready")
    return process.run(("sleep", "904"))


def processes(bench: Bench, container: Container) -> list[str]:
    """Return the command lines of a container's processes."""
    if not bench.is_host:
        return lines_of(container, sh(PROCESSES))
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"={container.id}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


@script("for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null; echo; done")
def PROCESSES(process: FakeProcess) -> int:  # noqa: N802
    for argv in process.container.children:
        process.write_line(" ".join(argv))
    return 0


@script("x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done")
def GLUTTON(process: FakeProcess) -> int:  # noqa: N802
    process.use_memory(1 << 40)
    return 0


@script("(x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done); exit 0")
def GLUTTONS_PARENT(process: FakeProcess) -> int:  # noqa: N802
    process.memory_kill()
    return 0


@script("trap '' TERM; kill -TERM 1; kill -KILL 1; kill -KILL -1; exit 3")
def RAMPAGE(process: FakeProcess) -> int:  # noqa: N802
    return 3


@script("sleep 906 & echo ready; while :; do cat /work/large; done")
def TORRENT(process: FakeProcess) -> int:  # noqa: N802
    process.start(("sleep", "906"))
    process.write_line("ready")
    for _ in range(300):
        process.run(("cat", "/work/large"))
    return 0


FILLERS: dict[str, str] = {}


def fills(name: str, text: str) -> None:
    def fill(process: FakeProcess) -> int:
        process.start(("sleep", "907"))
        process.use_disk(3 << 30)
        raise AssertionError("it is killed before")

    FILLERS[name] = script(f"sleep 907 & {text}; sleep 120")(fill)


fills("a file", "head -c 3000000000 /dev/zero >/tmp/filled")
fills("a file without a name", "exec 3>/tmp/filled; rm /tmp/filled; head -c 3000000000 /dev/zero >&3")
fills("a volume", "head -c 3000000000 /dev/zero >/cache/filled")
fills(
    "folders that nobody may read",
    "mkdir /tmp/a /cache/b; chmod 300 /tmp/a /cache/b; "
    "while head -c 9000000 /dev/zero >/tmp/a/$((i+=1)); do sleep 0.2; done",
)
fills(
    "small files",
    "while :; do mkdir /tmp/$((i+=1)); j=0; while [ $j -lt 300 ]; do echo >/tmp/$i/$((j+=1)); done; sleep 0.2; done",
)


@script("head -c 20000000 /dev/zero >/tmp/some; truncate --size 3G /tmp/hole /cache/hole; echo ready; sleep 3")
def FRUGAL(process: FakeProcess) -> int:  # noqa: N802
    process.use_disk(20_000_000)
    process.write_line("ready")
    return process.run(("sleep", "3"))


@script("echo ready; sleep 905")
def WAITING(process: FakeProcess) -> int:  # noqa: N802
    process.write_line("ready")
    return process.run(("sleep", "905"))


@script("echo from the shell; exit 7")
def SHELL(process: FakeProcess) -> int:  # noqa: N802
    process.write_line("from the shell")
    return 7


# -- a root file system out of the host's own programs: nothing is downloaded


def _libraries(program: str) -> Iterator[str]:
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for line in said.splitlines():
        if found := re.search(r"(/\S+) \(0x", line):
            yield found[1]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **attributes: Any) -> None:
    """Add a member made of nothing but its attributes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def pack_rootfs(destination: Path) -> None:
    """Pack a shell and a few programs of the host with their libraries."""
    files: dict[str, str] = {}
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program is not None, f"the host has no {name}"
        files[f"bin/{name}"] = program
        files.update((library.lstrip("/"), library) for library in _libraries(program))
    with tarfile.open(destination, "w") as tar:
        for folder in ("bin", "etc", "work", "proc", "sys", "dev"):
            add(tar, folder, type=tarfile.DIRTYPE, mode=0o755)
        for folder in ("tmp", "cache"):
            add(tar, folder, type=tarfile.DIRTYPE, mode=0o1777)
        add(tar, "etc/passwd", b"root:x:0:0::/:/bin/sh\nworker:x:1000:1000::/work:/bin/sh\n", mode=0o644)
        add(tar, "etc/group", b"root:x:0:\nworker:x:1000:\n", mode=0o644)
        for name, source in sorted(files.items()):
            add(tar, name, Path(source).read_bytes(), mode=0o755)
