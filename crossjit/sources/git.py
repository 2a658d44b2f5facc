"""Running git so that it neither asks, nor writes where it should not, nor does what a user's hooks or settings say."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from crossjit.errors import SourceError
from crossjit.progress import Step
from crossjit.sources.cache import CHUNK

# What `git rev-parse --local-env-vars` lists, but for what carries settings: set in a hook's environment, for example.
_LOCAL = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_OBJECT_DIRECTORY", "GIT_DIR", "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS",
    "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "SSH_ASKPASS",
    "GIT_ASKPASS", "DISPLAY", "GIT_TRACE", "GIT_TRACE2", "GIT_TRACE2_EVENT", "GIT_TRACE2_PERF",
)  # fmt: skip

_ALWAYS = {
    "GIT_TERMINAL_PROMPT": "0",
    "GCM_INTERACTIVE": "never",
    "SSH_ASKPASS_REQUIRE": "never",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "LC_ALL": "C",
}

# The user's other settings hold: proxies, certificates, insteadOf, safe.directory, what is ignored.
_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.askPass": "",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.ext.allow": "never",
    "fetch.recurseSubmodules": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "60",
    "advice.detachedHead": "false",
}

SILENCE = 180.0  # seconds without a word of progress after which a fetch has stalled


@dataclass(frozen=True)
class Answer:
    """What a git command said, and its exit status; None if it was stopped for taking too long."""

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


@contextlib.contextmanager
def _started(
    arguments: Sequence[str], config: dict[str, str], env: dict[str, str], *, output: int
) -> Iterator[subprocess.Popen[bytes]]:
    """Start git in a session of its own, where nothing can ask at the terminal, and leave none of it behind."""
    environment = {name: value for name, value in os.environ.items() if name not in _LOCAL} | _ALWAYS | env
    settings = [part for name, value in (_CONFIG | config).items() for part in ("-c", f"{name}={value}")]
    try:
        process = subprocess.Popen(
            ["git", *settings, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise SourceError(
            "git is not installed, and this source needs it", hint="install git, or give an archive"
        ) from error
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


def run(
    *arguments: str,
    config: dict[str, str] | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
) -> Answer:
    """Run git to its end. Raises SourceError if there is no git."""
    with _started(arguments, config or {}, env or {}, output=subprocess.PIPE) as process:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            return Answer(None, b"", (f"no answer within {timeout:g} s",))
    return Answer(process.returncode, output, lines_of(errors))


@contextlib.contextmanager
def reading(*arguments: str, config: dict[str, str], env: dict[str, str]) -> Iterator[BinaryIO]:
    """Run git and read what it writes. Raises SourceError at the end if it failed.

    What it wrote until then can end anywhere, so that comes before what the reader says of it.
    """
    with _started(arguments, config, env, output=subprocess.PIPE) as process:
        failure: SourceError | None = None
        try:
            yield cast(BinaryIO, process.stdout)
        except SourceError as error:
            failure = error
        assert process.stdout is not None and process.stderr is not None
        while process.stdout.read(CHUNK):  # tar's padding, or what nobody read
            pass
        errors = process.stderr.read()
        if process.wait() != 0:
            raise SourceError(
                f"git {' '.join(arguments)} failed with exit status {process.returncode}",
                hint="a repository that was cloned with --filter lacks files of other commits: check the commit out "
                "there, or give the URL that it was cloned from",
                details=lines_of(errors),
            ) from failure
        if failure is not None:
            raise failure


def follow(*arguments: str, config: dict[str, str], step: Step, silence: float = SILENCE) -> Answer:
    """Run a fetch and show its progress; it is stopped when it has not said a word for `silence` seconds.

    Its progress goes through a pipe of ours, so that it dies of SIGPIPE when we are killed.
    """
    said = b""
    with _started(arguments, config, {}, output=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        descriptor = process.stderr.fileno()
        deadline = time.monotonic() + silence
        while True:
            ready, _, _ = select.select([descriptor], [], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return Answer(None, b"", (*lines_of(said), f"stalled: not a word for {silence:g} s"))
            chunk = os.read(descriptor, 65536)
            if not chunk:
                break
            deadline = time.monotonic() + silence
            said = (said + chunk)[-65536:]
            _show(chunk, step)
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


def here(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> Answer:
    """Run git in a repository; the ceiling keeps it from finding one around the folder."""
    return run(
        "-C", str(folder), *arguments, env={"GIT_CEILING_DIRECTORIES": str(folder.resolve().parent), **(env or {})}
    )


def require_repository(folder: Path) -> None:
    """Raise SourceError unless a folder is itself a git repository or the top of a checkout."""
    found = here(folder, "rev-parse", "--git-dir")
    if not found.ok:
        raise SourceError(
            f"{folder} is not the top folder of a git repository that git will read",
            hint="give the folder that has .git in it, or an archive",
            details=found.errors,
        )
