"""What runs in the target, and what comes of it: the probe, the suites, and the verdict."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from crossjit import capabilities, channels, known_failures, loading, outcomes, suite_result, suites, tars
from crossjit.budget import PROBE_MEMORY, SUITE_MEMORY, TARGET_DISK, BudgetError
from crossjit.capabilities import Probed
from crossjit.channels import Ended, MalformedError, ProbeFacts
from crossjit.circumstances import Circumstances
from crossjit.engine.base import Completed, Container, Engine, EngineFacts, Limits
from crossjit.errors import InfrastructureError, OutOfMemoryError
from crossjit.images import Image, Package, Role
from crossjit.known_failures import KnownFailure
from crossjit.model import TOOLS, Arch, Cell, SuiteResult, TestResult, Variant
from crossjit.portion import WHOLE, Portion
from crossjit.progress import Progress, Step
from crossjit.runner_events import RunnerEvents
from crossjit.safe_files import UnfitFilesError
from crossjit.suite_folder import SuiteFolder
from crossjit.suite_result import Heard
from crossjit.verdict import judge

__all__ = ["Target", "judge", "probe", "probing", "run_suite"]

TESTER = 1000  # uid and gid of `tester` in the target images
HOME = "/home/tester"
PYTHON = "/usr/local/bin/python3"
SCRIPTS = "/usr/local/libexec/validate"
RESULTS = f"{HOME}/results"
ORDER = f"{HOME}/suite.json"

# Where the installed tests look for CPython's Tools/: `basepath` in test/test_tools/__init__.py, four folders above it.
TOOLS_PARENT = "/usr/local/lib"
LDCONFIG = ("/usr/sbin/ldconfig", "-i")  # -i: it needs no cache of its own
NO_LIBRARY = 127  # the loader's exit status

# What a probe does without: it is two thirds of the install tree's files.
TESTS = re.compile(rb"usr/local/lib/python[^/]+/test/")

PROBE_SECONDS = 300  # native: it takes 2
EMULATED = 10  # times as long under QEMU
CONTROL = "i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done"  # half a second natively
CONTROL_SECONDS = 60
LINE = 1000  # characters of a line of a probe without facts that are kept
MEMORY = 4 << 30  # bytes, at least, where the machine has them
MEMORY_PER_JOB = 2 << 30
FILE_SIZE = 8 << 30  # bytes; test_mmap writes sparse files of 6 GiB
MARGIN = 900  # seconds that a container lives beyond its suite's time, for copying in and out

Opener = Callable[[], AbstractContextManager[BinaryIO]]


@dataclass(frozen=True)
class Ran:
    """What came of an item that ran: its tests' outcomes, and the seconds that its process took."""

    results: tuple[TestResult, ...]
    seconds: float


@dataclass(frozen=True)
class Target:
    """A cell's CPython and what it runs in.

    `tree` opens the install tree (an uncompressed tar of `usr/local/…`), `artifact` is its id; `support` opens one with
    CPython's `Tools/`, without which the tests of the cases generator skip themselves; `python` is (major, minor);
    `emulation` is what QEMU is told by the environment, empty where nothing is emulated, and `qemu` its version, None
    where nothing is emulated or that is not known; `name` is the container's, and `labels` go on it; `packages` are the
    toolchain's, which tell what package a library that is missing is in.
    """

    image: Image
    artifact: str
    tree: Opener
    cell: Cell
    variant: Variant
    python: tuple[int, int]
    name: str
    labels: Mapping[str, str]
    support: Opener | None = None
    emulation: Mapping[str, str] = field(default_factory=dict)
    qemu: str | None = None
    packages: tuple[Package, ...] = ()

    @property
    def environment(self) -> Mapping[str, str]:
        """What everything in it runs with."""
        return environment(self.variant, self.emulation)

    def install(self, container: Container) -> None:
        """Put all of it where it belongs, in a container of its image."""
        install(container, self.variant, self.tree, self.support)

    @property
    def circumstances(self) -> Circumstances:
        """In what the suites run, as far as it is known before the target is asked."""
        emulated = bool(self.emulation)
        cpu = self.emulation.get("QEMU_CPU")
        return Circumstances(self.python, self.cell.arch, self.variant, emulated, cpu, self.qemu)

    @property
    def subject(self) -> dict[str, object]:
        """All that two halves of one result must have in common."""
        return {
            "cell": str(self.cell),
            "artifact": self.artifact,
            "image": self.image.key,
            "emulation": dict(self.emulation),
            "qemu": self.qemu,
        }


def probing(
    engine: Engine,
    facts: EngineFacts,
    image: Image,
    *,
    variant: Variant,
    emulation: Mapping[str, str],
    name: str,
    labels: Mapping[str, str],
) -> AbstractContextManager[Container]:
    """Start the container that a cell is probed in, of its target image. Raises EngineError."""
    limits = target_limits(min(MEMORY, facts.memory * PROBE_MEMORY // 100), 2 * probe_seconds(emulation) + MARGIN)
    return _container(engine, image, image.arch, name, labels, environment(variant, emulation), limits)


def probe_seconds(emulation: Mapping[str, str]) -> int:
    """Return how long a probe may take: some hundred times of what it does."""
    return PROBE_SECONDS * (EMULATED if emulation else 1)


def probe(
    container: Container,
    tree: Opener,
    *,
    cell: Cell,
    variant: Variant,
    emulation: Mapping[str, str],
    progress: Progress,
    support: Opener | None = None,
    packages: tuple[Package, ...] = (),
) -> dict[str, object]:
    """Install a tree without its tests in a container, run `validate/probe.py` there, and return its facts.

    They are as `ProbeFacts` has them. A probe that crashes, or says something else, is a finding about the build: then
    they are {"crashed": how, "output": lines}. So is one that hangs where a control shows that the machine is not to
    blame; where it may be, they are {"unfinished": why, "output": lines}. `support` is put there if the variant's
    environment names CPython's Tools; `packages` are the toolchain's. Raises EngineError and its kin for what is the
    engine's, InfrastructureError for what cannot be loaded.
    """
    told = {"emulated": bool(emulation), "cpu": emulation.get("QEMU_CPU")}
    lines: deque[str] = deque(maxlen=200)
    seconds = probe_seconds(emulation)

    @contextlib.contextmanager
    def without_tests() -> Iterator[BinaryIO]:
        with tree() as tar:
            yield tars.without(tar, TESTS)

    with progress.step("probe", str(cell)) as step:
        step.update(detail="installing")
        wants_tools = any(TOOLS in value for value in variant.environment.values())
        install(container, variant, without_tests, support if wants_tools else None)
        step.update(detail="running")
        completed = container.run(
            (PYTHON, f"{SCRIPTS}/probe.py", "--told", json.dumps(told)), on_line=lines.append, timeout=seconds
        )
        said = {"output": [line[:LINE] for line in lines][-40:], "told": told}
        if _ran_out(completed, seconds):
            return {**_hung(container, seconds, step), **said}
    if completed.returncode:
        if trouble := loading.trouble(lines, Role.TARGET, packages):
            raise trouble
        return {"crashed": completed.how, **said}
    reports = [line for line in lines if line.startswith("{")]
    try:
        facts = channels.read(ProbeFacts, reports[-1] if reports else "")
    except MalformedError as error:
        return {"crashed": f"{completed.how}, and its facts cannot be read: {error}", **said}
    if trouble := loading.trouble(facts.modules.failed.values() if facts.modules else (), Role.TARGET, packages):
        raise trouble
    return channels.value_of(reports[-1])


def _ran_out(completed: Completed, seconds: float) -> bool:
    """Whether a command was killed since its time was over."""
    return completed.returncode == -signal.SIGKILL and completed.seconds >= seconds


def _hung(container: Container, seconds: int, step: Step) -> dict[str, object]:
    """Say of a probe whose time was over whether the machine may be to blame: a shell counts, which takes a second."""
    step.update(detail="running a control")
    control = container.run(("/bin/sh", "-c", CONTROL), timeout=CONTROL_SECONDS)
    if control.returncode == 0:
        return {"crashed": f"no end in {seconds:,} s, where the machine ran a control in {control.seconds:.1f} s"}
    why = f"no end in {seconds:,} s, and a control did not finish either ({control.how}): the machine is too slow"
    return {"unfinished": why}


def run_suite(
    engine: Engine,
    target: Target,
    name: str,
    *,
    jobs: int,
    folder: Path,
    progress: Progress,
    portion: Portion = WHOLE,
    earlier: Path | None = None,
    durations: Mapping[str, float] | None = None,
    data: Path = suites.VALIDATE,
) -> SuiteResult:
    """Run a suite in the target image and return its outcomes.

    It runs as the unprivileged tester, without network and capabilities, `jobs` modules at a time, those first that
    took longest by `durations` (seconds by module). What the modules wrote is left in `folder/<suite>/` (made anew), as
    they end. `portion` says which part of the suite runs; `earlier` is the `folder` of a run that died in it: what that
    got done is taken over. `data` is where suites, known failures and caveats are read from.

    Raises UserError for a suite that is not there or cannot be taken up, DocumentError for data that is wrong,
    EngineError and its kin for what is the engine's: these are never a test's failure.
    """
    where = target.circumstances
    suite = suites.load(name, data)
    listed = known_failures.load(data)
    foreseen = suites.order(suite, where, known_failures.possible(listed, where), SCRIPTS, portion)
    kept = SuiteFolder(folder / name)
    kept.start(foreseen, target.subject)
    if earlier is not None:
        kept.take(SuiteFolder(earlier / name), foreseen, target.subject)
    events = RunnerEvents(kept.ended())
    done = [ended.key for ended in events.ended]
    probed, known = Probed(), known_failures.holding(listed, where)

    def order(container: Container) -> Mapping[str, object]:
        """Ask the target what it lacks, and order what is to be run then."""
        nonlocal where, probed, known
        step.update(detail="probing capabilities")
        probed = capabilities.probe(container, PYTHON, f"{SCRIPTS}/capabilities.py")
        where = replace(where, capabilities=probed.known)
        known = known_failures.holding(listed, where)
        ordered = suites.order(suite, where, known, SCRIPTS, portion)
        return {**ordered, "seconds": dict(durations or {}), "done": done}

    with progress.step(name, str(target.cell)) as step:
        heard = _run(engine, target, order, events, kept, seconds=_limit(foreseen), jobs=jobs, step=step)
    result, starved = suite_result.compose(name, suite, where, known, heard, kept.path, data, portion)
    _check_memory(target, starved)
    return _with_capabilities(result, where, known, probed)


def _limit(order: Mapping[str, Any]) -> int:
    """Return the seconds that an order's items may take together."""
    return int(order["limit"])


def _with_capabilities(
    result: SuiteResult, where: Circumstances, known: tuple[KnownFailure, ...], probed: Probed
) -> SuiteResult:
    """Add in what the suite ran, what the target is capable of, and what of that mattered."""
    problems = [probed.problem] if probed.problem else []
    return replace(
        result,
        problems=(*result.problems, *problems),
        limits=(*result.limits, *(problems if probed.our_limit else [])),
        notes=(*result.notes, *capabilities.excuses(probed, result.results, known)),
        circumstances=where.facts(),
        capabilities=probed.facts,
    )


def run_items(
    engine: Engine, target: Target, order: Mapping[str, object], *, jobs: int, folder: Path, step: Step
) -> dict[str, Ran]:
    """Run an order's items as suites run theirs; return what came of them by the items' labels.

    `folder` is made anew and gets what the modules wrote. An item that did not run is left out. Raises EngineError and
    its kin for what is the engine's.
    """
    kept, events = SuiteFolder(folder), RunnerEvents()
    kept.start(order, target.subject)
    heard = _run(engine, target, lambda _: order, events, kept, seconds=_limit(order), jobs=jobs, step=step)
    found = [(ended, outcomes.of_module("", replace(ended, label=""), folder).results) for ended in events.ended]
    bad = {ended.id for ended, results in found if any(result.outcome.is_bad for result in results)}
    _check_memory(target, suite_result.starved([(ended, {ended.id}) for ended in events.ended], bad))
    for problem in (*heard.problems, *events.problems):
        step.line(problem)
    return {ended.label: Ran(results, ended.seconds) for ended, results in found}


def _run(
    engine: Engine,
    target: Target,
    order: Callable[[Container], Mapping[str, object]],
    events: RunnerEvents,
    kept: SuiteFolder,
    *,
    seconds: int,
    jobs: int,
    step: Step,
) -> Heard:
    """Install everything in a container of its own, and have the runner work through what is ordered there."""
    problems: list[str] = []
    limits = target_limits(_memory(engine.facts(), jobs), seconds + 2 * MARGIN)
    with _container(
        engine, target.image, target.cell.arch, target.name, target.labels, target.environment, limits
    ) as container:
        step.update(detail="installing")
        target.install(container)
        told = order(container)
        container.put(tars.packed({ORDER: json.dumps(told).encode()}, {RESULTS: TESTER}), "/")

        def on_line(line: str) -> None:
            try:
                event = events.understand(line)
            except MalformedError as error:
                events.refuse(line, error.message)
                kept.hear(f"! {line}")
                step.line(line)
                return
            if isinstance(event, Ended):
                # its files first: a module that is on record as ended has them
                problems.extend(_keep(container, kept, event))
            kept.hear(line)
            last.append(line)
            if event is None:
                step.line(line)
                return
            events.accept(event)
            if isinstance(event, Ended) and event.status not in outcomes.NORMAL:
                step.line(f"{event}: {event.how}")
            running = ", ".join(map(str, events.running.values()))
            step.update(done=len(events.ended), total=events.total, detail=running)

        last: deque[str] = deque(maxlen=20)
        completed = container.run(
            (PYTHON, f"{SCRIPTS}/runner.py", "--suite-json", ORDER, "--output", RESULTS, "--jobs", str(jobs)),
            env={"PYTHON_JIT": "0"},
            on_line=on_line,
            timeout=seconds + MARGIN,
        )
    if completed.returncode == NO_LIBRARY and (trouble := loading.trouble(last, Role.TARGET, target.packages)):
        raise trouble
    return Heard(events, completed, tuple(problems), ran_out=_ran_out(completed, seconds + MARGIN))


def _keep(container: Container, kept: SuiteFolder, ended: Ended) -> Iterator[str]:
    """Keep the files of a module that ended; say what is wrong with them."""
    try:
        with container.get(f"{RESULTS}/{ended.id}") as tar:
            kept.keep(tar, ended)
    except FileNotFoundError:
        yield f"{ended}: what it left is gone"
    except (UnfitFilesError, BudgetError) as error:
        yield f"{ended}: {error.message}"


def _check_memory(target: Target, starved: Sequence[str]) -> None:
    """Raise OutOfMemoryError if modules went wrong while the kernel killed for memory: that is no test's outcome."""
    if starved:
        raise OutOfMemoryError(
            f"{target.cell}: the kernel killed {', '.join(starved[:10])}, or what they started, for memory",
            hint="give the engine more memory, or run fewer modules at a time: CROSSJIT_JOBS=1",
        )


def _container(
    engine: Engine,
    image: Image,
    arch: Arch,
    name: str,
    labels: Mapping[str, str],
    env: Mapping[str, str],
    limits: Limits,
) -> AbstractContextManager[Container]:
    return engine.container(
        image.reference,
        arch=arch,
        name=name,
        labels=labels,
        env=env,
        user=f"{TESTER}:{TESTER}",
        network=False,
        limits=limits,
    )


def environment(variant: Variant, emulation: Mapping[str, str]) -> Mapping[str, str]:
    """Return what everything in a target runs with, and nothing else; `emulation` is for QEMU."""
    ours = {"HOME": HOME, "LANG": "C.UTF-8", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    return {**ours, **variant.variables(f"{TOOLS_PARENT}/Tools"), **emulation}


def install(container: Container, variant: Variant, tree: Opener, support: Opener | None = None) -> None:
    """Put the install tree, CPython's Tools and our scripts where they belong, for the loader to find them.

    Raises InfrastructureError where that cannot be.
    """
    with tree() as tar:
        container.put(tar, "/")
    if variant.is_shared:  # the loader looks into /usr/local/lib by its cache alone, which the image's is not
        completed = container.run(LDCONFIG, user="0:0")
        if completed.returncode:
            raise InfrastructureError(f"ldconfig failed in the target: {completed.how}")
    if support is not None:
        with support() as tar:
            container.put(tar, TOOLS_PARENT)
    scripts = {f"{SCRIPTS}/{path.name}": path.read_bytes() for path in sorted(suites.VALIDATE.glob("*.py"))}
    if not scripts:
        raise InfrastructureError(
            f"there are no scripts in {suites.VALIDATE}", hint="run crossjit from a clone of its repository"
        )
    container.put(tars.packed(scripts), "/")


def _memory(facts: EngineFacts, jobs: int) -> int:
    """Return a container's memory in bytes: enough for the jobs, and no more than a suite's share of the machine's."""
    return min(max(MEMORY, jobs * MEMORY_PER_JOB), facts.memory * SUITE_MEMORY // 100)


def target_limits(memory: int, seconds: int) -> Limits:
    """Return what a target may use. Its tests may raise the limit on a file: test_resource insists that it can be."""
    return Limits(memory, seconds=seconds, file_size=FILE_SIZE, file_size_may_be_raised=True, disk=TARGET_DISK)
