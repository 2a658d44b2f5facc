"""What runs in the target, and what comes of it: the probe, the suites, and the verdict."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossjit.channels import MalformedError, ModuleExit
from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.config.test_selection import ALL_TESTS, TestSelection
from crossjit.engine.base import Container, Engine
from crossjit.errors import OutOfMemoryError
from crossjit.images import Role, loading
from crossjit.known_failures import entries
from crossjit.known_failures.entries import KnownFailure
from crossjit.model import SuiteResult, TestResult
from crossjit.progress import Progress, Step
from crossjit.util.budget import BudgetError
from crossjit.util.safe_files import UnfitFilesError
from crossjit.util.tar import packed
from crossjit.validation import capabilities, job_list, results, suite_result
from crossjit.validation.capabilities import Probed
from crossjit.validation.probe import ran_out
from crossjit.validation.resume import SuiteLog
from crossjit.validation.runner_events import RunnerEvents
from crossjit.validation.suite_result import SuiteOutput
from crossjit.validation.target import (
    HOME,
    MARGIN,
    NO_LIBRARY,
    PYTHON,
    SCRIPTS,
    TESTER,
    Target,
    _memory,
    target_limits,
)
from crossjit.validation.time_left import TimeLeft

RESULTS = f"{HOME}/results"
ORDER = f"{HOME}/suite.json"


@dataclass(frozen=True)
class Ran:
    """What came of an item that ran: its tests' outcomes, and the seconds that its process took."""

    results: tuple[TestResult, ...]
    seconds: float


def run_suite(
    engine: Engine,
    target: Target,
    name: str,
    *,
    jobs: int,
    folder: Path,
    progress: Progress,
    selection: TestSelection = ALL_TESTS,
    earlier: Path | None = None,
    durations: Mapping[str, float] | None = None,
    data: Path = suites.VALIDATE,
) -> SuiteResult:
    """Run a suite in the target image and return its outcomes.

    It runs as the unprivileged tester, without network and capabilities, `jobs` modules at a time, those first that
    took longest by `durations` (seconds by module). What the modules wrote is left in `folder/<suite>/` (made anew), as
    they end. `selection` says which part of the suite runs; `earlier` is the `folder` of a run that died in it: what
    that got done is taken over. `data` is where suites, known failures and caveats are read from.

    Raises UserError for a suite that is not there or cannot be taken up, DocumentError for data that is wrong,
    EngineError and its kin for what is the engine's: these are never a test's failure.
    """
    where = target.conditions
    suite = suites.load(name, data)
    listed = entries.load(data)
    foreseen = job_list.order(suite, where, entries.possible(listed, where), SCRIPTS, selection)
    kept = SuiteLog(folder / name)
    kept.start(foreseen, target.subject)
    if earlier is not None:
        kept.resume_from(SuiteLog(earlier / name), foreseen, target.subject)
    events = RunnerEvents(kept.ended())
    done = [ended.key for ended in events.ended]
    probed, known = Probed(), entries.holding(listed, where)

    def order(container: Container) -> Mapping[str, object]:
        """Ask the target what it lacks, and order what is to be run then."""
        nonlocal where, probed, known
        step.update(detail="probing capabilities")
        probed = capabilities.probe(container, PYTHON, f"{SCRIPTS}/capabilities.py")
        where = replace(where, capabilities=probed.known)
        known = entries.holding(listed, where)
        ordered = job_list.order(suite, where, known, SCRIPTS, selection)
        return {**ordered, "seconds": dict(durations or {}), "done": done}

    with progress.step(name, str(target.cell)) as step:
        output = _run(engine, target, order, events, kept, seconds=_limit(foreseen), jobs=jobs, step=step)
    result, starved = suite_result.compose(name, suite, where, known, output, kept.path, data, selection)
    _check_memory(target, starved)
    return _with_capabilities(result, where, known, probed)


def _limit(order: Mapping[str, Any]) -> int:
    """Return the seconds that an order's items may take together."""
    return int(order["limit"])


def _with_capabilities(
    result: SuiteResult, where: TargetEnvironment, known: tuple[KnownFailure, ...], probed: Probed
) -> SuiteResult:
    """Add in what the suite ran, what the target is capable of, and what of that mattered."""
    problems = [probed.problem] if probed.problem else []
    return replace(
        result,
        problems=(*result.problems, *problems),
        limits=(*result.limits, *(problems if probed.our_limit else [])),
        notes=(*result.notes, *capabilities.excuses(probed, result.results, known)),
        conditions=where.facts(),
        capabilities=probed.facts,
    )


def run_items(
    engine: Engine, target: Target, order: Mapping[str, object], *, jobs: int, folder: Path, step: Step
) -> dict[str, Ran]:
    """Run an order's items as suites run theirs; return what came of them by the items' labels.

    `folder` is made anew and gets what the modules wrote. An item that did not run is left out. Raises EngineError and
    its kin for what is the engine's.
    """
    kept, events = SuiteLog(folder), RunnerEvents()
    kept.start(order, target.subject)
    output = _run(engine, target, lambda _: order, events, kept, seconds=_limit(order), jobs=jobs, step=step)
    found = [(ended, results.of_module("", replace(ended, label=""), folder).results) for ended in events.ended]
    bad = {ended.id for ended, results in found if any(result.outcome.is_failure for result in results)}
    _check_memory(target, suite_result.starved([(ended, {ended.id}) for ended in events.ended], bad))
    for problem in (*output.problems, *events.problems):
        step.line(problem)
    return {ended.label: Ran(results, ended.seconds) for ended, results in found}


def _run(
    engine: Engine,
    target: Target,
    order: Callable[[Container], Mapping[str, object]],
    events: RunnerEvents,
    kept: SuiteLog,
    *,
    seconds: int,
    jobs: int,
    step: Step,
) -> SuiteOutput:
    """Install everything in a container of its own, and have the runner work through what is ordered there."""
    limits = target_limits(_memory(engine.facts(), jobs), seconds + 2 * MARGIN)
    with engine.container(target.options(limits)) as container:
        step.update(detail="installing")
        target.install(container)
        ordered = order(container)
        container.put(packed({ORDER: json.dumps(ordered).encode()}, {RESULTS: TESTER}), "/")
        listener = _Listener(container, events, kept, step, TimeLeft(ordered, jobs))
        completed = container.run(
            (PYTHON, f"{SCRIPTS}/runner.py", "--suite-json", ORDER, "--output", RESULTS, "--jobs", str(jobs)),
            env={"PYTHON_JIT": "0"},
            on_line=listener.take,
            timeout=seconds + MARGIN,
        )
    lacking = completed.returncode == NO_LIBRARY
    if lacking and (missing := loading.missing_library(listener.last, Role.TARGET, target.packages)):
        raise missing
    return SuiteOutput(events, completed, tuple(listener.problems), ran_out=ran_out(completed, seconds + MARGIN))


class _Listener:
    """Takes the runner's lines: keeps what they tell with the files of modules that ended, and shows the progress."""

    def __init__(
        self, container: Container, events: RunnerEvents, kept: SuiteLog, step: Step, time_left: TimeLeft
    ) -> None:
        self.problems: list[str] = []
        self.last: deque[str] = deque(maxlen=20)
        self._container, self._events, self._kept = container, events, kept
        self._step, self._time_left = step, time_left

    def take(self, line: str) -> None:
        """Take one line."""
        try:
            event = self._events.understand(line)
        except MalformedError as error:
            self._events.refuse(line, error.message)
            self._kept.append(f"! {line}")
            self._step.line(line)
            return
        if isinstance(event, ModuleExit):
            # its files first: a module that is on record as ended has them
            self._save_files(event)
        self._kept.append(line)
        self.last.append(line)
        if event is None:
            self._step.line(line)
            return
        self._events.accept(event)
        self._time_left.take(event)
        if isinstance(event, ModuleExit) and event.status not in results.NORMAL:
            self._step.line(f"{event}: {event.how}")
        running = ", ".join(map(str, self._events.running.values()))
        left = self._time_left.seconds(self._events)
        self._step.update(done=len(self._events.ended), total=self._events.total, detail=running, left=left)

    def _save_files(self, ended: ModuleExit) -> None:
        try:
            with self._container.get(f"{RESULTS}/{ended.id}") as tar:
                self._kept.save(tar, ended)
        except FileNotFoundError:
            self.problems.append(f"{ended}: its files are gone")
        except (UnfitFilesError, BudgetError) as error:
            self.problems.append(f"{ended}: {error.message}")


def _check_memory(target: Target, starved: Sequence[str]) -> None:
    """Raise OutOfMemoryError if modules went wrong while the kernel killed for memory: that is no test's outcome."""
    if starved:
        raise OutOfMemoryError(
            f"{target.cell}: the kernel killed {', '.join(starved[:10])}, or what they started, for memory",
            hint="give the engine more memory, or run fewer modules at a time: CROSSJIT_JOBS=1",
        )
