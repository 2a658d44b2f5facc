"""Ctrl-C, SIGTERM, and an engine that dies, in the middle of make."""

from __future__ import annotations

import io
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossjit.images import Image, Role
from crossjit.model import Arch
from tests.e2e import private_engines, tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import GO, Driver
from tests.e2e.private_engines import PrivateEngine

pytestmark = pytest.mark.engine


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A source that holds in make."""
    (tmp_path / "held").mkdir()
    return tiny_source.archive(tmp_path / "held", {"hold-make": ""}).path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_in_make(driver: Driver, recipe: Path, held: Path, number: signal.Signals) -> None:
    build = ("build", "--recipe", recipe, "--source", held)
    running = driver.start(*build)
    container = running.until_held("make")
    running.signal(number)
    done = running.wait()
    assert done.returncode == 130
    assert "interrupted; nothing was left running" in done.stderr
    assert "Traceback" not in done.stderr
    assert driver.leftovers(container) == []
    assert driver.stashed() == []
    run = driver.last_run()
    assert (run.state.value, run.exit_code) == ("finished", 130)
    assert [result.verdict.value for result in run.results()] == ["aborted"]
    if number is signal.SIGINT:
        again = driver.start(*build, "--json").released()
        assert again.json["cells"][0]["verdict"] == "pass"


def test_a_second_ctrl_c_does_not_cut_the_cleaning_short(driver: Driver, recipe: Path, held: Path) -> None:
    running = driver.start("build", "--recipe", recipe, "--source", held)
    container = running.until_held("make")
    running.signal(signal.SIGINT)
    running.signal(signal.SIGINT)
    assert running.wait().returncode == 130
    assert driver.leftovers(container) == []


@pytest.fixture
def private_engine() -> Iterator[PrivateEngine]:
    """A second engine."""
    with private_engines.running() as engine:
        yield engine


MAKE = f"""#!/bin/sh
case " $* " in *" -n "*) exit 0 ;; esac # asked what it would do
echo "holding in make"
rounds=0
while [ ! -e {GO} ] && [ $((rounds += 1)) -lt 6000 ]; do sleep 0.1; done
echo "there is nothing to make here"
exit 1
"""


# Stands for toolchain/build_cache.py: configure is run, the rest is nothing.
PYTHON = """#!/bin/sh
[ "$2" != configure ] || { shift 3; exec "$@"; }
"""


def import_stand_in(driver: Driver, engine: PrivateEngine, toolchain: Image, target: Image, folder: Path) -> None:
    """Have the small target image there, under both images' names, with programs in it that pretend to compile."""
    tree = folder / "tree.tar"
    container = driver.engine("create", target.reference, "true").strip()
    try:
        driver.engine("export", "--output", str(tree), container)
    finally:
        driver.engine("rm", container)
    with tarfile.open(tree, "a") as tar:
        for name, script in (("make", MAKE), ("gcc", "#!/bin/sh\n"), ("python3", PYTHON)):
            member = tarfile.TarInfo(f"usr/bin/{name}")
            member.size, member.mode = len(script), 0o755
            tar.addfile(member, io.BytesIO(script.encode()))
    there = driver.with_environ(DOCKER_HOST=engine.host)
    identity = there.engine("import", "--platform", target.arch.platform, str(tree), toolchain.reference).strip()
    there.engine("tag", toolchain.reference, target.reference)
    known = driver.home / "images"
    listing = (known / f"{toolchain.id.removeprefix('sha256:')}.packages").read_text()
    (known / f"{identity.removeprefix('sha256:')}.packages").write_text(listing)


def test_the_engine_dies_in_make(
    make_driver: MakeDriver,
    recipe: Path,
    tmp_path: Path,
    private_engine: PrivateEngine,
    own_images: dict[tuple[Role, Arch], Image],
    host_arch: Arch,
) -> None:
    driver = make_driver()
    if driver.client != "docker":
        pytest.skip("podman has no daemon that could die")
    images = own_images[Role.TOOLCHAIN, host_arch], own_images[Role.TARGET, host_arch]
    import_stand_in(driver, private_engine, *images, tmp_path)
    there = driver.with_environ(DOCKER_HOST=private_engine.host)

    running = there.start("build", "--recipe", recipe)
    container = running.until_held("make")
    private_engine.kill()
    done = running.wait()
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    (cell,) = there.last_run().results()
    assert cell.verdict.value == "infra"
    where = f"docker at {private_engine.host}, by DOCKER_HOST"
    assert f"the container engine ({where}) does not answer" in cell.reasons[0]
    assert "infra" in done.stdout
    assert "left: the container crossjit-build-" in done.stderr
    assert "docker rm --force --volumes crossjit-build-" in done.stderr
    assert "make failed" not in done.stdout, "that would blame CPython"
    assert there.stashed() == []

    private_engine.start()
    assert there.containers() == [container]
    again = there.start("build", "--recipe", recipe).released()
    assert "removed leftovers of a run that died" in again.stderr
    assert "there is nothing to make here" in again.stdout
    assert again.returncode == 1
    assert there.leftovers(container) == []
