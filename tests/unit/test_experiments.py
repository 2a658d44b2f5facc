"""Which experiment comes next for several tests, and which variant is another's debug sibling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit import PROJECT
from crossjit.config import recipes
from crossjit.config.conditions import TargetEnvironment
from crossjit.model import Arch, Cell, EmulationSupport
from crossjit.pipeline import validate_cell
from crossjit.progress import Silent
from crossjit.triage import experiments, rerun
from crossjit.triage.decide import Experiment, Layer, Next, Subject
from crossjit.triage.diagnosis import ExperimentResult
from crossjit.triage.experiments import Experiments
from crossjit.triage.odds import Count
from crossjit.triage.rerun import RerunCounts, TestRerun

CELL = Cell("3.15", Arch.X86_64, "jit")


class FakeExperiments(Experiments):
    """Experiments with given failure rates: failures of ten runs, by experiment and whether in the debug build."""

    def __init__(self, worlds: Mapping[str, Mapping[tuple[Experiment, bool], float]]) -> None:
        self.worlds = worlds
        self.runs: list[tuple[Experiment, bool, list[str]]] = []
        self.ran: Counter[tuple[str, Experiment, bool]] = Counter()

    @property
    def subject(self) -> Subject:
        return Subject(
            Arch.X86_64, jit=True, free_threaded=False, emulated=False, can=frozenset(Experiment) - {Experiment.DEBIAN}
        )

    @property
    def run_id(self) -> str:
        return "a-run"

    def run(self, tests: Sequence[TestRerun], then: Next) -> dict[TestRerun, ExperimentResult]:
        self.runs.append((then.experiment, then.debug, [test.name for test in tests]))
        tries = {}
        for test in tests:
            name = f"{test.name} among" if test.with_others else test.name
            tenths = (
                0 if then.experiment is Experiment.CONTROL else self.worlds[name].get((then.experiment, then.debug), 0)
            )
            before = self.ran[name, then.experiment, then.debug]
            self.ran[name, then.experiment, then.debug] = after = before + then.times
            failed = int(after * tenths / 10 + 0.9) - int(before * tenths / 10 + 0.9)
            tries[test] = ExperimentResult(
                then.experiment, CELL, "", Count(failed=failed, passed=then.times - failed), "", 1.0
            )
        return tries


def make_rerun(name: str, match: str = "") -> TestRerun:
    return TestRerun(name, "jit", "module", "test_x", match=match)


def test_tests_climb_together_and_the_debug_build_comes_last() -> None:
    fake = FakeExperiments(
        {
            "backend": {(experiment, False): 10 for experiment in (Experiment.AGAIN, Experiment.OPTIMIZER_OFF)},
            "asserts": {
                **{(experiment, False): 0.5 for experiment in (Experiment.AGAIN, Experiment.STRESS)},
                **{(experiment, True): 10 for experiment in (Experiment.DEBUG, Experiment.INTERPRETER)},
            },
            "library": {(experiment, False): 10 for experiment in Experiment},
        }
    )
    tests = {make_rerun(name): True for name in fake.worlds}
    found = list(experiments.diagnose(fake, CELL, tests))
    assert [(each.test, each.conclusion.layer, each.suite, each.run) for each in found] == [
        ("library", Layer.INTERPRETER, "jit", "a-run"),
        ("backend", Layer.BACKEND, "jit", "a-run"),
        ("asserts", Layer.OPTIMIZER, "jit", "a-run"),
    ]
    assert fake.runs[0] == (Experiment.AGAIN, False, ["backend", "asserts", "library"])
    debug = [*dict.fromkeys(experiment for experiment, debug, _ in fake.runs if debug)]
    assert debug == [
        Experiment.DEBUG,
        Experiment.JIT_OFF,
        Experiment.OPTIMIZER_OFF,
        Experiment.OTHER_CPU,
        Experiment.INTERPRETER,
    ]
    assert all(debug for _, debug, _ in fake.runs[-len(debug) :])
    assert [tried.experiment for tried in found[2].tries][:2] == [Experiment.SEEN, Experiment.AGAIN]
    assert len(found[2].tries) == 6 + len(set(debug))


def test_what_does_not_fail_alone_is_tried_among_its_modules_other_tests() -> None:
    fake = FakeExperiments(
        {
            "warmed": {},
            "warmed among": {(experiment, False): 10 for experiment in (Experiment.AGAIN, Experiment.OPTIMIZER_OFF)},
            "gone": {},
            "gone among": {},
            "whole": {},
            "library": {(experiment, False): 10 for experiment in Experiment},
        }
    )
    names = ("warmed", "gone", "whole", "library")
    tests = {make_rerun(name, match="" if name == "whole" else name): True for name in names}
    found = {each.test: each for each in experiments.diagnose(fake, CELL, tests)}
    said = {name: (each.conclusion.layer, each.conclusion.why) for name, each in found.items()}
    assert said == {
        "library": (Layer.INTERPRETER, "also fails without the JIT"),
        "whole": (Layer.FLAKY, "failed in the run, but not in 10 runs after that"),
        "gone": (
            Layer.FLAKY,
            "failed in the run, but not in 10 runs after that, alone or among its module's other tests",
        ),
        "warmed": (
            Layer.BACKEND,
            "not alone, but among its module's other tests: passes with the JIT off, in the tier-2 interpreter and on "
            "the other arch: x86_64's machine code",
        ),
    }
    tries = [(tried.experiment, tried.count.ran) for tried in found["warmed"].tries]
    assert tries[:5] == [
        (Experiment.SEEN, 1),
        (Experiment.AGAIN, 5),
        (Experiment.CONTROL, 1),
        (Experiment.AGAIN, 5),
        (Experiment.AGAIN, 5),
    ]
    assert found["warmed"].conclusion.odds == Count(failed=5)


def test_what_passed_when_it_was_seen_is_tried_alone_only() -> None:
    fake = FakeExperiments({"fine": {}})
    (found,) = experiments.diagnose(fake, CELL, {make_rerun("fine", match="fine"): False})
    assert found.conclusion.layer is Layer.UNCLEAR
    assert found.conclusion.why == "it did not fail in 10 runs"


@pytest.mark.parametrize("name", ["3.13", "3.14", "3.15", "main"])
def test_a_debug_sibling_is_found_by_its_options(name: str) -> None:
    recipe = recipes.find(name, PROJECT / "recipes")
    siblings = {each: experiments.debug_sibling(variant, recipe) for each, variant in recipe.variants.items()}
    everything = {"jit": "jit-debug", "ft": "ft-debug", "ft-jit": "ft-jit-debug", "interp": "interp-debug"}
    assert {each: sibling.name for each, sibling in siblings.items() if sibling} == {
        name: sibling for name, sibling in everything.items() if name in recipe.variants
    }


class Runs:
    """Replaces `rerun.run`: records which experiments ran in parallel, with what limits, and what hangs cost."""

    def __init__(self, passes: Mapping[str, float]) -> None:
        self.passes = passes  # seconds of a pass, by the end of the experiment's folder; others hang
        self.jobs: dict[str, int] = {}
        self.limits: dict[str, list[int]] = {}
        self.cost = 0.0

    def __call__(
        self,
        _engine: object,
        _target: object,
        tests: Sequence[TestRerun],
        times: int,
        *,
        jobs: int,
        folder: Path,
        **_: object,
    ) -> dict[TestRerun, RerunCounts]:
        experiment = folder.name.partition("-")[2]
        self.jobs[experiment] = jobs
        tallies = {}
        for test in tests:
            seconds = self.passes.get(experiment)
            self.limits.setdefault(experiment, []).append(test.seconds)
            self.cost += times * (test.seconds if seconds is None else seconds)
            count = Count(failed=times, hung=times) if seconds is None else Count(passed=times)
            tallies[test] = RerunCounts(count, "", seconds)
        return tallies


def real_experiments(monkeypatch: pytest.MonkeyPatch, runs: Runs, variant: str, tmp_path: Path) -> Experiments:
    """Make experiments whose tests are not run, on a machine that would run four at a time."""
    recipe = recipes.find("3.15", PROJECT / "recipes")
    request = SimpleNamespace(recipe=recipe, variant=recipe.variants[variant], source=None, cell=CELL)
    prepared = SimpleNamespace(request=request, cell=CELL, python=(3, 15))
    ability = EmulationSupport(request.cell.arch, {})
    ctx = SimpleNamespace(progress=Silent(), engine=None, jobs=4, emulated=lambda arch: False, ability=ability)
    ctx.run = "a-run"
    where = TargetEnvironment((3, 15), Arch.X86_64, recipe.variants[variant])
    target = SimpleNamespace(cell=CELL, conditions=where)
    monkeypatch.setattr(validate_cell, "target_of", lambda *_: target)
    monkeypatch.setattr(rerun, "run", runs)
    made = Experiments(ctx, prepared, None, tmp_path, builds=False)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_place", lambda experiment, debug: experiments._Place(target, {}, ""))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(("variant", "jobs"), [("ft", 1), ("jit", 4)])
def test_runs_go_one_at_a_time_where_timing_may_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: str, jobs: int
) -> None:
    runs = Runs({"control": 1.0, "gil_on": 1.0, "jit_off": 1.0, "interpreter": 1.0, "other_arch": 1.0})
    made = real_experiments(monkeypatch, runs, variant, tmp_path)
    failing = make_rerun("test.test_x.C.test_y", match="test.test_x.C.test_y")

    def ends(*arguments: Any, **options: Any) -> dict[TestRerun, RerunCounts]:
        return {
            test: replace(tally, count=replace(tally.count, hung=0))
            for test, tally in runs(*arguments, **options).items()
        }

    monkeypatch.setattr(rerun, "run", ends)
    list(experiments.diagnose(made, CELL, {failing: True}))
    assert runs.jobs.pop("again") == 1
    assert runs.jobs.pop("control") == 1
    assert set(runs.jobs.values()) == {jobs}


def test_a_hang_costs_its_whole_time_once_and_then_what_a_pass_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = Runs({"control": 1.0, "jit_off": 3.0, "interpreter": 8.0})
    made = real_experiments(monkeypatch, runs, "jit", tmp_path)
    (found,) = experiments.diagnose(made, CELL, {replace(make_rerun("test.test_x"), seconds=3000, hung=True): True})
    assert "passes with the JIT off and in the tier-2 interpreter" in found.conclusion.why
    assert runs.limits["again"] == [3000, 60]
    assert set(runs.limits["optimizer_off"]) == {60}
    assert runs.cost < 2 * 3000
    assert {tried.how for tried in found.tries if tried.experiment is Experiment.AGAIN} == {
        "3000 s at most",
        "60 s at most",
    }


def test_a_hang_everywhere_costs_no_more_than_a_few_whole_times(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = Runs({"control": 1.0})
    made = real_experiments(monkeypatch, runs, "jit", tmp_path)
    (found,) = experiments.diagnose(made, CELL, {replace(make_rerun("test.test_x"), seconds=3000, hung=True): True})
    assert found.conclusion.layer is Layer.INTERPRETER
    assert runs.cost < 2.01 * 3000


def test_a_slow_pass_is_no_hang() -> None:
    """A limit follows from the longest pass, and is never beyond the suite's."""
    test = replace(make_rerun("test.test_x"), seconds=3000)
    assert rerun.limit(test, None, 1) == 3000
    assert rerun.limit(test, None, 2) == 750
    assert rerun.limit(test, 0.5, 2) == 60
    assert rerun.limit(test, 120.0, 2) == 1200
    assert rerun.limit(test, 900.0, 2) == 3000
    assert rerun.limit(replace(test, seconds=30), 0.5, 2) == 30
