"""What programs execute in two builds: what is compared, how it is told, and what uops do."""

from __future__ import annotations

import ast
import runpy
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from crossjit.effect import execution, operations, work
from crossjit.effect.model import Effect
from crossjit.effect.operations import Operation, Operations
from crossjit.effect.work import Figures, ProgramWork, Ran
from crossjit.errors import InfrastructureError
from crossjit.images.spec import METER
from crossjit.measure import programs
from crossjit.measure.detail import Warm
from crossjit.measure.model import Sample
from crossjit.measure.uops import Division, Step, Trace
from crossjit.report import effect_work
from tests import example_effects as example
from tests.example_effects import ARM, X86

METADATA = """
const uint32_t _PyUop_Flags[MAX_UOP_ID+1] = {
    [_LOAD_FAST] = HAS_ARG_FLAG | HAS_LOCAL_FLAG | HAS_PURE_FLAG,
    [_GUARD_TOS_INT] = HAS_EXIT_FLAG,
    [_CHECK_VALIDITY] = HAS_DEOPT_FLAG,
    [_POP_TOP] = HAS_ESCAPES_FLAG | HAS_PURE_FLAG,
    [_NOP] = 0,
};
"""
CASES = """
        case _NOP_r00: {
            break;
        }

        case _LOAD_FAST_r01: {
            assert(!PyStackRef_IsNull(GETLOCAL(oparg)));
            value = PyStackRef_DUP(GETLOCAL(oparg));
            break;
        }

        case _LOAD_FAST_r12: {
            value = PyStackRef_DUP(GETLOCAL(oparg));
            break;
        }

        case _GUARD_TOS_INT_r11: {
            if (!_PyLong_CheckExactAndCompact(value_o)) {
                JUMP_TO_JUMP_TARGET();
            }
            break;
        }

        case _CHECK_VALIDITY_r00: {
            assert(PyLong_CheckExact(
                PyStackRef_AsPyObjectBorrow(value)));
            break;
        }

        case _POP_TOP_r10: {
            PyStackRef_XCLOSE(value);
            break;
        }
"""
KNOWN = operations.read(METADATA, CASES)


def test_what_uops_do_is_read_from_the_build() -> None:
    assert KNOWN.known == {"_NOP", "_LOAD_FAST", "_GUARD_TOS_INT", "_CHECK_VALIDITY", "_POP_TOP"}
    assert KNOWN.of == {
        Operation.GUARDS: {"_GUARD_TOS_INT", "_CHECK_VALIDITY"},
        Operation.TYPE_CHECKS: {"_GUARD_TOS_INT"},
        Operation.REFERENCE_COUNTS: {"_LOAD_FAST", "_POP_TOP"},
    }


@pytest.mark.parametrize(
    ("metadata", "cases", "file"), [("", CASES, operations.METADATA), (METADATA, "", operations.CASES)]
)
def test_an_unknown_form_is_an_error(metadata: str, cases: str, file: str) -> None:
    with pytest.raises(InfrastructureError, match=f"{file} has an unknown form") as raised:
        operations.read(metadata, cases)
    assert raised.value.hint


def ran(*traces: Trace, cold: int = 2000, warm: int = 1000, jit: int = 500) -> Ran:
    """Return a program that ran these traces."""
    sample = Sample(({"jit": cold}, {"jit": jit, "python": warm - jit}))
    division = Division(traces, 4096, jit, 0, 0)
    return Ran(sample, Warm({"jit": jit}, loads={"jit": 30}, stores={"jit": 20, "python": 7}, uops=division))


def trace(place: str, *steps: tuple[str, int | None, int]) -> Trace:
    return Trace(place, tuple(Step(name, 8, executions, instructions) for name, executions, instructions in steps))


BEFORE = trace("m.f:3", ("_GUARD_TOS_INT", 100, 400), ("_LOAD_FAST", 100, 300), ("_POP_TOP", 90, 500), ("_NOP", 90, 0))
AFTER = trace("m.f:3", ("_LOAD_FAST", 100, 300), ("_NOP", 100, 0), ("_POP_TOP", 90, 480))
SIDE_EXIT = trace("m.f:3 > 7", ("_NOP", 10, 10))
IDLE = trace("m.g:9", ("_POP_TOP", 0, 0))


def compared(before: Ran, after: Ran, changed: frozenset[str] = frozenset()) -> ProgramWork:
    return work.compare("m.f", before, after, (KNOWN, KNOWN), changed)


def test_a_program_in_two_builds() -> None:
    found = compared(ran(BEFORE, IDLE), ran(AFTER, SIDE_EXIT, warm=950, jit=440), frozenset({"_POP_TOP", "_OTHER"}))
    assert found.before == Figures(2000, 1000, 500, 30, 20, 380, 100, 100, 190)
    assert found.after == Figures(2000, 950, 440, 30, 20, 300, 0, 0, 190)
    assert found.changed == ("_POP_TOP",)
    assert found.change == pytest.approx(-0.05)
    assert found.moved
    assert {uop.name: (uop.executions_before, uop.executions_after) for uop in found.uops} == {
        "_GUARD_TOS_INT": (100, 0),
        "_NOP": (90, 110),
        "_POP_TOP": (90, 90),
    }
    same_place, side_exit = found.traces
    assert (same_place.place, same_place.gone, same_place.new) == ("m.f:3", {"_GUARD_TOS_INT": 1}, {})
    assert (same_place.entered_before, same_place.entered_after) == (100, 100)
    assert (side_exit.before, side_exit.after, side_exit.entered_before) == (None, ("_NOP",), 0)


def test_a_program_that_is_the_same() -> None:
    found = compared(ran(BEFORE), ran(BEFORE))
    assert (found.uops, found.traces, found.moved, found.changed) == ((), (), False, ())


def test_movements_within_the_noise_count_only_in_jit_code() -> None:
    assert not compared(ran(warm=10_000), ran(warm=10_020)).moved
    assert compared(ran(warm=10_000), ran(warm=10_030)).moved
    assert compared(ran(warm=10_000, jit=500), ran(warm=10_000, jit=501)).moved


def test_what_is_unknown_stays_unknown() -> None:
    strange = ran(trace("m.f:3", ("_STRANGE", 5, 5), ("_NOP", None, 0)))
    found = compared(ran(BEFORE), strange)
    assert found.after
    assert (found.after.guards, found.after.reference_counts, found.after.uops) == (None, None, None)
    before, after = work.sums([found, compared(ran(BEFORE), ran(BEFORE))])
    assert (before.guards, after.guards, after.jit) == (200, None, 1000)


def test_sums_leave_out_what_failed() -> None:
    found = compared(ran(BEFORE), ran(AFTER))
    assert work.sums([found, ProgramWork("broken", problem="it failed")]) == (found.before, found.after)
    assert [uop.name for uop in work.uops([found, found])] == [uop.name for uop in found.uops]
    assert next(uop for uop in work.uops([found, found]) if uop.name == "_NOP").executions_after == 200


def program(name: str, *, warm: int, jit: int, jit_after: int | None = None) -> ProgramWork:
    """Return a program whose JIT code needs another number of instructions after a change, and the rest the same."""
    after = jit if jit_after is None else jit_after
    return ProgramWork(name, Figures(warm, warm, jit, uops=jit), Figures(warm, warm + after - jit, after, uops=after))


# What is told


def effect(*, programs: tuple[ProgramWork, ...] = (), benchmarks: tuple[ProgramWork, ...] = ()) -> Effect:
    found = example.few()
    cells = (replace(cell, programs=programs, benchmarks=benchmarks) for cell in found.cells)
    return replace(found, cells=tuple(cells))


def test_programs_that_did_not_move_are_the_same() -> None:
    found = effect(programs=(compared(ran(BEFORE), ran(BEFORE)),))
    assert effect_work.sentences(found) == ("small programs run the same JIT code on x86_64 and aarch64",)
    (figures,) = effect_work.tables(found, 5)
    assert figures.title == "1 small program together, before and after"
    assert ("guards executed", "100", "100") in figures.rows
    assert effect_work.traces(found) == ()


def test_tables_of_what_moved() -> None:
    moved = compared(ran(BEFORE), ran(AFTER, SIDE_EXIT, warm=950, jit=440), frozenset({"_POP_TOP"}))
    others = tuple(program(f"other{number}", warm=1000, jit=500, jit_after=600) for number in range(7))
    failed = ProgramWork("failed", problem="in the change: signal 11")
    figures, rows, uops = effect_work.tables(effect(benchmarks=(*others, moved, failed)), 5)
    assert figures.headers == ("figure", "x86_64", "aarch64")
    assert ("guards executed", "100 → 0, -100.00 %", "100 → 0, -100.00 %") in figures.rows
    assert rows.rows[0] == ("m.f", "-12.00 %; all -5.00 %", "-12.00 %; all -5.00 %"), "what the change touches is first"
    assert rows.rows[1] == ("other0", "+20.00 %; all +10.00 %", "+20.00 %; all +10.00 %")
    assert rows.more == 4
    assert ("_POP_TOP", "90, instructions -4.00 %", "90, instructions -4.00 %") in uops.rows
    (wide,) = (
        table
        for table in effect_work.tables(effect(benchmarks=(*others, moved, failed)), 50)
        if table.more == 0 and table.headers[0] == "benchmark"
    )
    assert ("failed", "in the change: signal 11", "in the change: signal 11") in wide.rows


def test_a_trace_is_told_once_for_both_archs() -> None:
    moved = compared(ran(BEFORE), ran(AFTER, SIDE_EXIT))
    found = effect_work.traces(effect(programs=(moved,)))
    assert [each.arches for each in found] == [("x86_64", "aarch64")] * 2
    assert effect_work.trace_title(found[0]) == (
        "m.f, m.f:3, x86_64 and aarch64: entered 100; instructions 1,200 → 780, -35.00 %"
    )
    assert effect_work.trace_change(found[0]) == "-_GUARD_TOS_INT"
    assert effect_work.trace_title(found[1]).startswith("m.f, m.f:3 > 7, x86_64 and aarch64: new, entered 0 → 10")
    assert effect_work.trace_change(found[1]) == "1 uop"


def test_archs_that_differ_are_told_apart() -> None:
    found = example.few()
    first = replace(found.cells[0], programs=(program("a", warm=1000, jit=500, jit_after=400),))
    second = replace(found.cells[1], programs=(program("a", warm=1000, jit=500),))
    told = replace(found, cells=(first, second))
    assert effect_work.sentences(told) == ("small programs on x86_64: -20.00 % instructions of JIT code",)
    _, rows = effect_work.tables(told, 5)
    assert rows.rows == (("a", "-20.00 %; all -10.00 %", "="),)
    assert [each.cell.arch for each in told.cells] == [X86, ARM]


# The small programs


class Runner:
    """Stands for pyperf's: runs each program once."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def bench_func(self, name: str, function: Callable[[], object]) -> None:
        function()
        self.ran.append(name)


def test_all_small_programs_run_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner()
    pyperf: Any = types.ModuleType("pyperf")
    pyperf.Runner = lambda: runner
    monkeypatch.setitem(sys.modules, "pyperf", pyperf)
    monkeypatch.syspath_prepend(str(METER))
    for name in [name for name in sys.modules if name.partition(".")[0] == "programs"]:
        monkeypatch.delitem(sys.modules, name)
    runpy.run_path(str(METER / f"{programs.SCRIPT}.py"))
    assert tuple(runner.ran) == programs.benchmark().results
    assert len(runner.ran) > 100


def test_each_small_program_says_what_it_does() -> None:
    for path in programs.FOLDER.glob("*.py"):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_a_version_whose_executors_are_not_known() -> None:
    prepared: Any = types.SimpleNamespace(python=(3, 14), version="3.14.7")
    assert execution.why_not(prepared) == "the executors of 3.14.7 are not known"
    assert execution.why_not(types.SimpleNamespace(python=(3, 15), version="3.15.0")) == ""  # type: ignore[arg-type]


def test_operations_have_all_their_names() -> None:
    assert isinstance(KNOWN, Operations)
    assert set(KNOWN.of) == set(Operation)
