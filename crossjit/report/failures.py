"""Failed tests, known failures, and unexpected passes of all cells, grouped for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from crossjit.model import Cell, CellResult, ModuleRun, SuiteResult, TestResult
from crossjit.report import diagnoses, reproduce
from crossjit.report.diagnoses import Diagnoses, Experiment
from crossjit.report.size_budget import LINE, NAME, OUTPUT, SizeBudget, Truncated, some
from crossjit.report.text import WORST_FIRST
from crossjit.runs.model import Run
from crossjit.triage.diagnosis import Diagnosis
from crossjit.util.text import join_words, shortened
from crossjit.validation import reason

# Bytes of the page for failures; with the other budgets a page stays under 2 MB.
ROOM_OUTPUT = 600_000
ROOM_NAMES = 250_000
MARKUP = 320  # bytes of markup around a conclusion, and around each row of its table


@dataclass(frozen=True)
class Failures:
    """Failed tests: with output, by name only, and their total number.

    `layers` are triage's conclusions, each with the number of its tests.
    """

    number: int
    shown: tuple[Failure, ...]
    named: Truncated[Failure]
    layers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Failure:
    """A failed test, in all cells where it failed."""

    suite: str
    name: str
    times: tuple[Occurrence, ...]

    @property
    def outcomes(self) -> str:
        """Its outcomes as text, without duplicates."""
        return join_words(list(dict.fromkeys(time.test.outcome.value for time in self.times)))

    @property
    def cells(self) -> str:
        """The cells where it failed."""
        return ", ".join(str(time.cell) for time in self.times)

    @property
    def about(self) -> str:
        """The main line of its first message."""
        return next((time.about for time in self.times if time.about), "")

    @property
    def layers(self) -> str:
        """Triage's conclusions, without duplicates."""
        return join_words(list(dict.fromkeys(str(time.diagnosis.conclusion) for time in self.times if time.diagnosis)))


@dataclass(frozen=True)
class Occurrence:
    """A failed test in one cell. `log` is a path in the run's folder; `lines` are commands that run it again.

    `diagnosis` is triage's conclusion, if any, from `experiments`.
    """

    cell: Cell
    test: TestResult
    about: str
    output: str
    log: str
    lines: tuple[str, ...]
    diagnosis: Diagnosis | None
    experiments: tuple[Experiment, ...]


def of(run: Run, results: Sequence[CellResult]) -> Failures:
    """Collect the failed tests, the worst first, then those that failed in most cells."""
    grouped: dict[tuple[str, str], list[Occurrence]] = defaultdict(list)
    concluded = diagnoses.of(run, [result.cell for result in results])
    for result in results:
        for suite in result.suites:
            modules = Modules(suite.modules)
            for test in suite.results:
                if test.failed:
                    grouped[suite.suite, test.name].append(_occurrence(run, result, suite, test, modules, concluded))
    ordered = sorted(grouped.items(), key=lambda item: (_severity(item[1]), -len(item[1]), item[0]))
    failures = [Failure(suite, shortened(name, NAME), tuple(times)) for (suite, name), times in ordered]
    room = SizeBudget(ROOM_OUTPUT, overhead=700)
    number = 0
    for failure in failures:
        texts = [
            text for time in failure.times for text in (time.output, time.about, time.log, *time.lines, failure.name)
        ]
        tables = [text for time in failure.times for text in _texts(time)]
        if not room.holds(*texts, *tables, markup=MARKUP * len(tables)):
            break
        number += 1
    names = some(
        failures[number:],
        SizeBudget(ROOM_NAMES, overhead=120),
        lambda item: f"{item.name}{item.about}{item.layers}{item.cells}",
    )
    layers = Counter(
        layer
        for item in failures
        for layer in {time.diagnosis.conclusion.layer.value for time in item.times if time.diagnosis}
    )
    return Failures(len(failures), tuple(failures[:number]), names, tuple(layers.most_common()))


def _texts(time: Occurrence) -> Iterator[str]:
    """Yield the page's texts about a conclusion, with its table."""
    if time.diagnosis is not None:
        yield f"{time.diagnosis}{time.diagnosis.run}"
        yield from (
            f"{experiment.changed}{experiment.cell}{experiment.how}{experiment.outcome}{experiment.said}"
            for experiment in time.experiments
        )


def _severity(times: Sequence[Occurrence]) -> int:
    return min(WORST_FIRST.index(time.test.outcome) for time in times)


def _occurrence(
    run: Run, result: CellResult, suite: SuiteResult, test: TestResult, modules: Modules, concluded: Diagnoses
) -> Occurrence:
    module, diagnosis = modules.of(test.name), concluded.get((result.cell, suite.suite, test.name))
    return Occurrence(
        cell=result.cell,
        test=test,
        about=shortened(reason.of(test.message), LINE),
        output=test.message.strip("\n")[-OUTPUT:],
        log=f"cells/{result.cell.slug}/{suite.suite}/{module.log}" if module and module.log else "",
        lines=reproduce.lines_for(run, result.cell, test, module),
        diagnosis=diagnosis,
        experiments=diagnoses.experiments(diagnosis) if diagnosis else (),
    )


class Modules:
    """A suite's processes, looked up by the name of a test that ran in one."""

    def __init__(self, modules: Iterable[ModuleRun]) -> None:
        self._modules = {(module.name, module.label): module for module in modules}

    def of(self, name: str) -> ModuleRun | None:
        """Return a test's process: of the same group, the longest module name that the test's name starts with."""
        bare, _, label = name.partition(" [")
        label = label.removesuffix("]")
        words = bare.removeprefix("test.").split(".")
        for number in range(len(words), 0, -1):
            module = self._modules.get((".".join(words[:number]), label))
            if module is not None:
                return module
        return None

    def title(self, name: str) -> str:
        """Return the name of a test's module, even if its process is unknown."""
        module = self.of(name)
        if module is not None:
            return module.key
        bare, bracket, label = name.partition(" [")
        words = bare.removeprefix("test.").split(".")
        upper = next((number for number, word in enumerate(words) if word[:1].isupper()), len(words) - 1)
        return ".".join(words[: max(upper, 1)]) + bracket + label


@dataclass(frozen=True)
class Reason:
    """A known failure's reason, and its tests, each with outcome and cells."""

    reason: str
    tests: Truncated[tuple[str, str, str]]
    number: int


def by_reason(results: Sequence[CellResult], selects: Callable[[TestResult], bool]) -> tuple[Reason, ...]:
    """Group tests by the reason of their known failure; one line for each test, with all its cells."""
    grouped: dict[str, dict[tuple[str, str], list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for suite in result.suites:
            for test in suite.results:
                if selects(test):
                    grouped[test.known or ""][shortened(test.name, NAME), test.outcome.value].append(str(result.cell))
    room = SizeBudget(ROOM_NAMES // 2)
    return tuple(
        Reason(
            shortened(reason, LINE),
            some(
                ((name, outcome, ", ".join(cells)) for (name, outcome), cells in sorted(tests.items())), room, " ".join
            ),
            len(tests),
        )
        for reason, tests in sorted(grouped.items(), key=lambda item: -len(item[1]))
    )


def caveats(results: Sequence[CellResult]) -> tuple[tuple[str, str], ...]:
    """Return the caveats, each with its cells."""
    cells_by_caveat: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for caveat in result.caveats:
            cells_by_caveat[caveat].append(str(result.cell))
    return tuple((caveat, ", ".join(cells)) for caveat, cells in cells_by_caveat.items())
