"""Pretended benchmarks for a pretended meter: what `meter/launch.py` would make the plugin write, and print."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crossjit.measure import process
from crossjit.measure.benchmarks import Benchmark, Origin
from tests.fakes.engine import FakeProcess
from tests.unit.metered import PretendedMeter, line

MARKER = 1_000  # instructions between two markers in a row

Counts = Mapping[str, int]


def benchmark(name: str, **fields: Any) -> Benchmark:
    """Return a benchmark of our own, with one result unless it is given more."""
    return Benchmark(**{"name": name, "origin": Origin.EDGES, "script": name, "results": (name,), **fields})


def plugin_lines(
    results: Sequence[Sequence[Counts]],
    *,
    execs: int = 0,
    fork: bool = False,
    detail: Callable[[Counts], dict[str, Any]] = lambda counts: {},
) -> str:
    """Return what the plugin writes about calls of benchmarks that count so much, each in two halves.

    `detail` gives other fields of a line, by the instructions until then. Of blocks, a line has what ran since the one
    before.
    """
    written: dict[tuple[Any, ...], int] = {}

    def details() -> dict[str, Any]:
        fields = detail(counts)
        if "blocks" in fields:
            blocks = {tuple(block): executions for *block, executions in fields["blocks"]}
            fields["blocks"] = [(*block, times - written.get(block, 0)) for block, times in blocks.items()]
            written.update(blocks)
        return fields

    counts = {"python": 500, "interpreter": 500, "jit": 0}
    lines = [line("start", counts=counts)]

    def add(more: Counts) -> None:
        for name, count in more.items():
            counts[name] = counts.get(name, 0) + count

    def mark(op: str, label: int = 0) -> None:
        lines.append(line(op, label, counts=dict(counts), execs=execs, **details()))
        add({"python": 7})  # what happens outside of the windows

    def pair(more: Counts) -> None:
        mark("mark")
        counts["python"] -= 7
        add({"python": MARKER})
        add(more)
        mark("mark")

    calibration: Sequence[Counts] = [{}]
    for label, calls in enumerate([calibration, *results]):
        for call in calls:
            mark("begin", label)
            half = {name: count // 2 for name, count in call.items()}
            pair(half)
            if label:
                pair({name: count - half[name] for name, count in call.items()})
            mark("end", label)
    if fork:
        lines.append(line("exit", pid=8))
    end = {"counts": counts, "execs": execs, **details()}
    return "".join([*lines, line("last", **end), line("exit", **end)])


@dataclass
class PretendedBenchmarks:
    """`meter/launch.py` as a script of the pretended meter.

    `calls` returns the counts of each result's calls, by the order and whether the JIT is on. `facts` are added to the
    facts by the benchmark's script; `failing` are scripts that end with an error, `orders` is what was to run.
    """

    calls: Callable[[dict[str, Any], bool], Sequence[Sequence[Counts]]] | None = None
    facts: dict[str, Callable[[bool], dict[str, Any]]] = field(default_factory=dict)
    plugin: dict[str, dict[str, Any]] = field(default_factory=dict)
    failing: dict[str, str] = field(default_factory=dict)
    orders: list[tuple[str, bool]] = field(default_factory=list)

    def install(self, meter: PretendedMeter) -> None:
        """Let a pretended meter run it."""
        meter.scripts[process.LAUNCH] = self

    def __call__(self, running: FakeProcess) -> tuple[str, int]:
        """Run as a script."""
        order = json.loads(running.argv[-1])
        name, jit = order["script"].rpartition("/")[2].removesuffix(".py"), running.env["PYTHON_JIT"] == "1"
        self.orders.append((name, jit))
        if name in self.failing:
            running.write_line(self.failing[name])
            return line("start"), 1
        results = self.calls(order, jit) if self.calls else [usual(jit)]
        facts = {
            "names": [f"{name}_{number}" for number in range(len(results))],
            "jit": jit,
            "libraries": ["libc.so.6"],
            "extension_modules": ["math"],
            "executors": 3 * jit,
            "bytes": 4096 * jit,
        }
        running.write_line(f"facts {json.dumps(facts | (self.facts[name](jit) if name in self.facts else {}))}")
        return plugin_lines(results, **self.plugin.get(name, {})), 0


def usual(jit: bool) -> list[Counts]:
    """Return the calls of a benchmark that the JIT makes faster: 1.2 in the cold call, 0.8 in the warm one."""
    if jit:
        return [{"interpreter": 1_000_000, "jit": 200_000}, {"interpreter": 200_000, "jit": 600_000}]
    return [{"interpreter": 1_000_000}, {"interpreter": 1_000_000}]
