from __future__ import annotations

import functools
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from math import comb

import pytest

from crossjit.model import Arch
from crossjit.triage.decide import Conclusion, Experiment, Layer, Next, Subject, step
from crossjit.triage.odds import CHANCE, REPEATS_FLAKY, REPEATS_STABLE, Count, chance, passes_wanted

JIT_EXPERIMENTS = {
    Experiment.JIT_OFF,
    Experiment.STRESS,
    Experiment.OPTIMIZER_OFF,
    Experiment.INTERPRETER,
    Experiment.DEBUG,
    Experiment.OTHER_ARCH,
}
NATIVE = Subject(Arch.X86_64, jit=True, free_threaded=False, emulated=False, can=frozenset(JIT_EXPERIMENTS))
EMULATED = replace(
    NATIVE,
    arch=Arch.AARCH64,
    emulated=True,
    can=frozenset({*JIT_EXPERIMENTS, Experiment.OTHER_CPU, Experiment.NATIVE, Experiment.REFERENCE}),
)
FREE = Subject(Arch.X86_64, jit=False, free_threaded=True, emulated=False, can=frozenset({Experiment.GIL_ON}))

# A test's failures of ten runs in each experiment; None if it does not run. Experiments without a number are as AGAIN.
World = Mapping[Experiment, float | None]

FAILS, PASSES, ABSENT = 10, 0, None


def run(
    subject: Subject,
    world: World,
    seed: int = 0,
    *,
    debug: World | None = None,
    crash: bool = False,
    hang: bool = False,
    beside: float = 1.0,
) -> tuple[Conclusion, list[Experiment]]:
    """Run the experiments for a test of this kind; return the conclusion and the experiments, each once in a row.

    `debug` has its rates in the debug build, by default those without it; `crash` and `hang` say how it fails; `beside`
    is the factor on its failure rate if copies of it run in parallel.
    """
    chances = random.Random(seed)
    tried: dict[Experiment, Count] = {Experiment.SEEN: Count(failed=1, hung=int(hang))}
    in_debug: dict[Experiment, Count] = {}
    experiments: list[Experiment] = []
    for _ in range(200):
        then = step(subject, tried, in_debug)
        if isinstance(then, Conclusion):
            return then, experiments
        experiments += [then.experiment] if experiments[-1:] != [then.experiment] else []
        tenths = world.get(then.experiment, world[Experiment.AGAIN])
        if then.debug:
            tenths = (debug or {}).get(then.experiment, (debug or {}).get(Experiment.DEBUG, world[Experiment.AGAIN]))
        if then.experiment is Experiment.CONTROL:
            tenths = world.get(Experiment.CONTROL, PASSES)
        count = Count()
        for _ in range(then.times):
            fails = tenths is not None and chances.random() * 10 < tenths * (beside if then.together else 1)
            how = {"crashed": int(fails and crash), "hung": int(fails and hang)}
            count += Count(absent=1) if tenths is None else Count(int(fails), int(not fails), **how)
        counts = in_debug if then.debug else tried
        counts[then.experiment] = counts.get(then.experiment, Count()) + count
    raise AssertionError(f"no end: {experiments}")


def too_seldom(subject: Subject, world: World) -> int:
    """Find a seed with which a test fails again, and too seldom for a conclusion."""
    bare = replace(subject, can=subject.can - {Experiment.DEBUG})
    return next(seed for seed in range(999) if "too seldom to tell" in run(bare, world, seed)[0].why)


BACKEND = {
    Experiment.AGAIN: FAILS,
    Experiment.JIT_OFF: PASSES,
    Experiment.INTERPRETER: PASSES,
    Experiment.OTHER_ARCH: PASSES,
}


@pytest.mark.parametrize(
    ("subject", "world", "layer"),
    [
        (NATIVE, BACKEND, Layer.BACKEND),
        (EMULATED, BACKEND, Layer.BACKEND),
        (EMULATED, {**BACKEND, Experiment.OPTIMIZER_OFF: PASSES}, Layer.BACKEND),
        (NATIVE, {**BACKEND, Experiment.JIT_OFF: ABSENT}, Layer.BACKEND),
        (NATIVE, {**BACKEND, Experiment.OTHER_ARCH: FAILS}, Layer.JIT),
        (EMULATED, {**BACKEND, Experiment.OTHER_ARCH: FAILS}, Layer.JIT),
        (NATIVE, {**BACKEND, Experiment.OTHER_ARCH: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**BACKEND, Experiment.INTERPRETER: ABSENT}, Layer.UNCLEAR),
        (EMULATED, {**BACKEND, Experiment.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (
            NATIVE,
            {Experiment.AGAIN: FAILS, Experiment.JIT_OFF: PASSES, Experiment.OPTIMIZER_OFF: PASSES},
            Layer.OPTIMIZER,
        ),
        (NATIVE, {Experiment.AGAIN: FAILS, Experiment.JIT_OFF: PASSES}, Layer.OPTIMIZER),
        (NATIVE, {Experiment.AGAIN: FAILS, Experiment.JIT_OFF: ABSENT}, Layer.OPTIMIZER),
        (NATIVE, {Experiment.AGAIN: FAILS}, Layer.INTERPRETER),
        (EMULATED, {Experiment.AGAIN: FAILS}, Layer.INTERPRETER),
        (
            EMULATED,
            {Experiment.AGAIN: FAILS, Experiment.NATIVE: PASSES, Experiment.REFERENCE: PASSES},
            Layer.INTERPRETER,
        ),
        (EMULATED, {Experiment.AGAIN: FAILS, Experiment.NATIVE: PASSES, Experiment.REFERENCE: FAILS}, Layer.EMULATOR),
        (EMULATED, {Experiment.AGAIN: FAILS, Experiment.NATIVE: PASSES, Experiment.REFERENCE: ABSENT}, Layer.EMULATOR),
        (EMULATED, {Experiment.AGAIN: FAILS, Experiment.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (EMULATED, {Experiment.AGAIN: FAILS, Experiment.NATIVE: ABSENT}, Layer.UNCLEAR),
        (FREE, {Experiment.AGAIN: FAILS, Experiment.GIL_ON: PASSES}, Layer.FREE_THREADING),
        (FREE, {Experiment.AGAIN: 7, Experiment.GIL_ON: PASSES}, Layer.FREE_THREADING),
        (FREE, {Experiment.AGAIN: FAILS}, Layer.INTERPRETER),
        (FREE, {Experiment.AGAIN: FAILS, Experiment.GIL_ON: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {Experiment.AGAIN: FAILS, Experiment.CONTROL: FAILS}, Layer.ENVIRONMENT),
        (NATIVE, {Experiment.AGAIN: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**BACKEND, Experiment.AGAIN: 4, Experiment.STRESS: FAILS}, Layer.BACKEND),
    ],
)
def test_each_kind_of_defect_is_told(subject: Subject, world: World, layer: Layer) -> None:
    conclusion, _ = run(subject, world)
    assert conclusion.layer is layer, conclusion.why
    assert conclusion.why


# With the JIT it fails at times, too seldom to be told from chance, and without it never; stress makes no difference.
SELDOM = {Experiment.AGAIN: 0.5, Experiment.JIT_OFF: PASSES, Experiment.STRESS: 0.5}
ASSERTS = {
    Experiment.DEBUG: FAILS,
    Experiment.JIT_OFF: PASSES,
    Experiment.INTERPRETER: PASSES,
    Experiment.OTHER_ARCH: PASSES,
}


@pytest.mark.parametrize(
    ("subject", "debug", "layer"),
    [
        (NATIVE, ASSERTS, Layer.BACKEND),
        (EMULATED, ASSERTS, Layer.BACKEND),
        (NATIVE, {**ASSERTS, Experiment.JIT_OFF: ABSENT}, Layer.BACKEND),
        (NATIVE, {**ASSERTS, Experiment.OTHER_ARCH: FAILS}, Layer.JIT),
        (NATIVE, {**ASSERTS, Experiment.INTERPRETER: FAILS}, Layer.OPTIMIZER),
        (EMULATED, {**ASSERTS, Experiment.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (NATIVE, {**ASSERTS, Experiment.INTERPRETER: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.OTHER_ARCH: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.JIT_OFF: FAILS}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.JIT_OFF: 3}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.DEBUG: 8}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.DEBUG: PASSES}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Experiment.DEBUG: ABSENT}, Layer.UNCLEAR),
        (replace(NATIVE, can=NATIVE.can - {Experiment.DEBUG}), ASSERTS, Layer.UNCLEAR),
    ],
)
def test_what_fails_at_times_with_the_jit_may_be_told_in_the_debug_build(
    subject: Subject, debug: World, layer: Layer
) -> None:
    conclusion, experiments = run(subject, SELDOM, too_seldom(subject, SELDOM), debug=debug)
    assert conclusion.layer is layer, conclusion.why
    steady = "too seldom to tell" not in conclusion.why
    assert conclusion.why.startswith("in the debug build, where it fails each time: ") is steady
    assert steady or conclusion.layer is Layer.UNCLEAR
    assert not steady or experiments[: experiments.index(Experiment.DEBUG)] == [
        *(Experiment.AGAIN, Experiment.CONTROL, Experiment.AGAIN, Experiment.JIT_OFF, Experiment.STRESS)
    ]


def test_a_crash_that_stays_unclear_is_tried_in_the_debug_build_and_a_failure_is_not() -> None:
    world = {**BACKEND, Experiment.INTERPRETER: ABSENT}
    conclusion, experiments = run(NATIVE, world, debug=ASSERTS, crash=True)
    assert conclusion.layer is Layer.BACKEND
    assert experiments.index(Experiment.INTERPRETER) < experiments.index(Experiment.DEBUG)
    conclusion, experiments = run(NATIVE, world, debug={**ASSERTS, Experiment.DEBUG: PASSES}, crash=True)
    assert (conclusion.layer, experiments[-1]) == (Layer.UNCLEAR, Experiment.DEBUG)
    conclusion, experiments = run(NATIVE, world, debug=ASSERTS)
    assert (conclusion.layer, Experiment.DEBUG in experiments) == (Layer.UNCLEAR, False)


@pytest.mark.parametrize(
    "world",
    [
        {Experiment.AGAIN: FAILS},
        BACKEND,
        {**BACKEND, Experiment.AGAIN: 4, Experiment.STRESS: FAILS},
        {Experiment.AGAIN: PASSES},
        {Experiment.AGAIN: 3, Experiment.JIT_OFF: 5},
        {Experiment.AGAIN: FAILS, Experiment.CONTROL: FAILS},
    ],
)
def test_what_cheaper_experiments_settle_needs_no_debug_build(world: World) -> None:
    for seed in range(20):
        conclusion, experiments = run(NATIVE, world, seed, debug=ASSERTS, crash=True)
        assert Experiment.DEBUG not in experiments, conclusion


def test_the_debug_builds_ladder_is_counted_by_itself() -> None:
    tried = {
        Experiment.AGAIN: Count(failed=1, passed=39),
        Experiment.CONTROL: Count(passed=1),
        Experiment.JIT_OFF: Count(passed=100),
        Experiment.STRESS: Count(failed=1, passed=9),
    }
    assert step(NATIVE, tried) == Next(Experiment.DEBUG, REPEATS_FLAKY, debug=True)
    debug = {Experiment.DEBUG: Count(failed=10)}
    assert step(NATIVE, tried, debug) == Next(Experiment.JIT_OFF, 3, debug=True, together=True)
    debug[Experiment.JIT_OFF] = Count(passed=3)
    assert step(NATIVE, tried, debug) == Next(Experiment.OPTIMIZER_OFF, 3, debug=True, together=True)


@pytest.mark.parametrize("subject", [NATIVE, EMULATED, FREE])
@pytest.mark.parametrize("tenths", [1, 2, 3])
def test_what_fails_now_and_then_is_flaky_and_hardly_ever_anything_else(subject: Subject, tenths: int) -> None:
    layers = [run(subject, {Experiment.AGAIN: tenths}, seed)[0].layer for seed in range(200)]
    assert layers.count(Layer.FLAKY) >= 190
    assert len([layer for layer in layers if layer not in (Layer.FLAKY, Layer.UNCLEAR)]) <= 2


def test_the_experiments_that_need_a_build_come_last_and_only_if_needed() -> None:
    builds = {Experiment.NATIVE, Experiment.INTERPRETER, Experiment.OTHER_ARCH, Experiment.REFERENCE}
    _, experiments = run(EMULATED, BACKEND)
    assert experiments == [
        *(Experiment.AGAIN, Experiment.CONTROL, Experiment.JIT_OFF, Experiment.OPTIMIZER_OFF, Experiment.OTHER_CPU),
        *(Experiment.INTERPRETER, Experiment.OTHER_ARCH),
    ]
    _, experiments = run(NATIVE, {Experiment.AGAIN: FAILS})
    assert not builds & set(experiments)
    _, experiments = run(NATIVE, {Experiment.AGAIN: PASSES})
    assert set(experiments) == {Experiment.AGAIN, Experiment.CONTROL}


def test_a_test_that_always_fails_runs_few_times_and_one_that_does_at_times_many() -> None:
    first = step(NATIVE, {})
    assert first == Next(Experiment.AGAIN, REPEATS_STABLE)
    mixed = {Experiment.AGAIN: Count(failed=1, passed=4), Experiment.CONTROL: Count(passed=1)}
    assert step(NATIVE, mixed) == Next(Experiment.AGAIN, REPEATS_FLAKY - REPEATS_STABLE)
    steady = {Experiment.AGAIN: Count(failed=5), Experiment.CONTROL: Count(passed=1)}
    assert step(NATIVE, steady) == Next(Experiment.JIT_OFF, 4, together=True)


@pytest.mark.parametrize(
    ("again", "more", "passes"),
    [
        (Count(1, 9), 10, 100),
        (Count(3, 17), 20, 66 + 4),
        (Count(4, 6), 0, 19),
        (Count(8, 2), 0, 5),
        (Count(4, 36), 0, 84),
    ],
)
def test_how_often_it_runs_follows_from_how_often_it_fails(again: Count, more: int, passes: int) -> None:
    tried = {Experiment.AGAIN: again, Experiment.CONTROL: Count(passed=1)}
    then = step(NATIVE, tried)
    assert then == (Next(Experiment.AGAIN, more) if more else Next(Experiment.JIT_OFF, min(passes, REPEATS_FLAKY)))
    assert passes_wanted(again) == passes


def test_one_failure_settles_what_passes_would_take_long_to() -> None:
    tried = {Experiment.AGAIN: Count(4, 16), Experiment.CONTROL: Count(passed=1), Experiment.JIT_OFF: Count(1, 9)}
    conclusion = step(NATIVE, tried)
    assert isinstance(conclusion, Conclusion)
    assert (conclusion.layer, conclusion.why) == (Layer.FLAKY, "passes and fails with the JIT off as well")


def test_under_stress_the_rest_is_tried_under_stress() -> None:
    tried = {
        Experiment.AGAIN: Count(failed=1, passed=39),
        Experiment.CONTROL: Count(passed=1),
        Experiment.JIT_OFF: Count(passed=100),
        Experiment.STRESS: Count(failed=10),
    }
    assert step(NATIVE, tried) == Next(Experiment.OPTIMIZER_OFF, 3, stress=True, together=True)


def test_a_named_test_that_does_not_fail_is_not_called_flaky() -> None:
    tried = {Experiment.SEEN: Count(passed=1), Experiment.AGAIN: Count(passed=10), Experiment.CONTROL: Count(passed=1)}
    conclusion = step(NATIVE, tried)
    assert isinstance(conclusion, Conclusion)
    assert conclusion.layer is Layer.UNCLEAR
    assert "did not fail in 10 runs" in conclusion.why


# A race: threads that run at once make it fail, copies of it side by side starve it, the GIL cures it.
RACE = {Experiment.AGAIN: 8, Experiment.GIL_ON: PASSES}
FREE_WITH_DEBUG = replace(FREE, can=frozenset({Experiment.GIL_ON, Experiment.DEBUG}))


@pytest.mark.parametrize("tenths", [8, 6, 3, 2])
def test_a_race_is_told_however_often_it_fails_and_runs_alone(tenths: int) -> None:
    found = [
        run(FREE, {**RACE, Experiment.AGAIN: tenths}, seed, crash=True, beside=0.25)[0].layer for seed in range(200)
    ]
    assert found.count(Layer.FREE_THREADING) >= (196 if tenths > 2 else 160)
    flaky = found.count(Layer.FLAKY)  # none of the first ten failed: the test is gone for all that is known
    assert flaky <= (0 if tenths > 3 else 40)
    assert set(found) <= {Layer.FREE_THREADING, Layer.UNCLEAR, Layer.FLAKY}


def test_what_the_gil_cured_each_time_does_not_pass_and_fail_without_a_change() -> None:
    for seed in range(200):
        found, experiments = run(FREE, {**RACE, Experiment.AGAIN: 1}, seed)
        assert found.layer is not Layer.FLAKY or Experiment.GIL_ON not in experiments, found.why
    tried = {Experiment.AGAIN: Count(1, 39), Experiment.CONTROL: Count(passed=1), Experiment.GIL_ON: Count(passed=100)}
    conclusion = step(FREE, tried)
    assert isinstance(conclusion, Conclusion)
    assert (conclusion.layer, conclusion.why) == (
        Layer.UNCLEAR,
        "failed 1 of 40 without a change, and none of 100 with the GIL on: "
        "too seldom to tell, chance alone does that in 29% of cases",
    )


@pytest.mark.parametrize(
    ("debug", "layer"),
    [
        ({Experiment.DEBUG: 8, Experiment.GIL_ON: PASSES}, Layer.FREE_THREADING),
        ({Experiment.DEBUG: FAILS, Experiment.GIL_ON: PASSES}, Layer.FREE_THREADING),
        ({Experiment.DEBUG: 8, Experiment.GIL_ON: 5}, Layer.UNCLEAR),
        ({Experiment.DEBUG: PASSES}, Layer.UNCLEAR),
        ({Experiment.DEBUG: ABSENT}, Layer.UNCLEAR),
    ],
)
def test_a_race_that_is_too_rare_may_be_told_in_the_debug_build(debug: World, layer: Layer) -> None:
    rare = {**RACE, Experiment.AGAIN: 0.5}
    conclusion, experiments = run(FREE_WITH_DEBUG, rare, too_seldom(FREE, rare), debug=debug)
    assert (conclusion.layer, Experiment.DEBUG in experiments) == (layer, True)
    told = conclusion.why.startswith("in the debug build, where it fails ")
    assert told is (layer is Layer.FREE_THREADING)


def test_only_what_hardly_depends_on_timing_runs_side_by_side() -> None:
    control = {Experiment.CONTROL: Count(passed=1)}
    steady = Count(failed=5)

    def together(subject: Subject, again: Count) -> bool:
        then = step(subject, {Experiment.AGAIN: again, **control})
        assert isinstance(then, Next)
        assert then.experiment in (Experiment.JIT_OFF, Experiment.GIL_ON)
        return then.together

    assert together(NATIVE, steady)
    assert not together(NATIVE, replace(steady, crashed=1))
    assert not together(NATIVE, replace(steady, hung=1))
    assert not together(NATIVE, Count(8, 2))
    assert not together(FREE, steady)
    for tried in ({}, {Experiment.AGAIN: Count(1, 4), **control}):
        then = step(NATIVE, tried)
        assert isinstance(then, Next)
        assert (then.experiment, then.together) == (Experiment.AGAIN, False)


def hanging(subject: Subject, world: World) -> tuple[Conclusion, list[tuple[Experiment, int]]]:
    """Run the experiments for a test that hangs in all but the passing ones; return the runs."""
    tried: dict[Experiment, Count] = {Experiment.SEEN: Count(failed=1, hung=1)}
    runs: list[tuple[Experiment, int]] = []
    while isinstance(then := step(subject, tried), Next):
        runs.append((then.experiment, then.times))
        passes = then.experiment is Experiment.CONTROL or world.get(then.experiment) == PASSES
        count = Count(passed=then.times) if passes else Count(failed=then.times, hung=then.times)
        tried[then.experiment] = tried.get(then.experiment, Count()) + count
    return then, runs


def test_while_nobody_knows_what_a_pass_takes_a_hang_costs_one_run_a_rung() -> None:
    conclusion, runs = hanging(NATIVE, {})
    assert (conclusion.layer, runs) == (
        Layer.INTERPRETER,
        [(Experiment.AGAIN, 1), (Experiment.CONTROL, 1), (Experiment.JIT_OFF, 1)],
    )
    conclusion, runs = hanging(NATIVE, {**BACKEND, Experiment.AGAIN: FAILS})
    assert conclusion.layer is Layer.BACKEND
    assert runs[:6] == [
        *((Experiment.AGAIN, 1), (Experiment.CONTROL, 1), (Experiment.JIT_OFF, 1)),  # it passed: the rest is cheap
        *((Experiment.AGAIN, REPEATS_STABLE - 1), (Experiment.JIT_OFF, 3), (Experiment.OPTIMIZER_OFF, 4)),
    ]
    conclusion, runs = hanging(FREE, {Experiment.GIL_ON: PASSES})
    assert conclusion.layer is Layer.FREE_THREADING
    assert runs[-2:] == [(Experiment.AGAIN, REPEATS_STABLE - 1), (Experiment.GIL_ON, 3)]


def test_the_error_of_a_cure_is_below_what_is_accepted_for_every_failure_rate() -> None:
    """Exactly: the GIL changes nothing here, so each way through the rules to `free threading` is an error."""
    control = {Experiment.CONTROL: Count(passed=1)}
    for rate in (number / 100 for number in range(1, 100)):
        states, error = {Count(): 1.0}, 0.0
        while states:
            after: dict[Count, float] = {}
            for again, probability in states.items():
                then = step(FREE, {Experiment.SEEN: Count(failed=1), Experiment.AGAIN: again, **control})
                if isinstance(then, Next) and then.experiment is Experiment.AGAIN:
                    for failed in range(then.times + 1):
                        count = again + Count(failed, then.times - failed)
                        odds = comb(then.times, failed) * rate**failed * (1 - rate) ** (then.times - failed)
                        after[count] = after.get(count, 0.0) + probability * odds
                elif isinstance(then, Next):
                    error += probability * (1 - rate) ** cured_after(again)
            states = after
        assert error < CHANCE, rate


@functools.cache
def cured_after(again: Count) -> float:
    """Return after how many passes with the GIL on the rules say that it cures; infinity where they never do."""
    passes = 0
    while True:
        tried = {Experiment.AGAIN: again, Experiment.CONTROL: Count(passed=1), Experiment.GIL_ON: Count(passed=passes)}
        then = step(FREE, tried)
        if isinstance(then, Conclusion):
            return passes if then.layer is Layer.FREE_THREADING else math.inf
        assert then.experiment is Experiment.GIL_ON
        passes += then.times


def test_the_odds_of_chance_are_fishers() -> None:
    assert chance(Count(3, 0), Count(0, 3)) == pytest.approx(1 / 20)
    assert chance(Count(6, 4), Count(0, 10)) == pytest.approx(210 / 38760)
    assert chance(Count(2, 8), Count(2, 8)) > 0.5
    assert chance(Count(0, 10), Count(5, 5)) == pytest.approx(1.0)


WITH_DEBIAN = replace(NATIVE, can=NATIVE.can | {Experiment.DEBIAN})


@pytest.mark.parametrize(
    ("world", "layer"),
    [
        ({Experiment.JIT_OFF: PASSES, Experiment.INTERPRETER: PASSES, Experiment.OTHER_ARCH: PASSES}, Layer.BACKEND),
        ({Experiment.JIT_OFF: PASSES, Experiment.OPTIMIZER_OFF: PASSES}, Layer.OPTIMIZER),
        ({}, Layer.INTERPRETER),
    ],
)
@pytest.mark.parametrize(
    ("in_debian", "said"),
    [(FAILS, "; fails in Debian's build as well"), (PASSES, "; passes in Debian's build"), (ABSENT, "")],
)
def test_debians_build_comes_last_and_changes_no_layer(
    world: World, layer: Layer, in_debian: float | None, said: str
) -> None:
    rates = {Experiment.AGAIN: FAILS, **world}
    before, _ = run(NATIVE, rates)
    after, experiments = run(WITH_DEBIAN, {**rates, Experiment.DEBIAN: in_debian})
    assert after.layer is before.layer is layer
    assert after.why == f"{before.why}{said}"
    assert experiments[-1] is Experiment.DEBIAN
    assert experiments.count(Experiment.DEBIAN) == 1


def test_debians_build_is_not_asked_about_what_is_not_cpythons() -> None:
    for world in ({Experiment.CONTROL: FAILS}, {Experiment.AGAIN: 5, Experiment.JIT_OFF: 5}):
        _, experiments = run(WITH_DEBIAN, {Experiment.AGAIN: FAILS, **world})
        assert Experiment.DEBIAN not in experiments
