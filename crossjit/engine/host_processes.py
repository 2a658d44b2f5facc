"""The processes of the host engine's containers: finding them, and killing them with all that they started."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

CONTAINER = "CROSSJIT_CONTAINER"  # variable of all processes of a container: its id
COMMAND = "CROSSJIT_COMMAND"  # variable of all processes of a command: its mark
_ROUNDS = 50
_PAUSE = 0.02  # seconds between rounds


def of(variable: str, value: str, session: int | None = None) -> list[psutil.Process]:
    """Return the living processes with this variable, in this session, and their descendants.

    A process that has left its session, its parent and its environment is not found.
    """
    parents: dict[int, int] = {}
    alive: dict[int, psutil.Process] = {}
    own: set[int] = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            parents[process.pid], alive[process.pid] = process.ppid(), process
            if (session is not None and os.getsid(process.pid) == session) or _has(process, variable, value):
                own.add(process.pid)
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in own} - own
        own |= more
        grown = bool(more)
    return [alive[pid] for pid in sorted(own)]


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return bool(process.environ().get(variable) == value)
    except (psutil.Error, OSError):  # another user's
        return False


def kill(variable: str, value: str, session: int | None = None) -> bool:
    """Kill the processes that `of` finds; return whether none is left.

    Each is stopped first, so that nothing new starts during the search.
    """
    for _ in range(_ROUNDS):
        stopped: set[int] = set()
        while new := [process for process in of(variable, value, session) if process.pid not in stopped]:
            _each(new, psutil.Process.suspend)
            stopped |= {process.pid for process in new}
        if not stopped:
            return True
        _each(of(variable, value, session), psutil.Process.kill)
        time.sleep(_PAUSE)
    return not of(variable, value, session)


def hurry(identity: str) -> None:
    """Give a container's processes the usual priority, where the system lets this user raise one."""
    _each(of(CONTAINER, identity), lambda process: process.nice(0))


def deleted_files(identity: str) -> Iterator[os.stat_result]:
    """Yield the files that a container's processes hold open and have removed. Only Linux shows them."""
    for process in of(CONTAINER, identity):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process.pid}/fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    target = str(Path(descriptor.path).readlink())
                    if target.endswith(" (deleted)") and not target.startswith(("/memfd:", "/dev/")):
                        yield Path(descriptor.path).stat()


def _each(processes: list[psutil.Process], act: Callable[[psutil.Process], object]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            act(process)
