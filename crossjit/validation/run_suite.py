"""Running a suite, or single items, in the target."""

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
    memory_for,
    target_limits,
)
from crossjit.validation.time_left import TimeLeft

RESULTS = f"{HOME}/results"
ORDER = f"{HOME}/suite.json"


@dataclass(frozen=True)
class Ran:
    """The result of an item: its tests' outcomes, and its process's wall seconds."""

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

    It runs as the unprivileged tester, without network and capabilities, `jobs` modules at a time, the longest first by
    `durations` (seconds by module). The modules' output is stored in `folder/<suite>/`, which is emptied first, as they
    end. `selection` is the part of the suite to run; `earlier` is the `folder` of an interrupted run to resume. `data`
    is the folder of suites, known failures and caveats.

    Raises UserError for an unknown suite or one that cannot be resumed, DocumentError for invalid data, EngineErrors
    for the engine's failures, which are never a test's.
    """
    env = target.conditions
    suite = suites.load(name, data)
    listed = entries.load(data)
    planned = job_list.order(suite, env, entries.possible(listed, env), SCRIPTS, selection)
    log = SuiteLog(folder / name)
    log.start(planned, target.subject)
    if earlier is not None:
        log.resume_from(SuiteLog(earlier / name), planned, target.subject)
    events = RunnerEvents(log.ended())
    finished = [module.key for module in events.ended]
    probed, known = Probed(), entries.holding(listed, env)

    def make_order(container: Container) -> Mapping[str, object]:
        """Probe the target's capabilities, and return the order that they allow."""
        nonlocal env, probed, known
        step.update(detail="probing capabilities")
        probed = capabilities.probe(container, PYTHON, f"{SCRIPTS}/capabilities.py")
        env = replace(env, capabilities=probed.known)
        known = entries.holding(listed, env)
        order = job_list.order(suite, env, known, SCRIPTS, selection)
        return {**order, "seconds": dict(durations or {}), "done": finished}

    with progress.step(name, str(target.cell)) as step:
        output = _run(engine, target, make_order, events, log, seconds=_limit(planned), jobs=jobs, step=step)
    result, starved = suite_result.compose(name, suite, env, known, output, log.path, data, selection)
    _check_memory(target, starved)
    return _with_capabilities(result, env, known, probed)


def _limit(order: Mapping[str, Any]) -> int:
    """Return the time limit of an order in seconds."""
    return int(order["limit"])


def _with_capabilities(
    result: SuiteResult, env: TargetEnvironment, known: tuple[KnownFailure, ...], probed: Probed
) -> SuiteResult:
    """Add the environment, the target's capabilities, and the missing ones that caused known failures."""
    problems = [probed.problem] if probed.problem else []
    return replace(
        result,
        problems=(*result.problems, *problems),
        limits=(*result.limits, *(problems if probed.our_limit else [])),
        notes=(*result.notes, *capabilities.excuses(probed, result.results, known)),
        conditions=env.facts(),
        capabilities=probed.facts,
    )


def run_items(
    engine: Engine, target: Target, order: Mapping[str, object], *, jobs: int, folder: Path, step: Step
) -> dict[str, Ran]:
    """Run an order's items as a suite's; return the results by the items' labels.

    `folder` is emptied, and gets the modules' output. Items that did not run are left out. Raises EngineErrors.
    """
    log, events = SuiteLog(folder), RunnerEvents()
    log.start(order, target.subject)
    output = _run(engine, target, lambda _: order, events, log, seconds=_limit(order), jobs=jobs, step=step)
    outcomes = [(module, results.of_module("", replace(module, label=""), folder).results) for module in events.ended]
    failed = {module.id for module, results in outcomes if any(result.outcome.is_failure for result in results)}
    _check_memory(target, suite_result.starved([(module, {module.id}) for module in events.ended], failed))
    for problem in (*output.problems, *events.problems):
        step.line(problem)
    return {module.label: Ran(results, module.seconds) for module, results in outcomes}


def _run(
    engine: Engine,
    target: Target,
    make_order: Callable[[Container], Mapping[str, object]],
    events: RunnerEvents,
    log: SuiteLog,
    *,
    seconds: int,
    jobs: int,
    step: Step,
) -> SuiteOutput:
    """Install everything in a container of its own, and let the runner carry out the order there."""
    limits = target_limits(memory_for(engine.facts(), jobs), seconds + 2 * MARGIN)
    with engine.container(target.options(limits)) as container:
        step.update(detail="installing")
        target.install(container)
        order = _with_switches(make_order(container), target)
        container.put(packed({ORDER: json.dumps(order).encode()}, {RESULTS: TESTER}), "/")
        listener = _Listener(container, events, log, step, TimeLeft(order, jobs))
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


def _with_switches(order: Mapping[str, Any], target: Target) -> Mapping[str, Any]:
    """Give the items Python's variables of the target's variant, which the runner itself does not pass on."""
    switches = {name: value for name, value in target.environment.items() if name.startswith("PYTHON")}
    return {**order, "items": [{**item, "env": {**switches, **item["env"]}} for item in order["items"]]}


class _Listener:
    """Handles the runner's lines: records them, stores the files of finished modules, and shows the progress."""

    def __init__(
        self, container: Container, events: RunnerEvents, log: SuiteLog, step: Step, time_left: TimeLeft
    ) -> None:
        self.problems: list[str] = []
        self.last: deque[str] = deque(maxlen=20)
        self._container, self._events, self._log = container, events, log
        self._step, self._time_left = step, time_left

    def take(self, line: str) -> None:
        """Handle one line."""
        try:
            event = self._events.understand(line)
        except MalformedError as error:
            self._events.refuse(line, error.message)
            self._log.append(f"! {line}")
            self._step.line(line)
            return
        if isinstance(event, ModuleExit):
            # the files first, so that a module recorded as finished has them
            self._save_files(event)
        self._log.append(line)
        self.last.append(line)
        if event is None:
            self._step.line(line)
            return
        self._events.accept(event)
        self._time_left.take(event)
        if isinstance(event, ModuleExit) and event.status not in results.NORMAL:
            self._step.line(f"{event}: {event.how}")
        running = ", ".join(map(str, self._events.running.values()))
        time_left = self._time_left.seconds(self._events)
        self._step.update(done=len(self._events.ended), total=self._events.total, detail=running, left=time_left)

    def _save_files(self, module: ModuleExit) -> None:
        try:
            with self._container.get(f"{RESULTS}/{module.id}") as tar:
                self._log.save(tar, module)
        except FileNotFoundError:
            self.problems.append(f"{module}: its files are gone")
        except (UnfitFilesError, BudgetError) as error:
            self.problems.append(f"{module}: {error.message}")


def _check_memory(target: Target, starved: Sequence[str]) -> None:
    """Raise OutOfMemoryError if modules failed while the kernel killed for memory: that is not a test's failure."""
    if starved:
        raise OutOfMemoryError(
            f"{target.cell}: the kernel killed {', '.join(starved[:10])}, or what they started, for memory",
            hint="give the engine more memory, or run fewer modules at a time: CROSSJIT_JOBS=1",
        )
