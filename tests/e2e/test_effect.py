"""What `effect` sees in a real CPython: two planted losses, of the optimizer and of a single architecture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks import trees
from benchmarks.trees import Edit
from crossjit import PROJECT, settings, sources
from crossjit.config import recipes
from crossjit.model import Arch
from crossjit.progress import Silent
from tests.e2e.driver import Driver

pytestmark = [pytest.mark.engine, pytest.mark.slow]

# The optimizer no longer removes this guard where it knows the type.
GUARD_KEPT = Edit(
    "Python/optimizer_bytecodes.c",
    old="""\
        if (sym_matches_type(value, &PyFloat_Type)) {
            ADD_OP(_NOP, 0, 0);
        }
        sym_set_type(value, &PyFloat_Type);
""",
    new="""\
        sym_set_type(value, &PyFloat_Type);
""",
)
# Every uop writes a word to the stack, on AArch64.
SPILL = Edit(
    "Tools/jit/template.c",
    old="    switch (uopcode) {\n        // The actual instruction definition",
    new="""\
#if defined(__aarch64__)
    volatile int spilled = uopcode;
    (void)spilled;
#endif
    switch (uopcode) {
        // The actual instruction definition""",
)


def test_planted_losses_are_found_on_the_right_arch(driver: Driver, tmp_path: Path) -> None:
    """The base comes from the user's own stash, and is built if it is not there."""
    mirror = os.environ.get("CROSSJIT_SOURCE_MIRROR")
    real = driver.with_environ(CROSSJIT_SOURCE_MIRROR=mirror, CROSSJIT_HOME=str(settings.load().home))
    source = sources.resolve(recipes.find("3.15", PROJECT / "recipes").built_from, settings.load(), progress=Silent())
    checkout = trees.checkout(tmp_path, source, source.version)
    for edit in (GUARD_KEPT, SPILL):
        edit.apply(checkout, 1)
    options = ("effect", "--recipe", "3.15", "--source", checkout, "--base", source.archive)
    cells = real.run(*options, "--json", patience=7200).json["effect"]["cells"]
    assert [each["cell"]["arch"] for each in cells] == list(Arch)
    assert not [each["problems"] for each in cells if each["problems"]]
    for each in cells:
        works, stencils = each["programs"], each["stencils"]
        spilled = each["cell"]["arch"] == Arch.AARCH64
        assert _total(works, "after", "guards") > _total(works, "before", "guards")
        assert _total(works, "after", "type_checks") > _total(works, "before", "type_checks")
        assert _total(works, "after", "reference_counts") == _total(works, "before", "reference_counts")
        assert any(_gained(trace, "_GUARD_TOS_FLOAT") for work in works for trace in work["traces"])
        assert {uop["name"] for work in works for uop in work["uops"]} >= {"_GUARD_TOS_FLOAT"}
        assert bool(stencils["uops"]) is spilled
        assert (stencils["after"]["instructions"] > stencils["before"]["instructions"]) is spilled
        if spilled:
            added = _total(works, "after", "stores") - _total(works, "before", "stores")
            assert added > _total(works, "after", "uops") // 2  # most uops have machine code


def _total(works: list[dict[str, Any]], side: str, figure: str) -> int:
    return sum(int(work[side][figure]) for work in works)


def _gained(trace: dict[str, Any], uop: str) -> bool:
    """Whether a trace has a uop more often than before."""
    return bool((trace["after"] or []).count(uop) > (trace["before"] or []).count(uop))
