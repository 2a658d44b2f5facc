"""What a user can get wrong, or the machine lack: one clear message, a hint, the right exit code, nothing left."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import tiny_source
from tests.e2e.driver import Done, Driver

pytestmark = pytest.mark.engine


def refused(driver: Driver, *arguments: str | Path, code: int) -> Done:
    """Run it; check what holds for every refusal: exit code, one message, one hint, no traceback, nothing left."""
    done = driver.run(*arguments, expect=code)
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, done.stderr
    assert sum(line.startswith("hint: ") for line in lines) == 1, done.stderr
    check_clean(driver, done)
    return done


def without_source(driver: Driver, *arguments: str | Path) -> str:
    """Run it where its cell has no source; return why, after checking the same: another recipe's cells would go on."""
    done = driver.run(*arguments, expect=3)
    (reason,) = re.findall(r"^\S+: infra\n  (.*\n(?:  .+\n)*)", done.stdout, re.MULTILINE)
    assert done.stdout.count("hint: ") == reason.count("\n  hint: ") == 1, done.stdout
    assert "error: " not in done.stderr
    check_clean(driver, done)
    return str(reason)


def check_clean(driver: Driver, done: Done) -> None:
    assert "Traceback" not in done.stdout + done.stderr
    assert "this is a bug" not in done.stderr
    assert not (driver.home / "crashes").exists()
    assert driver.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arch", "arch64"), ("'arch64'", "did you mean 'aarch64'?")),
        (("--recipe", "3.51"), ("'3.51'", "did you mean '3.15'?", "3.13, 3.14, 3.15, main")),
        (("--variant", "jit-debgu"), ("'jit-debgu'", "did you mean 'jit-debug'?")),
        (("--strategy", "crss"), ("'crss'", "did you mean 'cross'?")),
        (("--jobs", "many"), ("'many'", "--jobs 4")),
        (("--source", "./no-such-folder"), ("no-such-folder",)),
        (("--archs", "aarch64"), ("--archs", "did you mean '--arch'?")),
    ],
)
def test_words_that_are_not_known(driver: Driver, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    done = refused(driver, "build", *arguments, code=2)
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[archive]", "[archive", ("tiny.toml:5:",)),
        ('version = "3.15.0"', "version = 3.15", ("tiny.toml:6:", "version")),
        ('offers = ["jit", "jit-off"]', 'offers = "jit"\ndefualt = true', ("tiny.toml:2:", "did you mean 'default'?")),
        ('expects = "machine-code"', 'expects = "machine-cod"\nsuites2 = 1', ("tiny.toml:13:", "tiny.toml:14:")),
    ],
)
def test_recipes_that_are_wrong(driver: Driver, recipe: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    text = recipe.read_text()
    assert old in text
    recipe.write_text(text.replace(old, new))
    done = refused(driver, "build", "--recipe", recipe, code=2)
    assert all(word in done.stderr for word in words), done.stderr


def test_no_engine_answers(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    alone = driver.with_environ(
        DOCKER_HOST=f"unix://{tmp_path}/closed.sock", CONTAINER_HOST=f"unix://{tmp_path}/closed"
    )
    done = alone.run("build", "--recipe", recipe, expect=3)
    assert "Cannot connect" in done.stderr
    assert "hint: " in done.stderr
    check_clean(driver, done)
    assert alone.run("plan", "--recipe", recipe).stdout, "a plan needs no engine"


def test_no_engine_is_installed(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    done = driver.with_environ(PATH=str(tmp_path)).run("build", "--recipe", recipe, expect=3)
    assert driver.client in done.stderr
    assert "hint: " in done.stderr
    check_clean(driver, done)


def test_an_llvm_that_no_image_has(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    source = tiny_source.archive(tmp_path / "new", {"Tools/jit/_llvm.py": '_LLVM_VERSION = "99"\n'})
    done = refused(driver, "build", "--recipe", recipe, "--source", source.path, code=2)
    assert "no image has LLVM 99" in done.stderr


def test_an_archive_with_another_digest(driver: Driver, tmp_path: Path, tiny: tiny_source.Archive) -> None:
    recipe = tiny_source.recipe(tmp_path / "wrong.toml", tiny, sha256="0" * 64)
    reason = without_source(driver, "build", "--recipe", recipe)
    assert tiny.sha256 in reason
    assert "0" * 64 in reason
    assert list((driver.home / "sources").glob("[0-9a-f]*")) == []


def test_an_archive_that_is_cut_short(driver: Driver, recipe: Path, tmp_path: Path, tiny: tiny_source.Archive) -> None:
    short = tmp_path / "short.tar.gz"
    short.write_bytes(tiny.path.read_bytes()[:-200])
    done = refused(driver, "build", "--recipe", recipe, "--source", short, code=2)
    assert "short.tar.gz" in done.stderr
    whole = gzip.decompress(tiny.path.read_bytes())
    short.write_bytes(gzip.compress(whole[: len(whole) // 2 // 512 * 512]))
    refused(driver, "build", "--recipe", recipe, "--source", short, code=2)


def test_an_archive_with_a_path_that_leaves_its_folder(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "evil").mkdir()
    evil = tiny_source.archive(tmp_path / "evil", more={f"{tiny_source.TOP}/../../evil": b"escaped"})
    done = refused(driver, "build", "--recipe", recipe, "--source", evil.path, code=2)
    assert "leaves the top folder" in done.stderr
    assert [path for path in tmp_path.rglob("evil") if path.is_file()] == []


def test_mirrors_that_cannot_be_reached(driver: Driver, tmp_path: Path, tiny: tiny_source.Archive) -> None:
    with socket.socket() as closed:  # bound and not listening: it refuses
        closed.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{closed.getsockname()[1]}"
        places = (f"{mirror}/{tiny.path.name}", f"http://no-such-host.invalid/{tiny.path.name}")
        recipe = tiny_source.recipe(tmp_path / "far.toml", tiny, places=places)
        far = driver.with_environ(CROSSJIT_SOURCE_MIRROR=mirror)
        reason = without_source(far, "build", "--recipe", recipe)
    assert "no-such-host.invalid" in reason
    assert "CROSSJIT_SOURCE_MIRROR" in reason
    steps = [event for event in driver.last_run().events() if event.name == "source" and event.seconds is not None]
    assert steps[0].seconds is not None
    assert steps[0].seconds < 6, "a place that is dead costs a second or two"


def test_a_source_that_does_not_compile(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    source = tiny_source.archive(tmp_path / "broken", {"Python/broken.c": "int main(void) { return undeclared; }\n"})
    done = driver.run("build", "--recipe", recipe, "--source", source.path, expect=1)
    assert "make failed: exit status 2" in done.stdout
    shown = done.stdout + done.stderr
    assert "make -j2" in shown, "the command that failed"
    assert re.search("error: .undeclared. undeclared", shown), "what the compiler said"
    check_clean(driver, done)
    assert driver.stashed() == []
    assert "undeclared" in driver.logs()


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount a folder in memory, where that may be done."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root can mount")
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "crossjit-test", str(folder)], check=False)
    if done.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Leave no room on a small disk."""
    with contextlib.suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def test_a_stash_that_is_full(driver: Driver, recipe: Path) -> None:
    with mounted(driver.settings.stash, "size=64k"):
        (driver.settings.stash / "locks").mkdir()
        (driver.settings.stash / "tmp").mkdir()
        fill(driver.settings.stash)
        done = driver.run("build", "--recipe", recipe, expect=3)
        assert "cannot write to the stash: no space left on device" in done.stdout + done.stderr
        assert "CROSSJIT_HOME" in done.stdout + done.stderr
        check_clean(driver, done)
        assert driver.stashed() == []
    assert driver.run("build", "--recipe", recipe, "--json").json["cells"][0]["verdict"] == "pass"


def test_a_home_that_is_full(driver: Driver, recipe: Path) -> None:
    """The run record itself cannot be written."""
    known = driver.home / "images"
    shutil.move(known, driver.cwd.parent / "images")
    with mounted(driver.home, "size=16m"):  # has room for what is known of the images, of which a machine may have many
        shutil.copytree(driver.cwd.parent / "images", known)
        fill(driver.home)
        done = driver.run("build", "--recipe", recipe, expect=3)
        assert "no space left on device" in done.stderr
        assert "hint: " in done.stderr
        check_clean(driver, done)


def test_a_stash_that_is_read_only(driver: Driver, recipe: Path) -> None:
    with mounted(driver.settings.stash, "ro"):
        done = driver.run("build", "--recipe", recipe, expect=3)
        assert "cannot write to the stash: read-only file system" in done.stdout + done.stderr
        assert f"make {driver.settings.stash} writable" in done.stdout + done.stderr
        check_clean(driver, done)
        assert driver.stashed() == []
