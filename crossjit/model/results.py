"""What came of it: outcomes of tests, results of suites, and cells' verdicts."""

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
        """Whether the outcome, unless it is known and listed, makes the cell fail."""
        return self not in (Outcome.PASSED, Outcome.SKIPPED)


class Verdict(StrEnum):
    """A cell's result. `vacuous` is green that proved nothing; `infra` is our side or the engine's."""

    PASS = "pass"
    FAIL = "fail"
    VACUOUS = "vacuous"
    INFRA = "infra"
    ABORTED = "aborted"


@dataclass(frozen=True)
class TestResult:
    """One test's outcome. `seconds` is wall time in the target.

    `known` is the reason of the known failure that it matched; on a test that passed, of one that did not come.
    """

    __test__ = False  # not a test class, whatever pytest makes of its name

    suite: str
    name: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""
    known: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it makes the cell fail: a bad outcome that is not known."""
        return self.outcome.is_failure and self.known is None

    @property
    def xfailed(self) -> bool:
        """Whether it failed as a known failure says."""
        return self.outcome.is_failure and self.known is not None

    @property
    def xpassed(self) -> bool:
        """Whether it is listed as a known failure and passed."""
        return self.outcome is Outcome.PASSED and self.known is not None


@dataclass(frozen=True)
class ModuleRun:
    """One process of a suite: a module of regrtest, or a script of ours.

    `name` is regrtest's (`test_capi.test_opt`) or the script's stem, `label` its group's; `seconds` is wall time in the
    target; `how` says how it ended (`exit status 0`); `log` is a file's name in the suite's folder of the run record.
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

    `test` is what was running, as far as that is known, `module` the process by its key, `how` says how it ended,
    `command` is its command line as one would type it in the target, `traceback` what faulthandler wrote at the end,
    and `log` the file in the suite's folder of the run record.
    """

    test: str
    module: str
    how: str
    command: str
    traceback: tuple[str, ...]
    log: str


@dataclass(frozen=True)
class SuiteResult:
    """All that one suite said. `seconds` is wall time; `caveats` say what the result is no evidence of.

    `problems` are what went wrong beside the tests and makes the cell fail; `unproved` says why a green would prove too
    little (a module that had to run ran no test); `notes` are worth a line and change nothing. `modules` are its
    processes in the order in which they ended. `circumstances` are those it ran in, as conditions ask for them, and
    `capabilities` what the target was found to be capable of: {name: {"works": bool or None, "detail": text}}.
    `crashes` are the processes that did not end by themselves. `limits` are those of the problems that are a limit of
    ours or of the machine: they say nothing about CPython.
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
        """Return the number of tests that really ran: all but the skipped ones."""
        return len(self.results) - self.count(Outcome.SKIPPED)


@dataclass(frozen=True)
class CellResult:
    """A cell's verdict with its reasons, and what it rests on. Durations are wall seconds by phase.

    `details` are lines to show below the reasons: the command that failed and the end of what it said. `caches` says
    how often each cache of the build had an answer and how often not, by its name: (hits, misses). `derived_from` is
    the whole id of the artifact that the cell's was made of, where nothing but tests differed.
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

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the result is no evidence of, each once."""
        return tuple(dict.fromkeys(caveat for suite in self.suites for caveat in suite.caveats))
