"""A running container of docker or podman: commands run through the client, killed with their children, tar streams."""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from crossjit.engine.base import Completed, Limits, LineSink
from crossjit.engine.client import Ended, feed, finish, follow, reading
from crossjit.errors import EngineError, OutOfMemoryError

if TYPE_CHECKING:
    from crossjit.engine.whales import WhalesEngine

KILL_PATIENCE = 30.0  # seconds that killing a command's processes may take, under emulation too
MORE_MEMORY = "give it more memory, or run fewer jobs at a time: CROSSJIT_JOBS=1"

# Every command starts through this. Its first line on stderr shows that the engine did its part, so that anything that
# goes wrong before it is the engine's failure and everything after it is the command's. It tells the process's id,
# which the command keeps, and how often the kernel has killed for memory in this container (cgroup v2, v1). From there
# on stderr is stdout: one pipe, so the order of lines is the command's own.
_START = """\
kills=0
for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
  [ -r "$file" ] && while read -r key value; do [ "$key" = oom_kill ] && kills=$value; done <"$file"
done
echo "crossjit $$ $kills" >&2
exec 2>&1
exec "$@"
"""
_STARTED = re.compile(r"crossjit (\d+) (\d+)")

# Ending the client leaves the command running, so this ends it from inside: all that is in the command's session, comes
# of it, or carries its mark in the environment (which finds what went off into a session of its own). Everything found
# is stopped first, so that nothing new is started while it looks. It runs as the same user: no capability is needed.
_MARK = "CROSSJIT_COMMAND"
_KILL = """\
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

    The engine reports a death by signal n as 128+n, which a command may also exit with by itself (a shell does when its
    child dies so); 129 to 159 are taken for signals 1 to 31 either way.
    """
    return 128 - code if 128 < code < 160 else code


class WhalesContainer:
    """A running container. Implements `engine.base.Container`."""

    def __init__(
        self, engine: WhalesEngine, identity: str, name: str, limits: Limits, writable: bool, in_memory: tuple[str, ...]
    ) -> None:
        self.id = identity
        self._engine = engine
        self._name = name
        self._limits = limits
        self._writable = writable
        self._in_memory = in_memory

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
        mark = secrets.token_hex(12)
        flags = ["--env", f"{_MARK}={mark}"]
        for key, value in (env or {}).items():
            flags += ["--env", f"{key}={value}"]
        if cwd is not None:
            flags += ["--workdir", cwd]
        as_user = ("--user", user) if user is not None else ()
        command = (*self._engine.command, "exec", *flags, *as_user, self.id, "/bin/sh", "-c", _START, "crossjit", *argv)
        said: list[str] = []
        start: list[int] = []

        def hear(line: str) -> None:
            if not start and (found := _STARTED.fullmatch(line)):
                start.extend((int(found[1]), int(found[2])))
            else:
                said.append(line)

        def end() -> None:
            self._kill(mark, start[0] if start else None, as_user)

        began = time.monotonic()
        try:
            done = follow(
                command,
                on_line=on_line or (lambda line: None),
                on_error_line=hear,
                timeout=timeout,
                on_timeout=end,
            )
        except Exception:
            with contextlib.suppress(EngineError):  # the first error is the one to tell
                end()
            raise
        seconds = time.monotonic() - began
        if not start:
            self._engine.alive(self.id, self._name)
            raise self._engine.trouble(f"start {argv[0]} in {self._name}", "\n".join(said))
        returncode = -9 if done.timed_out else exit_status(done.returncode)
        if returncode != 0:
            self._engine.alive(self.id, self._name)
            if self._memory_kills() > start[1]:
                raise OutOfMemoryError(
                    f"the kernel killed something in {self._name} for its memory while {argv[0]} ran",
                    hint=MORE_MEMORY,
                    details=(f"limit: {self._limits.memory} bytes",) if self._limits.memory is not None else (),
                )
        return Completed(tuple(argv), returncode, seconds)

    def _memory_kills(self) -> int:
        """Ask how often the kernel has killed something in the container for its memory."""
        ended = self._engine.attempt("exec", self.id, "/bin/sh", "-c", _START, "crossjit", "true")
        if found := _STARTED.search(ended.stderr):
            return int(found[2])
        for _ in range(20):  # nothing can be run in it: it may have ended, which the engine learns a little later
            self._engine.alive(self.id, self._name)
            time.sleep(0.1)
        return 0

    def _kill(self, mark: str, first: int | None, as_user: Sequence[str]) -> None:
        """Kill a command with all that it started."""
        arguments = ("/bin/sh", "-c", _KILL, "crossjit", f"{_MARK}={mark}", "" if first is None else str(first))
        try:
            ended = finish((*self._engine.command, "exec", *as_user, self.id, *arguments), timeout=KILL_PATIENCE)
        except subprocess.TimeoutExpired:
            ended = Ended(1, "", "")
        if ended.returncode != 0:
            # no process to be had (a fork bomb), or processes of another user: a restart ends everything
            self._engine.alive(self.id, self._name)
            self._engine.call(f"restart {self._name}", "container", "restart", "--time", "0", self.id)

    def put(self, tar: BinaryIO, destination: str) -> None:
        """Unpack an uncompressed tar stream into an existing folder; owners and modes are the tar's.

        In a container that is not writable, and in its folders in memory, the container's own `tar` unpacks as the
        container's user; owners that it may not set are an EngineError.
        """
        if not self._writable or self._is_in_memory(destination):
            unpack = ("tar", "--extract", "--file=-", "--same-permissions", "--same-owner", "--numeric-owner")
            ended = feed(
                (*self._engine.command, "exec", "--interactive", self.id, *unpack, f"--directory={destination}"), tar
            )
        else:
            ended = feed((*self._engine.command, "cp", "-", f"{self.id}:{destination}"), tar)
        if ended.returncode != 0:
            self._engine.alive(self.id, self._name)
            raise self._engine.trouble(f"copy into {destination} of {self._name}", ended.stderr)

    @contextlib.contextmanager
    def get(self, path: str) -> Iterator[BinaryIO]:
        """Open a tar stream of a file or folder."""

        def failed(ended: Ended, begun: bool) -> Exception:
            self._engine.alive(self.id, self._name)
            if not begun and not self._exists(path):
                return FileNotFoundError(2, f"there is no such file in {self._name}", path)
            return self._engine.trouble(f"copy {path} out of {self._name}", ended.stderr)

        if not self._is_in_memory(path):
            command = (*self._engine.command, "cp", f"{self.id}:{path}", "-")
        elif self._exists(path):
            folder, _, last = path.rstrip("/").rpartition("/")
            pack = ("tar", "--create", "--file=-", "--numeric-owner", f"--directory={folder or '/'}", "--", last)
            command = (*self._engine.command, "exec", self.id, *pack)
        else:
            raise failed(Ended(1, "", ""), False)
        with reading(command, failed) as stream:
            yield stream

    def _exists(self, path: str) -> bool:
        look = '[ -e "$1" ] || [ -L "$1" ]'
        return self._engine.attempt("exec", self.id, "/bin/sh", "-c", look, "crossjit", path).returncode != 1

    def _is_in_memory(self, path: str) -> bool:
        """Tell whether the engine's own copying does not reach a path: it sees the writable layer only."""
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self._in_memory)
