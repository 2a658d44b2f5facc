"""Runs single tests again and counts their outcomes, for `triage`."""

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
from crossjit.errors import UserError
from crossjit.known_failures import entries
from crossjit.model import ModuleRun, Outcome, SuiteResult, TestResult
from crossjit.progress import Step
from crossjit.triage.odds import Count
from crossjit.validation import job_list, run_suite, target
from crossjit.validation.run_suite import Ran
from crossjit.validation.target import Target

# The time limit of a test that hangs is SLACK times its longest pass, at least MIN_LIMIT seconds. While no pass is
# known, the first FULL_LIMITS experiments in which it hangs use its full limit, later ones 1/FRACTION of it.
SLACK = 10
MIN_LIMIT = 60
FULL_LIMITS = 2
FRACTION = 4

CONTROL = "test_bool"  # a module that needs only a working Python

# Names that unittest reports in addition to tests: set-up and tear-down of classes and modules.
_FIXTURES = ("setUpClass", "tearDownClass", "setUpModule", "tearDownModule")


@dataclass(frozen=True)
class TestRerun:
    """A test that can be run again as its suite ran it.

    `name` is its full name without a label; `module` regrtest's name or a script's path in the target; `match`
    regrtest's pattern, empty for the whole module; `seconds` the time limit of a run in its original environment.
    `with_others` also runs its module's other tests; only its own outcome counts, or a crash or hang of the module.
    `hung` says that it hung originally.
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
    """A test's outcomes, its first message, and the seconds of its longest pass, None without a pass.

    `runs` are the failed results of each run, None for one in which the test did not run.
    """

    count: Count = field(default_factory=Count)
    message: str = ""
    longest: float | None = None
    runs: tuple[tuple[TestResult, ...] | None, ...] = ()


def of_results(result: SuiteResult, env: TargetEnvironment, names: Iterable[str]) -> tuple[TestRerun, ...]:
    """Make reruns of the results with these full names (with labels); those of unknown modules are left out."""
    suite = suites.load(result.suite)
    items: Any = job_list.order(suite, env, (), target.SCRIPTS, ALL_TESTS)["items"]
    selected = set(names)
    reruns = (_rerun_of(test, result.modules, items, result.suite) for test in result.results if test.name in selected)
    return tuple(dict.fromkeys(rerun for rerun in reruns if rerun is not None))


def of_names(patterns: Iterable[str], names: Iterable[str], env: TargetEnvironment) -> tuple[TestRerun, ...]:
    """Make reruns of tests by their names, as the first of these suites runs them.

    A pattern is a module's name, a test's full name with or without `test.`, or a class's. Raises UserError for one
    that no suite has.
    """
    known = tuple(names)
    return tuple(_rerun_of_name(pattern, known, env) for pattern in dict.fromkeys(patterns))


def _rerun_of_name(pattern: str, names: Sequence[str], env: TargetEnvironment) -> TestRerun:
    words = pattern.removeprefix("test.").split(".")
    for suite in names:
        items: Any = job_list.order(suites.load(suite), env, (), target.SCRIPTS, ALL_TESTS)["items"]
        modules = [(module, item) for item in items if (module := _module_in(item, words))]
        if modules:
            module, item = max(modules, key=lambda pair: len(pair[0]))  # test_capi.test_opt before test_capi
            rest = words[len(module) :]
            script = item["kind"] == "script"
            whole_class = len(rest) == 1 and not script
            return TestRerun(
                name=pattern if script else f"test.{'.'.join(words)}",
                suite=suite,
                kind=item["kind"],
                module=item["name"] if script else ".".join(module),
                match="" if script or not rest else f"test.{'.'.join(words)}{'.*' if whole_class else ''}",
                env=tuple(sorted(item["env"].items())),
                arguments=(*item["arguments"], *(rest if script else ())),
                seconds=item["timeout"],
            )
    raise UserError(
        f"none of the suites {', '.join(names)} has {pattern!r}",
        hint="give a module or a test's full name, such as test_dis.DisTests.test_opmap, and maybe --suite full",
    )


def _module_in(item: Mapping[str, Any], words: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of a test's name that are its module's, if this item of an order runs it; else nothing."""
    if item["kind"] == "script":
        return tuple(words[:1]) if Path(item["name"]).stem == words[0] else ()
    if item["name"] == "*":
        return tuple(words[:1])
    parts = item["name"].removesuffix(".*").split(".")
    if list(words[: len(parts)]) != parts:
        return ()
    return tuple(words[: len(parts) + item["name"].endswith(".*")])


def _rerun_of(
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
                    # our scripts take names of checks; `gil_…` names are facts that they report, not checks
                    arguments=(*item["arguments"], *([check] if check and not check.startswith("gil_") else [])),
                    seconds=item["timeout"],
                    hung=result.outcome is Outcome.TIMED_OUT,
                )
    return None


def _holds(item: Mapping[str, Any], module: ModuleRun) -> bool:
    """Whether a module was run for this item of an order."""
    if item["kind"] == "script":
        return bool(Path(item["name"]).stem == module.name)
    package = item["name"].removesuffix("*")
    return bool(
        item["label"] == module.label
        and (item["name"] == module.name or (package != item["name"] and module.name.startswith(package)))
    )


def _match(name: str, module: str) -> str:
    """Return regrtest's pattern for a full name: empty for a module, all of a class for its fixtures."""
    if name == module:
        return ""
    owner, _, last = name.rpartition(".")
    if last in _FIXTURES:
        return "" if owner == module else f"{owner}.*"
    return name


def with_module(test: TestRerun) -> TestRerun | None:
    """Return a test's rerun with its module's other tests; None if it did not run alone."""
    return replace(test, match="", with_others=True) if test.match else None


def run(
    engine: Engine,
    target: Target,
    tests: Sequence[TestRerun],
    times: int,
    *,
    env: Mapping[str, str],
    jobs: int,
    folder: Path,
    step: Step,
) -> dict[TestRerun, RerunCounts]:
    """Run each test several times in one container of the target, with `env` added to its own; return the counts.

    Identical runs for several tests, such as of one module, are done once. A crash and a hang are failures. Raises
    EngineErrors.
    """
    # runs are identical if they differ in these fields only
    runs = {test: replace(test, name="", with_others=False, hung=False) for test in tests}
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
    known = entries.load() if any(test.kind == "module" and not test.match for test in tests) else ()
    order = {
        "limit": sum(run.seconds for run in numbers) * times + 600,
        "resources": [],
        # else these would end their whole module, in every experiment
        "ignore": entries.deselected(entries.possible(known, target.conditions)),
        "items": items,
        "shard": None,
        "tests": [],
        "seconds": {},
        "done": [],
    }
    outcomes = run_suite.run_items(engine, target, order, jobs=jobs, folder=folder, step=step)
    return {
        test: _tally(test, [outcomes.get(f"{numbers[run]}.{time}", Ran((), 0.0)) for time in range(times)])
        for test, run in runs.items()
    }


def scale_timeout(test: TestRerun, here: TargetEnvironment, there: TargetEnvironment) -> TestRerun:
    """Scale a test's time limit to that of its suite in a slower environment."""
    suite = suites.load(test.suite)
    return replace(test, seconds=test.seconds * max(1, suite.factor(there) // suite.factor(here)))


def factor(suite: str, env: TargetEnvironment) -> int:
    """Return the factor on a suite's native time limits."""
    return suites.load(suite).factor(env)


def limit(test: TestRerun, longest: float | None, hangs: int) -> int:
    """Return the time limit in seconds for a test that hangs.

    `longest` are the seconds of its longest pass, None if unknown; `hangs` is the number of experiments in which it
    hung.

    >>> limit(TestRerun("test.test_x", "jit", "module", "test_x", seconds=600), 2.0, 1)
    60
    """
    if longest is not None:
        return min(test.seconds, max(MIN_LIMIT, ceil(SLACK * longest)))
    return test.seconds if hangs < FULL_LIMITS else min(test.seconds, max(MIN_LIMIT, test.seconds // FRACTION))


def sanity_test(env: TargetEnvironment) -> TestRerun:
    """Return a test that passes wherever tests can run at all."""
    factor = suites.load("jit").factor(env)
    return TestRerun(f"test.{CONTROL}", "control", "module", CONTROL, seconds=120 * factor)


def _tally(test: TestRerun, runs: Sequence[Ran]) -> RerunCounts:
    count, message, longest = Count(), "", None
    failures: list[tuple[TestResult, ...] | None] = []
    for ran in runs:
        about = list(_about(test, ran.results))
        bad = [result for result in about if result.outcome.is_failure]
        failures.append(tuple(bad))
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
            failures[-1] = None
    return RerunCounts(count, message, longest, tuple(failures))


def _about(test: TestRerun, results: Sequence[TestResult]) -> Iterator[TestResult]:
    """Yield the results of the test itself, and those of the whole script or module if that crashed or hung.

    A rerun of a whole script is about how it ended; its passed checks show that it ran.
    """
    script = Path(test.module).stem
    for result in results:
        passed_check = test.name == script and result.outcome is Outcome.PASSED
        if test.with_others:
            relevant = result.name == test.name or result.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT)
        else:
            relevant = test.kind == "module" or result.name in (test.name, script) or passed_check
        if relevant:
            yield result
