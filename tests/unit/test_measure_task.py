"""`measure`, over a fake engine with a pretended meter: builds, containers, results, the record, and exit codes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from crossjit.build import layout
from crossjit.errors import CrossjitError, EngineError, ExitCode, InfrastructureError, UserError
from crossjit.images import Role
from crossjit.measure import benchmarks, meter, model, packages
from crossjit.model import Arch, Cell
from crossjit.pipeline import context, prepare
from crossjit.report import measure as report
from crossjit.runs import history
from crossjit.runs.record import RunRecord
from crossjit.tasks import measure
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession
from tests.fakes.engine import FakeProcess, Fault
from tests.unit import metered
from tests.unit.benchmarked import PretendedBenchmarks, benchmark, usual
from tests.unit.build_fakes import image
from tests.unit.test_build_python import ARM, PYTHON, X86, FakeContext, cell_request

MAKES_CODE = {
    "executable": {"machine": "EM_X86_64"},
    "gil": {"disabled_in_build": False, "enabled": True},
    "workloads": [
        {
            "name": "loop",
            "correct": True,
            "executors": [{"function": "f", "offset": 1, "kind": "machine code", "bytes": 1}],
        }
    ],
}
NO_CODE = {**MAKES_CODE, "workloads": [{"name": "loop", "correct": True, "executors": []}]}
TABLE = (benchmark("fast_one"), benchmark("c_code"), benchmark("two", results=("two_a", "two_b")))


class Machine(FakeContext):
    """A build context whose builds can be measured: `measure` runs over the cells in `variants`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self.probe = MAKES_CODE
        self.pretended = PretendedBenchmarks(self.calls)
        self.meter = metered.install(self.engine)
        self.pretended.install(self.meter)
        self.opened: list[Request] = []
        self.arches: Sequence[Arch] = (X86,)
        for arch in (X86, ARM):
            self.engine.add_image(image(Role.TARGET, arch).reference, arch=arch, files=metered.files())
        self.engine.add_image(image(Role.METER, X86).reference, arch=X86, files=metered.meter_files())
        monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
        monkeypatch.setattr(benchmarks, "load", lambda: TABLE)
        monkeypatch.setattr(packages, "ensure", lambda names, home, progress: {})
        monkeypatch.setattr(prepare, "prepare", lambda ctx, requests: [self.prepared(request) for request in requests])
        monkeypatch.setattr(measure, "opened", self.open)

    def install(self, process: FakeProcess) -> int:
        process.write_file(f"{layout.INSTALL}/{PYTHON}", metered.elf({"_PyEval_EvalFrameDefault": 64}))
        return 0

    def calls(self, order: dict[str, Any], jit: bool) -> Sequence[Sequence[dict[str, int]]]:
        if "c_code" in order["script"]:
            return [[{"lib:libc.so.6": 700_000}, {"lib:libc.so.6": 700_000}]]
        return [[dict(call) for call in usual(jit)]] * (2 if "two" in order["script"] else 1)

    def prepared(self, request: context.CellRequest) -> context.PreparedCell:
        source = replace(self.source, digest="e" * 64)
        return prepare.make_prepared(request, source, self.spec, image(Role.TOOLCHAIN, X86), X86)

    @contextlib.contextmanager
    def open(self, request: Request, *, looks: bool) -> Iterator[RunSession]:
        self.opened.append(request)
        requests = tuple(
            replace(cell_request(variant, arch), source="checkout")
            for arch in request.arches or self.arches
            for variant in request.variants
        )
        cells = tuple(each.cell for each in requests)
        with RunRecord.start(self.ctx.settings, ("./inv", "measure"), {}, cells=cells, looks=looks) as record:
            yield RunSession({"docker": replace(self.ctx, run=record.id)}, record, requests)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def run(request: Request | None = None, **options: Any) -> ExitCode:
    body: Callable[..., ExitCode] = measure.measure.body.__wrapped__  # type: ignore[attr-defined]
    return body(None, request or Request(), **options)


def test_the_jit_on_and_off_in_one_build(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() is ExitCode.PASS
    assert sorted(machine.pretended.orders) == sorted(
        [*((name, jit) for name in ("c_code", "fast_one", "two") for jit in (False, True)), ("fast_one", True)]
    )
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert lines[0] == "3.15/x86_64/jit: instructions with the JIT on against off, warm call"
    assert " ".join(lines[2].split()) == "benchmark ratio cold JIT loop warm-up pays off machine code"
    row = "fast_one 0.800 1.200 75.0 % 25.0 % 0.4 M after 2 calls 3 executors, 4.0 KiB"
    assert " ".join(lines[3].split()) == row
    assert "geometric mean 0.800 of 3 benchmarks; best fast_one 0.800, worst fast_one 0.800" in shown
    assert "slower by more than 1 %: 0, 5 %: 0, 10 %: 0, 20 %: 0" in shown
    assert "untouched, because no JIT code ran (1): c_code 1.000" in shown
    assert machine.engine.containers == {}


def test_the_containers_are_those_of_suites_with_the_meter(machine: Machine) -> None:
    run(only=["c_code"])
    started = [options for options in machine.engine.started if "measure" in options.name]
    assert [options.image for options in started] == [image(role, X86).reference for role in (Role.TARGET, Role.METER)]
    assert (started[0].user, started[0].network, started[0].labels) == ("1000:1000", False, {})
    of_self_test, *others = (environment["PYTHON_JIT"] for _, _, environment in machine.meter.runs)
    assert (of_self_test, sorted(others)) == ("0", ["0", "1", "1"])


def test_a_measurement_is_recorded_with_its_run(machine: Machine) -> None:
    run()
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert (recorded.exit_code, recorded.looks) == (0, True)
    (found,) = model.load(recorded)
    assert found.measured.cell == found.baseline.cell == Cell("3.15", X86, "jit")
    assert found.measured.artifact == found.baseline.artifact
    assert (found.measured.jit, found.baseline.jit) == (True, False)
    assert [result.name for result in found.results] == ["fast_one", "c_code", "two_a", "two_b"]
    assert found.results[0].measured
    assert found.results[0].measured.runs == 2
    assert found.results[0].measured.calls == tuple(usual(jit=True))
    assert (found.call, found.cpu, found.meter) == ("warm", "Nehalem", image(Role.METER, X86).key)
    assert len(found.table) == 64


def test_json_has_the_form_of_its_schema(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.pretended.failing["two"] = "ValueError: no"
    assert run(json=True) is ExitCode.PRODUCT
    document = json.loads(capsys.readouterr().out)
    read = TypeAdapter(report.Document).validate_python(document)
    assert (
        report.document([each.measurement for each in read.cells], run=read.run, reproduce=read.reproduce) == document
    )
    (found,) = document["cells"]
    assert found["summary"]["failed"] == ["two_a", "two_b"]
    assert found["benchmarks"][0]["name"] == "fast_one"
    assert found["benchmarks"][0]["warm_up"] == {"instructions": 400_000, "pays_off": 2}
    assert found["measurement"]["results"][0]["baseline"]["calls"] == usual(jit=False)


def test_against_another_variant(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(against="nojit", only=["fast_one"]) is ExitCode.PASS
    assert machine.opened[0].variants == ("jit", "nojit")
    (recorded,) = history.list_runs(machine.ctx.settings)
    (found,) = model.load(recorded)
    assert (found.baseline.cell.variant, found.baseline.jit) == ("nojit", False)
    assert found.baseline.artifact != found.measured.artifact
    assert "with the JIT on against 3.15/x86_64/nojit, JIT off" in capsys.readouterr().out


def test_against_another_build_with_a_jit(machine: Machine) -> None:
    run(against="jit-tailcall", only=["fast_one"])
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert model.load(recorded)[0].baseline.jit


@pytest.mark.parametrize(("variant", "probe"), [("jit", NO_CODE), ("nojit", MAKES_CODE), ("interp", MAKES_CODE)])
def test_a_cell_whose_jit_makes_no_machine_code_is_vacuous(
    machine: Machine, capsys: pytest.CaptureFixture[str], variant: str, probe: dict[str, object]
) -> None:
    machine.probe = probe
    assert run(Request(variants=(variant,))) is ExitCode.VACUOUS
    assert machine.pretended.orders == []
    shown = capsys.readouterr().out
    assert shown.startswith(f"3.15/x86_64/{variant}: vacuous: ")
    assert "1.000" not in shown
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert model.load(recorded)[0].vacuous


def test_a_benchmark_that_fails_is_named_and_the_rest_goes_on(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.pretended.failing["two"] = "ModuleNotFoundError: No module named 'x'"
    assert run() is ExitCode.PRODUCT
    shown = capsys.readouterr().out
    assert "failed: two_a: 3.15/x86_64/jit, JIT on: exit status 1: ModuleNotFoundError: No module named 'x'" in shown
    assert "geometric mean 0.800 of 1 benchmark;" in shown


def test_counts_that_differ_are_an_error_of_the_machine(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.pretended.calls = lambda order, jit: [[{"jit": 9}, {"jit": 1_000 + len(machine.pretended.orders)}]]
    assert run(only=["fast_one"], repeat="2") is ExitCode.INFRASTRUCTURE
    assert "unreliable: fast_one: 3.15/x86_64/jit, JIT on: two runs differ: call 2 has 1," in capsys.readouterr().out


def test_a_benchmark_that_is_too_slow(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    slow = {True: 1_020, False: 1_000}
    machine.pretended.calls = lambda order, jit: [[{"jit": 1}, {"jit": slow[jit]}]]
    assert run(only=["fast_one"], fail_slower="2%") is ExitCode.PASS
    assert capsys.readouterr().err == ""
    assert run(only=["fast_one"], fail_slower="1.5 %") is ExitCode.PRODUCT
    note = "3.15/x86_64/jit: fast_one is slower by 2.00 %, and --fail-slower allows 1.5 %\n"
    assert capsys.readouterr().err == note
    assert run(only=["fast_one"]) is ExitCode.PASS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fast": True, "full": True}, "--only, --fast and --full each choose benchmarks"),
        ({"only": ["c_code"], "fast": True}, "--only, --fast and --full each choose benchmarks"),
        ({"only": ["c_cod"]}, "there is no benchmark 'c_cod'; did you mean 'c_code'?"),
        ({"fail_slower": "much"}, "invalid --fail-slower 'much': expected a percentage"),
        ({"html": "-", "json": True}, "only one report at a time can go to stdout"),
        ({"repeat": "0"}, "invalid --repeat '0': expected a whole number of at least 1"),
        ({"against": "jit"}, "jit cannot be compared with itself"),
        (
            {"against": "nojit", "request": Request(python="debian:forky/python3.15")},
            "--against cannot be combined with --python",
        ),
    ],
)
def test_refusals(machine: Machine, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run(**options)
    assert refused.value.message == message
    assert refused.value.hint
    assert machine.opened == []


def test_a_meter_that_counts_wrongly_measures_nothing(machine: Machine) -> None:
    machine.meter.scripts[metered.SELF_TEST] = lambda process: (metered.self_test_lines(wrong=1), 0)
    with pytest.raises(InfrastructureError, match="the meter counts wrongly"):
        run()
    assert machine.pretended.orders == []
    assert_nothing_is_left(machine, InfrastructureError)


@pytest.mark.parametrize("fault", [Fault.ENGINE_DIES, Fault.CONTAINER_VANISHES])
def test_no_container_is_left_by_an_engine_that_fails(machine: Machine, fault: Fault) -> None:
    programs = [f"{meter.FOLDER}/lib/{loader}" for loader in metered.LOADERS]

    def calls(order: dict[str, Any], jit: bool) -> Sequence[Sequence[Mapping[str, int]]]:
        machine.engine.faults.update(dict.fromkeys(programs, fault))
        return [usual(jit)]

    machine.pretended.calls = calls
    with pytest.raises(EngineError):
        run()
    if fault is Fault.CONTAINER_VANISHES:
        assert_nothing_is_left(machine, EngineError)


def assert_nothing_is_left(machine: Machine, error: type[CrossjitError]) -> None:
    assert machine.engine.containers == {}
    (recorded,) = history.list_runs(machine.ctx.settings)
    assert recorded.exit_code == error.exit_code
    with pytest.raises(UserError, match="measured nothing"):
        model.load(recorded)


def test_a_measurement_that_cannot_be_read(machine: Machine) -> None:
    run(only=["c_code"])
    (recorded,) = history.list_runs(machine.ctx.settings)
    path = recorded.cell_folder(recorded.cells[0]) / model.FILE
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"schema": model.SCHEMA + 1}))
    with pytest.raises(UserError, match="this crossjit reads up to 1"):
        model.load(recorded)
    document["results"][0]["measured"]["calls"][1] = {"jit": 0}
    for damaged in (document, document | {"call": "hot"}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(InfrastructureError, match="is damaged"):
            model.load(recorded)


def test_reports_are_written_on_request(
    machine: Machine, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    page, summary = tmp_path / "page.html", tmp_path / "summary.md"
    run(only=["fast_one"], html=str(page), markdown=str(summary))
    assert "With the JIT on: 20.0 % fewer instructions on x86_64" in page.read_text()
    assert summary.read_text().startswith("## crossjit: With the JIT on: 20.0 %")
    shown = capsysbinary.readouterr()
    assert shown.out.startswith(b"3.15/x86_64/jit: instructions with the JIT on against off")
    assert shown.err.decode().splitlines()[-2:] == [f"wrote {page}", f"wrote {summary}"]
    run(only=["fast_one"], html="-")
    assert capsysbinary.readouterr().out.startswith(b"<!DOCTYPE html>"), "a page on stdout has no text before it"


def test_times_are_recorded_for_the_next_run(machine: Machine) -> None:
    run()
    (path,) = (machine.ctx.settings.home / "durations").glob("measure-*.json")
    assert set(json.loads(path.read_text())) == {
        f"{each.name}, JIT {state}" for each in TABLE for state in ("on", "off")
    }


def test_the_variant_is_jit_unless_another_is_named_or_a_python_has_its_own() -> None:
    named = (Request(), Request(variants=("ft",)), Request(python="debian:forky/python3.15"))
    assert [request.with_jit().variants for request in named] == [("jit",), ("ft",), ()]
