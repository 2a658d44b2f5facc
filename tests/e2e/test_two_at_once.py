"""Two commands that want the same cell at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import tiny_source
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine


def test_one_builds_and_the_other_waits_and_takes_it(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    source = tiny_source.archive(tmp_path / "held", {"hold-make": ""})
    build = ("build", "--recipe", recipe, "--source", source.path, "--json")
    first = driver.start(*build)
    container = first.until_held("make")
    second = driver.start(*build)
    second.until("the word that it waits", lambda: "another process is building it" in second.stderr)
    assert driver.containers() == [container]
    driver.release(container)
    built, taken = (each.wait().json["cells"][0] for each in (first, second))
    assert (built["from_stash"], taken["from_stash"]) == (False, True)
    assert built["artifact"] == taken["artifact"]
    assert driver.logs().count("/configure --prefix") == 1
    assert driver.leftovers(container) == []


def test_started_together(driver: Driver, recipe: Path) -> None:
    """Nothing is prepared: they meet at the source, at the images and at the build, wherever they are."""
    both = [driver.start("build", "--recipe", recipe, "--json") for _ in range(2)]
    cells = [each.wait().json["cells"][0] for each in both]
    assert sorted(cell["from_stash"] for cell in cells) == [False, True]
    assert cells[0]["artifact"] == cells[1]["artifact"]
    assert driver.logs().count("/configure --prefix") == 1
    assert driver.leftovers() == []
