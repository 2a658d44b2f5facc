"""`measure --check valgrind`, over a fake engine with a pretended meter and a pretended valgrind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossjit.errors import ExitCode, UserError
from crossjit.images import Role
from crossjit.measure import callgrind, check
from crossjit.runs import history
from crossjit.tasks import measure_check
from crossjit.tasks.options import Request
from tests.fakes.engine import FakeProcess
from tests.unit.test_build_python import ARM
from tests.unit.test_measure_task import Machine as MeasuringMachine
from tests.unit.test_measure_task import run

OBJECTS = {
    "python": ("/usr/local/bin/python3.15", "PyObject_Call"),
    "interpreter": ("/usr/local/bin/python3.15", "_PyEval_EvalFrameDefault"),
    "jit": ("???", "0x5656000"),
    "lib:libc.so.6": ("/usr/lib/x86_64-linux-gnu/libc.so.6", "memcpy"),
}


class Machine(MeasuringMachine):
    """A machine whose valgrind counts as the meter does, but for what `apart` adds to a class with the JIT on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.apart: dict[str, int] = {}
        self.status = 0
        self.images: list[Role] = []
        monkeypatch.setattr(measure_check, "opened", self.open)
        self.engine.programs["valgrind"] = self.valgrind
        self.engine.programs["find"] = lambda process: 0

    def valgrind(self, process: FakeProcess) -> int:
        """Write a dump at each marker, and one at the end."""
        text, _ = self.pretended(process)
        marks = [json.loads(line) for line in text.splitlines()][1:-1]
        before: dict[str, int] = {}
        for number, mark in enumerate(marks, 1):
            counts = {name: count - before.get(name, 0) for name, count in mark["counts"].items()}
            if mark["op"] == "end" and mark["label"] and process.env["PYTHON_JIT"] == "1":
                counts = {name: counts.get(name, 0) + self.apart.get(name, 0) for name in {**counts, **self.apart}}
            before = mark["counts"]
            process.write_file(f"{callgrind.FOLDER}/out.{number}", dump(counts).encode())
        return self.status


def dump(counts: dict[str, int]) -> str:
    return "".join("ob={}\nfn={}\n1 {}\n".format(*OBJECTS[name], count) for name, count in counts.items())


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(check, "BENCHMARKS", ("fast_one",))
    return Machine(tmp_path, monkeypatch)


def test_the_meter_agrees_with_valgrind(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(check="valgrind") is ExitCode.PASS
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[0] == "3.15/x86_64/jit: instructions of all calls, as the meter and as valgrind's callgrind count them"
    assert "fast_one on interpreter's loop 1,200,000 1,200,000 0.0000 % yes" in shown
    assert "fast_one on JIT code 800,000 800,000 0.0000 % yes" in shown
    assert "fast_one off JIT code 0 0 0.0000 % yes" in shown
    assert "2 of 2 agree; at most apart: interpreter's loop 0.01 %, JIT code 0.01 %, everything 0.5 %" in shown
    assert machine.pretended.orders == [("fast_one", True)] * 2 + [("fast_one", False)] * 2
    assert machine.engine.containers == {}
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert (recorded.exit_code, recorded.looks) == (0, True)


@pytest.mark.parametrize(
    ("name", "more", "agree"),
    [
        *(("interpreter", 60, True), ("interpreter", 61, False)),
        *(("jit", 40, True), ("jit", 41, False)),
        *(("lib:libc.so.6", 4_900, True), ("lib:libc.so.6", 5_100, False)),
    ],
)
def test_how_far_apart_the_counts_may_be(machine: Machine, name: str, more: int, agree: bool) -> None:
    """Of two calls, which have 1.2 million instructions in the loop and 0.8 million of JIT code together."""
    machine.apart = {name: more}
    assert run(check="valgrind") is (ExitCode.PASS if agree else ExitCode.INFRASTRUCTURE)


def test_json_has_the_counts_of_both(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.apart = {"jit": 1_000}
    assert run(check="valgrind", json=True) is ExitCode.INFRASTRUCTURE
    document = json.loads(capsys.readouterr().out)
    on, off = document["cells"]["3.15/x86_64/jit"]
    assert (on["benchmark"], on["jit"], on["agrees"], on["problem"]) == ("fast_one", True, False, "")
    assert (on["meter"]["jit"], on["callgrind"]["jit"]) == (800_000, 802_000)
    assert off["agrees"]
    assert document["run"] == history.list_runs(machine.ctx.settings)[0].id


def test_a_benchmark_that_fails_does_not_agree(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.status = 1
    assert run(check="valgrind", only=["fast_one", "c_code"]) is ExitCode.INFRASTRUCTURE
    shown = capsys.readouterr().out
    assert "fast_one, JIT on: callgrind failed: exit status 1" in shown
    assert "0 of 4 agree" in shown
    machine.status, machine.pretended.failing = 0, {"c_code": "ImportError: no c_code"}
    assert run(check="valgrind", only=["fast_one", "c_code"]) is ExitCode.INFRASTRUCTURE
    assert "c_code, JIT on: exit status 1: ImportError: no c_code" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": "perf"}, "invalid --check 'perf': expected valgrind"),
        ({"check": "valgrind", "fast": True}, "--check can be combined with --only and the options of a build only"),
        ({"check": "valgrind", "history": "~/cpython"}, "--check can be combined with --only and the options of a"),
        ({"check": "valgrind", "only": ["c_cod"]}, "there is no benchmark 'c_cod'; did you mean 'c_code'?"),
        (
            {"check": "valgrind", "request": Request(arches=(ARM,))},
            "3.15/aarch64/jit cannot be checked here: valgrind would run under QEMU",
        ),
    ],
)
def test_refusals(machine: Machine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run(**options)
    assert refused.value.message.startswith(message)
    assert refused.value.hint
    assert machine.engine.containers == {}
