"""A script under several conditions: which fail, what the failure is about, and how that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment
from crossjit.model import Arch, Expectation, Variant
from crossjit.pipeline.packages import FOLDER as PACKAGES
from crossjit.report import user_script as report
from crossjit.report.terminal_style import TerminalStyle
from crossjit.triage.decide import Experiment, Layer, Next
from crossjit.triage.diagnosis import ExperimentResult
from crossjit.triage.experiments import STRESS
from crossjit.triage.rerun import TestRerun
from crossjit.triage.user_script import CONDITIONS, FOLDER, Script, reproduce
from tests.unit.test_experiments import CELL, FakeExperiments

SCRIPT = Script("a bug.py", b"1/0\n", ("--status", "4"), status=3, text="broke", seconds=60)
NAME = "user_script.a_bug"


class ByEnvironment(FakeExperiments):
    """Experiments in which a test's own environment counts as the condition that it stands for."""

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        results: dict[TestRerun, ExperimentResult] = {}
        for test in tests:
            (condition,) = (each for each, variables in CONDITIONS.items() if variables == dict(test.env))
            here = condition if then.experiment is Experiment.AGAIN else then.experiment
            self.environments = [*getattr(self, "environments", []), dict(test.env)]
            results |= super().run([test], replace(then, experiment=here))
        return {test: replace(result, experiment=then.experiment) for test, result in results.items()}


def failing(*experiments: Experiment) -> ByEnvironment:
    return ByEnvironment({NAME: {(experiment, False): 10.0 for experiment in experiments}})


def test_a_script_is_a_test() -> None:
    assert SCRIPT.files == {f"{FOLDER}/a bug.py": b"1/0\n"}
    test = SCRIPT.test
    assert (test.name, test.seconds, test.match) == (NAME, 60, "")
    (order,) = map(json.loads, test.arguments)
    assert order == {
        "script": f"{FOLDER}/a bug.py",
        "arguments": ["--status", "4"],
        "status": 3,
        "text": "broke",
        "packages": "",
        "python": "",
    }
    (order,) = map(json.loads, replace(SCRIPT, requirements=("attrs",)).test.arguments)
    assert order["packages"] == PACKAGES


def test_a_script_has_more_time_where_all_is_slower() -> None:
    jit = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
    native = TargetEnvironment((3, 15), Arch.X86_64, jit)
    assert SCRIPT.within(native).seconds == SCRIPT.seconds
    emulated = replace(native, arch=Arch.AARCH64, emulated=True)
    assert SCRIPT.within(emulated).seconds == SCRIPT.seconds * suites.load("jit").factor(emulated) > SCRIPT.seconds


def test_a_script_that_passes_everywhere() -> None:
    fake = failing()
    found = reproduce(fake, CELL, SCRIPT)
    assert [each.experiment for each in found.results] == list(CONDITIONS)
    assert [each.count.passed for each in found.results] == [5, 5, 5, 5]
    assert not found.failed
    assert found.diagnosis is None
    text = report.as_text([found], style=TerminalStyle())
    assert text.splitlines()[-1] == "the script passes everywhere"


def test_a_script_that_fails_with_the_jit() -> None:
    fake = failing(Experiment.AGAIN, Experiment.STRESS, Experiment.OPTIMIZER_OFF)
    found = reproduce(fake, CELL, SCRIPT)
    assert found.failed
    assert found.diagnosis is not None
    assert found.diagnosis.conclusion.layer is Layer.BACKEND
    text = report.as_text([found], style=TerminalStyle())
    assert "3.15/x86_64/jit  JIT stress" in text
    assert "JIT backend of one arch" in text
    assert "passes everywhere" not in text
    (cell,) = report.as_json([found])
    assert cell["failed"] is True
    assert cell["results"][0] | {"message": ""} == {  # type: ignore[index]
        "condition": "the same again",
        "failed": 5,
        "passed": 0,
        "crashed": 0,
        "hung": 0,
        "absent": 0,
        "message": "",
    }


def test_a_script_that_fails_under_stress_alone_is_diagnosed_under_stress() -> None:
    fake = failing(Experiment.STRESS)
    found = reproduce(fake, CELL, SCRIPT)
    assert [each.count.failed for each in found.results] == [0, 5, 0, 0]
    assert found.diagnosis is not None
    assert fake.environments[: len(CONDITIONS)] == [*CONDITIONS.values()]
    assert all(environment == STRESS for environment in fake.environments[len(CONDITIONS) :])
