"""What runs in the target, and what comes of it: the probe, the suites, and the verdict."""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from crossjit import capabilities, crashes, known_failures, loading, outcomes, suites, tars
from crossjit.capabilities import Probed
from crossjit.circumstances import Circumstances
from crossjit.engine.base import Completed, Container, Engine, EngineFacts, Limits
from crossjit.errors import InfrastructureError, OutOfMemoryError
from crossjit.images import Image, Package, Role
from crossjit.known_failures import KnownFailure
from crossjit.model import TOOLS, Arch, Cell, Crash, SuiteResult, TestResult, Variant
from crossjit.outcomes import Ended
from crossjit.portion import WHOLE, Portion
from crossjit.progress import Progress, Step
from crossjit.suite_folder import SuiteFolder, event
from crossjit.suites import Suite
from crossjit.verdict import judge
from crossjit.wording import counted

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

PROBE_SECONDS = 300
MEMORY = 4 << 30  # bytes, at least, where the machine has them
MEMORY_PER_JOB = 2 << 30
PIDS = 2048
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
    limits = Limits(memory=_memory(facts, 1), pids=PIDS, seconds=2 * PROBE_SECONDS + MARGIN)
    return _container(engine, image, image.arch, name, labels, environment(variant, emulation), limits)


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

    A probe that crashes or hangs is a finding about the build: then the facts are {"crashed": how, "output": lines}.
    `support` is put there if the variant's environment names CPython's Tools; `packages` are the toolchain's.
    Raises EngineError and its kin for what is the engine's, InfrastructureError for what cannot be loaded.
    """
    told = {"emulated": bool(emulation), "cpu": emulation.get("QEMU_CPU")}
    lines: deque[str] = deque(maxlen=200)

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
            (PYTHON, f"{SCRIPTS}/probe.py", "--told", json.dumps(told)), on_line=lines.append, timeout=PROBE_SECONDS
        )
    facts = _last_object(lines)
    said = lines if completed.returncode else _import_errors(facts)
    if trouble := loading.trouble(said, Role.TARGET, packages):
        raise trouble
    if completed.returncode or facts is None:
        return {"crashed": completed.how, "output": list(lines)[-40:], "told": told}
    return facts


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
    watch = _Watch(kept.ended())
    done = [ended.module_run.key for ended in watch.ended]
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
        completed = _run(engine, target, order, watch, kept, seconds=_limit(foreseen), jobs=jobs, step=step)
    watch.check_memory(target)
    result = _result(name, suite, where, known, watch, completed, kept.path, data, portion)
    return _with_capabilities(result, where, known, probed)


def _limit(order: Mapping[str, Any]) -> int:
    """Return the seconds that an order's items may take together."""
    return int(order["limit"])


def _with_capabilities(
    result: SuiteResult, where: Circumstances, known: tuple[KnownFailure, ...], probed: Probed
) -> SuiteResult:
    """Add in what the suite ran, what the target is capable of, and what of that mattered."""
    return replace(
        result,
        problems=(*result.problems, *([probed.problem] if probed.problem else [])),
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
    kept = SuiteFolder(folder)
    kept.start(order, target.subject)
    watch = _Watch()
    _run(engine, target, lambda _: order, watch, kept, seconds=_limit(order), jobs=jobs, step=step)
    watch.check_memory(target)
    return {
        ended.label: Ran(outcomes.of_module("", replace(ended, label=""), folder).results, ended.seconds)
        for ended in watch.ended
    }


def _run(
    engine: Engine,
    target: Target,
    order: Callable[[Container], Mapping[str, object]],
    watch: _Watch,
    kept: SuiteFolder,
    *,
    seconds: int,
    jobs: int,
    step: Step,
) -> Completed:
    """Install everything in a container of its own, and have the runner work through what is ordered there."""
    limits = Limits(memory=_memory(engine.facts(), jobs), pids=PIDS, seconds=seconds + 2 * MARGIN)
    with _container(
        engine, target.image, target.cell.arch, target.name, target.labels, target.environment, limits
    ) as container:
        step.update(detail="installing")
        target.install(container)
        told = order(container)
        container.put(tars.packed({ORDER: json.dumps(told).encode()}, {RESULTS: TESTER}), "/")

        def on_line(line: str) -> None:
            # its files first: a module that is on record as ended has them
            if (ended := event(line)) and ended.get("event") == "end":
                with container.get(f"{RESULTS}/{ended['id']}") as tar:
                    kept.keep(tar)
            kept.hear(line)
            watch.hear(line, step)
            last.append(line)

        last: deque[str] = deque(maxlen=20)
        completed = container.run(
            (PYTHON, f"{SCRIPTS}/runner.py", "--suite-json", ORDER, "--output", RESULTS, "--jobs", str(jobs)),
            env={"PYTHON_JIT": "0"},
            on_line=on_line,
            timeout=seconds + MARGIN,
        )
    if completed.returncode == NO_LIBRARY and (trouble := loading.trouble(last, Role.TARGET, target.packages)):
        raise trouble
    return completed


def _result(
    name: str,
    suite: Suite,
    where: Circumstances,
    known: tuple[KnownFailure, ...],
    watch: _Watch,
    completed: Completed,
    logs: Path,
    data: Path,
    portion: Portion,
) -> SuiteResult:
    results: list[TestResult] = []
    problems: list[str] = []
    crashed: list[Crash] = []
    notes: list[str] = [] if portion.is_whole else [f"no more than a part of it ran: {portion}"]
    if watch.taken:
        notes.append(f"{counted(watch.taken, 'module')} of an earlier run, which this one goes on with")
    for ended in watch.ended:
        found = outcomes.of_module(name, ended, logs)
        results += found.results
        notes += found.notes
        crashed += crashes.of_module(ended, found.results, logs)
    for item in watch.missing:
        said = f"{item['name']}: this Python has no such test module"
        (notes if item["optional"] else problems).append(said)
    problems += (f"{item['name']} did not run: {item['reason']}" for item in watch.left)
    if not watch.done:
        running = ", ".join(watch.running.values()) or "nothing"
        problems.append(f"the runner did not come to its end ({completed.how}); {running} was running")
    results, unexpected = outcomes.mark_known(results, known)
    results = outcomes.told_apart(results, known)
    lost = outcomes.cut_short(results, known, [ended.test for ended in watch.ended]) if not portion.tests else ()
    results += outcomes.left_out(name, known, [ended.name for ended in watch.ended])
    return SuiteResult(
        suite=name,
        results=tuple(sorted(results, key=lambda result: result.name)),
        seconds=round(completed.seconds, 3),
        caveats=suites.caveats(name, where, data),
        problems=tuple(problems),
        unproved=(*(suites.missing(suite, where, results) if portion.is_whole else ()), *lost),
        notes=(*notes, *unexpected),
        modules=tuple(ended.module_run for ended in watch.ended),
        crashes=tuple(crashed),
    )


class _Watch:
    """Listens to the runner's lines: keeps what they say and passes it on as progress."""

    def __init__(self, ended: Sequence[Ended] = ()) -> None:
        self.ended = list(ended)
        self.taken = len(ended)
        self.left: list[dict[str, Any]] = []
        self.missing: list[dict[str, Any]] = []
        self.running: dict[str, str] = {}
        self.total = 0
        self.done = False

    def hear(self, line: str, step: Step) -> None:
        """Take one line; one that is no event is only shown."""
        told = event(line) or {}
        match told:
            case {"event": "plan", "modules": modules, "missing": missing}:
                self.total, self.missing = len(modules), missing
            case {"event": "start", "id": identity}:
                self.running[identity] = _short(told)
            case {"event": "end", "id": identity}:
                self.running.pop(identity, None)
                self.ended.append(Ended.read(told))
                if told["status"] not in (0, outcomes.ENVIRONMENT_CHANGED, outcomes.NOTHING_RAN):
                    step.line(f"{_short(told)}: {self.ended[-1].how}")
            case {"event": "not started"}:
                self.left.append(told)
            case {"event": "done"}:
                self.done = True
            case _:
                step.line(line)
                return
        step.update(done=len(self.ended), total=self.total, detail=", ".join(self.running.values()))

    def check_memory(self, target: Target) -> None:
        """Raise OutOfMemoryError if a module was killed for the container's memory: that is no test's outcome."""
        killed = [ended.name for ended in self.ended if ended.memory_kills and ended.signal == "SIGKILL"]
        if killed:
            raise OutOfMemoryError(
                f"{target.cell}: the kernel killed {', '.join(killed)} for the container's memory",
                hint="give the engine more memory, or run fewer modules at a time: CROSSJIT_JOBS=1",
            )


def _short(event: Mapping[str, Any]) -> str:
    """Name a module as one line of progress can hold it."""
    name = str(event["name"]).rpartition("/")[2]
    return f"{name} ({event['label']})" if event["label"] else name


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
    """Return a container's memory in bytes: enough for the jobs, and no more than three quarters of the machine's."""
    return min(max(MEMORY, jobs * MEMORY_PER_JOB), facts.memory * 3 // 4)


def _import_errors(facts: Mapping[str, object] | None) -> Iterator[str]:
    """Yield why modules that were built were not imported."""
    modules = (facts or {}).get("modules")
    failed = modules.get("failed") if isinstance(modules, dict) else None
    yield from (str(error) for error in failed.values()) if isinstance(failed, dict) else ()


def _last_object(lines: Iterable[str]) -> dict[str, object] | None:
    found = [value for value in map(event, lines) if value is not None]
    return found[-1] if found else None
