"""Single tests, run again and counted: what `triage` concludes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.config.test_selection import ALL_TESTS
from crossjit.engine.base import Engine
from crossjit.known_failures import entries
from crossjit.model import ModuleRun, Outcome, SuiteResult, TestResult
from crossjit.progress import Step
from crossjit.triage.odds import Count
from crossjit.validation import job_list, run_suite, target
from crossjit.validation.run_suite import Ran
from crossjit.validation.target import Target

# A hang is told from a pass by `SLACK` times what a pass takes, and by no less than `LEAST` seconds. While no pass is
# known, the first places where a test hangs cost its whole time, the others `SHARE` of it.
SLACK, LEAST = 10, 60
WHOLE_TIMES, SHARE = 2, 4

CONTROL = "test_bool"  # a module that needs nothing but a Python that works

# What unittest names beside tests: a class's or module's own set-up.
_FIXTURES = ("setUpClass", "tearDownClass", "setUpModule", "tearDownModule")


@dataclass(frozen=True)
class TestRerun:
    """A test that can be run again as its suite ran it.

    `name` is its full name without a label; `module` regrtest's or a script's path in the target; `match` what regrtest
    is to match, empty for the whole module; `seconds` how long one run may take, emulated or not as it was. Of one that
    is `among` its module's other tests, these run too, and only how it ended itself counts, or that all did. One
    that was seen to hang has `hung`.
    """

    name: str
    suite: str
    kind: str
    module: str
    label: str = ""
    match: str = ""
    env: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    seconds: int = 600
    with_others: bool = False
    hung: bool = False

    def __str__(self) -> str:
        return f"{self.name} [{self.label}]" if self.label else self.name


@dataclass(frozen=True)
class RerunCounts:
    """How often a test failed, what it said the first time, and the seconds that the longest pass took, if any did."""

    count: Count = field(default_factory=Count)
    message: str = ""
    longest: float | None = None


def of_results(result: SuiteResult, where: TargetEnvironment, names: Iterable[str]) -> tuple[TestRerun, ...]:
    """Make trials of a suite's results with these full names (with their labels). Names of no module are left out."""
    suite = suites.load(result.suite)
    items: Any = job_list.order(suite, where, (), target.SCRIPTS, ALL_TESTS)["items"]
    wanted = set(names)
    found = (_trial(each, result.modules, items, result.suite) for each in result.results if each.name in wanted)
    return tuple(dict.fromkeys(trial for trial in found if trial is not None))


def _trial(
    result: TestResult, modules: Sequence[ModuleRun], items: Sequence[Mapping[str, Any]], suite: str
) -> TestRerun | None:
    name, _, label = result.name.removesuffix("]").partition(" [")
    for module in sorted(modules, key=lambda module: -len(module.name)):
        prefixes = (module.name, f"test.{module.name}")
        if module.label == label and any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes):
            item = next((item for item in items if _holds(item, module)), None)
            if item is not None:
                script = item["kind"] == "script"
                check = name.partition(".")[2] if script else ""
                return TestRerun(
                    name=name,
                    suite=suite,
                    kind=item["kind"],
                    module=item["name"] if script else module.name,
                    label=label,
                    match="" if script else _match(name, f"test.{module.name}"),
                    env=tuple(sorted(item["env"].items())),
                    # our scripts take names of checks; what they say of themselves is none
                    arguments=(*item["arguments"], *([check] if check and not check.startswith("gil_") else [])),
                    seconds=item["timeout"],
                    hung=result.outcome is Outcome.TIMED_OUT,
                )
    return None


def _holds(item: Mapping[str, Any], module: ModuleRun) -> bool:
    """Whether an order's item is what a module was run for."""
    if item["kind"] == "script":
        return bool(Path(item["name"]).stem == module.name)
    package = item["name"].removesuffix("*")
    return bool(
        item["label"] == module.label
        and (item["name"] == module.name or (package != item["name"] and module.name.startswith(package)))
    )


def _match(name: str, module: str) -> str:
    """Say what regrtest is to match for a full name: nothing for a module, all of a class for its fixtures."""
    if name == module:
        return ""
    owner, _, last = name.rpartition(".")
    if last in _FIXTURES:
        return "" if owner == module else f"{owner}.*"
    return name


def with_module(trial: TestRerun) -> TestRerun | None:
    """Return the trial of a test among its module's other tests; None where it did not run alone."""
    return replace(trial, match="", with_others=True) if trial.match else None


def run(
    engine: Engine,
    target: Target,
    trials: Sequence[TestRerun],
    times: int,
    *,
    env: Mapping[str, str],
    jobs: int,
    folder: Path,
    step: Step,
) -> dict[TestRerun, RerunCounts]:
    """Run each trial several times in one container of the target, with `env` beside its own; return the counts.

    What several trials take alike, such as one module, runs once for all of them. A crash and a hang are
    failures. Raises EngineError and its kin for what is the engine's.
    """
    # the same, whatever it is asked for
    runs = {trial: replace(trial, name="", with_others=False, hung=False) for trial in trials}
    numbers = {run: number for number, run in enumerate(dict.fromkeys(runs.values()))}
    items = [
        job_list.item(
            run.kind,
            run.module,
            run.seconds,
            label=f"{number}.{time}",
            arguments=[*run.arguments, *(("--match", run.match) if run.match else ())],
            env={**dict(run.env), **env},
            optional=True,
        )
        for run, number in numbers.items()
        for time in range(times)
    ]
    listed = entries.load() if any(trial.with_others for trial in trials) else ()
    order = {
        "limit": sum(run.seconds for run in numbers) * times + 600,
        "resources": [],
        # else these would take all of their module with them, on every rung
        "ignore": entries.deselected(entries.possible(listed, target.conditions)),
        "items": items,
        "shard": None,
        "tests": [],
        "seconds": {},
        "done": [],
    }
    ended = run_suite.run_items(engine, target, order, jobs=jobs, folder=folder, step=step)
    return {
        trial: _tally(trial, [ended.get(f"{numbers[run]}.{time}", Ran((), 0.0)) for time in range(times)])
        for trial, run in runs.items()
    }


def scale_timeout(trial: TestRerun, here: TargetEnvironment, there: TargetEnvironment) -> TestRerun:
    """Give a trial the time that its suite has where it is slower: that it takes longer there is no failure."""
    suite = suites.load(trial.suite)
    return replace(trial, seconds=trial.seconds * max(1, suite.factor(there) // suite.factor(here)))


def factor(suite: str, where: TargetEnvironment) -> int:
    """Return how many times its native time a suite's test may take."""
    return suites.load(suite).factor(where)


def limit(trial: TestRerun, longest: float | None, hangs: int) -> int:
    """Return the seconds after which a run of a test that hangs is ended.

    `longest` is what a pass takes there, None if that is not known; `hangs` on how many rungs it used up its time.

    >>> limit(TestRerun("test.test_x", "jit", "module", "test_x", seconds=600), 2.0, 1)
    60
    """
    if longest is not None:
        return min(trial.seconds, max(LEAST, ceil(SLACK * longest)))
    return trial.seconds if hangs < WHOLE_TIMES else min(trial.seconds, max(LEAST, trial.seconds // SHARE))


def sanity_test(where: TargetEnvironment) -> TestRerun:
    """Return the test that passes wherever tests can be run at all."""
    factor = suites.load("jit").factor(where)
    return TestRerun(f"test.{CONTROL}", "control", "module", CONTROL, seconds=120 * factor)


def _tally(trial: TestRerun, runs: Sequence[Ran]) -> RerunCounts:
    count, message, longest = Count(), "", None
    for ran in runs:
        about = list(_about(trial, ran.results))
        bad = [result for result in about if result.outcome.is_failure]
        if bad:
            crashed, hung = (
                int(any(result.outcome is outcome for result in bad))
                for outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)
            )
            count += Count(failed=1, crashed=crashed, hung=hung)
            message = message or bad[0].message
        elif any(result.outcome is Outcome.PASSED for result in about):
            count += Count(passed=1)
            longest = max(longest or 0.0, ran.seconds)
        else:
            count += Count(absent=1)
    return RerunCounts(count, message, longest)


def _about(trial: TestRerun, results: Sequence[TestResult]) -> Iterator[TestResult]:
    """Leave out what a script says of other checks, or a module of other tests, unless it ended badly as a whole.

    A trial of the script itself is one of its end: then what passed says that it ran.
    """
    script = Path(trial.module).stem
    for result in results:
        ran = trial.name == script and result.outcome is Outcome.PASSED
        if trial.with_others:
            meant = result.name == trial.name or result.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)
        else:
            meant = trial.kind == "module" or result.name in (trial.name, script) or ran
        if meant:
            yield result
