"""The processes of a cell's benchmarks: in which order, how many at a time, and what they give together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.model import Result, Side
from crossjit.measure.process import ProblemError, Process
from crossjit.progress import Step
from crossjit.util.text import join_words

AGAIN = 10  # every tenth process runs twice

T = TypeVar("T")  # what a process gives


@dataclass(frozen=True)
class Job:
    """A process to run: a benchmark on one side, for the first time or again."""

    benchmark: Benchmark
    side: Side
    repeat: int = 0

    @property
    def key(self) -> str:
        """The name that its time is recorded under."""
        return f"{self.benchmark.name}, JIT {'on' if self.side.jit else 'off'}"


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of a job."""

    job: Job
    ended: T | ProblemError
    seconds: float


def plan(
    benchmarks: Sequence[Benchmark], sides: Sequence[Side], *, repeat: int, seconds: Mapping[str, float]
) -> tuple[Job, ...]:
    """Return the jobs, those first that took longest. Each process runs `repeat` times, and every tenth at least twice.

    `seconds` are recorded times by the jobs' keys.
    """
    once = [Job(benchmark, side) for benchmark in benchmarks for side in sides]
    jobs = [
        replace(job, repeat=number)
        for index, job in enumerate(once)
        for number in range(max(repeat, 2 if index % AGAIN == 0 else 1))
    ]
    return tuple(sorted(jobs, key=lambda job: -seconds.get(job.key, 0.0)))


def run(
    jobs: Sequence[Job],
    runs: Mapping[Side, Callable[[Benchmark], T]],
    pool: ThreadPoolExecutor,
    step: Step,
    known: Mapping[str, float] | None = None,
) -> tuple[Outcome[T], ...]:
    """Run all jobs in a pool of threads, and show the progress. Raises EngineErrors; what has not begun is then left.

    `runs` has what runs a benchmark on each side; it raises ProblemError for one that gives nothing. `known` are
    recorded times, for the estimate of the time left.
    """
    began = time.monotonic()
    outcomes: list[Outcome[T]] = []
    futures: list[Future[Outcome[T]]] = [pool.submit(_run, job, runs[job.side]) for job in jobs]
    step.update(done=0, total=len(jobs))
    try:
        for future in as_completed(futures):
            outcomes.append(future.result())
            done = [outcome.job for outcome in outcomes]
            left = _left(jobs, done, known or {}, time.monotonic() - began)
            step.update(done=len(done), detail=done[-1].benchmark.name, left=left)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return tuple(outcomes)


def results(
    benchmarks: Sequence[Benchmark], measured: Side, baseline: Side, outcomes: Sequence[Outcome[Process]]
) -> Iterator[Result]:
    """Put the outcomes of all jobs together: a result for each name that a benchmark measures. Pure."""
    for benchmark in benchmarks:
        own = sorted(
            (outcome for outcome in outcomes if outcome.job.benchmark.name == benchmark.name),
            key=lambda outcome: outcome.job.repeat,
        )
        try:
            sides = [_agreed(side, [each for each in own if each.job.side == side]) for side in (measured, baseline)]
            _require_same_libraries(*sides)
        except ProblemError as error:
            for name in benchmark.results:
                yield Result(name, benchmark.name, trouble=error.trouble, problem=error.message)
            continue
        for name, with_jit, without in zip(benchmark.results, sides[0].samples, sides[1].samples, strict=True):
            yield Result(name, benchmark.name, with_jit, without)


def _run(job: Job, run: Callable[[Benchmark], T]) -> Outcome[T]:
    began = time.monotonic()
    ended: T | ProblemError
    try:
        ended = run(job.benchmark)
    except ProblemError as error:
        ended = error
    return Outcome(job, ended, time.monotonic() - began)


def _left(jobs: Sequence[Job], done: Sequence[Job], known: Mapping[str, float], elapsed: float) -> float | None:
    """Estimate the remaining seconds, from recorded times and the pace so far; None if unknown."""
    usual = sum(known.values()) / len(known) if known else 1.0
    total, finished = (sum(known.get(job.key, usual) for job in some) for some in (jobs, done))
    return elapsed * (total - finished) / finished if finished else None


def _agreed(side: Side, outcomes: Sequence[Outcome[Process]]) -> Process:
    """Return what all runs on a side gave. Raises ProblemError if one failed, or they are not equal."""
    processes: list[Process] = []
    for outcome in outcomes:
        if isinstance(outcome.ended, ProblemError):
            raise ProblemError(f"{side}: {outcome.ended.message}", outcome.ended.trouble)
        processes.append(outcome.ended)
    first = processes[0]
    for other in processes[1:]:
        if first != other:
            raise ProblemError(f"{side}: two runs differ: {_difference(first, other)}")
    return replace(first, samples=tuple(replace(sample, runs=len(processes)) for sample in first.samples))


def _difference(first: Process, second: Process) -> str:
    """Say where two runs differ for the first time."""
    for one, other in zip(first.samples, second.samples, strict=True):
        for number, (before, after) in enumerate(zip(one.calls, other.calls, strict=True), 1):
            if before != after:
                names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
                counts = [sum(calls.values()) for calls in (before, after)]
                where = join_words([f"{name} {before.get(name, 0):,} and {after.get(name, 0):,}" for name in names[:3]])
                return f"call {number} has {counts[0]:,} and {counts[1]:,} instructions ({where})"
        if one != other:
            return (
                f"{one.executors} and {other.executors} executors with machine code, "
                f"of {one.code_bytes:,} and {other.code_bytes:,} bytes"
            )
    return "they loaded different libraries or extension modules"


def _require_same_libraries(measured: Process, baseline: Process) -> None:
    """Raise ProblemError if two sides did not load the same libraries and extension modules."""
    for what, one, other in (
        ("libraries", measured.libraries, baseline.libraries),
        ("extension modules", measured.extension_modules, baseline.extension_modules),
    ):
        if one != other:
            only = [
                f"only {side} loaded {', '.join(sorted(names))}"
                for side, names in (("the measured side", one - other), ("the baseline", other - one))
                if names
            ]
            raise ProblemError(f"the sides have different {what}: {'; '.join(only)}")
