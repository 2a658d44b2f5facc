"""One benchmark's process: what is run, what is made of its markers, and what makes it no evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from crossjit.engine.base import Container
from crossjit.images.spec import METER
from crossjit.measure import meter, packages, process
from crossjit.measure.benchmarks import EDGES, Origin
from crossjit.measure.model import Sample, Trouble
from crossjit.measure.process import Place, ProblemError
from crossjit.model import Arch
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit import metered
from tests.unit.benchmarked import PretendedBenchmarks, benchmark, usual
from tests.unit.metered import PretendedMeter


@pytest.fixture
def pretended() -> PretendedBenchmarks:
    return PretendedBenchmarks()


@pytest.fixture
def qemu(fake_engine: FakeEngine, pretended: PretendedBenchmarks) -> PretendedMeter:
    installed = metered.install(fake_engine)
    pretended.install(installed)
    return installed


@pytest.fixture
def container(fake_engine: FakeEngine, qemu: PretendedMeter) -> Iterator[Container]:
    with metered.container(fake_engine) as started:
        yield started


@pytest.fixture
def place(container: Container) -> Place:
    return Place(container, meter.prepare(container, host=Arch.X86_64, arch=Arch.AARCH64), jit=True)


def test_a_process(place: Place, qemu: PretendedMeter) -> None:
    found = place.run(benchmark("go", arguments=("-x",), loops=3, replaced={"SIZE": "1"}))
    (_, (launcher, order), env) = qemu.runs[-1]
    assert launcher == "/usr/local/libexec/meter/launch.py"
    assert json.loads(order) == {
        "script": "/usr/local/libexec/meter/edges/go.py",
        "arguments": ["-x"],
        "calls": 2,
        "loops": 3,
        "replaced": {"SIZE": "1"},
    }
    assert env["PYTHONPATH"] == packages.FOLDER
    assert env["PYTHONDONTWRITEBYTECODE"] == env["PYTHON_JIT"] == "1"
    assert found.samples == (Sample(tuple(usual(jit=True)), executors=3, code_bytes=4096),)
    assert found.libraries == {"libc.so.6"}
    assert found.extension_modules == {"math"}


def test_a_script_of_pyperformance() -> None:
    script = process.script_of(benchmark("pure", origin=Origin.PYPERFORMANCE, script="pickle"))
    expected = "/usr/local/libexec/packages/pyperformance/data-files/benchmarks/bm_pickle/run_benchmark.py"
    assert script == expected


def test_a_script_with_several_benchmarks(place: Place, pretended: PretendedBenchmarks) -> None:
    calls = [[{"python": 10}, {"python": 20}], [{"jit": 3}, {"jit": 5}]]
    pretended.calls = lambda order, jit: calls
    found = place.run(benchmark("two", results=("first", "second")))
    assert [sample.calls for sample in found.samples] == [tuple(each) for each in calls]


def test_our_own_benchmarks_and_packages_are_installed(container: Container, fake_engine: FakeEngine) -> None:
    process.install(container, {f"{packages.FOLDER}/six.py": b"six"})
    (fake,) = fake_engine.containers.values()
    assert fake.files.read(f"{packages.FOLDER}/six.py") == b"six"
    assert fake.files.read(process.LAUNCH) == (METER / "launch.py").read_bytes()
    assert fake.files.read("/usr/local/libexec/meter/edges/short_loops.py") == (EDGES / "short_loops.py").read_bytes()


def refusal(place: Place, trouble: Trouble = Trouble.UNRELIABLE, **fields: object) -> str:
    with pytest.raises(ProblemError) as refused:
        place.run(benchmark("go", **fields))
    assert refused.value.trouble is trouble
    return refused.value.message


def test_a_benchmark_that_fails(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.failing["go"] = "ModuleNotFoundError: No module named 'x'"
    assert refusal(place, Trouble.FAILED) == "exit status 1: ModuleNotFoundError: No module named 'x'"


def test_the_jit_that_is_off_when_it_should_be_on(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.facts["go"] = lambda jit: {"jit": False}
    assert refusal(place) == "the JIT is off in its process"


def test_a_python_that_does_not_tell_whether_the_jit_is_on(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.facts["go"] = lambda jit: {"jit": None}
    assert place.run(benchmark("go")).samples


def test_children_that_escape_the_meter(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.plugin["go"] = {"execs": 2}
    assert refusal(place) == "it started 2 programs, whose instructions are not counted"
    pretended.plugin["go"] = {"fork": True}
    assert refusal(place) == "it forked: what its children did is not counted"


def test_other_benchmarks_than_the_table_says(place: Place) -> None:
    assert refusal(place, results=("a", "b")) == "its script ran go_0, expected 2 benchmarks"


def test_other_calls_than_the_table_says(place: Place) -> None:
    assert refusal(place, calls=3) == "it has [2] calls, expected 3 of each"


def test_a_call_without_instructions(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.calls = lambda order, jit: [[{"jit": 5}, {"jit": 0}]]
    assert refusal(place) == "one of its calls has no instructions"


def test_facts_that_cannot_be_read(place: Place, pretended: PretendedBenchmarks) -> None:
    pretended.facts["go"] = lambda jit: {"bytes": -1}
    assert refusal(place).startswith("the facts about its process cannot be read: bytes: ")


def test_markers_without_partners(place: Place, qemu: PretendedMeter, pretended: PretendedBenchmarks) -> None:
    def odd(running: FakeProcess) -> tuple[str, int]:
        text, status = pretended(running)
        lines = text.splitlines(keepends=True)
        marks = [number for number, line in enumerate(lines) if '"mark"' in line]
        return "".join([*lines[: marks[-1]], *lines[marks[-1] + 1 :]]), status

    qemu.scripts[process.LAUNCH] = odd
    assert refusal(place) == "go calls perf_counter 3 times in a call, expected an even number"
