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


def test_a_build_without_jit_is_vacuous() -> None:
    """A green that proves nothing is told, and nothing runs."""
    document = crossjit("measure", "--variant", "ft", "--only", "short_loops", expect=4)
    (cell,) = document["cells"]
    assert cell["measurement"]["vacuous"] == "the variant ft makes no machine code"
    assert cell["benchmarks"] == []
