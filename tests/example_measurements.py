"""Examples of measurements: sixty benchmarks on both archs, and a measurement that wants to do harm."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from crossjit.bisect.history import Commit
from crossjit.bisect.walk import Point
from crossjit.errors import ExitCode
from crossjit.measure import model
from crossjit.measure.model import CellMeasurement, Counts, Metric, Result, Sample, Side, Trouble
from crossjit.model import Arch, Cell
from crossjit.runs import history
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from tests.example_runs import FACTS, HOSTILE

ARGV = ("./inv", "measure", "--arch", "all", "--full")
MEAN, SPREAD = {Arch.AARCH64: 0.82, Arch.X86_64: 0.87}, 0.12

TOUCHED = (
    *("argparse_many_optionals", "argparse_subparsers", "async_tree_eager", "barnes_hut", "bpe_tokeniser", "chaos"),
    *("chameleon", "c_parser", "comprehensions", "deep_recursion", "deepcopy", "deepcopy_reduce", "deltablue"),
    *("django_template", "docutils", "exceptions_in_loop", "fannkuch", "float", "genshi_text", "genshi_xml"),
    *("getattr_hook", "go", "hexiom", "html5lib", "json_dumps", "logging_format", "logging_simple", "many_functions"),
    *("mdp", "megamorphic_calls", "meteor_contest", "nbody", "networkx_connected_components", "networkx_k_core"),
    *("nqueens", "pathlib", "pickle_pure_python", "pprint_safe_repr", "pyflate", "raytrace", "regex_compile"),
    *("richards", "richards_super", "scimark_fft", "scimark_lu", "short_loops", "spectral_norm", "sqlglot_v2_parse"),
    *("string_building", "tomli_loads", "typing_runtime_protocols", "unpickle_pure_python", "xdsl"),
)
UNTOUCHED = ("coroutines", "generators", "json_loads", "pidigits", "regex_dna")
PROBLEMS = {
    "sympy_sum": (Trouble.FAILED, "JIT on: exit status 1: ModuleNotFoundError: No module named 'mpmath'"),
    "telco": (Trouble.UNRELIABLE, "the sides have different extension modules: only the baseline loaded _decimal"),
}
RATIOS = {"richards": 0.44, "spectral_norm": 0.67, "nbody": 0.72, "html5lib": 1.06, "megamorphic_calls": 1.31}


def side(arch: Arch, *, jit: bool, artifact: str = "4d4ebe6d4c0a", variant: str = "jit") -> Side:
    """Return a side of 3.15."""
    return Side(Cell("3.15", arch, variant), artifact + "0" * 52, "3.15.0rc2", jit)


def sample(*totals: int, jit: float = 0.0, symbols: bool = True, executors: int = 0) -> Sample:
    """Return a benchmark's calls: so much of each is JIT code."""
    calls = tuple(_counts(total, jit, symbols) for total in totals)
    return Sample(calls, executors=executors, code_bytes=executors * 2048)


def _counts(total: int, jit: float, symbols: bool) -> Counts:
    in_jit = int(total * jit)
    left = total - in_jit
    loop, memory, collector = (int(left * part) if symbols else 0 for part in (0.55 - 0.3 * jit, 0.08, 0.03))
    libraries = {"lib:libc.so.6": int(left * 0.05), "ext:_json": int(left * 0.03), "other": left // 1000}
    rest = left - loop - memory - collector - sum(libraries.values())
    known = {"interpreter": loop, "gc": collector, "memory": memory} if symbols else {}
    return {**({"jit": in_jit} if in_jit else {}), **known, "python": rest, **libraries}


def measurement(
    arch: Arch, *, moved: Mapping[str, float] | None = None, symbols: bool = True, artifact: str = "4d4ebe6d4c0a"
) -> CellMeasurement:
    """Return a cell's measurement. `moved` multiplies the counts of benchmarks with the JIT on."""
    rng = random.Random(f"{arch}")
    results = [_result(name, arch, rng, moved or {}, symbols=symbols) for name in TOUCHED]
    for name in UNTOUCHED:
        total = rng.randint(10**7, 10**9)
        result = Result(name, name, sample(total + 90_000, total + 20_000), sample(total + 60_000, total))
        results.append(result)
    results += [Result(name, name, trouble=trouble, problem=problem) for name, (trouble, problem) in PROBLEMS.items()]
    return CellMeasurement(
        side(arch, jit=True, artifact=artifact),
        side(arch, jit=False, artifact=artifact),
        results=tuple(sorted(results, key=lambda result: result.name)),
        meter="ab" * 32,
        table="cd" * 32,
        cpu=arch.cpu,
        seconds=412.6,
    )


def _result(name: str, arch: Arch, rng: random.Random, moved: Mapping[str, float], *, symbols: bool) -> Result:
    total = rng.randint(10**7, 2 * 10**9)
    usual, jit = min(rng.gauss(MEAN[arch], SPREAD), 1.04), rng.uniform(0.05, 0.85)
    warm = int(total * RATIOS.get(name, usual) * moved.get(name, 1.0))
    cold = int(total * rng.uniform(0.95, 1.4))
    executors = rng.randint(1, 400)
    measured = sample(cold, warm, jit=jit, symbols=symbols, executors=executors)
    return Result(name, name, measured, sample(int(total * 1.05), total, symbols=symbols))


def timed(arch: Arch = Arch.X86_64, *, moved: Mapping[str, float] | None = None) -> CellMeasurement:
    """Return the same cell measured by time: about what the instructions say, except for a few."""
    counted = measurement(arch)
    rng = random.Random(7)
    apart = {"go": 1.3, "html5lib": 0.9, **(moved or {})}

    def times(total: int, factor: float = 1.0) -> tuple[float, ...]:
        return tuple(factor * total / 1e9 * rng.gauss(1, 0.004) for _ in range(6))

    results = [
        replace(
            each,
            measured=replace(each.measured, calls=(), times=times(each.measured.totals[-1], apart.get(each.name, 1.0))),
            baseline=replace(each.baseline, calls=(), times=times(each.baseline.totals[-1])),
        )
        if each.measured and each.baseline
        else each
        for each in counted.results
    ]
    return replace(counted, metric=Metric.TIME, results=tuple(results), meter="", cpu="", noise=0.012)


def both() -> tuple[CellMeasurement, ...]:
    """Return the measurements of both archs."""
    return tuple(measurement(arch) for arch in Arch)


def vacuous(arch: Arch = Arch.X86_64) -> CellMeasurement:
    """Return the measurement of a cell whose JIT makes no code."""
    on, off = (side(arch, jit=jit, variant="ft-jit") for jit in (True, False))
    return CellMeasurement(on, off, vacuous="the probe found no machine code", table="cd" * 32)


def hostile() -> tuple[CellMeasurement, ...]:
    """Return a measurement in which every text is hostile."""
    results = [
        *(Result(text, text, sample(1100, 900, jit=0.5), sample(1000, 1000)) for text in HOSTILE),
        *(Result(f"{text} 2", text, sample(1100, 900), sample(1000, 1000)) for text in HOSTILE),
        *(Result(f"{text} 3", text, trouble=Trouble.FAILED, problem=text) for text in HOSTILE),
    ]
    cell = Cell("3.15", Arch.AARCH64, "jit")
    on, off = (Side(cell, HOSTILE[0], HOSTILE[1], jit) for jit in (True, False))
    found = CellMeasurement(on, off, results=tuple(results), meter=HOSTILE[2], table=HOSTILE[3], cpu=HOSTILE[4])
    empty = replace(found.measured, cell=Cell("3.15", Arch.X86_64, "jit"))
    return found, CellMeasurement(empty, empty, vacuous=HOSTILE[0])


def record(settings: Settings, found: Sequence[CellMeasurement]) -> Run:
    """Write the record of a run that measured this, and read it back."""
    cells = [each.cell for each in found]
    with RunRecord.start(settings, ARGV, FACTS, cells=cells, looks=True) as written:
        for each in found:
            model.save(written.cell_folder(each.cell), each)
        written.finish(ExitCode.PASS)
    return history.load(settings, written.id)


def along_a_history() -> tuple[Point, ...]:
    """Return twenty commits: one is faster on one arch, one slower on the other, one does not build on one arch."""
    points = []
    for number in range(20):
        faster, slower = 0.98 if number > 6 else 1, 1.012 if number > 12 else 1
        day, subject = f"2026-04-{number + 1:02}", f"gh-148{number:03}: {HOSTILE[number % len(HOSTILE)]} (#{number})"
        counts = {Arch.X86_64: round(9e8 * slower), Arch.AARCH64: round(7.8e8 * faster)}
        problems = {Arch.AARCH64: "make failed"} if number == 10 else {}
        kept = {arch: count for arch, count in counts.items() if arch not in problems}
        points.append(Point(Commit(f"{number:040x}", subject, "A. Author", day), kept, problems))
    return tuple(points)
