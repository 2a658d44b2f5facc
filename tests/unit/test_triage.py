from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest

from crossjit.model import Arch
from crossjit.triage import FEW, MANY, STEADY, Conclusion, Count, Layer, Next, Rung, Subject, chance, step

JIT_RUNGS = {Rung.JIT_OFF, Rung.STRESS, Rung.OPTIMIZER_OFF, Rung.INTERPRETER, Rung.DEBUG, Rung.OTHER_ARCH}
NATIVE = Subject(Arch.X86_64, jit=True, free_threaded=False, emulated=False, can=frozenset(JIT_RUNGS))
EMULATED = replace(
    NATIVE, arch=Arch.AARCH64, emulated=True, can=frozenset({*JIT_RUNGS, Rung.OTHER_CPU, Rung.NATIVE, Rung.REFERENCE})
)
FREE = Subject(Arch.X86_64, jit=False, free_threaded=True, emulated=False, can=frozenset({Rung.GIL_ON}))

# How a test ends on each rung: how often of ten it fails; None where it does not run. What is not named is as AGAIN.
World = Mapping[Rung, int | None]

FAILS, PASSES, ABSENT = 10, 0, None


def climb(
    subject: Subject, world: World, seed: int = 0, *, debug: World | None = None, crash: bool = False
) -> tuple[Conclusion, list[Rung]]:
    """Let a test of this kind climb; return the conclusion and the rungs that it took.

    In `debug` is how it ends on the rungs of the debug build, by default as on that rung; `crash` is how it fails.
    """
    chances = random.Random(seed)
    tried: dict[Rung, Count] = {Rung.SEEN: Count(failed=1)}
    in_debug: dict[Rung, Count] = {}
    rungs: list[Rung] = []
    for _ in range(20):
        then = step(subject, tried, in_debug)
        if isinstance(then, Conclusion):
            return then, rungs
        rungs.append(then.rung)
        tenths = world.get(then.rung, world[Rung.AGAIN])
        if then.debug:
            tenths = (debug or {}).get(then.rung, (debug or {}).get(Rung.DEBUG, world[Rung.AGAIN]))
        if then.rung is Rung.CONTROL:
            tenths = world.get(Rung.CONTROL, PASSES)
        count = Count()
        for _ in range(then.times):
            fails = tenths is not None and chances.random() * 10 < tenths
            crashed = int(fails and crash)
            count += Count(absent=1) if tenths is None else Count(int(fails), int(not fails), crashed=crashed)
        counts = in_debug if then.debug else tried
        counts[then.rung] = counts.get(then.rung, Count()) + count
    raise AssertionError(f"no end: {rungs}")


BACKEND = {Rung.AGAIN: FAILS, Rung.JIT_OFF: PASSES, Rung.INTERPRETER: PASSES, Rung.OTHER_ARCH: PASSES}


@pytest.mark.parametrize(
    ("subject", "world", "layer"),
    [
        (NATIVE, BACKEND, Layer.BACKEND),
        (EMULATED, BACKEND, Layer.BACKEND),
        (EMULATED, {**BACKEND, Rung.OPTIMIZER_OFF: PASSES}, Layer.BACKEND),
        (NATIVE, {**BACKEND, Rung.JIT_OFF: ABSENT}, Layer.BACKEND),
        (NATIVE, {**BACKEND, Rung.OTHER_ARCH: FAILS}, Layer.JIT),
        (EMULATED, {**BACKEND, Rung.OTHER_ARCH: FAILS}, Layer.JIT),
        (NATIVE, {**BACKEND, Rung.OTHER_ARCH: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**BACKEND, Rung.INTERPRETER: ABSENT}, Layer.UNCLEAR),
        (EMULATED, {**BACKEND, Rung.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (NATIVE, {Rung.AGAIN: FAILS, Rung.JIT_OFF: PASSES, Rung.OPTIMIZER_OFF: PASSES}, Layer.OPTIMIZER),
        (NATIVE, {Rung.AGAIN: FAILS, Rung.JIT_OFF: PASSES}, Layer.OPTIMIZER),
        (NATIVE, {Rung.AGAIN: FAILS, Rung.JIT_OFF: ABSENT}, Layer.OPTIMIZER),
        (NATIVE, {Rung.AGAIN: FAILS}, Layer.INTERPRETER),
        (EMULATED, {Rung.AGAIN: FAILS}, Layer.INTERPRETER),
        (EMULATED, {Rung.AGAIN: FAILS, Rung.NATIVE: PASSES, Rung.REFERENCE: PASSES}, Layer.INTERPRETER),
        (EMULATED, {Rung.AGAIN: FAILS, Rung.NATIVE: PASSES, Rung.REFERENCE: FAILS}, Layer.EMULATOR),
        (EMULATED, {Rung.AGAIN: FAILS, Rung.NATIVE: PASSES, Rung.REFERENCE: ABSENT}, Layer.EMULATOR),
        (EMULATED, {Rung.AGAIN: FAILS, Rung.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (EMULATED, {Rung.AGAIN: FAILS, Rung.NATIVE: ABSENT}, Layer.UNCLEAR),
        (FREE, {Rung.AGAIN: FAILS, Rung.GIL_ON: PASSES}, Layer.FREE_THREADING),
        (FREE, {Rung.AGAIN: 7, Rung.GIL_ON: PASSES}, Layer.FREE_THREADING),
        (FREE, {Rung.AGAIN: FAILS}, Layer.INTERPRETER),
        (FREE, {Rung.AGAIN: FAILS, Rung.GIL_ON: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {Rung.AGAIN: FAILS, Rung.CONTROL: FAILS}, Layer.ENVIRONMENT),
        (NATIVE, {Rung.AGAIN: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**BACKEND, Rung.AGAIN: 4, Rung.STRESS: FAILS}, Layer.BACKEND),
    ],
)
def test_each_kind_of_defect_is_told(subject: Subject, world: World, layer: Layer) -> None:
    conclusion, _ = climb(subject, world)
    assert conclusion.layer is layer, conclusion.why
    assert conclusion.why


# With the JIT it fails at times, too seldom to be told from chance, and without it never; stress makes no difference.
SELDOM = {Rung.AGAIN: 3, Rung.JIT_OFF: PASSES, Rung.STRESS: 3}
ASSERTS = {Rung.DEBUG: FAILS, Rung.JIT_OFF: PASSES, Rung.INTERPRETER: PASSES, Rung.OTHER_ARCH: PASSES}


@pytest.mark.parametrize(
    ("subject", "debug", "layer"),
    [
        (NATIVE, ASSERTS, Layer.BACKEND),
        (EMULATED, ASSERTS, Layer.BACKEND),
        (NATIVE, {**ASSERTS, Rung.JIT_OFF: ABSENT}, Layer.BACKEND),
        (NATIVE, {**ASSERTS, Rung.OTHER_ARCH: FAILS}, Layer.JIT),
        (NATIVE, {**ASSERTS, Rung.INTERPRETER: FAILS}, Layer.OPTIMIZER),
        (EMULATED, {**ASSERTS, Rung.OTHER_CPU: PASSES}, Layer.EMULATOR),
        (NATIVE, {**ASSERTS, Rung.INTERPRETER: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Rung.OTHER_ARCH: ABSENT}, Layer.UNCLEAR),
        (NATIVE, {**ASSERTS, Rung.JIT_OFF: FAILS}, Layer.FLAKY),
        (NATIVE, {**ASSERTS, Rung.JIT_OFF: 3}, Layer.FLAKY),
        (NATIVE, {**ASSERTS, Rung.DEBUG: 8}, Layer.FLAKY),
        (NATIVE, {**ASSERTS, Rung.DEBUG: PASSES}, Layer.FLAKY),
        (NATIVE, {**ASSERTS, Rung.DEBUG: ABSENT}, Layer.FLAKY),
        (replace(NATIVE, can=NATIVE.can - {Rung.DEBUG}), ASSERTS, Layer.FLAKY),
    ],
)
def test_what_fails_at_times_with_the_jit_may_be_told_in_the_debug_build(
    subject: Subject, debug: World, layer: Layer
) -> None:
    conclusion, rungs = climb(subject, SELDOM, 2, debug=debug)
    assert conclusion.layer is layer, conclusion.why
    steady = layer is not Layer.FLAKY
    assert conclusion.why.startswith("in the debug build, where it fails each time: ") is steady
    assert not steady or rungs[: rungs.index(Rung.DEBUG)] == [
        *(Rung.AGAIN, Rung.CONTROL, Rung.AGAIN, Rung.JIT_OFF, Rung.STRESS)
    ]


def test_a_crash_that_stays_unclear_is_tried_in_the_debug_build_and_a_failure_is_not() -> None:
    world = {**BACKEND, Rung.INTERPRETER: ABSENT}
    conclusion, rungs = climb(NATIVE, world, debug=ASSERTS, crash=True)
    assert conclusion.layer is Layer.BACKEND
    assert rungs.index(Rung.INTERPRETER) < rungs.index(Rung.DEBUG)
    conclusion, rungs = climb(NATIVE, world, debug={**ASSERTS, Rung.DEBUG: PASSES}, crash=True)
    assert (conclusion.layer, rungs[-1]) == (Layer.UNCLEAR, Rung.DEBUG)
    conclusion, rungs = climb(NATIVE, world, debug=ASSERTS)
    assert (conclusion.layer, Rung.DEBUG in rungs) == (Layer.UNCLEAR, False)


@pytest.mark.parametrize(
    "world",
    [
        {Rung.AGAIN: FAILS},
        BACKEND,
        {**BACKEND, Rung.AGAIN: 4, Rung.STRESS: FAILS},
        {Rung.AGAIN: PASSES},
        {Rung.AGAIN: 3, Rung.JIT_OFF: 5},
        {Rung.AGAIN: FAILS, Rung.CONTROL: FAILS},
    ],
)
def test_what_cheaper_rungs_settle_needs_no_debug_build(world: World) -> None:
    for seed in range(20):
        conclusion, rungs = climb(NATIVE, world, seed, debug=ASSERTS, crash=True)
        assert Rung.DEBUG not in rungs, conclusion


def test_the_debug_builds_ladder_is_counted_by_itself() -> None:
    tried = {
        Rung.AGAIN: Count(failed=3, passed=7),
        Rung.CONTROL: Count(passed=1),
        Rung.JIT_OFF: Count(passed=10),
        Rung.STRESS: Count(failed=3, passed=7),
    }
    assert step(NATIVE, tried) == Next(Rung.DEBUG, MANY, debug=True)
    debug = {Rung.DEBUG: Count(failed=10)}
    assert step(NATIVE, tried, debug) == Next(Rung.JIT_OFF, MANY, debug=True)
    debug[Rung.JIT_OFF] = Count(passed=10)
    assert step(NATIVE, tried, debug) == Next(Rung.OPTIMIZER_OFF, FEW, debug=True)


@pytest.mark.parametrize("subject", [NATIVE, EMULATED, FREE])
@pytest.mark.parametrize("tenths", [1, 2, 3])
def test_what_fails_now_and_then_is_flaky_and_hardly_ever_anything_else(subject: Subject, tenths: int) -> None:
    layers = [climb(subject, {Rung.AGAIN: tenths}, seed)[0].layer for seed in range(200)]
    assert layers.count(Layer.FLAKY) >= 190
    assert len([layer for layer in layers if layer not in (Layer.FLAKY, Layer.UNCLEAR)]) <= 2


def test_the_rungs_that_need_a_build_come_last_and_only_if_needed() -> None:
    builds = {Rung.NATIVE, Rung.INTERPRETER, Rung.OTHER_ARCH, Rung.REFERENCE}
    _, rungs = climb(EMULATED, BACKEND)
    assert rungs == [
        *(Rung.AGAIN, Rung.CONTROL, Rung.JIT_OFF, Rung.OPTIMIZER_OFF, Rung.OTHER_CPU),
        *(Rung.INTERPRETER, Rung.OTHER_ARCH),
    ]
    _, rungs = climb(NATIVE, {Rung.AGAIN: FAILS})
    assert not builds & set(rungs)
    _, rungs = climb(NATIVE, {Rung.AGAIN: PASSES})
    assert set(rungs) == {Rung.AGAIN, Rung.CONTROL}


def test_a_test_that_always_fails_runs_few_times_and_one_that_does_at_times_many() -> None:
    first = step(NATIVE, {})
    assert first == Next(Rung.AGAIN, STEADY)
    mixed = {Rung.AGAIN: Count(failed=1, passed=4), Rung.CONTROL: Count(passed=1)}
    assert step(NATIVE, mixed) == Next(Rung.AGAIN, MANY - STEADY)
    steady = {Rung.AGAIN: Count(failed=5), Rung.CONTROL: Count(passed=1)}
    assert step(NATIVE, steady) == Next(Rung.JIT_OFF, FEW)


def test_under_stress_the_rest_is_tried_under_stress() -> None:
    tried = {
        Rung.AGAIN: Count(failed=3, passed=7),
        Rung.CONTROL: Count(passed=1),
        Rung.JIT_OFF: Count(passed=10),
        Rung.STRESS: Count(failed=10),
    }
    assert step(NATIVE, tried) == Next(Rung.OPTIMIZER_OFF, FEW, stress=True)


def test_a_named_test_that_does_not_fail_is_not_called_flaky() -> None:
    tried = {Rung.SEEN: Count(passed=1), Rung.AGAIN: Count(passed=10), Rung.CONTROL: Count(passed=1)}
    conclusion = step(NATIVE, tried)
    assert isinstance(conclusion, Conclusion)
    assert conclusion.layer is Layer.UNCLEAR
    assert "did not fail in 10 runs" in conclusion.why


def test_the_odds_of_chance_are_fishers() -> None:
    assert chance(Count(3, 0), Count(0, 3)) == pytest.approx(1 / 20)
    assert chance(Count(6, 4), Count(0, 10)) == pytest.approx(210 / 38760)
    assert chance(Count(2, 8), Count(2, 8)) > 0.5
    assert chance(Count(0, 10), Count(5, 5)) == pytest.approx(1.0)
