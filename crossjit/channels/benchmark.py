"""The facts that `meter/launch.py` writes about a benchmark's process. Pure."""

from __future__ import annotations

from crossjit.channels.reading import Count, Names, Text
from crossjit.config import documents


@documents.table
class BenchmarkFacts:
    """A process that has run benchmarks.

    `names` are those of the script's benchmarks that ran, in order. `jit` says whether the JIT was on, None if the
    Python does not tell. `libraries` are those that it loaded in addition to CPython's own. `executors` are those with
    machine code at the end, `bytes` is the size of that. `timed` is what pyperf wrote, if it timed the benchmark.
    """

    names: Names
    jit: bool | None
    libraries: Names
    extension_modules: Names
    executors: Count
    bytes: Count
    timed: Text = ""
