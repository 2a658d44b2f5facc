"""Running git so that it neither asks, nor writes where it should not, nor does what settings, attributes or hooks say.

Only `fetching` commands hear of the user's settings: proxies, certificates, credentials, insteadOf. All others run
without the user's and the system's, and a stranger's repository is looked at through an empty one of ours, so that its
own count as little. What a child takes of memory and disk is bounded.
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

# No settings but those of `-c`; nothing is fetched, as a partial clone would what it lacks.
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
    "core.bigFileThreshold": "16m",  # what is larger is not held in memory
    "gc.auto": "0",
    "maintenance.auto": "false",
    "fetch.fsckObjects": "true",  # all of CPython's history passes
    "fetch.unpackLimit": "1",  # a pack is looked through as it comes
    "fetch.recurseSubmodules": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "advice.detachedHead": "false",
}

SILENCE = 180.0  # seconds without a word of progress after which a fetch has stalled
LONGEST = 3600.0  # seconds that a fetch may take
_MEMORY = 512 << 20  # bytes of a process of git's own; packs, which are mapped, are not counted
_PIECE = 1 << 16


@dataclass(frozen=True)
class Answer:
    """What a git command said, and its exit status; None if it was stopped for taking too long or saying too much."""

    status: int | None
    output: bytes
    errors: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0

    @property
    def text(self) -> str:
        """What it said, without the last newline."""
        return os.fsdecode(self.output).rstrip("\n")

    @property
    def over(self) -> bool:
        """Whether it went over a bound of memory or disk."""
        return any(re.search("(?i)file too large|out of memory|malloc|mmap failed", line) for line in self.errors)

    @property
    def unsound(self) -> bool:
        """Whether what was fetched is not as git makes it."""
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
    """Start git in a session of its own, where nothing can ask at the terminal, and leave none of it behind."""
    ours = {name: value for name, value in os.environ.items() if name not in _LOCAL}
    if not fetching:
        ours = {name: value for name, value in ours.items() if not name.startswith("GIT_CONFIG")}
    settings = [part for name, value in {**_CONFIG, **config}.items() for part in ("-c", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            ["git", *settings, *arguments],
            env={**ours, **_ALWAYS, **(_FETCHING if fetching else _NEUTRAL), **env},
            stdin=words or subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            restore_signals=False,  # a file over its bound is an error that git tells; SIGPIPE it restores itself
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
    """Bound the memory and the files of a process that has just started, and of all that it starts."""
    for kind, most in ((resource.RLIMIT_DATA, _MEMORY), (resource.RLIMIT_FSIZE, BUDGET.archive)):
        with contextlib.suppress(OSError, ValueError):  # it is done already, or has less than that
            resource.prlimit(process, kind, (most, most))


def run(
    *arguments: str,
    config: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    fetching: bool = False,
    words: bytes = b"",
) -> Answer:
    """Run git to its end, with `words` to read. Raises SourceError if there is no git."""
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
    """Have what git is to read in a file, so that neither side waits for the other."""
    with tempfile.TemporaryFile() as file:
        file.write(words)
        file.seek(0)
        yield cast(BinaryIO, file)


def _next(stream: object, deadline: float | None) -> bytes | None:
    """Return what a pipe gives next, nothing at its end, or None where it gives nothing in time."""
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
    """Run git and read what it writes; it is killed if the block raises. Raises SourceError at the end if it failed.

    A block that finds it cut off raises EOFError: then what git says of it comes first.
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


def follow(*arguments: str, step: Step, silence: float = SILENCE) -> Answer:
    """Run a fetch and show its progress; it is stopped when it has not said a word for `silence` seconds.

    Its progress goes through a pipe of ours, so that it dies of SIGPIPE when we are killed.
    """
    said = b""
    last = time.monotonic() + LONGEST
    with _started(arguments, {}, {}, output=subprocess.DEVNULL, errors=subprocess.PIPE, fetching=True) as process:
        while chunk := _next(process.stderr, min(time.monotonic() + silence, last)):
            said = (said + chunk)[-_PIECE:]
            _show(chunk, step)
        if chunk is None:
            why = f"no output for {silence:g} s" if time.monotonic() < last else f"not finished after {LONGEST:g} s"
            return Answer(None, b"", (*lines_of(said), f"stalled: {why}"))
        process.wait()
    return Answer(process.returncode, b"", lines_of(said))


def _show(chunk: bytes, step: Step) -> None:
    """Show `Receiving objects:  12% (345/2890)` as that many of so many; the words are for people only."""
    shares = re.findall(rb"([A-Z][a-z]+ [a-z]+): +\d+% \((\d+)/(\d+)\)", chunk)
    if shares:
        what, done, total = shares[-1]
        step.update(done=int(done), total=int(total), detail=what.decode().lower())


def lines_of(errors: bytes) -> tuple[str, ...]:
    """Return the last lines of git's messages, without those that only show progress."""
    lines = [line.rpartition("\r")[2].strip() for line in errors.decode("utf-8", "replace").split("\n")]
    return tuple(line for line in lines if line and not re.search(r"\d+% \(", line))[-12:]
