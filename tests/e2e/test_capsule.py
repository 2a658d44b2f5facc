"""A failure of the tiny source in a capsule: replayed from another state folder, and refused once it was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver

pytestmark = pytest.mark.engine

TEST = "test.test_capi.test_opt.Tests.test_007"


def test_a_failed_test_is_seen_again_elsewhere(
    make_driver: MakeDriver, recipe: Path, tmp_path: Path, foreign_arch: Arch
) -> None:
    here, there = make_driver("here"), make_driver("there")
    checkout = tiny_source.checkout(tmp_path / "cpython")
    (checkout / "fail-test").touch()
    cell = ("--recipe", recipe, "--arch", foreign_arch, "--variant", "jit", "--suite", "jit")
    here.run("validate", *cell, "--source", checkout, expect=1)
    capsule = tmp_path / "failure.capsule"
    made = here.run("capsule", "-o", capsule, "--json").json
    assert [failure["name"] for failure in made["failures"]] == [TEST]
    assert made["bytes"] == capsule.stat().st_size
    assert "exists" in here.run("capsule", "-o", capsule, expect=2).stderr

    replayed = there.run("replay", capsule, "--json").json
    assert replayed["same"] is True
    (result,) = replayed["results"]
    assert (result["name"], result["answer"], result["here"]["failed"]) == (TEST, "the same", 5)
    assert replayed["differences"] == []
    # a stranger's build serves nobody
    assert there.stashed() == []
    assert there.leftovers() == []

    content = bytearray(capsule.read_bytes())
    content[len(content) // 2] ^= 1
    capsule.write_bytes(content)
    refused = there.run("replay", capsule, expect=2)
    assert "it was changed" in refused.stderr or "is damaged" in refused.stderr
    assert "hint: ask whoever made it" in refused.stderr
    assert there.leftovers() == []


def test_a_build_that_only_this_machine_can_make(make_driver: MakeDriver, recipe: Path, tmp_path: Path) -> None:
    driver = make_driver()
    checkout = tiny_source.checkout(tmp_path / "cpython")
    (checkout / "crash-test").touch()
    driver.run("validate", "--recipe", recipe, "--source", checkout, "--suite", "jit", "--variant", "jit", expect=1)
    capsule = tmp_path / "crash.capsule"
    refused = driver.run("capsule", "-o", capsule, "--without-artifact", expect=2)
    assert "which no other machine has" in refused.stderr
    assert not capsule.exists()
    passed = driver.run("capsule", "--cell", "tiny/x86_64/nojit", "-o", capsule, expect=2)
    assert "nothing failed in tiny/x86_64/nojit" in passed.stderr
