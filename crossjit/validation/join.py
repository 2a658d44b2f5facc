"""Joins the results of a cell's shards into the result of the whole cell. Pure but for reading the suites."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from crossjit.config import conditions, suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.config.test_selection import Shard
from crossjit.model import CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.runs.model import worst
from crossjit.validation import job_list
from crossjit.validation.verdict import judge

_GOOD = (Verdict.PASS, Verdict.VACUOUS)  # a shard may be vacuous where the whole is not: it may have no tests


def join_cell(parts: Mapping[Shard, CellResult], shards: int) -> CellResult:
    """Join the results of a cell's shards, by shard. A shard that is missing makes the cell `infra`.

    A cell of which a shard has no results of its suites gets the worst verdict of its shards, and no cell a better one
    than a shard that failed.
    """
    results = [parts[shard] for shard in sorted(parts)]
    joined = replace(
        results[0],
        suites=join_suites(results),
        seconds=_seconds(results),
        details=tuple(line for result in results for line in result.details),
        from_stash=all(result.from_stash for result in results),
    )
    missing = [f"{number}/{shards}" for number in range(1, shards + 1) if (number, shards) not in parts]
    complete = not missing and all(result.suites for result in results)
    env = _environment(joined.suites)
    verdict = worst(result.verdict for result in results)
    if complete and env is not None:
        # each shard was on a machine of its own, whose probe counts
        judged = [judge(joined.cell, env.variant, result.probe, joined.suites) for result in results]
        whole = worst(found for found, _ in judged)
        if whole not in _GOOD or verdict in _GOOD:
            return replace(joined, verdict=whole, reasons=_union(told for found, told in judged if found is whole))
    if missing and verdict in _GOOD:
        verdict = Verdict.INFRA
    reasons = (
        *(f"there is no result of shard {name}" for name in missing),
        *(f"shard {shard[0]}/{shards}: {reason}" for shard in sorted(parts) for reason in parts[shard].reasons),
    )
    return replace(joined, verdict=verdict, reasons=reasons)


def join_suites(results: Sequence[CellResult]) -> tuple[SuiteResult, ...]:
    """Join the suites of a cell's shards, by name. What a whole suite must have run is checked again."""
    parts: dict[str, list[SuiteResult]] = {}
    for result in results:
        for suite in result.suites:
            parts.setdefault(suite.suite, []).append(suite)
    return tuple(_join(name, found) for name, found in parts.items())


def _join(name: str, parts: Sequence[SuiteResult]) -> SuiteResult:
    tests = tuple(sorted(_distinct(test for part in parts for test in part.results), key=lambda test: test.name))
    env = _environment(parts)
    missing = job_list.missing(suites.load(name), env, tests) if env else (f"{name}: its conditions are not recorded",)
    return replace(
        parts[0],
        results=tests,
        seconds=round(sum(part.seconds for part in parts), 3),
        caveats=_union(part.caveats for part in parts),
        problems=_union(part.problems for part in parts),
        unproved=_union([*(part.unproved for part in parts), missing]),
        notes=_union(part.notes for part in parts),
        modules=tuple(module for part in parts for module in part.modules),
        crashes=tuple(crash for part in parts for crash in part.crashes),
        limits=_union(part.limits for part in parts),
    )


def _distinct(tests: Iterable[TestResult]) -> Iterator[TestResult]:
    """Yield each test once. One that several shards tell of was deselected in all but one of them; a failure counts."""
    found: dict[str, TestResult] = {}
    for test in tests:
        if test.name not in found or found[test.name].outcome is Outcome.SKIPPED or test.failed:
            found[test.name] = test
    yield from found.values()


def _environment(parts: Sequence[SuiteResult]) -> TargetEnvironment | None:
    return next((env for part in parts if (env := conditions.from_record(part.conditions, {})) is not None), None)


def _seconds(results: Sequence[CellResult]) -> dict[str, float]:
    """Add the times by phase."""
    phases = dict.fromkeys(phase for result in results for phase in result.seconds)
    return {phase: round(sum(result.seconds.get(phase, 0.0) for result in results), 3) for phase in phases}


def _union(values: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for value in values for text in value))
