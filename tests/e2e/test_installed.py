"""A crossjit that was installed from its wheel builds and validates, in a folder that has nothing to do with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.model import Arch
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine


def test_it_validates_what_a_clone_finds_in_the_stash(
    driver: Driver, recipe: Path, installed: Path, tmp_path: Path, host_arch: Arch
) -> None:
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    command = ("validate", "--recipe", recipe, "--arch", host_arch, "--json")
    (cell,) = replace(driver, python=str(installed), project=nothing).run(*command).json["cells"]
    assert (cell["verdict"], cell["from_stash"], cell["suites"][0]["run"]) == ("pass", False, 600)
    (again,) = driver.run(*command).json["cells"]
    assert (again["verdict"], again["from_stash"], again["artifact"]) == ("pass", True, cell["artifact"])
    assert driver.leftovers() == []
