"""Running a program under the meter: a QEMU with a plugin that counts, in the container of a target.

QEMU runs natively, whatever the container's arch: it is started through its own loader, and sees the container's files.
It is copied there from an image of its own. Programs that the measured one starts run without it.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossjit import PROGRAM
from crossjit.engine.base import Completed, Container, ContainerOptions, Engine, LineSink
from crossjit.errors import InfrastructureError
from crossjit.images import Image
from crossjit.images.spec import METER
from crossjit.measure import marks, symbols
from crossjit.measure.marks import Mark, Op
from crossjit.model import Arch
from crossjit.util import safe_files
from crossjit.util.tar import packed
from crossjit.validation.probe import ran_out
from crossjit.validation.target import HOME, PYTHON, TESTER

FOLDER = "/opt/meter"  # QEMU, its libraries, the plugin
WORK = f"{HOME}/meter"  # in the container: symbols, the self-test, and what the plugin wrote
SYMBOLS = f"{WORK}/symbols"
SELF_TEST = f"{WORK}/selftest.py"

# QEMU reserves the guest's addresses at once, up to here. Otherwise its own allocations move the program, and JIT code
# is or is not within a direct branch's reach: counts then differ by up to 0.7 % from run to run.
RESERVED = 0x4000000000
MARKER = 0x4A495400  # as in meter/count.c
OUTPUT = 64 << 20  # bytes that the plugin may write in one run
LAST_LINES = 40

LOOPS = (1000, 2000, 3000)  # of the self-test: each has two instructions a round, and three around them
SELF_TEST_SECONDS = 300


@dataclass(frozen=True)
class Options:
    """What to count in addition to instructions by class; `still` holds the clock and random bytes still."""

    threads: bool = False
    accesses: bool = False
    functions: bool = False
    blocks: bool = False
    still: bool = True


PLAIN = Options()


@dataclass(frozen=True)
class Meter:
    """The meter of a container with a CPython: `host` is QEMU's own arch, `arch` and `cpu` are what it emulates.

    `symbols` says whether the interpreter's loop, the collector and memory management can be told from the rest. All of
    the program lies below the address `reserved`.
    """

    host: Arch
    arch: Arch
    cpu: str
    python: str
    symbols: bool
    reserved: int = RESERVED

    def command(self, arguments: Sequence[str], output: str, options: Options = PLAIN) -> tuple[str, ...]:
        """Return the command line that runs Python with these arguments; the plugin writes to `output`."""
        library = f"{FOLDER}/lib"
        plugin = f"{library}/libcount.so,out={output},symbols={SYMBOLS}"
        plugin += "".join(f",{name}=on" for name, wanted in vars(options).items() if wanted)
        qemu = (f"{library}/{self.host.loader}", "--library-path", library, f"{FOLDER}/bin/qemu-{self.arch}")
        fixed = ("-cpu", self.cpu, "-R", hex(self.reserved), "-seed", "1")
        return (*qemu, *fixed, "-plugin", plugin, self.python, *arguments)


@dataclass(frozen=True)
class Metered:
    """One run: how it ended, what the plugin wrote, and the end of the program's own output.

    `problem` says in words what went wrong; None if the program ended with status 0. The marks are then complete.
    """

    completed: Completed
    marks: tuple[Mark, ...]
    output: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Calibration:
    """What the self-test measured: `marker` are the instructions between two markers with nothing between, by class."""

    marker: Mapping[str, int] = field(default_factory=dict)


def install(engine: Engine, image: Image, container: Container, *, name: str, labels: Mapping[str, str]) -> None:
    """Copy the meter from its image into a container of any other image.

    `name` and `labels` are those of a second container, which is only there meanwhile. Raises EngineErrors.
    """
    container.put(packed(folders={FOLDER.rpartition("/")[0]: 0}), "/")
    options = ContainerOptions(image.reference, arch=image.arch, name=name, labels=labels)
    with engine.container(options) as source, source.get(FOLDER) as tar:
        container.put(tar, FOLDER.rpartition("/")[0])


def prepare(container: Container, *, host: Arch, arch: Arch, python: str = PYTHON, cpu: str = "") -> Meter:
    """Prepare the meter in a container that has it and a CPython; `host` is the arch of the engine's machine.

    Raises InfrastructureError if there is no such Python, EngineErrors.
    """
    lines: list[str] = []
    completed = container.run(("readlink", "-f", python), on_line=lines.append)
    binary = lines[-1] if lines else ""
    if completed.returncode or not binary.startswith("/"):
        raise InfrastructureError(f"there is no {python} to measure", hint="install a CPython in the container first")
    found = symbols.read(binary, lambda path: _content(container, path))
    self_test = (METER / "selftest.py").read_bytes()
    container.put(packed({SELF_TEST: self_test, SYMBOLS: found.text.encode()}, {WORK: TESTER}), "/")
    return Meter(host, arch, cpu or arch.cpu, binary, found.known)


def run(
    meter: Meter,
    container: Container,
    arguments: Sequence[str],
    *,
    jit: bool,
    timeout: float,
    options: Options = PLAIN,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    on_line: LineSink | None = None,
) -> Metered:
    """Run Python with these arguments under the meter, with the JIT on or off.

    Several may run in one container at the same time. After `timeout` seconds QEMU is killed with all that it started.
    Raises InfrastructureError if the meter does not start or its output is damaged, EngineErrors.
    """
    output = f"{WORK}/{secrets.token_hex(8)}.jsonl"
    lines: deque[str] = deque(maxlen=LAST_LINES)

    def follow(line: str) -> None:
        lines.append(line)
        if on_line is not None:
            on_line(line)

    completed = container.run(
        meter.command(arguments, output, options),
        env={**(env or {}), "PYTHONHASHSEED": "0", "PYTHON_JIT": str(int(jit))},
        cwd=cwd,
        on_line=follow,
        timeout=timeout,
    )
    text = _text(container, output)
    if not text.strip():
        raise InfrastructureError(
            f"the meter did not start: {completed.how}",
            hint=f"if the image is damaged, remove it with {PROGRAM} clean; the output is below",
            details=tuple(lines),
        )
    if completed.returncode == 0:
        return Metered(completed, marks.read_whole(text), tuple(lines))
    return Metered(completed, marks.read(text), tuple(lines), problem_of(completed, timeout))


def problem_of(completed: Completed, timeout: float) -> str:
    """Say how a process failed, which had so many seconds."""
    return f"not finished in {timeout:,.0f} s" if ran_out(completed, timeout) else completed.how


def self_test(meter: Meter, container: Container) -> Calibration:
    """Count loops of known length in hand-made machine code, with the JIT off, and calibrate the markers.

    Raises InfrastructureError if a count is not exactly what it must be, or the JIT made code nevertheless.
    """
    result = run(meter, container, (SELF_TEST,), jit=False, timeout=SELF_TEST_SECONDS)
    if result.problem:
        raise InfrastructureError(
            f"the meter's self-test failed: {result.problem}",
            hint="it needs a CPython with ctypes; the last lines of its output are below",
            details=result.output,
        )
    return calibrate(result.marks)


def calibrate(found: Sequence[Mark]) -> Calibration:
    """Check the marks of the self-test, and return the calibration. Raises InfrastructureError. Pure."""
    windows = marks.windows(found)
    counted = {window.label: window.counts.get("jit", 0) for window in windows if window.label}
    expected = {loops: 2 * loops + 3 for loops in LOOPS}
    if counted != expected:
        raise _wrong(f"loops of {_listed(expected)} instructions were counted as {_listed(counted) or 'nothing'}")
    end = next((mark for mark in found if mark.op is Op.LAST), None)
    jit = end.counts.get("jit", 0) if end else -1
    if jit != sum(expected.values()):
        raise _wrong(f"{jit - sum(expected.values())} instructions of JIT code ran with the JIT off")
    empty = [window.counts for window in windows if not window.label]
    if len(empty) < 2 or empty[-1] != empty[-2]:
        raise _wrong("two markers in a row do not always cost the same")
    return Calibration({name: count for name, count in empty[-1].items() if count})


def _wrong(problem: str) -> InfrastructureError:
    return InfrastructureError(
        f"the meter counts wrongly: {problem}", hint="this is a bug of crossjit: nothing is measured; report it"
    )


def _listed(values: Mapping[int, int]) -> str:
    return ", ".join(f"{value:,}" for value in values.values())


def _content(container: Container, path: str) -> bytes:
    """Read a file of the container whole."""
    try:
        with container.get(path) as stream:
            return safe_files.first_file(stream, end=symbols.LARGEST)
    except FileNotFoundError:
        raise InfrastructureError(
            f"there is no {path} to measure", hint="install a CPython in the container first"
        ) from None


def _text(container: Container, path: str) -> str:
    """Read what the plugin wrote; empty if it wrote nothing. Raises BudgetError."""
    try:
        with container.get(path) as stream:
            hint = "count by function or by block in fewer windows"
            content = safe_files.whole_file(stream, most=OUTPUT, what="the meter wrote", hint=hint)
    except FileNotFoundError:
        return ""
    return content.decode("utf-8", "replace")
