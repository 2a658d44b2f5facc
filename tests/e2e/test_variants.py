"""What variants ask for beside options: a compiler, packages, an environment, a loader that finds libpython."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.model import Arch
from crossjit.stash.store import Store
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine


ASAN = """
packages = { target = ["libasan8"] }
environment = { ASAN_OPTIONS = "detect_leaks=0" }
"""


@pytest.fixture
def own(recipe: Path) -> Path:
    """The tiny recipe with variants of its own."""
    text = recipe.read_text().replace("offers = [", 'offers = ["clang", "wrong", "shared", "asan", "asan-alone", ')
    text += """
[variants.clang]
summary = "by clang"
configure = ["--enable-experimental-jit=yes", "CC=clang"]
expects = "machine-code"
suites = ["jit"]

[variants.shared]
summary = "with a library of its own"
configure = ["--enable-experimental-jit=yes", "--enable-shared"]
expects = "machine-code"
suites = ["jit"]

[variants.wrong]
summary = "by another arch's compiler"
configure = ["CC=sparc64-linux-gnu-gcc"]
expects = "none"
suites = ["jit"]
"""
    for name, more in (("asan-alone", ""), ("asan", ASAN)):
        text += f"""
[variants.{name}]
summary = "loads a library that targets lack"
configure = ["--enable-experimental-jit=yes", "CC=gcc -fsanitize=address"]
expects = "machine-code"
suites = ["jit"]
{more}
"""
    recipe.write_text(text)
    return recipe


def test_clang_compiles_for_both_archs(driver: Driver, own: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    both = ("--recipe", own, "--arch", host_arch, "--arch", foreign_arch, "--variant", "clang")
    cells = driver.run("build", *both, "--json").json["cells"]
    assert [cell["verdict"] for cell in cells] == ["pass", "pass"]
    manifests = {each.manifest.arch: each.manifest for each in Store(driver.settings.stash).artifacts()}
    for arch in (host_arch, foreign_arch):
        assert "clang version" in str(manifests[arch].compiler)
    assert f"--target={foreign_arch.triple}" in manifests[foreign_arch].configure


def test_a_compiler_for_another_arch_is_refused(driver: Driver, own: Path) -> None:
    refused = driver.run("build", "--recipe", own, "--variant", "wrong", expect=2)
    assert "CC=sparc64-linux-gnu-gcc compiles for sparc64-linux-gnu, and the cell is for" in refused.stderr


def test_a_shared_library_is_found_on_both_archs(
    driver: Driver, own: Path, host_arch: Arch, foreign_arch: Arch
) -> None:
    both = ("--recipe", own, "--arch", host_arch, "--arch", foreign_arch, "--variant", "shared")
    cells = driver.run("validate", *both, "--json").json["cells"]
    assert [cell["verdict"] for cell in cells] == ["pass", "pass"]


def test_what_the_target_lacks_is_our_side_and_a_variant_can_name_it(driver: Driver, own: Path) -> None:
    (cell,) = driver.run("build", "--recipe", own, "--variant", "asan-alone", "--json", expect=3).json["cells"]
    assert cell["verdict"] == "infra"
    assert "the target image lacks libasan.so" in cell["reasons"][0]
    assert "packages.target = ['libasan" in cell["reasons"][1]
    (cell,) = driver.run("validate", "--recipe", own, "--variant", "asan", "--json").json["cells"]
    assert cell["verdict"] == "pass"
