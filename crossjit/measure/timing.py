"""Timing benchmarks natively with pyperf: two sides in turn, one worker process at a time.

Both sides have the same number of workers, values, warm-ups and loops. pyperf's manager would choose them for each
side, and more with the JIT on, so its workers are started here. The two workers of a pair have the same hash seed.
"""

from __future__ import annotations

import json
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from crossjit.channels import MalformedError
from crossjit.channels.timing import WorkerDocument, read_worker
from crossjit.engine.base import Container
from crossjit.errors import InfrastructureError
from crossjit.measure import times
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.meter import LAST_LINES, problem_of
from crossjit.measure.model import Result, Sample, Side
from crossjit.measure.process import ENVIRONMENT, LAUNCH, ProblemError, failure, read_facts, require_jit, script_of
from crossjit.util.text import pluralize
from crossjit.validation.target import HOME, PYTHON

WORKERS = 6  # of each side
VALUES = 5  # of each worker
WARM_UPS = 3  # values before these; of MIN_TIME each, which is enough for the JIT
MIN_TIME = 0.1  # seconds that a value takes at least, as in pyperf
SECONDS = 600.0  # of one worker, at most
NOISE_BENCHMARKS = 3  # are timed in the baseline against itself, before all others
SCHEDULE = ((0, 1), (1, 0))  # which side is first, in pairs of workers


@dataclass(frozen=True)
class Worker:
    """What one worker process measured. `document` is pyperf's JSON."""

    document: str
    values: tuple[float, ...]
    loops: int
    executors: int
    code_bytes: int
    loaded: tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class Bench:
    """A container with a build that benchmarks are timed in, with the JIT on or off."""

    container: Container
    side: Side
    python: str = PYTHON

    def run(self, benchmark: Benchmark, number: int, seed: int, loops: int | None = None) -> Worker:
        """Time one of a benchmark's results in a process of its own; without `loops`, only find out how many.

        Raises ProblemError if it fails or the JIT is not as it was asked for, EngineErrors.
        """
        fixed = (f"--loops={loops}", f"--warmups={WARM_UPS}", f"--values={VALUES}")
        options = fixed if loops else ("--calibrate-loops", f"--min-time={MIN_TIME}", "--warmups=1", "--values=1")
        order = {
            "script": script_of(benchmark),
            "arguments": [*benchmark.arguments, "--quiet", "--worker", f"--worker-task={number}", *options],
            "replaced": benchmark.replaced,
            "timed": f"{HOME}/{secrets.token_hex(8)}.json",
        }
        lines: deque[str] = deque(maxlen=LAST_LINES)
        completed = self.container.run(
            (self.python, LAUNCH, json.dumps(order)),
            env={**ENVIRONMENT, "PYTHONHASHSEED": str(seed), "PYTHON_JIT": str(int(self.side.jit))},
            on_line=lines.append,
            timeout=SECONDS,
        )
        if completed.returncode:
            raise failure(problem_of(completed, SECONDS), tuple(lines))
        return self._worker(tuple(lines), expected=VALUES if loops else 0)

    def _worker(self, output: Sequence[str], *, expected: int) -> Worker:
        facts = read_facts(output)
        require_jit(facts, jit=self.side.jit)
        try:
            found: WorkerDocument = read_worker(facts.timed)
        except MalformedError as error:
            raise ProblemError(f"pyperf's output cannot be read: {error}") from error
        if len(found.values) != expected or not all(found.values):
            raise ProblemError(f"pyperf measured {pluralize(len(found.values), 'value')}, expected {expected}")
        return Worker(
            document=facts.timed,
            values=found.values,
            loops=found.metadata.loops,
            executors=facts.executors,
            code_bytes=facts.bytes,
            loaded=(frozenset(facts.libraries), frozenset(facts.extension_modules)),
        )


@dataclass(frozen=True)
class Timed:
    """A result, and pyperf's documents of its workers on the measured side and on the baseline."""

    result: Result
    documents: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


Tick = Callable[[str], None]
"""Is called with the benchmark's name after each worker."""


def noise(baseline: Bench, benchmarks: Sequence[Benchmark], tick: Tick, workers: int = WORKERS) -> float:
    """Return the machine's noise, measured in one build against itself.

    Raises InfrastructureError if all of these benchmarks fail, EngineErrors.
    """
    found = [time(benchmark, 0, baseline, baseline, tick, workers).result for benchmark in benchmarks]
    pairs = [(each.baseline.times, each.measured.times) for each in found if each.measured and each.baseline]
    if not pairs:
        raise InfrastructureError(
            f"the machine's noise cannot be measured: {found[0].problem}", hint="choose other benchmarks with --only"
        )
    return times.noise(pairs)


def time(
    benchmark: Benchmark, number: int, measured: Bench, baseline: Bench, tick: Tick, workers: int = WORKERS
) -> Timed:
    """Time one of a benchmark's results on both sides. A failure is part of the result. Raises EngineErrors."""
    name = benchmark.results[number]
    sides = (measured, baseline)
    done: tuple[list[Worker], list[Worker]] = ([], [])
    try:
        loops = baseline.run(benchmark, number, 0).loops
        tick(name)
        for seed in range(1, workers + 1):
            for index in SCHEDULE[seed % 2]:
                done[index].append(sides[index].run(benchmark, number, seed, loops))
                tick(name)
        _require_equal(done[0], done[1])
    except ProblemError as error:
        return Timed(Result(name, benchmark.name, trouble=error.trouble, problem=error.message))
    samples = [
        Sample(
            times=tuple(median(worker.values) for worker in found),
            executors=max(worker.executors for worker in found),
            code_bytes=max(worker.code_bytes for worker in found),
        )
        for found in done
    ]
    documents = tuple(tuple(worker.document for worker in found) for found in done)
    return Timed(Result(name, benchmark.name, samples[0], samples[1]), (documents[0], documents[1]))


def _require_equal(measured: Sequence[Worker], baseline: Sequence[Worker]) -> None:
    """Raise ProblemError if workers loaded different libraries or extension modules."""
    if len({worker.loaded for worker in (*measured, *baseline)}) > 1:
        raise ProblemError("its processes did not all load the same libraries and extension modules")
