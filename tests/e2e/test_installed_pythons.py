"""Debian's own build as a cell: fetched from the mirror, probed and tested, with nothing compiled. About a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.model import Arch
from crossjit.stash.store import Store
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

PYTHON = "debian:forky/python3.15"


def test_debians_build_is_a_cell(driver: Driver, host_arch: Arch) -> None:
    options = ("--python", PYTHON, "--tests", "test_capi.test_opt", "--json")
    (cell,) = driver.run("validate", *options, patience=900).json["cells"]  # the mirror may be slow
    assert cell["cell"] == f"forky-python3.15/{host_arch}/installed"
    assert (cell["verdict"], cell["strategy"]) == ("pass", "installed")
    assert "bytes of machine code" in cell["reasons"][0]
    (suite,) = cell["suites"]
    assert suite["suite"] == "jit"
    (artifact,) = Store(driver.settings.stash).artifacts()
    versions = {package.name: package.version for package in artifact.manifest.packages}
    assert versions["python3.15"] == versions["libpython3.15-testsuite"]
    assert all(len(package.sha256) == 64 for package in artifact.manifest.packages)
    described = driver.run("stash", "show", artifact.id).stdout
    assert "package python3.15 " in described
    # it is there now: no second one is made
    (again,) = driver.run("probe", "--python", PYTHON, "--json").json["cells"]
    assert (again["from_stash"], again["artifact"]) == (True, artifact.id)
    assert driver.containers() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--python", "debian:sid/python3.15"), "there is no image of Debian sid"),
        (("--python", "debian:forky/python3.99"), "forky has no package python3.99"),
        (("--python", PYTHON, "--variant", "jit"), "--python cannot be combined with --variant"),
        (("--python", "/nonexistent"), "there is no /nonexistent"),
    ],
)
def test_what_is_refused_leaves_nothing(driver: Driver, arguments: tuple[str, ...], message: str) -> None:
    refused = driver.run("probe", *arguments, expect=2)
    assert message in refused.stderr
    assert "hint: " in refused.stderr
    assert Store(driver.settings.stash).artifacts() == ()
    assert driver.containers() == []


def test_a_folder_of_another_arch_than_claimed(
    driver: Driver, host_arch: Arch, foreign_arch: Arch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.15").mkdir(parents=True)
    (tmp_path / "lib/python3.15/os.py").touch()
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + foreign_arch.elf_number.to_bytes(2, "little")
    (tmp_path / "bin/python3").write_bytes(header)
    refused = driver.run("validate", "--python", tmp_path, "--arch", host_arch, expect=2)
    assert f"is an {foreign_arch} Python: expected {host_arch}" in refused.stderr
    assert driver.runs() == ()
