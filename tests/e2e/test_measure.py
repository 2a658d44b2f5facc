"""`measure` for real: two benchmarks on each architecture's CPython 3.15, whose counts are exact and make sense.

The cells are taken from the user's own stash, and built if they are not in it.
"""

from __future__ import annotations

import pytest

from crossjit.model import Arch
from tests.e2e.test_real_cpython import crossjit

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("arch", list(Arch), ids=str)
def test_counts_repeat_and_the_jit_saves_instructions(arch: Arch) -> None:
    document = crossjit("measure", "--arch", arch, "--only", "richards,short_loops,pidigits", "--repeat", "2")
    (cell,) = document["cells"]
    rows = {row["name"]: row for row in cell["benchmarks"]}
    assert {name: row["state"] for name, row in rows.items() if row["problem"]} == {}
    for result in cell["measurement"]["results"]:
        assert (result["measured"]["runs"], result["baseline"]["runs"]) == (2, 2)
        assert not any(counts.get("jit") for counts in result["baseline"]["calls"])
    assert rows["richards"]["ratio"] < 0.6
    assert rows["richards"]["jit_share"] > 0.5
    assert rows["richards"]["code_bytes"] > 100_000
    assert rows["short_loops"]["interpreter_share"] < rows["short_loops"]["baseline_interpreter_share"]
    assert abs(rows["pidigits"]["ratio"] - 1) < 0.02
    assert cell["summary"]["measured"] + len(cell["summary"]["untouched"]) == 3


@pytest.mark.parametrize("arch", list(Arch), ids=str)
def test_jit_code_is_divided_into_uops(arch: Arch) -> None:
    """Of a release build: all of it, to the instruction."""
    document = crossjit("measure", "--arch", arch, "--only", "nbody", "--detail", "uops")
    (found,) = document["cells"][f"3.15/{arch}/jit"]["benchmarks"]
    assert found["problem"] == ""
    division = found["uops"]
    uops = {uop["name"]: uop for uop in division["uops"]}
    assert division["other"] == 0
    assert division["instructions"] == found["counts"]["on"]["jit"]
    assert sum(uop["instructions"] for uop in uops.values()) + division["trampolines"] == division["instructions"]
    # its source multiplies 12 times for each of 10 pairs of bodies, and 3 times for each of 5, in 20,000 rounds; of
    # these, the interpreter may do a part of a round, before it enters an executor and after it leaves the last one
    assert 0 <= 20_000 * (12 * 10 + 3 * 5) - uops["_BINARY_OP_MULTIPLY_FLOAT"]["executions"] < 135
    assert uops["_LOAD_FAST_BORROW"]["instructions"] == 4 * uops["_LOAD_FAST_BORROW"]["executions"]
    assert uops["_START_EXECUTOR"]["places"] < division["executors"] < 20
    assert sum(uop["bytes"] for uop in uops.values()) < division["bytes"]


def test_instructions_by_function_and_accesses_are_all_there() -> None:
    options = ("measure", "--arch", "x86_64", "--only", "short_loops", "--detail")
    for detail in ("functions", "accesses"):
        (found,) = crossjit(*options, detail)["cells"]["3.15/x86_64/jit"]["benchmarks"]
        assert found["problem"] == ""
        for side, counts in found["counts"].items():
            if detail == "functions":
                by_class = dict.fromkeys((*counts, *(function["class"] for function in found["functions"])), 0)
                for function in found["functions"]:
                    by_class[function["class"]] += function[side]
                # what the markers need is not always taken from the same functions: they have some 1,000 instructions
                assert max(abs(count - counts.get(name, 0)) for name, count in by_class.items()) < 100
                assert by_class["interpreter"] == counts["interpreter"]
                assert by_class["jit"] == counts.get("jit", 0)
            else:
                for which in ("loads", "stores"):
                    assert found[which][side].keys() <= counts.keys()
                    assert 0.05 < sum(found[which][side].values()) / sum(counts.values()) < 0.6
        assert found["counts"]["on"]["jit"] > 0


def test_a_build_without_jit_is_vacuous() -> None:
    """A green that proves nothing is told, and nothing runs."""
    document = crossjit("measure", "--variant", "ft", "--only", "short_loops", expect=4)
    (cell,) = document["cells"]
    assert cell["measurement"]["vacuous"] == "the variant ft makes no machine code"
    assert cell["benchmarks"] == []
