"""What is known of an arch: one file for each, and one more is all that a new one takes."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from crossjit import PROJECT
from crossjit.model import Arch
from tests.project import copy_project

NEW = """
debian = "riscv64"
aliases = ["rv64"]
elf_machine = "EM_RISCV"
elf_number = 243
loader = "ld-linux-riscv64-lp64d.so.1"
library_cache_flags = 0x1003
runner = "riscv-of-ours"
exit_42 = "1305a0029308d00573000000"
cpu = "rva22s64"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of crossjit in which a file was added."""
    copy = copy_project(tmp_path_factory.mktemp("project"))
    (copy / "crossjit/model/arches/riscv64.toml").write_text(NEW)
    return copy


def run(project: Path, *command: str) -> str:
    environment = {**os.environ, "CROSSJIT_HOME": str(project / "home"), "DOCKER_HOST": f"unix://{project}/no.sock"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_fact_of_every_arch_is_there() -> None:
    facts = {name: kind for name, kind in get_type_hints(Arch).items() if not name.startswith("_")}
    assert len(facts) >= 8
    for arch in Arch:
        for name, kind in facts.items():
            assert isinstance(getattr(arch, name), getattr(kind, "__origin__", kind)), (arch, name)


def test_the_probe_names_every_arch_as_its_file_does() -> None:
    """It runs in the target, where none of these files are."""
    table = runpy.run_path(str(PROJECT / "validate" / "probe.py"))["ELF_MACHINES"]
    assert {arch.elf_number: arch.elf_machine for arch in Arch}.items() <= table.items()


@pytest.mark.parametrize(
    ("name", "arch"),
    [("aarch64", "aarch64"), ("arm64", "aarch64"), ("AMD64", "x86_64"), ("x86_64", "x86_64"), ("armv7l", None)],
)
def test_machines_have_the_names_of_kernels_and_engines(name: str, arch: str | None) -> None:
    assert Arch.of_machine(name) == arch


def test_the_archs_come_in_a_fixed_order_and_know_each_other() -> None:
    assert list(Arch) == ["x86_64", "aarch64"]
    assert Arch.X86_64.others == (Arch.AARCH64,)


def test_cells_know_a_new_arch(project: Path) -> None:
    cells = json.loads(run(project, "-m", "crossjit", "cells", "--json"))
    assert {cell["arch"] for cell in cells} == {"x86_64", "aarch64", "riscv64"}
    matrix = json.loads(run(project, "-m", "crossjit", "cells", "--format", "github", "--arch", "riscv64"))
    assert {entry["runner"] for entry in matrix["include"]} == {"riscv-of-ours"}


def test_plans_know_a_new_arch(project: Path) -> None:
    (cell,) = json.loads(
        run(project, "-m", "crossjit", "plan", "--json", "--arch", "riscv64", "--variant", "jit", "--recipe", "3.15")
    )
    assert (cell["cell"], cell["strategy"]) == ("3.15/riscv64/jit", "cross")
    (probe,) = [step for step in cell["steps"] if step["name"] == "probe"]
    assert (probe["arch"], probe["emulated"]) == ("riscv64", True)


def test_help_knows_a_new_arch(project: Path) -> None:
    text = " ".join(run(project, "-m", "crossjit", "validate", "--help").split())
    assert "x86_64, aarch64, riscv64 or all" in text
    assert "rva22s64 for riscv64" in text


def test_its_other_names_are_suggested(project: Path) -> None:
    script = "from crossjit.pipeline import plan; plan.parse_arch('rv64')"
    with pytest.raises(AssertionError, match=re.escape("there is no arch 'rv64'; did you mean 'riscv64'?")):
        run(project, "-c", script)


def test_images_and_the_host_know_a_new_arch(project: Path) -> None:
    script = """
import crossjit
from crossjit.host import emulation
from crossjit.images.builder import _arguments
from crossjit.images.spec import Role, load_all
from crossjit.model import Arch

spec, arch = load_all(crossjit.PROJECT / "images")[0], Arch("riscv64")
packages = spec.packages(Role.TOOLCHAIN, Arch("x86_64"), Arch("x86_64"))
assert {"gcc-aarch64-linux-gnu", "gcc-riscv64-linux-gnu", "libssl-dev:arm64", "libssl-dev:riscv64"} <= set(packages)
assert _arguments(spec, Role.TOOLCHAIN, Arch("x86_64"), Arch("x86_64"))["FOREIGN"] == "arm64 riscv64"
assert _arguments(spec, Role.TARGET, arch, Arch("x86_64"))["LIBRARY_CACHE_FLAGS"] == "4099"
assert emulation.environment(Arch("x86_64"), arch) == {"QEMU_CPU": "rva22s64"}
handler = f"enabled\\ninterpreter /q\\nflags: F\\noffset 0\\nmagic 7f454c460201010000000000000000000200f300"
assert emulation._parse("any", handler, True, lambda argv: None).arch is arch
"""
    run(project, "-c", script)


@pytest.mark.parametrize(
    ("text", "told"),
    [(NEW.replace("runner", "runer"), "runer, runner"), (NEW.replace('cpu = "rva22s64"', ""), "cpu")],
)
def test_a_file_that_lacks_a_fact_is_told(project: Path, text: str, told: str) -> None:
    broken = project / "crossjit/model/arches/broken.toml"
    broken.write_text(text)
    try:
        with pytest.raises(AssertionError, match=re.escape(f"arches/broken.toml: keys missing or unknown: {told}")):
            run(project, "-m", "crossjit", "cells")
    finally:
        broken.unlink()
