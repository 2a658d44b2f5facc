"""One process under the meter: a benchmark of the table on one side of a comparison."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crossjit.channels import BenchmarkFacts, MalformedError, Op, read
from crossjit.engine.base import Container
from crossjit.errors import CrossjitError
from crossjit.images.spec import METER
from crossjit.measure import meter, packages
from crossjit.measure.benchmarks import Benchmark, Origin
from crossjit.measure.marks import Mark, Window, windows
from crossjit.measure.meter import Meter
from crossjit.measure.model import Counts, Sample, Trouble
from crossjit.util.tar import packed
from crossjit.util.text import one_line, pluralize, shortened

SECONDS = 1800.0  # of one process, at most: the slowest take some 30 on an idle core
CALIBRATION = 0  # the label of empty windows, as in meter/pyperf.py
# Not the meter's own folder: importing reads the whole folder of a script, and there each run adds a file.
SCRIPTS = "/usr/local/libexec/meter"
LAUNCH = f"{SCRIPTS}/launch.py"
ENVIRONMENT = {"PYTHONPATH": packages.FOLDER, "PYTHONDONTWRITEBYTECODE": "1"}  # of everything that LAUNCH runs
FACTS = "facts "
REASON = 300  # characters of a failure's reason


class ProblemError(CrossjitError):
    """A benchmark could not be measured; the others go on."""

    def __init__(
        self,
        message: str,
        trouble: Trouble = Trouble.UNRELIABLE,
        *,
        hint: str = "",
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.trouble = trouble


@dataclass(frozen=True)
class Process:
    """What one process gave: a sample for each of the benchmark's results, and what it had loaded."""

    samples: tuple[Sample, ...]
    libraries: frozenset[str] = frozenset()
    extension_modules: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where the benchmarks of one side run: a container with the build, and its meter. `jit` is what is asked for."""

    container: Container
    meter: Meter
    jit: bool

    def run(self, benchmark: Benchmark) -> Process:
        """Run a benchmark. Raises ProblemError if it fails or counts the wrong things, EngineErrors."""
        metered = meter.run(
            self.meter, self.container, command(benchmark), jit=self.jit, timeout=SECONDS, env=ENVIRONMENT
        )
        if metered.problem:
            raise failure(metered.problem, metered.output)
        facts = read_facts(metered.output)
        require_evidence(benchmark, facts, metered.marks, jit=self.jit)
        return Process(
            samples=samples(benchmark, facts, metered.marks),
            libraries=frozenset(facts.libraries),
            extension_modules=frozenset(facts.extension_modules),
        )


def command(benchmark: Benchmark, **more: str) -> tuple[str, str]:
    """Return Python's arguments that run a benchmark between markers; `more` are other keys of the launcher's order."""
    order = {
        "script": script_of(benchmark),
        "arguments": benchmark.arguments,
        "calls": benchmark.calls,
        "loops": benchmark.loops,
        "replaced": benchmark.replaced,
        **more,
    }
    return LAUNCH, json.dumps(order)


def failure(problem: str, output: Sequence[str]) -> ProblemError:
    """Return the error of a process that failed, with the last line of its output."""
    last = next((line for line in reversed(output) if line.strip()), "")
    return ProblemError(shortened(one_line(f"{problem}: {last}" if last else problem), REASON), Trouble.FAILED)


def script_of(benchmark: Benchmark) -> str:
    """Return the path of a benchmark's script in a container."""
    match benchmark.origin:
        case Origin.METER:
            return f"{SCRIPTS}/{benchmark.script}.py"
        case Origin.EDGES:
            return f"{SCRIPTS}/edges/{benchmark.script}.py"
    return f"{packages.FOLDER}/{packages.BENCHMARKS}/bm_{benchmark.script}/run_benchmark.py"


def install(container: Container, contents: Mapping[str, bytes]) -> None:
    """Install the packages' files, our own benchmarks, and what runs them in a container."""
    paths = sorted(METER.glob("**/*.py"))
    scripts = {f"{SCRIPTS}/{path.relative_to(METER)}": path.read_bytes() for path in paths}
    container.put(packed({**contents, **scripts}), "/")


def samples(benchmark: Benchmark, facts: BenchmarkFacts, marks: Sequence[Mark]) -> tuple[Sample, ...]:
    """Return what a benchmark's calls counted, for each of its results. Raises ProblemError. Pure."""
    calls: dict[int, list[Counts]] = {}
    overhead: Counts = {}
    for window in windows(marks):
        counts = [pair.counts for pair in pairs(benchmark, window)]
        if window.label == CALIBRATION:
            overhead = counts[-1]
            continue
        calls.setdefault(window.label, []).append(added(counts, overhead))
    found = tuple(tuple(calls.get(label, ())) for label in range(1, len(benchmark.results) + 1))
    if any(len(counts) != benchmark.calls for counts in found):
        raise ProblemError(f"it has {[len(counts) for counts in found]} calls, expected {benchmark.calls} of each")
    if not all(counts for calls_of_one in found for counts in calls_of_one):
        raise ProblemError("one of its calls has no instructions")
    return tuple(Sample(counts, executors=facts.executors, code_bytes=facts.bytes) for counts in found)


def added(pairs: Sequence[Counts], overhead: Counts) -> dict[str, int]:
    """Return what was counted in pairs of marks together, less what each pair counts with nothing in it."""
    counted: Counter[str] = Counter()
    for pair in pairs:
        counted.update({name: max(0, count - overhead.get(name, 0)) for name, count in pair.items()})
    return {name: count for name, count in counted.items() if count}


def pairs(benchmark: Benchmark, window: Window) -> list[Window]:
    """Return what is between the first two marks of a window, between the next two, and so on. Raises ProblemError."""
    marks = [mark for mark in window.inner if mark.op is Op.MARK]
    if not marks or len(marks) % 2:
        raise ProblemError(
            f"{benchmark.script} calls perf_counter {pluralize(len(marks), 'time')} in a call, expected an even number"
        )
    return [Window(window.label, first, second) for first, second in zip(marks[::2], marks[1::2], strict=True)]


def require_evidence(benchmark: Benchmark, facts: BenchmarkFacts, marks: Sequence[Mark], *, jit: bool) -> None:
    """Raise ProblemError for a process that is no evidence about the benchmark on this side."""
    require_jit(facts, jit=jit)
    if len(facts.names) != len(benchmark.results):
        ran, expected = ", ".join(facts.names) or "nothing", pluralize(len(benchmark.results), "benchmark")
        raise ProblemError(f"its script ran {ran}, expected {expected}")
    execs = max((mark.execs for mark in marks), default=0)
    if execs:
        raise ProblemError(f"it started {pluralize(execs, 'program')}, whose instructions are not counted")
    if len({mark.pid for mark in marks}) > 1:
        raise ProblemError("it forked: what its children did is not counted")


def require_jit(facts: BenchmarkFacts, *, jit: bool) -> None:
    """Raise ProblemError if the JIT was not as it was asked for. Pythons before 3.14 do not tell."""
    if facts.jit is not None and facts.jit is not jit:
        raise ProblemError(f"the JIT is {'on' if facts.jit else 'off'} in its process")


def read_facts(output: Sequence[str]) -> BenchmarkFacts:
    """Read the facts that a process printed. Raises ProblemError."""
    line = next((line for line in reversed(output) if line.startswith(FACTS)), "")
    try:
        return read(BenchmarkFacts, line.removeprefix(FACTS))
    except MalformedError as error:
        raise ProblemError(f"the facts about its process cannot be read: {error}") from error
