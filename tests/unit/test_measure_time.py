"""`measure --by time`, over a fake engine with a pretended pyperf: workers in turn, noise, refusals and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyperf
import pytest

from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.images import Role
from crossjit.measure import benchmarks, model, process, times, timing
from crossjit.measure.model import Metric
from crossjit.runs import history
from crossjit.tasks.options import Request
from tests.fakes.engine import FakeProcess
from tests.unit.benchmarked import benchmark
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, X86
from tests.unit.test_measure_task import Machine, run

QUIET = (1.0, 1.001, 0.999, 1.0, 1.0)


@dataclass
class PretendedPyperf:
    """A worker of pyperf, which needs 20 ms with the JIT off, half of it with the JIT on.

    `drift` makes it slower, by the number of the worker. `otherwise` is the Python of all else.
    """

    orders: list[dict[str, object]] = field(default_factory=list)
    drift: Callable[[int], float] = lambda number: 1.0
    jit_is: bool | None = None
    modules: Callable[[bool], list[str]] = lambda jit: ["math"]
    failing: str = ""
    otherwise: Callable[[FakeProcess], int] = lambda running: 0

    def __call__(self, running: FakeProcess) -> int:
        """Run as Python."""
        if running.argv[1] != process.LAUNCH:
            return self.otherwise(running)
        order = json.loads(running.argv[2])
        jit = running.env["PYTHON_JIT"] == "1"
        options = [word for word in order["arguments"] if word.startswith("--")]
        self.orders.append({"jit": jit, "seed": running.env["PYTHONHASHSEED"], "options": options, **order})
        if self.failing and self.failing in order["script"]:
            running.write_line("ValueError: no")
            return 1
        calibrates = "--calibrate-loops" in options
        length = 0.01 * (1 if jit else 2) * self.drift(len(self.orders))
        values = [] if calibrates else [length * each for each in QUIET]
        name = Path(order["script"]).stem
        run = {"warmups": [[4, length]], **({"values": values} if values else {})}
        document = {
            "benchmarks": [{"runs": [run]}],
            "metadata": {"name": name, "loops": 4, "unit": "second"},
            "version": "1.0",
        }
        facts = {
            "names": [name],
            "jit": jit if self.jit_is is None else self.jit_is,
            "libraries": ["libc.so.6"],
            "extension_modules": self.modules(jit),
            "executors": 3 * jit * ("c_code" not in name),
            "bytes": 4096 * jit,
            "timed": json.dumps(document),
        }
        running.write_line(f"facts {json.dumps(facts)}")
        return 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path, monkeypatch)
    found.engine.add_image(image(Role.TARGET, X86).reference, arch=X86)
    table = (benchmark("quick"), benchmark("c_code"))
    monkeypatch.setattr(benchmarks, "load", lambda: table)
    return found


@pytest.fixture
def worker(machine: Machine) -> PretendedPyperf:
    pretended = PretendedPyperf(otherwise=machine.engine.programs["python3"])
    machine.engine.programs["python3"] = pretended
    return pretended


def measured(machine: Machine) -> model.CellMeasurement:
    (recorded,) = history.list_runs(machine.ctx.settings)
    (found,) = model.load(recorded)
    return found


def test_both_sides_have_the_same_protocol_in_turn(machine: Machine, worker: PretendedPyperf) -> None:
    assert run(by="time", only=["quick"]) is ExitCode.PASS
    counted = [order for order in worker.orders if "--loops=4" in order["options"]]  # type: ignore[operator]
    of_noise, of_quick = counted[: 2 * timing.WORKERS], counted[2 * timing.WORKERS :]
    assert not any(order["jit"] for order in of_noise), "the baseline is timed against itself first"
    assert len(of_quick) == 2 * timing.WORKERS
    pairs = [of_quick[index : index + 2] for index in range(0, len(of_quick), 2)]
    assert all({one["jit"], other["jit"]} == {True, False} for one, other in pairs)
    assert all(one["seed"] == other["seed"] for one, other in pairs)
    assert len({one["seed"] for one, _ in pairs}) == timing.WORKERS
    assert {pair[0]["jit"] for pair in pairs} == {True, False}, "none is always first"
    assert len({tuple(order["options"]) for order in of_quick}) == 1  # type: ignore[arg-type]
    assert not any(order["jit"] for order in worker.orders if order not in counted), "the baseline decides on loops"


def test_the_figures(machine: Machine, worker: PretendedPyperf, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(by="time") is ExitCode.PASS
    found = measured(machine)
    assert found.metric is Metric.TIME
    assert found.noise == pytest.approx(0, abs=1e-9)
    assert found.results[0].measured
    assert found.results[0].measured.times == pytest.approx((0.01,) * timing.WORKERS)
    shown = capsys.readouterr().out
    assert "3.15/x86_64/jit: time with the JIT on against off\n" in shown
    (row,) = (line for line in shown.splitlines() if line.startswith("quick "))
    assert " ".join(row.split()) == "quick 0.500 0.500 to 0.500 yes 20 ms 10 ms 3 executors, 4.0 KiB"
    assert "untouched, because no JIT code ran (1): c_code 0.500" in shown
    assert "noise: the baseline against itself differed by up to 0.0 %" in shown
    assert "counts of instructions" not in shown
    assert machine.engine.containers == {}


def test_files_that_pyperf_reads(machine: Machine, worker: PretendedPyperf) -> None:
    run(by="time")
    (recorded,) = history.list_runs(machine.ctx.settings)
    paths = sorted((recorded.cell_folder(recorded.cells[0]) / "results").glob("*/*.json"))
    assert [path.parent.name.endswith("-JIT") for path in paths] == [False, True]
    assert all(path.name.startswith("bm-") and path.name.count("-") == 7 for path in paths)
    old, new = (pyperf.BenchmarkSuite.load(str(path)) for path in paths)
    assert old.get_benchmark_names() == new.get_benchmark_names() == ["quick", "c_code"]
    quick = new.get_benchmark("quick")
    assert quick.get_nrun() == timing.WORKERS
    assert quick.median() == pytest.approx(0.01)
    assert quick.get_metadata()["commit_id"] == "e" * 64


def test_a_machine_that_is_too_noisy_measures_nothing(machine: Machine, worker: PretendedPyperf) -> None:
    worker.drift = lambda number: 1 + number % 7 / 20
    with pytest.raises(
        InfrastructureError, match="this machine is too noisy: a build against itself differed by"
    ) as no:
        run(by="time")
    assert "--noise 5%" in str(no.value.hint)
    assert not any(order["jit"] for order in worker.orders)
    assert machine.engine.containers == {}
    assert run(by="time", noise="90%") is ExitCode.PASS


def test_emulated_times_are_refused(machine: Machine, worker: PretendedPyperf) -> None:
    with pytest.raises(UserError) as refused:
        run(Request(arches=(ARM,)), by="time")
    assert refused.value.message == (
        "3.15/aarch64/jit cannot be timed here: QEMU emulates aarch64, and its times say nothing about hardware"
    )
    assert "--by instructions" in str(refused.value.hint)
    assert worker.orders == []
    assert machine.engine.containers == {}


@pytest.mark.parametrize(
    ("change", "reason", "code"),
    [
        ({"failing": "quick"}, "failed: quick: exit status 1: ValueError: no", ExitCode.PRODUCT),
        ({"jit_is": False}, "unreliable: quick: the JIT is off in its process", ExitCode.INFRASTRUCTURE),
        (
            {"modules": lambda jit: ["math"] if jit else []},
            "unreliable: quick: its processes did not all load the same libraries and extension modules",
            ExitCode.INFRASTRUCTURE,
        ),
    ],
)
def test_a_benchmark_without_evidence_is_named(
    machine: Machine,
    worker: PretendedPyperf,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    reason: str,
    code: ExitCode,
) -> None:
    for name, value in change.items():
        setattr(worker, name, value)
    monkeypatch.setattr(timing, "noise", lambda *arguments: 0.0)
    assert run(by="time", only=["quick"]) is code
    assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "clock"}, "invalid --by 'clock': expected instructions or time"),
        ({"by": "time", "repeat": "2"}, "--repeat is for --by instructions"),
        ({"noise": "1%"}, "--noise is for --by time"),
        ({"by": "time", "noise": "low"}, "invalid --noise 'low': expected a percentage"),
    ],
)
def test_bad_options(machine: Machine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run(**options)
    assert refused.value.message == message
    assert machine.opened == []


def test_an_interval_is_wide_where_times_are_far_apart() -> None:
    quiet, loud = (times.interval(old, [value / 2 for value in old]) for old in ([1, 1.01, 0.99], [1, 2, 0.5]))
    assert quiet.ratio == pytest.approx(0.5) == loud.ratio
    assert quiet.high / quiet.low < 1.05**2 < loud.high / loud.low
    assert times.interval([1.0, 1.0], [2.0, 2.0]) == times.Interval(2.0, 2.0, 2.0)
    assert times.noise([([1.0, 1.1, 0.9], [1.1, 0.9, 1.0])]) > 0.1
