"""`measure --detail`, over a fake engine with a pretended meter: functions, uops, loads and stores of warm calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.build import layout
from crossjit.errors import ExitCode, UserError
from crossjit.measure import detail as details
from crossjit.measure import process as process_module
from crossjit.runs import history
from crossjit.tasks import measure_detail
from crossjit.tasks.options import Request
from crossjit.util.budget import BudgetError
from tests.fakes.engine import FakeProcess
from tests.unit import test_uops
from tests.unit.test_measure_task import MAKES_CODE, NO_CODE, run
from tests.unit.test_measure_task import Machine as MeasuringMachine
from tests.unit.test_uops import ADD, MAPPING, MAPPINGS, NOP, PLACE, START

EXECUTOR = test_uops.executor(START, NOP, ADD)


class Machine(MeasuringMachine):
    """A machine whose builds have stencils, and whose plugin writes all that it may be asked for.

    A quarter of the JIT's instructions are each in `_START`, `_ADD`, a trampoline, and code of a freed executor.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        monkeypatch.setattr(measure_detail, "opened", self.open)
        self.pretended.plugin = {name: {"detail": self.detail} for name in ("c_code", "fast_one", "two")}
        self.executors: str | None = json.dumps(vars(EXECUTOR)) + "\n"
        self.headers: Mapping[str, str] = {
            f"{layout.GENERATED}/jit_stencils-x86_64-unknown-linux-gnu.h": test_uops.HEADER,
            f"{layout.GENERATED}/jit_stencils.h": "#include",
            f"{layout.INSTALL}/usr/local/include/python3.15/internal/pycore_uop_ids.h": test_uops.NUMBERS,
        }
        self.lost = 0  # percent of the freed code's executions
        script = self.meter.scripts[process_module.LAUNCH]

        def launch(process: FakeProcess) -> tuple[str, int]:
            path = json.loads(process.argv[-1]).get("executors")
            if path and self.executors is not None:
                process.write_file(path, self.executors.encode())
            return script(process)

        self.meter.scripts[process_module.LAUNCH] = launch

    def install(self, process: FakeProcess) -> int:
        for path, text in self.headers.items():
            process.write_file(path, text.encode())
        return super().install(process)

    def detail(self, counts: Mapping[str, int]) -> dict[str, Any]:
        executed = counts["jit"] // 8
        return {
            "functions": {
                "_PyEval_EvalFrameDefault": counts["interpreter"],
                "list_dealloc": counts["python"] // 2,
                "PyList_New": counts["python"] - counts["python"] // 2,
                **{name: count for name, count in counts.items() if name not in ("interpreter", "python")},
            },
            "loads": {name: count // 4 for name, count in counts.items()},
            "stores": {name: count // 8 for name, count in counts.items()},
            "blocks": [
                [PLACE, "44", MAPPING, executed],
                [PLACE + 8, "44", MAPPING, executed],
                [PLACE + 64, "44", MAPPING, executed],
                [PLACE, "44", MAPPING - 1, executed * (100 - self.lost) // 100],
            ],
            "mappings": MAPPINGS,
        }


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def document(capsys: pytest.CaptureFixture[str], cell: str = "3.15/x86_64/jit") -> list[dict[str, Any]]:
    return list(json.loads(capsys.readouterr().out)["cells"][cell]["benchmarks"])


def test_functions_with_the_jit_on_and_off(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(detail="functions", only=["fast_one"]) is ExitCode.PASS
    lines = shown(capsys)
    assert lines[:7] == [
        "3.15/x86_64/jit: fast_one, warm call: instructions by function",
        "",
        "function class JIT on JIT off",
        "_PyEval_EvalFrameDefault interpreter 200,000 1,000,000",
        "jit jit 600,000 0",
        "all 800,000 1,000,000",
        "",
    ]
    assert [options.partition("symbols=")[2].split(",")[1:] for options, *_ in machine.meter.runs[1:]] == [
        ["functions=on", "still=on"]
    ] * 2
    assert machine.pretended.orders == [("fast_one", True), ("fast_one", False)]
    assert machine.engine.containers == {}
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert (recorded.exit_code, recorded.looks) == (0, True)


def test_json_has_all_functions_with_their_classes(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    names = {f"visit_{number}": 1_000 - number for number in range(60)}
    detail = machine.pretended.plugin["fast_one"]["detail"]

    def with_more(counts: Mapping[str, int]) -> dict[str, Any]:
        fields: dict[str, Any] = detail(counts)
        total = sum(counts.values())
        functions = fields["functions"] | {name: total // 1_000 * each for name, each in names.items()}
        return fields | {"functions": functions}

    machine.pretended.plugin["fast_one"]["detail"] = with_more
    run(detail="functions", only=["fast_one"], json=True)
    (found,) = document(capsys)
    assert found["counts"] == {"on": {"interpreter": 200_000, "jit": 600_000}, "off": {"interpreter": 1_000_000}}
    functions = {each["function"]: each for each in found["functions"]}
    assert len(functions) == 62
    assert functions["_PyEval_EvalFrameDefault"]["class"] == "interpreter"
    assert (functions["jit"]["class"], functions["jit"]["on"], functions["jit"]["off"]) == ("jit", 600_000, 0)
    assert functions["visit_3"]["class"] == "gc"
    assert found["functions"][0]["on"] >= found["functions"][1]["on"] or found["functions"][0]["off"]
    run(detail="functions", only=["fast_one"])
    lines = shown(capsys)
    rows = lines[3 : lines.index("", 3)]
    assert len(rows) == 42
    assert rows[40].startswith("22 more ")


def test_loads_and_stores_by_class(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(detail="accesses", only=["fast_one"]) is ExitCode.PASS
    lines = shown(capsys)
    assert lines[:6] == [
        "3.15/x86_64/jit: fast_one, warm call: loads and stores by class of code",
        "",
        "class loads, JIT on loads, JIT off stores, JIT on stores, JIT off",
        "interpreter 50,000 250,000 25,000 125,000",
        "jit 150,000 0 75,000 0",
        "all 200,000 250,000 100,000 125,000",
    ]
    run(detail="accesses", only=["fast_one"], json=True)
    (found,) = document(capsys)
    assert found["loads"] == {"on": {"interpreter": 50_000, "jit": 150_000}, "off": {"interpreter": 250_000}}
    assert found["stores"]["on"] == {"interpreter": 25_000, "jit": 75_000}


def test_uops_of_a_build(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(detail="uops", only=["fast_one"]) is ExitCode.PASS
    assert machine.pretended.orders == [("fast_one", True)], "with the JIT off there are none"
    assert shown(capsys)[:11] == [
        "3.15/x86_64/jit: fast_one, warm call: JIT code by uop",
        "",
        "uop executions instructions of JIT code each places bytes",
        "_ADD 75,000 150,000 25.0 % 2.0 1 20",
        "_START 75,000 150,000 25.0 % 2.0 1 8",
        "_NOP 75,000 0 0.0 % 0.0 1 0",
        "trampolines 150,000 25.0 %",
        "other JIT code 150,000 25.0 %",
        "all 600,000 100.0 %",
        "",
        "1 executor at the end, with 4,096 bytes",
    ]


def test_json_of_uops_adds_up(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.executors = json.dumps(vars(replace(EXECUTOR, jumps=(2,)))) + "\n"
    run(detail="uops", only=["two"], json=True)
    first, second = document(capsys)
    assert [first["name"], second["name"]] == ["two_a", "two_b"]
    for each in (first, second):
        found = each["uops"]
        assert found["instructions"] == each["counts"]["on"]["jit"] == 600_000
        ran = sum(uop["instructions"] for uop in found["uops"])
        assert ran + found["trampolines"] + found["other"] == found["instructions"]
        assert (found["executors"], found["bytes"]) == (1, 4096)
    assert second["uops"]["uops"][-1] == {
        "name": "_NOP",
        "places": 1,
        "bytes": 0,
        "executions": None,
        "instructions": 0,
    }
    run(detail="uops", only=["fast_one"])
    assert "_NOP - 0 0.0 % - 1 0" in shown(capsys)


def test_more_uops_than_text_shows(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossjit.report.measure_detail.MOST", 1)
    run(detail="uops", only=["fast_one"])
    assert "2 more 150,000 25.0 % 2 8" in shown(capsys)


@pytest.mark.parametrize(
    ("executors", "problem"),
    [
        (None, "it did not describe its executors"),
        ("{}\n", "the description of its executors cannot be read: "),
        ("\xff\n", "the description of its executors cannot be read: "),
        (
            json.dumps(vars(test_uops.changed(EXECUTOR, 0))) + "\n",
            "the JIT's machine code cannot be divided into uops: an executor does not fit: uop 0, _START_r00",
        ),
    ],
)
def test_a_division_that_is_not_certain_is_not_shown(
    machine: Machine, capsys: pytest.CaptureFixture[str], executors: str | None, problem: str
) -> None:
    machine.executors = executors
    assert run(detail="uops", only=["fast_one"]) is ExitCode.INFRASTRUCTURE
    text = capsys.readouterr().out
    assert text.startswith(f"3.15/x86_64/jit: fast_one: unreliable: {problem}")
    assert "instructions" not in text
    assert machine.engine.containers == {}


def test_blocks_must_have_all_instructions_of_jit_code(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.lost = 50
    assert run(detail="uops", only=["fast_one"]) is ExitCode.INFRASTRUCTURE
    assert "unreliable: blocks have 525,000 of 600,000 instructions of JIT code" in capsys.readouterr().out


def test_too_much_machine_code(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(details, "LARGEST", 10)
    with pytest.raises(BudgetError, match="more than 10 bytes"):
        run(detail="uops", only=["fast_one"])
    assert machine.engine.containers == {}


def test_a_benchmark_that_fails_is_named_and_the_rest_goes_on(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.pretended.failing["two"] = "LayoutError: unknown"
    assert run(detail="uops", only=["fast_one", "two"]) is ExitCode.PRODUCT
    text = capsys.readouterr().out
    assert "two_a: failed: exit status 1: LayoutError: unknown" in text
    assert "two_b: failed: exit status 1: LayoutError: unknown" in text
    assert "_ADD" in text
    assert run(detail="uops", only=["two"], json=True) is ExitCode.PRODUCT
    found = document(capsys)[0]
    assert (found["trouble"], found["uops"], found["counts"]) == ("failed", None, {"on": None, "off": None})


@pytest.mark.parametrize(("variant", "probe"), [("jit", NO_CODE), ("nojit", MAKES_CODE)])
def test_a_cell_without_jit_code(
    machine: Machine, capsys: pytest.CaptureFixture[str], variant: str, probe: dict[str, object]
) -> None:
    """It has no uops, and is only counted with the JIT off."""
    machine.probe = probe
    assert run(Request(variants=(variant,)), detail="uops", only=["fast_one"]) is ExitCode.VACUOUS
    assert capsys.readouterr().out.startswith(f"3.15/x86_64/{variant}: vacuous: ")
    assert machine.pretended.orders == []
    for kind in ("functions", "accesses"):
        machine.pretended.orders.clear()
        assert run(Request(variants=(variant,)), detail=kind, only=["fast_one"]) is ExitCode.PASS
        assert machine.pretended.orders == [("fast_one", False)]
        lines = shown(capsys)
        assert lines[0].startswith(f"3.15/x86_64/{variant}: vacuous: ")
        assert any(line.startswith("all - 1,000,000" if kind == "functions" else "all - 250,000") for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detail": "blocks", "only": ["two"]}, "invalid --detail 'blocks': expected functions, uops or accesses"),
        ({"detail": "uops"}, "--detail needs the names of benchmarks"),
        ({"detail": "uops", "only": ["tw"]}, "there is no benchmark 'tw'; did you mean 'two'?"),
        ({"detail": "uops", "fast": True}, "--detail can be combined with --only and the options of a build only"),
        ({"detail": "uops", "check": "valgrind"}, "--check can be combined with --only and the options of a build"),
        ({"detail": "uops", "history": "~/cpython"}, "--detail can be combined with --only and the options of a"),
    ],
)
def test_refusals(machine: Machine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run(**options)
    assert refused.value.message.startswith(message)
    assert refused.value.hint
    assert machine.opened == []


def test_executors_are_known_since_3_15(machine: Machine) -> None:
    machine.source = replace(machine.source, version="3.14.7", python=(3, 14))
    with pytest.raises(UserError, match=r"3.14.7 is older than 3.15, whose executors are known") as refused:
        run(detail="uops", only=["fast_one"])
    assert refused.value.hint
    assert machine.pretended.orders == []


def test_a_build_without_its_stencils(machine: Machine) -> None:
    machine.headers = {path: text for path, text in machine.headers.items() if "uop_ids" in path}
    with pytest.raises(UserError, match="the stencils of its JIT are not with its build") as refused:
        run(detail="uops", only=["fast_one"])
    assert refused.value.hint
    assert machine.pretended.orders == []
    assert run(detail="functions", only=["fast_one"]) is ExitCode.PASS
