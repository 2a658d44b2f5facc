"""The parts of the page about one cell, and about where the time went."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crossjit.model import Cell, CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report import facts, reproduce
from crossjit.report.facts import Capability, Fact
from crossjit.report.failures import Modules
from crossjit.report.size_budget import LINE, NAME, SizeBudget, Truncated, some
from crossjit.runs.model import Run
from crossjit.util.text import printable, shortened
from crossjit.validation import reason

DETAILS = 60  # lines at the end of a failed command's output
LONGEST = 12  # modules in the chart
COLOURS = 8  # of the chart's phases, in page.css

# Bytes of the page for each kind of content, over all cells.
ROOM_MODULES = 200_000
ROOM_SKIPPED = 200_000
ROOM_PROBE = 150_000
ROOM_LINES = 120_000
ROOM_DETAILS = 120_000


def anchor(cell: Cell) -> str:
    """Return the id of the cell's part of the page."""
    return "cell-" + re.sub(r"[^\w.-]+", "-", printable(cell.slug))


def kind(test: TestResult) -> str:
    """Return the kind that a test counts as: passed, went wrong, known, unexpected or skipped."""
    if test.failed:
        return "went wrong"
    if test.xfailed:
        return "known"
    if test.xpassed:
        return "unexpected"
    return "skipped" if test.outcome is Outcome.SKIPPED else "passed"


@dataclass(frozen=True)
class CellView:
    """One cell."""

    result: CellResult
    reasons: Truncated[str]
    details: Truncated[str]
    anchor: str
    line: str
    shell: str
    logs: str
    probe: tuple[Fact, ...]
    raw_probe: str
    suites: tuple[SuiteView, ...]


@dataclass(frozen=True)
class SuiteView:
    """One suite of a cell. `skipped` are reasons with tests; modules of which all tests passed are in `plain`."""

    suite: SuiteResult
    counts: tuple[tuple[str, int], ...]
    capabilities: tuple[Capability, ...]
    problems: Truncated[str]
    unproved: Truncated[str]
    notes: Truncated[str]
    caveats: Truncated[str]
    odd: Truncated[ModuleCounts]
    plain: Truncated[ModuleCounts]
    skipped: Truncated[Skips]
    skipped_number: int


@dataclass(frozen=True)
class Skips:
    """Tests that were skipped for one reason."""

    reason: str
    number: int
    tests: Truncated[str]


@dataclass
class ModuleCounts:
    """The counts of a module's tests by kind."""

    name: str
    kinds: Counter[str] = field(default_factory=Counter)

    @property
    def passed(self) -> int:
        """The number of passed tests, expected or not."""
        return self.kinds["passed"] + self.kinds["unexpected"]

    @property
    def ran(self) -> int:
        """The number of tests that ran."""
        return self.kinds.total() - self.kinds["skipped"]

    @property
    def said(self) -> str:
        """The counts as text."""
        words = (("passed", self.passed), *((kind, self.kinds[kind]) for kind in ("went wrong", "known", "skipped")))
        return ", ".join(f"{number:,} {word}" for word, number in words if number)

    @property
    def is_plain(self) -> bool:
        """Whether all tests that ran passed, and at least one ran."""
        return self.ran == self.kinds["passed"] and self.ran > 0


def of(run: Run, results: Sequence[CellResult]) -> tuple[CellView, ...]:
    """Return the cells, those that did not pass first."""
    probes, details, rooms = SizeBudget(ROOM_PROBE), SizeBudget(ROOM_DETAILS, overhead=1), _Rooms()
    worst = sorted(results, key=lambda result: result.verdict is Verdict.PASS)
    views = []
    for result in worst:
        raw = json.dumps(result.probe, indent=1, ensure_ascii=False, default=str) if result.probe else ""
        views.append(
            CellView(
                result=result,
                reasons=_lines(result.reasons, rooms.lines, times=2),
                details=_lines(result.details[-DETAILS:], details),
                anchor=anchor(result.cell),
                line=reproduce.cell_line(run, result.cell),
                shell=reproduce.shell_line(run, result.cell),
                logs=str(run.cell_folder(result.cell)),
                probe=facts.of_probe(result.probe),
                raw_probe=raw if raw and probes.holds(raw) else "",
                suites=tuple(_suite(suite, rooms) for suite in result.suites),
            )
        )
    return tuple(views)


@dataclass(frozen=True)
class _Rooms:
    """The size budgets that all suites share."""

    modules: SizeBudget = field(default_factory=lambda: SizeBudget(ROOM_MODULES, overhead=150))
    skipped: SizeBudget = field(default_factory=lambda: SizeBudget(ROOM_SKIPPED, overhead=30))
    lines: SizeBudget = field(default_factory=lambda: SizeBudget(ROOM_LINES, overhead=10))


def _suite(suite: SuiteResult, rooms: _Rooms) -> SuiteView:
    finder = Modules(suite.modules)
    by_module: dict[str, ModuleCounts] = {}
    reasons: dict[str, list[str]] = defaultdict(list)
    for test in suite.results:
        title = finder.title(test.name)
        by_module.setdefault(title, ModuleCounts(shortened(title, NAME))).kinds[kind(test)] += 1
        if test.outcome is Outcome.SKIPPED:
            reasons[shortened(reason.of(test.message), LINE)].append(shortened(test.name, NAME))
    count = Counter(kind(test) for test in suite.results)
    kinds = ("passed", "went wrong", "known", "unexpected", "skipped")
    counts = sorted(by_module.values(), key=lambda item: item.name)
    return SuiteView(
        suite=suite,
        counts=(("run", suite.tests_run), *((item, count[item]) for item in kinds if count[item])),
        capabilities=facts.capabilities(suite),
        problems=_lines(suite.problems, rooms.lines),
        unproved=_lines(suite.unproved, rooms.lines),
        notes=_lines(suite.notes, rooms.lines),
        caveats=_lines(suite.caveats, rooms.lines),
        odd=some((item for item in counts if not item.is_plain), rooms.modules, lambda item: item.name),
        plain=some((item for item in counts if item.is_plain), rooms.modules, lambda item: item.name),
        skipped=_skipped(reasons, rooms.skipped),
        skipped_number=count["skipped"],
    )


def _skipped(reasons: Mapping[str, Sequence[str]], room: SizeBudget) -> Truncated[Skips]:
    """Return reasons with their tests, within the budget; the most frequent reason first."""
    by_frequency = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
    shown: list[Skips] = []
    for number, (text, names) in enumerate(by_frequency):
        if not room.holds(text):
            return Truncated(tuple(shown), sum(len(names) for _, names in by_frequency[number:]))
        shown.append(Skips(text or "without a reason", len(names), some(names, room, str)))
    return Truncated(tuple(shown))


def _lines(lines: Sequence[str], room: SizeBudget, *, times: int = 1) -> Truncated[str]:
    """Return lines within the budget; `times` is how often the page has them."""
    return some((shortened(line, LINE) for line in lines), room, lambda line: line * times)


# Where the time went


@dataclass(frozen=True)
class Bar:
    """A bar of a chart. `share` is the percentage of the longest bar; `colour` counts from 1."""

    name: str
    seconds: float
    share: float
    colour: int = 1
    about: str = ""


@dataclass(frozen=True)
class CellTime:
    """A cell's phases; `share` is the percentage of the longest cell."""

    cell: Cell
    seconds: float
    share: float
    phases: tuple[Bar, ...]


@dataclass(frozen=True)
class SuiteTime:
    """The longest modules of a suite in one cell; it has `number` modules."""

    cell: Cell
    suite: str
    modules: tuple[Bar, ...]
    number: int


def _colours(results: Sequence[CellResult]) -> dict[str, int]:
    names = dict.fromkeys(phase for result in results for phase in result.seconds)
    return {name: number % COLOURS + 1 for number, name in enumerate(names)}


def phases(results: Sequence[CellResult]) -> tuple[CellTime, ...]:
    """Return the time of each cell by phase."""
    colours = _colours(results)
    totals = {result.cell: sum(result.seconds.values()) for result in results}
    longest = max(totals.values(), default=0.0)
    return tuple(
        CellTime(
            result.cell,
            totals[result.cell],
            _share(totals[result.cell], longest),
            tuple(
                Bar(phase, seconds, _share(seconds, totals[result.cell]), colours[phase])
                for phase, seconds in result.seconds.items()
            ),
        )
        for result in results
        if totals[result.cell] > 0 or any(suite.modules for suite in result.suites)
    )


def timings(results: Sequence[CellResult]) -> tuple[SuiteTime, ...]:
    """Return the longest modules of each suite."""
    times = []
    for result in results:
        for suite in result.suites:
            modules = sorted(suite.modules, key=lambda module: -module.seconds)[:LONGEST]
            longest = max((module.seconds for module in modules), default=0.0)
            bars = tuple(
                Bar(
                    shortened(module.key, NAME),
                    module.seconds,
                    _share(module.seconds, longest),
                    about="" if module.how == "exit status 0" else shortened(module.how, LINE),
                )
                for module in modules
            )
            if bars:
                times.append(SuiteTime(result.cell, suite.suite, bars, len(suite.modules)))
    return tuple(times)


def _share(part: float, whole: float) -> float:
    return round(100 * max(part, 0.0) / whole, 2) if whole > 0 else 0.0
