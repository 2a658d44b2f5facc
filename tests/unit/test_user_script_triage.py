"""A script under several conditions: which fail, what the failure is about, and how that is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence

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


class Watched(FakeExperiments):
    """Experiments that remember the environment of the tests."""

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        self.environments = [*getattr(self, "environments", []), dict(tests[0].env)]
        return super().run(tests, then)


def failing(*experiments: Experiment) -> Watched:
    return Watched({NAME: {(experiment, False): 10.0 for experiment in experiments}})


def test_a_script_is_a_test() -> None:
    assert SCRIPT.files == {f"{FOLDER}/a bug.py": b"1/0\n"}
    test = SCRIPT.test
    assert (test.name, test.seconds, test.match) == (NAME, 60, "")
    (order,) = map(json.loads, test.arguments)
    assert order == {"script": f"{FOLDER}/a bug.py", "arguments": ["--status", "4"], "status": 3, "text": "broke"}


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
    assert next(environment for environment in fake.environments if environment) == STRESS
    assert fake.environments[: len(CONDITIONS)] == [{}] * len(CONDITIONS)
