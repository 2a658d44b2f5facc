"""Sources that mean harm before anything is built of them: refused as the source's fault, and at no cost."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver
from tests.hostile.test_trees import MEMORY, Watch, check_output
from tests.unit.test_bounds import HEADERS, filled, header, nested
from tests.unit.test_sources_archives import TOP, tar_of
from tests.unit.test_strangers_git import committed, tree_of
from tests.written import GITHUB

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.engine


def large_header(folder: Path) -> str:
    """An archive with a header of 256 MB."""
    path = folder / "x.tar.zst"
    begin, piece = HEADERS["pax"]
    with zstd.open(path, "wb") as file:
        file.write(header(tarfile.DIRTYPE, 0, TOP) + begin)
        for block in filled(piece, 256 << 20):
            file.write(block)
    return str(path)


def folders_in_folders(folder: Path) -> str:
    """An archive of a few kB with 40,000 folders in each other."""
    path = folder / "x.tar.zst"
    path.write_bytes(zstd.compress(tar_of(nested(40_000))))
    return str(path)


def million_files(folder: Path) -> str:
    """A pull request of a few hundred bytes with a million files."""
    checkout = tiny_source.checkout(folder / "repository")
    tree, mode = _git(checkout, "rev-parse", "HEAD:README"), "100644"
    for _ in range(6):
        tree, mode = tree_of(checkout, *((mode, f"{number}", tree) for number in range(10))), "40000"
    committed(checkout, tree)
    return _pull_request(checkout, "main")


def way_up(folder: Path) -> str:
    """A pull request with a file whose name leads out of its folder."""
    checkout = tiny_source.checkout(folder / "repository")
    tree = tree_of(checkout, ("100644", "..", _git(checkout, "rev-parse", "HEAD:README")))
    committed(checkout, tree_of(checkout, ("40000", "Lib", tree)))
    return _pull_request(checkout, "main")


def another_protocol(folder: Path) -> str:
    """A repository's address that is a program to run."""
    return f"ext::sh -c 'touch {folder}/run'#main"


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", checkout, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _pull_request(checkout: Path, ref: str) -> str:
    _git(checkout, "update-ref", "refs/pull/1/head", ref)
    return f"file://{checkout}#pull/1/head"


@pytest.mark.parametrize("make", [large_header, folders_in_folders, million_files, way_up, another_protocol])
def test_it_is_refused(make: Callable[[Path], str], make_driver: MakeDriver, recipe: Path, tmp_path: Path) -> None:
    driver = make_driver(environ=GITHUB)
    (tmp_path / "source").mkdir()
    source = make(tmp_path / "source")
    running = driver.start("build", "--recipe", recipe, "--source", source)
    watch = Watch(running.process.pid, driver.home)
    done = running.wait()
    watch.stop()
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "error: " in done.stderr
    check_output(done)
    assert watch.memory < MEMORY
    assert watch.disk < 100 << 20
    assert not (tmp_path / "source/run").exists()
    assert driver.leftovers() == []
