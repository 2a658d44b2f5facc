"""The meter against an independent count: valgrind's callgrind, natively."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from crossjit import PROJECT, engine, images, settings
from crossjit.engine.base import Container
from crossjit.images import ImageBuilder, Role
from crossjit.measure import callgrind, meter
from crossjit.measure.meter import Meter
from crossjit.model import Arch
from crossjit.util.tar import packed
from crossjit.validation.target import HOME
from tests.e2e.test_meter import MARK, metered
from tests.e2e.test_real_cpython import artifact, living_run

pytestmark = [pytest.mark.engine, pytest.mark.slow]

SCRIPT = f"{HOME}/windows.py"
WINDOWS = (
    MARK
    + """
import json, re

class Point:
    def __init__(self, x): self.x = x
    def get(self): return self.x

def loop(n):
    total = 0
    for i in range(n): total += i % 7
    return total

def objects(n): return sum(Point(i).get() for i in range(n))
def floats(n):
    x = 0.5
    for i in range(n): x = x * 1.0001 + 0.1
    return x
def strings(n): return [str(i) + 'x' for i in range(n)]
def dictionary(n):
    d = {}
    for i in range(n): d[i % 50] = d.get(i % 50, 0) + i
    return d
def calls(n):
    def fib(k): return k if k < 2 else fib(k - 1) + fib(k - 2)
    return fib(n)
def raising(n):
    for i in range(n):
        try: raise ValueError(i)
        except ValueError: pass
def sorting(n): return sorted(range(n), key=lambda i: -i)
def dumping(n): return json.loads(json.dumps([{'a': i, 'b': [1.5]} for i in range(n)]))
def matching(n): return [re.sub('a+', 'b', 'xaay' * 3) for _ in range(n)]

WORK = ((loop, 20000), (objects, 4000), (floats, 20000), (strings, 5000), (dictionary, 10000), (calls, 15),
        (raising, 2000), (sorting, 3000), (dumping, 200), (matching, 200))
for work, n in WORK:
    for _ in range(3): work(n)
for label, (work, n) in enumerate(WORK, 1):
    mark(1, label); work(n); mark(2, label)
"""
)


@dataclass(frozen=True)
class Bench:
    """A container with a CPython, the meter, and valgrind."""

    container: Container
    meter: Meter


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    loaded = settings.load()
    client = engine.connect(loaded)
    host = client.facts().arch
    if host is not Arch.X86_64:
        pytest.skip("compared on x86_64")
    built = artifact(f"3.15/{host}/jit")
    specs = images.load_all(PROJECT / "images")
    with living_run() as labels:
        builder = ImageBuilder(client, host, loaded.home, labels=labels)
        target = builder.ensure(callgrind.with_valgrind(images.spec_for("21", specs)), Role.TARGET, host)
        with metered(builder, target.reference, host, built.open) as (container, made):
            container.put(packed({SCRIPT: WINDOWS.encode()}), "/")
            yield Bench(container, made)


@pytest.mark.parametrize("jit", [False, True], ids=["off", "on"])
def test_jit_code_and_the_interpreters_loop_are_counted_alike(bench: Bench, jit: bool) -> None:
    near = callgrind.alike(bench.meter)
    ours = meter.run(near, bench.container, (SCRIPT,), jit=jit, timeout=300, env=callgrind.ENVIRONMENT)
    assert ours.problem is None, ours.output
    theirs = callgrind.run(bench.container, near.python, (SCRIPT,), jit=jit, timeout=600)
    compared = callgrind.compare(ours.marks, theirs)
    assert [each.label for each in compared] == list(range(1, 11))
    for each in compared:
        assert each.differs("interpreter") < 0.0001, each
        assert each.differs("jit") < 0.0001, each
        assert each.differs() < 0.02, each
    assert any(each.meter["jit"] for each in compared) is jit
    totals = [sum(sum(counts.values()) for counts in side) for side in zip(*map(counts_of, compared), strict=True)]
    assert abs(totals[0] / totals[1] - 1) < 0.005


def counts_of(compared: callgrind.Comparison) -> tuple[Mapping[str, int], Mapping[str, int]]:
    return compared.meter, compared.callgrind
