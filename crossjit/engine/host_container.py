"""A container of the host engine: a folder, and commands of this machine that have it for their files."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import secrets
import subprocess
import sys
import tarfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil

from crossjit.engine import host_processes, host_start, host_tar, host_usage
from crossjit.engine.base import READ_ONLY, Completed, ContainerOptions, Feature, LineSink, cannot
from crossjit.engine.confinement import OPEN_FILES
from crossjit.engine.disk import DiskWatch
from crossjit.engine.host_paths import PathMap
from crossjit.engine.host_processes import COMMAND, CONTAINER
from crossjit.engine.process import follow
from crossjit.errors import EngineError, Interrupted
from crossjit.util.budget import BUDGET, BoundedReader, LogCount
from crossjit.util.tar import ChunkReader

ABOUT = "container.json"  # in its folder
NICE = 19  # of a container that is idle
_PATH = "/usr/local/bin:/usr/bin:/bin"
_TEMPORARY = "/tmp"  # noqa: S108 - the container's own
_CHUNK = 1 << 18


class _Start:
    """Tells a started command's session from the messages about one that cannot be started."""

    def __init__(self) -> None:
        self.session: int | None = None
        self.messages: deque[str] = deque(maxlen=10)

    def read(self, line: str) -> None:
        word, _, number = line.partition(" ")
        if word == "crossjit" and number.isdecimal():
            self.session = int(number)
        else:
            self.messages.append(line)


class HostContainer:
    """A folder in which commands run. Implements `engine.base.Container`.

    `more_path` are folders of this machine that are searched for programs after those of a command's PATH. Once
    `stopped` is set, its commands end and raise Interrupted.
    """

    def __init__(
        self,
        identity: str,
        options: ContainerOptions,
        folder: Path,
        paths: PathMap,
        more_path: Sequence[str],
        stopped: threading.Event,
    ) -> None:
        self.id = identity
        self._options = options
        self._folder = folder
        self._paths = paths
        self._more_path = more_path
        self._stopped = stopped
        self._idle = options.limits.idle
        self._ends = time.monotonic() + options.limits.seconds
        limit = options.limits.disk
        self._disk = DiskWatch(self._size, limit, folder) if limit is not None else None

    def environment(self, env: Mapping[str, str], mark: str) -> dict[str, str]:
        """Return a command's whole environment, in paths of this machine; nothing of ours gets in."""
        own = {"PATH": _PATH, "HOME": _TEMPORARY, "TMPDIR": _TEMPORARY, **self._options.env, **env}
        own = {name: self._paths.outside(value) for name, value in own.items()}
        own["PATH"] = os.pathsep.join((own["PATH"], *self._more_path))
        return {**own, CONTAINER: self.id, COMMAND: mark}

    def command(self, argv: Sequence[str], cwd: str | None) -> tuple[str, ...]:
        """Return the command line that starts a command with its limits. Raises EngineError without its folder."""
        place = self._paths.place(cwd or "/")
        if not place.is_dir():
            raise EngineError(f"cannot start {argv[0]} in {self._options.name}", details=(f"there is no folder {cwd}",))
        options = {"limits": self._limits(), "nice": NICE if self._idle else 0, "cwd": str(place)}
        words = (self._paths.outside(word) for word in argv)
        return (sys.executable, "-I", "-S", host_start.__file__, json.dumps(options), *words)

    def _limits(self) -> dict[str, tuple[int, int]]:
        """Return the limits of each process. That of processes counts all of this user's."""
        limits = self._options.limits
        most = -1 if limits.file_size_may_be_raised else limits.file_size
        processes = _threads_of_user() + limits.pids
        seconds = limits.seconds * (os.cpu_count() or 1)
        return {
            "RLIMIT_FSIZE": (limits.file_size, most),
            "RLIMIT_NOFILE": (OPEN_FILES, OPEN_FILES),
            "RLIMIT_CORE": (0, 0),
            "RLIMIT_CPU": (seconds, seconds),
            "RLIMIT_NPROC": (processes, processes),
        }

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        on_line: LineSink | None = None,
        timeout: float | None = None,
    ) -> Completed:
        """Run a command to its end and pass on its output line by line."""
        self.require_running()
        if user is not None:
            raise cannot(Feature.ISOLATION, f"so {argv[0]} cannot run as {user}")
        mark = secrets.token_hex(12)
        started = _Start()
        sink = on_line or (lambda line: None)
        left = self._ends - time.monotonic()
        began = time.monotonic()

        def end() -> None:
            host_processes.kill(COMMAND, mark, started.session)

        try:
            followed = follow(
                self.command(argv, cwd),
                on_line=lambda line: sink(self._paths.inside(line)),
                on_error_line=started.read,
                timeout=left if timeout is None else min(timeout, left),
                on_timeout=end,
                count=LogCount(argv[0]),
                look=partial(self._look, argv[0]),
                env=self.environment(env or {}, mark),
            )
        except OSError as error:
            raise EngineError(f"cannot start {argv[0]} in {self._options.name}", details=(str(error),)) from error
        except BaseException:
            end()
            raise
        if started.session is None:
            self.require_running()
            raise EngineError(f"cannot start {argv[0]} in {self._options.name}", details=tuple(started.messages))
        if followed.returncode != 0:
            self.require_running()
        if time.monotonic() >= self._ends:
            raise EngineError(f"the container {self._options.name} reached its time limit")
        returncode = -9 if followed.timed_out else followed.returncode
        return Completed(tuple(argv), returncode, time.monotonic() - began)

    def require_running(self) -> None:
        """Raise EngineError if the container was removed or its time is over, Interrupted if the engine was stopped."""
        if self._stopped.is_set():
            raise Interrupted("the run was interrupted")
        if not is_of(self._folder, self.id):
            raise EngineError(f"the container {self._options.name} was removed")
        if time.monotonic() >= self._ends:
            host_processes.kill(CONTAINER, self.id)
            raise EngineError(f"the container {self._options.name} reached its time limit")

    def _look(self, what: str) -> None:
        self.require_running()
        if self._disk is not None:
            self._disk.look(what)

    def _size(self, exact: bool) -> int:
        """Return the bytes on disk of the container and its writable volumes, for `DiskWatch`."""
        writable = [
            self._paths.volumes[mount.removesuffix(READ_ONLY)]
            for mount in self._options.volumes.values()
            if not mount.endswith(READ_ONLY)
        ]
        return host_usage.measure(self.id, (self._folder, *writable))

    def hurry(self) -> None:
        """Start its commands as usual from now on; those that run stay behind if this user may not change that."""
        self.require_running()
        self._idle = False
        host_processes.hurry(self.id)

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack an uncompressed tar stream into an existing folder. All files are this user's."""
        self.require_running()
        what = f"copy into {destination} of {self._options.name}"
        if not self._paths.place(destination).is_dir():
            raise EngineError(f"cannot {what}", details=(f"there is no folder {destination}",))
        try:
            host_tar.unpack(tar, destination, self._paths)
        except (tarfile.TarError, host_tar.UnfitMemberError, OSError) as error:
            raise EngineError(f"cannot {what}", details=(str(error),)) from error

    @contextlib.contextmanager
    def get(self, path: str) -> Iterator[BinaryIO]:
        """Open a tar stream of a file or folder."""
        self.require_running()
        place = self._paths.place(path)
        if not os.path.lexists(place):
            raise FileNotFoundError(2, f"there is no such file in {self._options.name}", path)
        stream = cast(BinaryIO, io.BufferedReader(ChunkReader(self._packed(place, path)), _CHUNK))
        yield cast(BinaryIO, BoundedReader(stream, f"{path} of {self._options.name}", BUDGET.stream))

    def _packed(self, place: Path, path: str) -> Iterator[bytes]:
        try:
            yield from host_tar.pack(place, self._paths)
        except OSError as error:
            raise EngineError(f"cannot copy {path} out of {self._options.name}", details=(str(error),)) from error

    def terminal(self, argv: Sequence[str], cwd: str | None) -> int:
        """Hand the terminal to a command, and return its exit status."""
        mark = secrets.token_hex(12)
        return subprocess.call(self.command(argv, cwd), env=self.environment({}, mark))


def about(folder: Path) -> dict[str, Any] | None:
    """Return what a container's folder says about it; None if it is not one."""
    try:
        value = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_of(folder: Path, identity: str) -> bool:
    """Whether a folder is still that of this container: after its removal, another may have the same number."""
    return (about(folder) or {}).get("id") == identity


def _threads_of_user() -> int:
    """Return the number of threads of this user's processes, as the kernel counts them for its limit."""
    user, count = os.getuid(), 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.uids().real == user:
                count += process.num_threads()
    return min(count, resource.getrlimit(resource.RLIMIT_NPROC)[0]) if count else 0
