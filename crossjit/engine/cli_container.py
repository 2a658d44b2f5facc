"""A running container of docker or podman: commands run through the client, killed with their children, tar streams."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import BinaryIO, cast

from crossjit.engine import disk_usage
from crossjit.engine.base import READ_ONLY, Completed, ContainerOptions, LineSink
from crossjit.engine.cli_client import KILL_TIMEOUT, MORE_MEMORY, CliClient
from crossjit.engine.confinement import CPU_SHARES, KEEPER, no_proxies, without_proxies
from crossjit.engine.disk import DiskWatch
from crossjit.engine.process import ClientResult, feed, finish, follow, reading
from crossjit.errors import EngineError, OutOfMemoryError
from crossjit.util.budget import BUDGET, BoundedReader, LogCount

# Counts the kernel's kills for memory in this container (cgroup v2, v1). It uses shell builtins only: PATH may begin
# with folders that commands can write to.
_COUNT = """\
kills=0
for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
  [ -r "$file" ] && while read -r key value; do [ "$key" = oom_kill ] && kills=$value; done <"$file"
done
"""

# Every command starts through this. Its first line on stderr shows that the engine has started it: a failure before
# that line is the engine's, one after it the command's. The line has the process id, which the command keeps, and the
# number of kills so far. From then on stderr is stdout: with one pipe, the lines keep their order.
_START = f"""\
{_COUNT}echo "crossjit $$ $kills" >&2
exec 2>&1
exec "$@"
"""
_STARTED = re.compile(r"crossjit (\d+) (\d+)")

# Killing the client leaves the command running, so this kills it from inside: all processes in the command's session,
# their descendants, and those with its mark in the environment (which finds processes in new sessions). Each is stopped
# first, so that nothing new starts during the search. It runs as the same user, so it needs no capability.
_MARK = "CROSSJIT_COMMAND"
_KILL = """\
PATH=/usr/bin:/bin
mark=$1 first=$2 known=" $2 " rounds=0
while [ $((rounds += 1)) -le 50 ]; do
  alive=
  grown=yes
  while [ "$grown" ]; do
    grown=
    for folder in /proc/[0-9]*; do
      pid=${folder#/proc/}
      { read -r line <"$folder/stat"; } 2>/dev/null || continue
      set -- ${line##*) }
      [ "$1" = Z ] && continue
      case $known in
        *" $pid "*) ;;
        *)
          mine=
          [ "$first" ] && [ "$4" = "$first" ] && mine=yes
          case $known in *" $2 "*) mine=yes ;; esac
          [ "$mine" ] || case "$(tr '\\0' '\\n' 2>/dev/null <"$folder/environ")" in *"$mark"*) mine=yes ;; esac
          [ "$mine" ] || continue
          known="$known$pid "
          ;;
      esac
      case $alive in
        *" $pid "*) ;;
        *) kill -STOP "$pid" 2>/dev/null; alive="$alive $pid "; grown=yes ;;
      esac
    done
  done
  [ "$alive" ] || exit 0
  kill -KILL $alive 2>/dev/null
done
exit 1
"""


def exit_status(code: int) -> int:
    """Turn the client's exit status into subprocess's: negative for a signal.

    The engine reports a death by signal n as 128+n, which a command may also return by itself (as a shell does when a
    signal kills its child); 129 to 159 are always treated as signals 1 to 31.
    """
    return 128 - code if 128 < code < 160 else code


class _Start:
    """Tells the first line of a started command from the client's messages if it cannot start one."""

    def __init__(self) -> None:
        self.process: int | None = None
        self.kills = 0
        self.messages: deque[str] = deque(maxlen=30)

    def read(self, line: str) -> None:
        if self.process is None and (match := _STARTED.fullmatch(line)):
            self.process, self.kills = int(match[1]), int(match[2])
        else:
            self.messages.append(line)


class CliContainer:
    """A running container. Implements `engine.base.Container`."""

    def __init__(self, client: CliClient, identity: str, options: ContainerOptions) -> None:
        self.id = identity
        self._cli = client
        self._options = options
        self._name = options.name
        self._user = options.user or "0"
        self._kills = 0
        limit = options.limits.disk
        self._disk = DiskWatch(self._size, limit, client.root) if limit is not None else None

    @property
    def environment(self) -> dict[str, str] | None:
        """The client's environment for running a command in the container; None for our own."""
        return None if self._options.network else without_proxies()

    def exec(self, *flags: str, user: str | None = None) -> tuple[str, ...]:
        """Return the client's command line up to the command to run in the container, as its user or the given one."""
        bare = () if self._options.network or self._cli.name == "podman" else no_proxies(self._cli.name)
        return (*self._cli.command, "exec", *bare, *flags, "--user", user or self._user, self.id)

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
        self._cli.check()
        mark = secrets.token_hex(12)
        flags = ["--env", f"{_MARK}={mark}"]
        for key, value in (env or {}).items():
            flags += ["--env", f"{key}={value}"]
        if cwd is not None:
            flags += ["--workdir", cwd]
        command = (*self.exec(*flags, user=user), "/bin/sh", "-c", _START, "crossjit", *argv)
        start = _Start()

        def end() -> None:
            self._kill(mark, start.process, user)

        began = time.monotonic()
        try:
            followed = follow(
                command,
                on_line=on_line or (lambda line: None),
                on_error_line=start.read,
                timeout=timeout,
                on_timeout=end,
                count=LogCount(argv[0]),
                look=None if self._disk is None else partial(self._disk.look, argv[0]),
                env=self.environment,
            )
        except Exception:
            with contextlib.suppress(EngineError):  # report the first error
                end()
            raise
        returncode = -9 if followed.timed_out else exit_status(followed.returncode)
        completed = Completed(tuple(argv), returncode, time.monotonic() - began)
        self._require_own_end(completed, start)
        return completed

    def _require_own_end(self, completed: Completed, start: _Start) -> None:
        """Raise EngineError or OutOfMemoryError if the engine or the kernel ended the command."""
        returncode, program = completed.returncode, completed.argv[0]
        if start.process is None:
            self._cli.require_running(self.id, self._name)
            if returncode >= 0:
                raise self._cli.error(f"start {program} in {self._name}", "\n".join(start.messages))
            # a process left by an earlier command killed it: that is the source's fault
        else:
            self._kills = start.kills
        if returncode != 0:
            self._cli.require_running(self.id, self._name)
            if self._memory_kills() > self._kills:
                limit = self._options.limits.memory
                raise OutOfMemoryError(
                    f"the kernel killed something in {self._name} for its memory while {program} ran",
                    hint=MORE_MEMORY,
                    details=(f"limit: {limit} bytes",) if limit is not None else (),
                )

    def _memory_kills(self) -> int:
        """Return the number of the kernel's kills for memory in the container."""
        # as the user to whose processes no command can send a signal
        try:
            result = finish((*self.exec(user=KEEPER), "/bin/sh", "-c", f"{_COUNT}echo $kills"), timeout=KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            result = ClientResult(1, "", "")
        if result.returncode == 0 and result.stdout.strip().isdecimal():
            return int(result.stdout)
        for _ in range(20):  # nothing can be run in it: it may have ended, which the engine reports with a delay
            self._cli.require_running(self.id, self._name)
            time.sleep(0.1)
        return 0

    def _kill(self, mark: str, first: int | None, user: str | None) -> None:
        """Kill a command with all that it started."""
        arguments = ("/bin/sh", "-c", _KILL, "crossjit", f"{_MARK}={mark}", "" if first is None else str(first))
        try:
            result = finish((*self.exec(user=user), *arguments), timeout=KILL_TIMEOUT)
        except subprocess.TimeoutExpired:
            result = ClientResult(1, "", "")
        if result.returncode != 0:
            # no process can be started (a fork bomb), or some belong to a different user: a restart ends everything
            self._cli.require_running(self.id, self._name)
            self._cli.call(f"restart {self._name}", "container", "restart", "--time", "0", self.id)

    def _size(self, exact: bool) -> int:
        """Return the bytes of the engine's disk that the container uses, for `DiskWatch`."""
        writable = tuple(folder for folder in self._options.volumes.values() if not folder.endswith(READ_ONLY))
        about = (self._cli, self.id, self._name, self.exec(), self._user, writable)
        return disk_usage.measure(*about, limit=self._options.limits.disk or 0, exact=exact)

    def hurry(self) -> None:
        """Give it the usual share of processor time."""
        self._cli.call(f"update {self._name}", "container", "update", "--cpu-shares", str(CPU_SHARES), self.id)

    @property
    def _copy(self) -> tuple[str, ...]:
        """The client's command line for copying with owners; podman's default gives all to the container's user."""
        return (*self._cli.command, "cp", *(("--archive=false",) if self._cli.name == "podman" else ()))

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack an uncompressed tar stream into an existing folder; owners and modes are the tar's.

        In a read-only container, and in folders in memory, the container's own `tar` unpacks as the container's user;
        an owner that it may not set is an EngineError.
        """
        self._cli.check()
        if not self._options.writable or self._is_in_memory(destination):
            unpack = ("/bin/tar", "--extract", "--file=-", "--same-permissions", "--same-owner", "--numeric-owner")
            result = feed((*self.exec("--interactive"), *unpack, f"--directory={destination}"), tar)
        else:
            result = feed((*self._copy, "-", f"{self.id}:{destination}"), tar)
        if result.returncode != 0:
            self._cli.require_running(self.id, self._name)
            raise self._cli.error(f"copy into {destination} of {self._name}", result.stderr)

    @contextlib.contextmanager
    def get(self, path: str) -> Iterator[BinaryIO]:
        """Open a tar stream of a file or folder."""
        self._cli.check()

        def failed(result: ClientResult, started: bool) -> Exception:
            self._cli.require_running(self.id, self._name)
            if not started and not self._exists(path):
                return FileNotFoundError(2, f"there is no such file in {self._name}", path)
            return self._cli.error(f"copy {path} out of {self._name}", result.stderr)

        if not self._is_in_memory(path):
            command = (*self._copy, f"{self.id}:{path}", "-")
        elif self._exists(path):
            folder, _, last = path.rstrip("/").rpartition("/")
            pack = ("/bin/tar", "--create", "--file=-", "--numeric-owner", f"--directory={folder or '/'}", "--", last)
            command = (*self.exec(), *pack)
        else:
            raise failed(ClientResult(1, "", ""), False)
        with reading(command, failed) as stream:
            yield cast(BinaryIO, BoundedReader(stream, f"{path} of {self._name}", BUDGET.stream))

    def _exists(self, path: str) -> bool:
        look = '[ -e "$1" ] || [ -L "$1" ]'
        return finish((*self.exec(), "/bin/sh", "-c", look, "crossjit", path), timeout=KILL_TIMEOUT).returncode != 1

    def _is_in_memory(self, path: str) -> bool:
        """Whether a path is in memory, where the engine cannot copy: it sees the writable layer only."""
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self._options.in_memory)
