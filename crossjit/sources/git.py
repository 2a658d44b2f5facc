"""Running git safely: it does not prompt, follow settings, attributes or hooks, or write to the user's repositories.

Only `fetching` commands use the user's settings: proxies, certificates, credentials, insteadOf. All others run without
the user's and the system's settings, and other repositories are read through an empty one of ours, so that their own
settings are not used either. The memory and disk usage of git's processes is limited.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from crossjit.errors import SourceError
from crossjit.progress import Step
from crossjit.util.budget import BUDGET

# What `git rev-parse --local-env-vars` lists, and other variables that change what git reads or writes.
_LOCAL = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS",
    "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "SSH_ASKPASS",
    "GIT_ASKPASS", "DISPLAY", "GIT_TRACE", "GIT_TRACE2", "GIT_TRACE2_EVENT", "GIT_TRACE2_PERF", "GIT_ATTR_SOURCE",
)  # fmt: skip

_ALWAYS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GCM_INTERACTIVE": "never",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_ATTR_NOSYSTEM": "1",
    "LC_ALL": "C",
}

# No settings but those of `-c`; nothing is fetched, as a partial clone would do for missing objects.
_NEUTRAL = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_NO_LAZY_FETCH": "1",
}

_FETCHING = {"GIT_ALLOW_PROTOCOL": "https:ssh:git:file"}

_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.attributesFile": os.devnull,
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.askPass": "",
    "core.bigFileThreshold": "16m",  # larger files are not held in memory
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.fsckObjects": "true",  # all of CPython's history passes
    "fetch.unpackLimit": "1",  # packs are checked as they arrive
    "fetch.recurseSubmodules": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "advice.detachedHead": "false",
}

STALL_TIMEOUT = 180.0  # seconds without output after which a fetch has stalled
FETCH_TIMEOUT = 3600.0  # seconds for a fetch
_MEMORY = 512 << 20  # bytes of a git process's own memory; mapped packs are not counted
_PIECE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """A git command's output and exit status; None if it was stopped for its time or the size of its output."""

    status: int | None
    output: bytes
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0

    @property
    def text(self) -> str:
        """The output, without the last newline."""
        return os.fsdecode(self.output).rstrip("\n")

    @property
    def over(self) -> bool:
        """Whether it exceeded a limit of memory or disk."""
        return any(re.search("(?i)file too large|out of memory|malloc|mmap failed", line) for line in self.errors)

    @property
    def unsound(self) -> bool:
        """Whether git found malformed objects in the fetched data."""
        return any(re.search(r"fsck error|error in (tree|commit|tag|blob)\b", line) for line in self.errors)


@contextlib.contextmanager
def _started(
    arguments: Sequence[str],
    config: Mapping[str, str],
    env: Mapping[str, str],
    *,
    output: int,
    errors: int | BinaryIO,
    fetching: bool = False,
    words: BinaryIO | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start git in a session of its own, where nothing can prompt at the terminal, and kill all of it at the end."""
    environment = {name: value for name, value in os.environ.items() if name not in _LOCAL}
    if not fetching:
        environment = {name: value for name, value in environment.items() if not name.startswith("GIT_CONFIG")}
    settings = [part for name, value in {**_CONFIG, **config}.items() for part in ("-c", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            ["git", *settings, *arguments],
            env={**environment, **_ALWAYS, **(_FETCHING if fetching else _NEUTRAL), **env},
            stdin=words or subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            restore_signals=False,  # git reports a file over its limit as an error; it restores SIGPIPE itself
        )
    except FileNotFoundError as error:
        raise SourceError(
            "git is not installed, and this source needs it", hint="install git, or give an archive"
        ) from error
    try:
        _bound(process.pid)
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


def _bound(process: int) -> None:
    """Limit the memory and the file sizes of a process that has just started, and of its children."""
    for kind, limit in ((resource.RLIMIT_DATA, _MEMORY), (resource.RLIMIT_FSIZE, BUDGET.archive)):
        with contextlib.suppress(OSError, ValueError):  # it has ended already, or its limit is lower
            resource.prlimit(process, kind, (limit, limit))


def run(
    *arguments: str,
    config: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    fetching: bool = False,
    words: bytes = b"",
) -> Answer:
    """Run git with `words` as its standard input. Raises SourceError if git is not installed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    with (
        tempfile.TemporaryFile() as errors,
        _spoken(words) as read,
        _started(
            arguments, config or {}, env or {}, output=subprocess.PIPE, errors=errors, fetching=fetching, words=read
        ) as process,
    ):
        output = bytearray()
        while chunk := _next(process.stdout, deadline):
            output += chunk
            if len(output) > BUDGET.names:
                return Answer(None, b"", (f"it wrote more than {BUDGET.names:,} bytes",))
        if chunk is None:
            return Answer(None, b"", (f"no answer within {timeout:g} s",))
        process.wait()
        return Answer(process.returncode, bytes(output), _last_of(errors))


@contextlib.contextmanager
def _spoken(words: bytes) -> Iterator[BinaryIO]:
    """Put git's standard input into a file, so that neither side waits for the other."""
    with tempfile.TemporaryFile() as file:
        file.write(words)
        file.seek(0)
        yield cast(BinaryIO, file)


def _next(stream: object, deadline: float | None) -> bytes | None:
    """Return a pipe's next data, nothing at its end, None if there is none in time."""
    descriptor = cast(BinaryIO, stream).fileno()
    wait = None if deadline is None else max(deadline - time.monotonic(), 0)
    return os.read(descriptor, _PIECE) if select.select([descriptor], [], [], wait)[0] else None


def _last_of(errors: BinaryIO) -> tuple[str, ...]:
    errors.seek(max(errors.seek(0, os.SEEK_END) - _PIECE, 0))
    return lines_of(errors.read())


@contextlib.contextmanager
def reading(
    *arguments: str, config: Mapping[str, str] | None = None, env: Mapping[str, str], words: bytes = b""
) -> Iterator[BinaryIO]:
    """Run git and open its output; it is killed if the block raises. Raises SourceError at the end if it failed.

    A block that finds the output truncated raises EOFError, which becomes a SourceError with git's messages.
    """
    with (
        tempfile.TemporaryFile() as errors,
        _spoken(words) as read,
        _started(arguments, config or {}, env, output=subprocess.PIPE, errors=errors, words=read) as process,
    ):
        cut: EOFError | None = None
        try:
            yield cast(BinaryIO, process.stdout)
        except EOFError as error:
            cut = error
        cast(BinaryIO, process.stdout).close()
        if process.wait() != 0 or cut is not None:
            raise SourceError(
                f"git {' '.join(arguments)} failed with exit status {process.returncode}",
                hint="run `git fsck` in the repository, or give the URL that it was cloned from",
                details=_last_of(errors),
            ) from cut


def follow(*arguments: str, step: Step, silence: float = STALL_TIMEOUT) -> Answer:
    """Run a fetch and show its progress; it is stopped after `silence` seconds without output.

    Its output goes through a pipe, so that it dies of SIGPIPE if we are killed.
    """
    messages = b""
    deadline = time.monotonic() + FETCH_TIMEOUT
    with _started(arguments, {}, {}, output=subprocess.DEVNULL, errors=subprocess.PIPE, fetching=True) as process:
        while chunk := _next(process.stderr, min(time.monotonic() + silence, deadline)):
            messages = (messages + chunk)[-_PIECE:]
            _show(chunk, step)
        if chunk is None:
            stalled = time.monotonic() < deadline
            why = f"no output for {silence:g} s" if stalled else f"not finished after {FETCH_TIMEOUT:g} s"
            return Answer(None, b"", (*lines_of(messages), f"stalled: {why}"))
        process.wait()
    return Answer(process.returncode, b"", lines_of(messages))


def _show(chunk: bytes, step: Step) -> None:
    """Show `Receiving objects:  12% (345/2890)` as units done and in total, with the words as detail."""
    shares = re.findall(rb"([A-Z][a-z]+ [a-z]+): +\d+% \((\d+)/(\d+)\)", chunk)
    if shares:
        phase, done, total = shares[-1]
        step.update(done=int(done), total=int(total), detail=phase.decode().lower())


def lines_of(errors: bytes) -> tuple[str, ...]:
    """Return the last lines of git's messages, without those that only show progress."""
    lines = [line.rpartition("\r")[2].strip() for line in errors.decode("utf-8", "replace").split("\n")]
    return tuple(line for line in lines if line and not re.search(r"\d+% \(", line))[-12:]
