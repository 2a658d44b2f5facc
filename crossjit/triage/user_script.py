"""Runs a script from a bug report under several conditions, until it is known where it fails and what that is about."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from crossjit.config.conditions import TargetEnvironment
from crossjit.model import Cell
from crossjit.pipeline.packages import FOLDER as PACKAGES
from crossjit.triage.decide import Experiment, Next
from crossjit.triage.diagnosis import Diagnosis, ExperimentResult
from crossjit.triage.experiments import JIT_OFF, LOW_THRESHOLDS, STRESS, Experiments, diagnose
from crossjit.triage.odds import REPEATS_STABLE
from crossjit.triage.rerun import TestRerun, factor
from crossjit.validation.target import SCRIPTS

RUNNER = f"{SCRIPTS}/user_script.py"
FOLDER = "/usr/local/libexec/script"
SUITE = "jit"  # its factors scale the time limit under emulation and in debug builds

# The conditions in which it runs at first, with their variables.
CONDITIONS: Mapping[Experiment, Mapping[str, str]] = {
    Experiment.AGAIN: {},
    Experiment.STRESS: STRESS,
    Experiment.LOW_THRESHOLDS: LOW_THRESHOLDS,
    Experiment.JIT_OFF: JIT_OFF,
}


@dataclass(frozen=True)
class Script:
    """A script, and how it must end to pass: with `status`, or 0, and if `text` is not empty, after printing it.

    With a text alone, the exit status does not matter. `seconds` is the time limit of one run of a release build.
    `requirements` are the packages that it needs, as pip takes them.
    """

    name: str
    content: bytes
    arguments: tuple[str, ...] = ()
    status: int | None = None
    text: str = ""
    seconds: int = 300
    requirements: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, bytes]:
        """The file to install in a target."""
        return {f"{FOLDER}/{self.name}": self.content}

    @property
    def test(self) -> TestRerun:
        """The script as a test that can be run again."""
        check = re.sub(r"[^\w.-]", "_", Path(self.name).stem)  # as validate/user_script.py names it
        order = {
            "script": f"{FOLDER}/{self.name}",
            "arguments": self.arguments,
            "status": self.status,
            "text": self.text,
            "packages": PACKAGES if self.requirements else "",
            "python": "",
        }
        return TestRerun(
            name=f"{Path(RUNNER).stem}.{check}",
            suite=SUITE,
            kind="script",
            module=RUNNER,
            arguments=(json.dumps(order),),
            seconds=self.seconds,
        )

    def within(self, env: TargetEnvironment) -> Script:
        """Return the script with the time limit that it has in an environment, under QEMU or in a debug build."""
        return replace(self, seconds=self.seconds * factor(SUITE, env))


@dataclass(frozen=True)
class Reproduction:
    """How a script ended in one cell, under each condition; `diagnosis` is None if it never failed."""

    cell: Cell
    results: tuple[ExperimentResult, ...]
    diagnosis: Diagnosis | None = None

    @property
    def failed(self) -> bool:
        """Whether it failed under any condition."""
        return any(result.count.failed for result in self.results)


def condition_tests(experiments: Experiments, script: Script) -> dict[Experiment, TestRerun]:
    """Return a script as a test under each condition that is possible in the cell."""
    possible = experiments.subject.can | {Experiment.AGAIN}
    return {
        condition: replace(script.test, env=tuple(sorted(variables.items())))
        for condition, variables in CONDITIONS.items()
        if condition in possible
    }


def reproduce(experiments: Experiments, cell: Cell, script: Script) -> Reproduction:
    """Run a script in a cell, and find out what its failure is about. Raises EngineErrors.

    All conditions share a container. The first in which the script fails is what triage changes from.
    """
    tests = condition_tests(experiments, script)
    outcomes = experiments.run([*tests.values()], Next(Experiment.AGAIN, REPEATS_STABLE))
    results = {condition: replace(outcomes[test], experiment=condition) for condition, test in tests.items()}
    failing = next((tests[condition] for condition, result in results.items() if result.count.failed), None)
    if failing is None:
        return Reproduction(cell, tuple(results.values()))
    (diagnosis,) = diagnose(experiments, cell, {failing: True})
    return Reproduction(cell, tuple(results.values()), diagnosis)


def rows(reproductions: Sequence[Reproduction]) -> Iterator[tuple[Cell, ExperimentResult]]:
    """Yield every result with the cell that it is about."""
    for reproduction in reproductions:
        yield from ((reproduction.cell, result) for result in reproduction.results)
