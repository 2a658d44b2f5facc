"""A pull request whose configure writes to every cache that it can reach, and a trusted build after it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from crossjit.build import cache_volume
from crossjit.stash.store import Store
from tests.e2e import tiny_source
from tests.e2e.driver import Driver

PARTS = ("configure", "stencils", "llvm", "pyc", "ccache")

# Appends to what is there, and leaves something in each part, in a folder of its own and beside all of them.
POISON = f"""#!/bin/sh
for cache in /cache /cache-below; do
    find $cache -type f -exec sh -c 'for file; do echo poison >>"$file"; done' - {{}} + 2>&1
    for part in {" ".join(PARTS)}; do
        mkdir -p $cache/$part/ab
        echo poison >$cache/$part/poison
        echo poison >$cache/$part/ab/poison
    done
    echo poison >$cache/poison
done
"""


def pull_request(folder: Path) -> str:
    """Make a repository with the poisonous commit at the ref that a pull request would have."""
    checkout = tiny_source.checkout(folder)
    configure = checkout / "configure"
    configure.write_text(POISON + configure.read_text().partition("\n")[2])
    git = ("git", "-C", str(checkout), "-c", "user.name=x", "-c", "user.email=x@example.org")
    for arguments in (("commit", "--quiet", "-am", "poison"), ("update-ref", "refs/pull/7/head", "HEAD")):
        subprocess.run([*git, *arguments], check=True)
    return f"{checkout}#pull/7/head"


def contents(driver: Driver, image: str, volume: str) -> dict[str, str]:
    """Return the digests of all files in a volume, by their names."""
    mount = ("--mount", f"type=volume,source={volume},target=/look,readonly")
    script = "cd /look && find . -type f -exec sha256sum {} +"
    said = driver.engine("run", "--rm", "--network", "none", *mount, image, "sh", "-c", script)
    return {name: digest for digest, name in (line.split("  ", 1) for line in said.splitlines())}


def test_a_pull_request_poisons_no_cache_but_its_own(
    driver: Driver, recipe: Path, tmp_path: Path, toolchain: str
) -> None:
    build = ("build", "--recipe", recipe, "--json")
    (trusted,) = driver.run(*build).json["cells"]
    shared = cache_volume.name(driver.settings)
    seed = "".join(
        f'mkdir -p /look/{part}; [ -n "$(ls /look/{part})" ] || echo {part} >/look/{part}/seed; ' for part in PARTS
    )
    mount = ("--mount", f"type=volume,source={shared},target=/look", "--user", "1000:1000")
    driver.engine("run", "--rm", "--network", "none", *mount, toolchain, "sh", "-c", seed)
    before = contents(driver, toolchain, shared)
    assert {name.split("/")[1] for name in before} == set(PARTS), "there is something to poison in each"

    source = pull_request(tmp_path / "cpython")
    (theirs,) = driver.run(*build, "--source", source).json["cells"]
    assert theirs["artifact"] != trusted["artifact"]
    assert contents(driver, toolchain, shared) == before
    (own,) = (name for name in driver.volumes() if name != shared)
    assert "poison" in "".join(contents(driver, toolchain, own)), "it did what it tries"

    (again,) = driver.run(*build, "--rebuild").json["cells"]
    assert again["artifact"] == trusted["artifact"]
    assert again["caches"]["configure"] == {"hits": 1, "misses": 0}
    domains = {each.id: each.manifest.domain for each in Store(driver.settings.stash).artifacts()}
    assert domains[trusted["artifact"]] == "recipes"
    assert domains[theirs["artifact"]].startswith("source-")

    shown = driver.run("cache", "show", "--json").json
    assert {each["volume"] for each in shown} == {shared, own}
    assert [each for each in shown if each["bytes"] > each["limit"]] == []
    assert sorted(driver.run("cache", "clear", "--json").json["removed"]) == sorted([shared, own])
    assert driver.leftovers() == []


def test_a_pull_request_that_changes_little_takes_what_is_trusted(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    checkout = tiny_source.checkout(tmp_path / "cpython")
    subprocess.run(["git", "-C", str(checkout), "update-ref", "refs/pull/7/head", "HEAD"], check=True)
    driver.run("build", "--recipe", recipe)
    (theirs,) = driver.run("build", "--recipe", recipe, "--source", f"{checkout}#pull/7/head", "--json").json["cells"]
    assert not theirs["from_stash"], "an archive's time stamps count, so it is another source"
    assert theirs["caches"]["compiler"]["hits"] > 0
    assert theirs["caches"]["compiler"]["misses"] == 0
