"""The comparison of two runs: what newly fails, was fixed, became slow, was added or removed. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crossjit.model import Cell, CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report import facts
from crossjit.report.diagnoses import Diagnoses
from crossjit.report.facts import Change
from crossjit.report.text import WORST_FIRST
from crossjit.util.text import duration, pluralize, printable
from crossjit.validation import reason

ABSENT = "not there"

# Newly slow: takes this many times as long as before, and this many seconds longer. Under QEMU on a busy machine,
# smaller differences are noise.
TIMES = 2.0
SECONDS = 5.0
PHASE_SECONDS = 30.0


@dataclass(frozen=True)
class Moved:
    """A test whose state changed. `about` is its message's main line, `layer` triage's conclusion in the later run."""

    suite: str
    name: str
    before: str
    after: str
    about: str = ""
    layer: str = ""


@dataclass(frozen=True)
class Slower:
    """A phase, a module or a test (`what`) that takes much longer than before, in seconds."""

    what: str
    name: str
    before: float
    after: float


@dataclass(frozen=True)
class CellComparison:
    """One cell in both runs. `about` is the reason of a different verdict.

    `slowdown` is the median factor of the modules' times. `otherwise` are tests that changed in other ways: they run
    now, are listed as known now, or fail differently.
    """

    cell: Cell
    before: Verdict
    after: Verdict
    about: str = ""
    newly_failing: tuple[Moved, ...] = ()
    fixed: tuple[Moved, ...] = ()
    no_longer_run: tuple[Moved, ...] = ()
    otherwise: tuple[Moved, ...] = ()
    added: tuple[Moved, ...] = ()
    removed: tuple[Moved, ...] = ()
    suites_added: tuple[str, ...] = ()
    suites_removed: tuple[str, ...] = ()
    newly_slow: tuple[Slower, ...] = ()
    slowdown: float = 1.0
    changed: tuple[Change, ...] = ()

    @property
    def is_worse(self) -> bool:
        """Whether a test newly fails, the cell newly fails, or it no longer passes."""
        lost = self.before is Verdict.PASS and self.after is not Verdict.PASS
        fails = self.after is Verdict.FAIL and self.before is not Verdict.FAIL
        return lost or fails or bool(self.newly_failing)


@dataclass(frozen=True)
class Comparison:
    """Two runs. `added` and `removed` are cells of only one of them; `changed` are facts about the hosts."""

    cells: tuple[CellComparison, ...]
    added: tuple[Cell, ...]
    removed: tuple[Cell, ...]
    changed: tuple[Change, ...]

    @property
    def is_worse(self) -> bool:
        """Whether any cell is worse than before."""
        return any(cell.is_worse for cell in self.cells)


def compare(
    before: Sequence[CellResult],
    after: Sequence[CellResult],
    *,
    facts_before: Mapping[str, Any] | None = None,
    facts_after: Mapping[str, Any] | None = None,
    diagnoses: Diagnoses | None = None,
) -> Comparison:
    """Compare the results of two runs, cell by cell; the facts are those of their records.

    `diagnoses` are those of the later run.
    """
    old, new = ({result.cell: result for result in results} for results in (before, after))
    return Comparison(
        cells=tuple(_compare_cell(old[cell], new[cell], diagnoses or {}) for cell in new if cell in old),
        added=tuple(cell for cell in new if cell not in old),
        removed=tuple(cell for cell in old if cell not in new),
        changed=facts.changed({"run": facts_before or {}}, {"run": facts_after or {}}),
    )


def _compare_cell(before: CellResult, after: CellResult, diagnoses: Diagnoses) -> CellComparison:
    old, new = _tests(before), _tests(after)
    suites_before, suites_after = ([suite.suite for suite in result.suites] for result in (before, after))
    both = {*suites_before} & {*suites_after}
    newly_failing = _problems(before, after)
    fixed, no_longer_run, otherwise, added, removed = [], [], [], [], []
    for key in dict.fromkeys((*new, *old)):
        suite, name = key
        was, now = old.get(key), new.get(key)
        state_was, state_now = _state(was), _state(now)
        diagnosis = diagnoses.get((after.cell, suite, name))
        layer = str(diagnosis.conclusion) if diagnosis else ""
        moved = Moved(suite, name, state_was, state_now, _about(now), layer)
        if now is None:
            removed += [moved] if suite in both else []  # a removed suite is listed once, not by its tests
        elif now.failed and not (was and was.failed):
            newly_failing.append(moved)
        elif was is None:
            added += [moved] if suite in both else []
        elif state_was == state_now:
            continue
        elif was.outcome.is_failure and now.outcome is Outcome.PASSED:
            fixed.append(moved)
        elif was.outcome is Outcome.PASSED and now.outcome is Outcome.SKIPPED:
            no_longer_run.append(moved)
        else:
            otherwise.append(moved)
    slow, slowdown = _slower(before, after)
    return CellComparison(
        cell=after.cell,
        before=before.verdict,
        after=after.verdict,
        about=next(iter(after.reasons), "") if after.verdict is not before.verdict else "",
        newly_failing=tuple(newly_failing),
        fixed=tuple(fixed),
        no_longer_run=tuple(no_longer_run),
        otherwise=tuple(otherwise),
        added=tuple(added),
        removed=tuple(removed),
        suites_added=tuple(suite for suite in suites_after if suite not in both),
        suites_removed=tuple(suite for suite in suites_before if suite not in both),
        newly_slow=slow,
        slowdown=slowdown,
        changed=_changed(before, after),
    )


def _tests(result: CellResult) -> dict[tuple[str, str], TestResult]:
    """Return the tests by suite and name; of several results of one test, the worst."""
    worst: dict[tuple[str, str], TestResult] = {}
    for suite in result.suites:
        for test in suite.results:
            earlier = worst.get((suite.suite, test.name))
            if earlier is None or WORST_FIRST.index(test.outcome) < WORST_FIRST.index(earlier.outcome):
                worst[suite.suite, test.name] = test
    return worst


def _state(test: TestResult | None) -> str:
    if test is None:
        return ABSENT
    return f"{test.outcome.value} as expected" if test.xfailed else test.outcome.value


def _about(test: TestResult | None) -> str:
    return reason.of(test.message) if test is not None and test.failed else ""


def _problems(before: CellResult, after: CellResult) -> list[Moved]:
    """Return the new errors outside of tests."""
    known = {(suite.suite, problem) for suite in before.suites for problem in suite.problems}
    return [
        Moved(suite.suite, problem, ABSENT, "a problem")
        for suite in after.suites
        for problem in suite.problems
        if (suite.suite, problem) not in known
    ]


def _slower(before: CellResult, after: CellResult) -> tuple[tuple[Slower, ...], float]:
    """Return what takes much longer than before, relative to the overall slowdown, and that slowdown."""
    modules = _pairs(before, after, lambda suite: ((module.key, module.seconds) for module in suite.modules))
    ratios = [now / was for was, now in modules.values() if was >= 1.0]
    # with few modules, a slow one says nothing about the machine
    slowdown = statistics.median(ratios) if len(ratios) >= 5 else 1.0
    factor = TIMES * max(slowdown, 1.0)
    tests = _pairs(before, after, lambda suite: ((test.name, test.seconds) for test in suite.results))
    phases = {
        name: (seconds, after.seconds[name])
        for name, seconds in before.seconds.items()
        if name in after.seconds and name not in {suite.suite for suite in after.suites}
    }
    slower = [
        *_much_longer("phase", phases, TIMES, PHASE_SECONDS),
        *_much_longer("module", modules, factor, SECONDS),
        *_much_longer("test", tests, factor, SECONDS),
    ]
    return tuple(slower), round(slowdown, 2)


def _pairs(
    before: CellResult, after: CellResult, times: Callable[[SuiteResult], Iterable[tuple[str, float]]]
) -> dict[str, tuple[float, float]]:
    """Return the seconds before and after by suite and name, for those that both have."""
    old = {f"{suite.suite}: {name}": seconds for suite in before.suites for name, seconds in times(suite)}
    new = {f"{suite.suite}: {name}": seconds for suite in after.suites for name, seconds in times(suite)}
    return {name: (old[name], seconds) for name, seconds in new.items() if name in old}


def _much_longer(what: str, pairs: Mapping[str, tuple[float, float]], factor: float, least: float) -> list[Slower]:
    longer = [
        Slower(what, name, was, now)
        for name, (was, now) in pairs.items()
        if was > 0 and now >= was * factor and now - was >= least
    ]
    return sorted(longer, key=lambda item: item.before - item.after)


def _changed(before: CellResult, after: CellResult) -> tuple[Change, ...]:
    """Compare the facts of both; if one lacks a whole group, such as the probe, that is one change, not hundreds."""
    old, new = _facts(before), _facts(after)
    for name in old:
        if isinstance(old[name], dict) and bool(old[name]) != bool(new[name]):
            old[name], new[name] = ("known" if facts_of[name] else None for facts_of in (old, new))
    return facts.changed(old, new)


def _circumstances(suite: SuiteResult) -> dict[str, Any]:
    """Return the conditions of a suite without the target's capabilities, which are compared separately."""
    conditions: Mapping[str, Any] = getattr(suite, "conditions", None) or {}
    return {name: value for name, value in conditions.items() if name != "capabilities"}


_WORKS = {True: "works", False: "does not work", None: "unknown"}


def _facts(result: CellResult) -> dict[str, Any]:
    return {
        "strategy": result.strategy.value if result.strategy else None,
        "build key": result.build_key[:12] if result.build_key else None,
        "probe": result.probe,
        "no evidence": list(result.caveats),
        "conditions": {suite.suite: _circumstances(suite) for suite in result.suites if _circumstances(suite)},
        "capability": {
            capability.name: f"{_WORKS[capability.works]}{f' ({capability.detail})' if capability.detail else ''}"
            for suite in result.suites
            for capability in facts.capabilities(suite)
        },
    }


# As text and as JSON


def as_text(comparison: Comparison, *, before: str, after: str, limit: int = 20) -> str:
    """Return the comparison as text; at most `limit` lines of each kind, with the number of others."""
    parts = [f"before: {before}\nafter:  {after}"]
    parts += [_cell_text(cell, limit) for cell in comparison.cells]
    alone = [f"only after:  {cell}" for cell in comparison.added] + [
        f"only before: {cell}" for cell in comparison.removed
    ]
    parts += ["\n".join(alone)] if alone else []
    if comparison.changed:
        parts.append("\n".join(["the host:", *_changes("facts that changed", comparison.changed, limit)]))
    parts.append("; ".join(_conclusion(comparison)))
    return printable("\n\n".join(parts))


def _conclusion(comparison: Comparison) -> list[str]:
    """Return the summary; it includes tests that no longer run, since they cannot fail."""
    cells = comparison.cells
    failing = sum(len(cell.newly_failing) for cell in cells)
    worse = [str(cell.cell) for cell in cells if cell.before is Verdict.PASS and cell.after is not Verdict.PASS]
    missing = sum(len(cell.no_longer_run) + len(cell.removed) for cell in cells)
    parts = [f"{failing:,} newly failing" if failing else "nothing newly fails"]
    parts += [f"no longer passing: {', '.join(worse)}"] if worse else []
    parts += [f"{pluralize(missing, 'test')} no longer run"] if missing else []
    suites = dict.fromkeys(suite for cell in cells for suite in cell.suites_removed)
    return parts + ([f"{', '.join(suites)} did not run"] if suites else [])


def _cell_text(cell: CellComparison, limit: int) -> str:
    verdict = cell.after.value if cell.before is cell.after else f"{cell.before} -> {cell.after}"
    lines = [f"{cell.cell}: {verdict}" + (f" ({cell.about})" if cell.about else "")]
    for title, moved in (
        ("newly failing", cell.newly_failing),
        ("fixed", cell.fixed),
        ("no longer run", cell.no_longer_run),
        ("other changes", cell.otherwise),
        ("added", cell.added),
        ("removed", cell.removed),
    ):
        lines += _section(title, [_moved_text(item) for item in moved], limit)
    lines += [f"  only after: suite {suite}" for suite in cell.suites_added]
    lines += [f"  only before: suite {suite}" for suite in cell.suites_removed]
    slow = [f"{item.what} {item.name}: {duration(item.before)} -> {duration(item.after)}" for item in cell.newly_slow]
    against = f" (most modules took {cell.slowdown} times as long)" if cell.slowdown >= 1.2 else ""
    lines += _section(f"newly slow{against}", slow, limit)
    lines += _changes("facts that changed", cell.changed, limit)
    return "\n".join(lines if len(lines) > 1 else [f"{lines[0]}, nothing changed"])


def _section(title: str, lines: Sequence[str], limit: int) -> list[str]:
    if not lines:
        return []
    more = [f"    and {len(lines) - limit:,} more; --json lists them all"] if len(lines) > limit else []
    return [f"  {title}, {len(lines):,}:", *(f"    {line}" for line in lines[:limit]), *more]


def _moved_text(moved: Moved) -> str:
    name = f"{moved.suite}: {moved.name}" if moved.suite else moved.name
    about = f" ({moved.about})" if moved.about else ""
    return f"{name}: {moved.before} -> {moved.after}{about}" + (f": {moved.layer}" if moved.layer else "")


def _changes(title: str, changes: Sequence[Change], limit: int) -> list[str]:
    return _section(
        title, [f"{change.name}: {_value(change.before)} -> {_value(change.after)}" for change in changes], limit
    )


def _value(value: str | None) -> str:
    return ABSENT if value is None else value


def as_json(comparison: Comparison, *, before: str, after: str) -> dict[str, object]:
    """Return the comparison as JSON values; times in seconds."""
    return {
        "before": before,
        "after": after,
        "worse": comparison.is_worse,
        "cells": [asdict(cell) | {"cell": str(cell.cell)} for cell in comparison.cells],
        "added": [str(cell) for cell in comparison.added],
        "removed": [str(cell) for cell in comparison.removed],
        "changed": [asdict(change) for change in comparison.changed],
    }
