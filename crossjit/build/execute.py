"""Run a build's commands in a toolchain container, and report why one failed."""

from __future__ import annotations

import re
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from crossjit.build.container import LOG_TAIL, first_line, require_success
from crossjit.build.layout import BUILD, SCRIPT_FAULT, TOOLS
from crossjit.build.spec import SUPPORT_SCRIPT, BackgroundTask, BuildSpec, Command, Phase
from crossjit.engine.base import Container
from crossjit.errors import BuildError, ScriptError
from crossjit.images import Role, loading
from crossjit.progress import Progress, Step

# Limits of make's dry run, which counts the work. A CPython build stays far below DRY_RUN_BYTES.
DRY_RUN_BYTES = 8 << 20
DRY_RUN_SECONDS = 600


@dataclass(frozen=True)
class BuildResult:
    """Wall seconds of a build by phase, and the compiler that it used."""

    seconds: Mapping[str, float]
    compiler: str

    def after(self, phase: str, seconds: float) -> BuildResult:
        """Return the result with the time of one more phase."""
        return replace(self, seconds={**self.seconds, phase: seconds})


# The Makefile has the compiler that was used, which may differ from the requested one.
_USED_COMPILER = (
    r"""cc=$(sed -n 's/^CC[[:space:]]*=[[:space:]]*//p' Makefile 2>/dev/null | head -n 1); ${cc:-cc} --version"""
)


def run_build(
    container: Container,
    spec: BuildSpec,
    *,
    unpack: Callable[[], None],
    subject: str,
    jobs: int,
    log: TextIO,
    progress: Progress,
) -> BuildResult:
    """Run the spec's commands in a toolchain container that `unpack` populates; they fill INSTALL, SUPPORT, GENERATED.

    Raises BuildError with the command, its exit status and the relevant lines; engine errors pass unchanged.
    """
    seconds = run_commands(
        container, unpack, spec.commands, subject=subject, jobs=jobs, log=log, progress=progress, ahead=spec.ahead
    )
    return BuildResult(seconds=seconds, compiler=first_line(container, ("sh", "-c", _USED_COMPILER), cwd=BUILD))


def run_commands(
    container: Container,
    unpack: Callable[[], None],
    commands: Iterable[Command],
    *,
    subject: str,
    jobs: int,
    log: TextIO,
    progress: Progress,
    ahead: BackgroundTask | None = None,
) -> dict[str, float]:
    """Populate a container with `unpack`, and run commands there one after another; return wall seconds by phase.

    Raises BuildError.
    """
    started = time.monotonic()
    with progress.step("unpack", subject):
        unpack()
    seconds = {"unpack": time.monotonic() - started}
    for command in commands:
        started = time.monotonic()
        with progress.step(command.phase, subject) as step:
            alongside = ahead.alongside(command.phase, jobs) if ahead else ()
            _run(container, command, jobs, log, step, alongside)
        seconds[command.phase.value] = seconds.get(command.phase.value, 0.0) + time.monotonic() - started
    return seconds


def _run(
    container: Container, command: Command, jobs: int, log: TextIO, step: Step, alongside: tuple[str, ...]
) -> None:
    """Run one command with its scripts. Raises ScriptError for a failure of ours, otherwise BuildError."""
    argv = command.argv_for(jobs)
    shown = f"$ cd {command.cwd} && {shlex.join(argv)}"
    if command.before:
        require_success(container, command.before, cwd=command.cwd)
    output = _Output(log, step, command, _make_commands(container, command))
    log.write(f"{shown}\n")
    wrapped = (*alongside, *command.wrapper, *argv)
    completed = container.run(wrapped, cwd=command.cwd, on_line=output.take)
    log.write(f"# {completed.how} after {completed.seconds:.1f} s\n")
    log.flush()
    if completed.returncode == SCRIPT_FAULT and _is_ours(wrapped):
        raise ScriptError(
            f"{command.phase} failed: crossjit's own script or the machine is at fault",
            hint="check whether the disk is full; the whole log is in the run record",
            details=tuple(output.tail)[-LOG_TAIL:],
        )
    if completed.returncode:
        if missing := loading.missing_library(output.tail, Role.TOOLCHAIN):
            raise missing
        raise BuildError(
            f"{command.phase} failed: {completed.how}",
            hint="the whole log is in the run record; a source that builds elsewhere may need another image or LLVM",
            details=(shown, *relevant_lines(output.tail)),
        )
    if command.after:
        require_success(container, command.after, cwd=command.cwd)


class _Output:
    """Writes a command's output to the log, keeps its last lines, and updates the step's progress.

    `expected` are the lines of make that count as work.
    """

    def __init__(self, log: TextIO, step: Step, command: Command, expected: frozenset[str]) -> None:
        self.tail: deque[str] = deque(maxlen=400)
        self._log, self._step, self._phase = log, step, command.phase
        self._expected = expected
        self._done = 0
        if command.phase is Phase.REGENERATE:
            step.update(detail=command.argv[1])

    def take(self, line: str) -> None:
        """Take one line."""
        self._log.write(line + "\n")
        self.tail.append(line)
        self._step.line(line)
        if line in self._expected:
            self._done += 1
            self._step.update(done=self._done, total=len(self._expected), detail=_target_of(line))
        elif self._phase is Phase.CONFIGURE and line.startswith("checking "):
            self._step.update(detail=line.partition("...")[0])


def _is_ours(argv: Sequence[str]) -> bool:
    """Whether a command runs a script of ours, which exits with SCRIPT_FAULT if it fails itself."""
    return any(word.startswith(f"{TOOLS}/") or word == SUPPORT_SCRIPT for word in argv)


def _make_commands(container: Container, command: Command) -> frozenset[str]:
    """Return the commands that make would run, to measure progress by; empty in other phases, or over DRY_RUN_BYTES.

    Runs make with `-k`, since 3.15's rules for the stencils fail in a dry run: they call make and read its result.
    """
    if command.phase is not Phase.MAKE:
        return frozenset()
    lines: set[str] = set()
    size = 0

    def take(line: str) -> None:
        nonlocal size
        if size < DRY_RUN_BYTES and (" -o " in line or "/Tools/jit/build.py" in line):
            lines.add(line)
            size += len(line)

    container.run((*command.argv, "-n", "-k"), cwd=command.cwd, on_line=take, timeout=DRY_RUN_SECONDS)
    return frozenset(lines) if size < DRY_RUN_BYTES else frozenset()


def _target_of(line: str) -> str:
    match = re.search(r" -o (\S+)", line)
    if match:
        return match[1]
    return "stencils" if "Tools/jit/build.py" in line else line.split(" ", 1)[0]


ERROR_LINE = re.compile(r"(?:\berror\b|\bError\b|ERROR|undefined reference|No such file|Traceback|fatal|\*\*\*)")


def relevant_lines(lines: Sequence[str] | deque[str], limit: int = LOG_TAIL) -> tuple[str, ...]:
    """Select the lines of a failed command's output to show: the first error with its context, and the end.

    The words only decide which lines are shown; the exit status decides whether a command failed.
    """
    lines = list(lines)
    first = next((number for number, line in enumerate(lines) if ERROR_LINE.search(line)), None)
    if first is None or first >= len(lines) - limit:
        return tuple(lines[-limit:])
    head = lines[max(0, first - 2) : first + limit // 2]
    end = lines[-(limit - len(head)) :]
    return (*head, "…", *end)
