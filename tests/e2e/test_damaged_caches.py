"""A cache that is damaged, or that nobody can write to, costs time and fails no build: volumes spoiled for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.images import Image, Role
from crossjit.model import Arch
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

SPOILED = {
    "cut": "find /cache -type f -exec truncate --size=-9 {} +",
    "changed": "find /cache -type f | while read f; do printf x | dd of=$f bs=1 seek=200 conv=notrunc; done",
    "empty": "find /cache -type f -exec truncate --size=0 {} +",
    "folders": "find /cache -type f | while read f; do rm $f; mkdir $f; done",
    "pipes": "find /cache -type f | while read f; do rm $f; mkfifo -m 666 $f; done",
    "parts are files": "cd /cache; for part in *; do rm -r $part; echo >$part; done",
    "unwritable": "chown -R 0:0 /cache; find /cache -type d -exec chmod 555 {} +",
    "unreadable": "chown -R 0:0 /cache; chmod -R 0 /cache",
}


@pytest.mark.parametrize("how", SPOILED)
def test_an_odd_cache_fails_no_build(
    driver: Driver, recipe: Path, own_images: dict[tuple[Role, Arch], Image], host_arch: Arch, how: str
) -> None:
    build = ("build", "--recipe", recipe, "--rebuild", "--json")
    (first,) = driver.run(*build).json["cells"]
    (volume,) = driver.volumes()
    image = own_images[Role.TOOLCHAIN, host_arch].reference
    files = "test $(find /cache -type f | wc -l) -gt 3"
    spoiling = ("--rm", "--user", "0", "--volume", f"{volume}:/cache", "--entrypoint", "sh", image)
    driver.engine("run", *spoiling, "-c", f"set -e; {files}; {SPOILED[how]}")
    for _ in range(2):
        (cell,) = driver.run(*build).json["cells"]
        assert cell["artifact"] == first["artifact"]
    used = how != "unreadable"  # made anew, or only read
    assert any(counts["hits"] for counts in cell["caches"].values()) is used, cell["caches"]
    driver.run("cache", "show")
