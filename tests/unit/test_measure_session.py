"""Which processes run, and what they give together: equal runs, equal libraries, and what is wrong with each."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from crossjit.errors import EngineError
from crossjit.measure import session
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.model import Result, Sample, Side, Trouble
from crossjit.measure.process import ProblemError, Process
from crossjit.measure.session import Job, Outcome
from crossjit.model import Arch, Cell
from crossjit.progress import SilentStep
from tests.unit.benchmarked import benchmark

CELL = Cell("3.15", Arch.AARCH64, "jit")
ON, OFF = (Side(CELL, "a" * 64, "3.15.0", jit) for jit in (True, False))
NOJIT = Side(Cell("3.15", Arch.AARCH64, "nojit"), "b" * 64, "3.15.0", jit=False)


def process(*totals: int, executors: int = 0, libraries: Sequence[str] = (), modules: Sequence[str] = ()) -> Process:
    sample = Sample(tuple({"python": total} for total in totals), executors=executors, code_bytes=4096 * executors)
    return Process((sample,), frozenset(libraries), frozenset(modules))


def together(
    found: Mapping[Side, Sequence[Process | ProblemError]], *, baseline: Side = OFF, one: Benchmark | None = None
) -> Result:
    one = one or benchmark("go")
    outcomes = [
        Outcome(Job(one, side, number), ended, 1.0) for side in found for number, ended in enumerate(found[side])
    ]
    (result,) = session.results([one], ON, baseline, outcomes)
    return result


def test_every_tenth_process_runs_twice() -> None:
    jobs = session.plan([benchmark(f"b{number}") for number in range(11)], (ON, OFF), repeat=1, seconds={})
    again = [(job.benchmark.name, job.side.jit) for job in jobs if job.repeat]
    assert len(jobs) == 22 + 3
    assert again == [("b0", True), ("b5", True), ("b10", True)]


def test_repeats_are_for_all_and_what_took_longest_begins() -> None:
    seconds = {"b1, JIT off": 9.0, "b0, JIT on": 5.0}
    jobs = session.plan([benchmark("b0"), benchmark("b1")], (ON, OFF), repeat=3, seconds=seconds)
    assert [job.key for job in jobs[::3]] == ["b1, JIT off", "b0, JIT on", "b0, JIT off", "b1, JIT on"]
    assert sorted(job.repeat for job in jobs) == [0] * 4 + [1] * 4 + [2] * 4


class RecordingStep(SilentStep):
    def __init__(self) -> None:
        self.seen: list[tuple[int | None, float | None]] = []

    def update(
        self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
    ) -> None:
        self.seen.append((done, left))


def test_as_many_run_at_a_time_as_there_are_cores() -> None:
    both = threading.Barrier(2, timeout=10)

    def run(one: Benchmark) -> Process:
        both.wait()  # never passes with one thread
        if one.name == "bad":
            raise ProblemError("it forked")
        return process(1, 1)

    step = RecordingStep()
    jobs = [Job(benchmark("good"), ON), Job(benchmark("bad"), OFF)]
    with ThreadPoolExecutor(2) as pool:
        outcomes = session.run(jobs, {ON: run, OFF: run}, pool, step)
    ended = {outcome.job.benchmark.name: outcome.ended for outcome in outcomes}
    assert ended["good"] == process(1, 1)
    assert isinstance(ended["bad"], ProblemError)
    assert [done for done, _ in step.seen] == [0, 1, 2]
    assert step.seen[-1][1] == 0.0


def test_an_error_of_the_engine_ends_it_all() -> None:
    began: list[str] = []

    def run(one: Benchmark) -> Process:
        began.append(one.name)
        raise EngineError("the engine is gone")

    jobs = [Job(benchmark(f"b{number}"), ON) for number in range(50)]
    with ThreadPoolExecutor(1) as pool, pytest.raises(EngineError):
        session.run(jobs, {ON: run}, pool, SilentStep())
    assert len(began) < 50


def test_time_left_is_by_recorded_times() -> None:
    jobs = [Job(benchmark(name), ON) for name in ("short", "long", "new")]
    known = {"short, JIT on": 1.0, "long, JIT on": 9.0}
    assert session._left(jobs, jobs[:1], known, elapsed=2.0) == 2.0 * (9.0 + 5.0)
    assert session._left(jobs, jobs, known, elapsed=20.0) == 0.0


def test_a_result() -> None:
    assert together({ON: [process(5, 3)], OFF: [process(4, 4)]}) == Result(
        "go", "go", Sample(({"python": 5}, {"python": 3})), Sample(({"python": 4}, {"python": 4}))
    )


def test_equal_runs_are_counted() -> None:
    result = together({ON: [process(5, 3)] * 2, OFF: [process(4, 4)]})
    assert result.measured
    assert result.baseline
    assert (result.measured.runs, result.baseline.runs) == (2, 1)


@pytest.mark.parametrize(
    ("second", "how"),
    [
        (process(5_000, 3_001), "call 2 has 3,000 and 3,001 instructions (python 3,000 and 3,001)"),
        (process(5_000, 3_000, executors=1), "0 and 1 executors with machine code, of 0 and 4,096 bytes"),
        (process(5_000, 3_000, modules=["math"]), "they loaded different libraries or extension modules"),
    ],
)
def test_runs_that_differ(second: Process, how: str) -> None:
    result = together({ON: [process(5_000, 3_000), second], OFF: [process(4, 4)]})
    assert (result.measured, result.trouble) == (None, Trouble.UNRELIABLE)
    assert result.problem == f"3.15/aarch64/jit, JIT on: two runs differ: {how}"


def test_sides_that_load_different_things() -> None:
    on = process(1, 1, libraries=["libc.so.6", "libmpdec.so.4"])
    result = together({ON: [on], NOJIT: [process(1, 1, libraries=["libc.so.6"])]}, baseline=NOJIT)
    assert result.trouble is Trouble.UNRELIABLE
    assert result.problem == "the sides have different libraries: only the measured side loaded libmpdec.so.4"
    on = process(1, 1, modules=["_decimal"])
    result = together({ON: [on], OFF: [process(1, 1, modules=["_random", "math"])]})
    assert result.problem == (
        "the sides have different extension modules: only the measured side loaded _decimal; "
        "only the baseline loaded _random, math"
    )


def test_a_benchmark_that_fails_in_one_build_is_named_with_all_its_results() -> None:
    one = benchmark("logging", results=("logging_a", "logging_b"))
    error = ProblemError("exit status 1: boom", Trouble.FAILED)
    outcomes = [Outcome(Job(one, ON), error, 1.0), Outcome(Job(one, OFF), process(1, 1), 1.0)]
    problem = "3.15/aarch64/jit, JIT on: exit status 1: boom"
    assert list(session.results([one], ON, OFF, outcomes)) == [
        Result("logging_a", "logging", trouble=Trouble.FAILED, problem=problem),
        Result("logging_b", "logging", trouble=Trouble.FAILED, problem=problem),
    ]
