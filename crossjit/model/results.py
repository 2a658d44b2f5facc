"""Outcomes of tests, results of suites, and verdicts of cells."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from crossjit.model.cells import Cell, Strategy


class Outcome(StrEnum):
    """One test's result."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    TIMED_OUT = "timed out"
    CRASHED = "crashed"

    @property
    def is_failure(self) -> bool:
        """Whether the outcome makes the cell fail, unless it is a known failure."""
        return self not in (Outcome.PASSED, Outcome.SKIPPED)


class Verdict(StrEnum):
    """A cell's result. `vacuous`: passed, but proved nothing. `infra`: crossjit or the engine is at fault."""

    PASS = "pass"
    FAIL = "fail"
    VACUOUS = "vacuous"
    INFRA = "infra"
    ABORTED = "aborted"


@dataclass(frozen=True)
class TestResult:
    """One test's outcome. `seconds` is wall time in the target.

    `known` is the reason of the known failure that it matches, whether it failed or passed.
    """

    __test__ = False  # pytest would collect it by its name

    suite: str
    name: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""
    known: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it makes the cell fail: a failure that is not known."""
        return self.outcome.is_failure and self.known is None

    @property
    def xfailed(self) -> bool:
        """Whether it failed and is a known failure."""
        return self.outcome.is_failure and self.known is not None

    @property
    def xpassed(self) -> bool:
        """Whether it passed and is a known failure."""
        return self.outcome is Outcome.PASSED and self.known is not None


@dataclass(frozen=True)
class ModuleRun:
    """One process of a suite: a regrtest module, or one of crossjit's scripts.

    `name` is regrtest's (`test_capi.test_opt`) or the script's stem, `label` its group's; `seconds` is wall time in the
    target; `how` says how it ended (`exit status 0`); `log` is a file name in the suite's folder of the run record.
    """

    name: str
    label: str
    seconds: float
    how: str
    log: str

    @property
    def key(self) -> str:
        """The name with the label: `test_dict [stress]`."""
        return f"{self.name} [{self.label}]" if self.label else self.name


@dataclass(frozen=True)
class Crash:
    """A process of a suite that crashed or hung.

    `test` is the test that was running, if known, `module` the process's key, `how` says how it ended, `command` is its
    command line for a shell in the target, `traceback` faulthandler's last output, and `log` a file name in the suite's
    folder of the run record.
    """

    test: str
    module: str
    how: str
    command: str
    traceback: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class SuiteResult:
    """The result of one suite. `seconds` is wall time; `caveats` say what the result is no evidence of.

    `problems` are errors outside of tests; they make the cell fail. `limits` are the problems caused by a limit of
    crossjit or the machine: they say nothing about CPython. `unproved` says why a pass would prove too little (a
    required module ran no test). `notes` do not change the verdict. `modules` are the processes, in the order in which
    they ended; `crashes` those that crashed or hung. `conditions` are the facts that conditions are checked against,
    and `capabilities` the probed ones: {name: {"works": bool or None, "detail": text}}.
    """

    suite: str
    results: tuple[TestResult, ...]
    seconds: float
    caveats: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    modules: tuple[ModuleRun, ...] = ()
    conditions: dict[str, object] = field(default_factory=dict)
    capabilities: dict[str, object] = field(default_factory=dict)
    crashes: tuple[Crash, ...] = ()
    limits: tuple[str, ...] = ()

    def count(self, *outcomes: Outcome) -> int:
        """Return the number of tests with one of these outcomes."""
        return sum(result.outcome in outcomes for result in self.results)

    @property
    def tests_run(self) -> int:
        """The number of tests that ran: all but the skipped ones."""
        return len(self.results) - self.count(Outcome.SKIPPED)


@dataclass(frozen=True)
class CellResult:
    """A cell's verdict with its reasons and evidence. `seconds` is wall time by phase.

    `details` are lines to show below the reasons: the command that failed and the end of its output. `caches` are
    (hits, misses) by the name of the build's cache. `derived_from` is the full id of the artifact that the cell's was
    derived from, if only tests differed. `engine` is the name of the engine that it ran on, if there were several;
    `lost_on` are those that went away before it was done.
    """

    cell: Cell
    verdict: Verdict
    reasons: tuple[str, ...]
    artifact: str | None = None
    build_key: str | None = None
    from_stash: bool = False
    strategy: Strategy | None = None
    probe: dict[str, object] = field(default_factory=dict)
    suites: tuple[SuiteResult, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    details: tuple[str, ...] = ()
    caches: dict[str, tuple[int, int]] = field(default_factory=dict)
    derived_from: str | None = None
    engine: str | None = None
    lost_on: tuple[str, ...] = ()

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the result is no evidence of, without duplicates."""
        return tuple(dict.fromkeys(caveat for suite in self.suites for caveat in suite.caveats))
