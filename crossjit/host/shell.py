"""The interface to the machine: it is inspected and changed only through a `Shell`."""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from crossjit.engine.base import Completed

_SYSTEM_FOLDERS = (
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/bin",
    "/bin",
)  # Debian leaves sbin out of a user's PATH


@dataclass(frozen=True)
class Output(Completed):
    """A finished command with its output."""

    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.returncode == 0

    def last_lines(self, number: int = 15) -> tuple[str, ...]:
        """Return the end of its output, errors last."""
        return tuple(line.rstrip() for line in (self.stdout + "\n" + self.stderr).splitlines() if line.strip())[
            -number:
        ]


class Shell(Protocol):
    """A machine: its files are read below `root`, everything else is a command."""

    root: Path
    user: str
    is_root: bool
    machine: str  # as from uname: x86_64, aarch64, arm64 …
    system: str  # the kernel's name: Linux, Darwin
    kernel: str  # the kernel's release
    environ: Mapping[str, str]

    def run(self, argv: Sequence[str], *, text: str | None = None, timeout: float | None = None) -> Output:
        """Run a command with `text` as its standard input, and return its output.

        The locale is C, so that output can be parsed. The status is 127 for a command that does not exist, -SIGKILL for
        one killed after `timeout` seconds.
        """

    def which(self, program: str) -> str | None:
        """Find a program on PATH or in the system's folders."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class LocalShell:
    """This machine."""

    def __init__(self) -> None:
        """Read the facts that do not change while the process runs."""
        self.root = Path("/")
        self.is_root = os.geteuid() == 0
        try:
            self.user = getpass.getuser()
        except (KeyError, OSError):  # no entry in passwd, as in many containers
            self.user = str(os.geteuid())
        self.machine = platform.machine()
        self.system = platform.system()
        self.kernel = platform.release()
        folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
        path = os.pathsep.join(dict.fromkeys([*folders, *_SYSTEM_FOLDERS]))
        self.environ: Mapping[str, str] = {**os.environ, "PATH": path, "LC_ALL": "C.UTF-8"}

    def run(self, argv: Sequence[str], *, text: str | None = None, timeout: float | None = None) -> Output:
        """Run a command; it inherits only the standard streams."""
        started = time.monotonic()
        try:
            result = subprocess.run(
                argv,
                input=text,
                stdin=subprocess.DEVNULL if text is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=self.environ,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Output(tuple(argv), -9, time.monotonic() - started, stderr=f"not finished after {timeout:g} s")
        except OSError as error:
            return Output(tuple(argv), 127, time.monotonic() - started, stderr=f"{argv[0]}: {error.strerror}")
        return Output(tuple(argv), result.returncode, time.monotonic() - started, result.stdout, result.stderr)

    def which(self, program: str) -> str | None:
        """Search PATH, then the system's folders."""
        return shutil.which(program, path=self.environ["PATH"])

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
