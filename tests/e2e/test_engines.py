"""Cells on two engines: a second daemon on a socket of its own, and this machine's over ssh."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from crossjit.images import Image, Role
from crossjit.model import Arch
from tests.e2e import private_engines, tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Done, Driver, Running
from tests.e2e.private_engines import PrivateEngine, SshDoor

pytestmark = pytest.mark.engine

VARIANTS = ("jit", "jit-b", "jit-c", "jit-d")
NEAR, FAR = "near", "far"
WORK = 20  # seconds that each build waits


@dataclass(frozen=True)
class Engines:
    """Two engines, and drivers that know them; what they leave in the far one is what `driver.containers` finds."""

    near: PrivateEngine
    far: SshDoor
    make_driver: MakeDriver

    def driver(self, name: str, *engines: str) -> Driver:
        """Make a driver that has these engines."""
        addresses = {NEAR: self.near.host, FAR: self.far.host}
        driver = self.make_driver(
            name,
            environ={
                "CROSSJIT_ENGINES": " ".join(f"{engine}={addresses[engine]}" for engine in engines),
                "PATH": f"{self.far.path}:{os.environ['PATH']}",
            },
        )
        for engine in engines:  # the images that are in both
            shutil.copytree(driver.home / "images", driver.home / "engines" / engine / "images")
        return driver

    def near_containers(self, driver: Driver) -> list[str]:
        """List a driver's containers in the near engine."""
        return driver.with_environ(DOCKER_HOST=self.near.host).containers()


@pytest.fixture(scope="module")
def near(own_images: dict[tuple[Role, Arch], Image]) -> Iterator[PrivateEngine]:
    """A second engine that has the images."""
    if (os.environ.get("CROSSJIT_ENGINE") or "docker") != "docker":
        pytest.skip("engines by name are docker's")
    references = [image.reference for (role, _), image in own_images.items() if role is not Role.DEBUG]
    with private_engines.running() as engine:
        with subprocess.Popen(["docker", "save", *references], stdout=subprocess.PIPE) as saving:
            subprocess.run(
                ["docker", "--host", engine.host, "load", "--quiet"],
                stdin=saving.stdout,
                check=True,
                capture_output=True,
            )
        assert saving.returncode == 0
        yield engine


@pytest.fixture
def engines(near: PrivateEngine, make_driver: MakeDriver) -> Iterator[Engines]:
    with private_engines.ssh_door() as door:
        yield Engines(near, door, make_driver)


@pytest.fixture
def four(tmp_path: Path, tiny: tiny_source.Archive) -> Path:
    """A recipe with four cells of the tiny source."""
    path = tiny_source.recipe(tmp_path / "four.toml", tiny)
    text = path.read_text()
    text = text.replace('offers = ["jit", "jit-off"]', f"offers = {list(VARIANTS)}".replace("'", '"'))
    text = text.replace('default_variants = ["jit"]', f"default_variants = {list(VARIANTS)}".replace("'", '"'))
    text = text[: text.index("[variants.jit-off]")]
    for name in VARIANTS[1:]:
        text += f"""\
[variants.{name}]
summary = "the same under another name"
configure = ["--enable-experimental-jit=yes"]
expects = "machine-code"
suites = ["jit"]
environment = {{ TINY_NAME = "{name}" }}

"""
    path.write_text(text)
    return path


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A source whose builds wait, as for the cores of another machine: the engines of the tests share this one's."""
    (tmp_path / "slow").mkdir()
    wait = f'[ ! -e "$1/hold-$2" ] || sleep {WORK}\n'
    return tiny_source.archive(tmp_path / "slow", {"hold-make": "", "Tools/tiny/hold.sh": wait}).path


def test_four_cells_on_two_engines(
    engines: Engines, four: Path, slow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = ("validate", "--recipe", four, "--source", slow, "--json")
    alone = engines.driver("alone", NEAR).run(*validate)
    driver = engines.driver("both", NEAR, FAR)
    done = driver.run(*validate)

    cells = done.json["cells"]
    assert [cell["cell"] for cell in cells] == [cell["cell"] for cell in alone.json["cells"]]
    assert [cell["verdict"] for cell in cells] == ["pass"] * 4
    assert {cell["engine"] for cell in cells} == {NEAR, FAR}
    assert {cell["engine"] for cell in alone.json["cells"]} == {None}
    assert [cell["lost_on"] for cell in cells] == [[]] * 4
    # the builds are the same wherever they are made
    assert [cell["build_key"] for cell in cells] == [cell["build_key"] for cell in alone.json["cells"]]
    assert [cell["artifact"] for cell in cells] == [cell["artifact"] for cell in alone.json["cells"]]
    assert len(driver.stashed()) == 4
    assert {result.engine for result in driver.last_run().results()} == {NEAR, FAR}
    assert set(driver.last_run().facts["engines"]) == {NEAR, FAR}  # type: ignore[call-overload]
    titles = [line for line in done.stderr.splitlines() if " jit " in line]
    assert {title.partition(" on ")[2].split()[0] for title in titles} == {NEAR, FAR}
    shown = driver.run("validate", "--recipe", four, "--source", slow).stdout
    assert shown.splitlines()[0].split() == ["cell", "verdict", "built", "tests", "time", "artifact", "engine"]
    assert driver.leftovers() == []
    assert engines.near_containers(driver) == []
    with capsys.disabled():
        ratio = alone.seconds / done.seconds
        print(f"\nfour cells: {alone.seconds:.1f} s on one engine, {done.seconds:.1f} s on two, {ratio:.2f} times")  # noqa: T201


def test_plan_and_doctor_look_at_both(engines: Engines, four: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    driver = engines.driver("both", NEAR, FAR)
    both = ("--recipe", four, "--variant", "jit", "--arch", "all")
    native, cross = driver.run("plan", *both, "--json").json
    assert (native["engines"], cross["engines"]) == ([NEAR, FAR], [NEAR, FAR])
    assert native["why"] == f"near and far run {host_arch} natively; whichever is free first"
    assert cross["why"].startswith(f"no engine runs {foreign_arch} natively; near and far run it under QEMU")
    assert f"{cross['cell']}: near or far: no engine" in driver.run("plan", *both).stdout
    checks = {check["name"]: check for check in driver.run("doctor", "--json").json["checks"]}
    assert checks[f"near: binfmt {foreign_arch}"]["found"].endswith("usable in containers")
    assert "tried in the engine" in checks[f"far: binfmt {foreign_arch}"]["found"]
    assert (checks["near: docker engine"]["status"], checks["far: docker engine"]["status"]) == ("ok", "ok")


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A source that holds in make."""
    (tmp_path / "held").mkdir()
    return tiny_source.archive(tmp_path / "held", {"hold-make": ""}).path


def until_both_hold(engines: Engines, driver: Driver, running: Running) -> str:
    """Wait until a build holds in each engine; return the far one's container."""
    running.until("two builds that hold", lambda: driver.logs().count("holding in make\n") >= 2)
    assert len(engines.near_containers(driver)) == 1
    return running.container("build")


def test_an_engine_goes_away_in_make(engines: Engines, four: Path, held: Path) -> None:
    driver = engines.driver("both", NEAR, FAR)
    validate = ("validate", "--recipe", four, "--source", held, "--json")
    running = driver.start(*validate)
    until_both_hold(engines, driver, running)
    engines.near.kill()
    try:
        done = running.released()
        assert done.returncode == 0, done.stderr
        cells = done.json["cells"]
        assert [cell["verdict"] for cell in cells] == ["pass"] * 4
        assert [cell["engine"] for cell in cells] == [FAR] * 4
        assert sorted(cell["lost_on"] for cell in cells) == [[], [], [], [NEAR]]
        assert "goes on elsewhere: the container engine (docker at unix://" in done.stderr
        assert f"docker --host {engines.near.host} rm --force --volumes crossjit-build-" in done.stderr
        assert len(driver.stashed()) == 4
        assert driver.containers() == []
    finally:
        engines.near.start()
    assert len(engines.near_containers(driver)) == 1
    again = driver.run(*validate)
    assert "removed leftovers of a run that died" in again.stderr
    assert engines.near_containers(driver) == []
    assert driver.leftovers() == []


def test_all_that_an_engine_alone_can_run_is_infra(engines: Engines, four: Path, held: Path) -> None:
    driver = engines.driver("near", NEAR)
    running = driver.start("build", "--recipe", four, "--source", held, "--variant", "jit", "--json")
    running.until("a build that holds", lambda: "holding in make\n" in driver.logs())
    engines.near.kill()
    try:
        done = running.wait()
    finally:
        engines.near.start()
    assert done.returncode == 3
    assert [cell["verdict"] for cell in done.json["cells"]] == ["infra"]
    assert "does not answer" in done.json["cells"][0]["reasons"][0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_on_both(engines: Engines, four: Path, held: Path, number: signal.Signals) -> None:
    driver = engines.driver("both", NEAR, FAR)
    running = driver.start("validate", "--recipe", four, "--source", held)
    container = until_both_hold(engines, driver, running)
    running.signal(number)
    done = running.wait()
    assert done.returncode == 130
    assert "interrupted; nothing was left running" in done.stderr
    assert "Traceback" not in done.stderr
    assert driver.leftovers(container) == []
    assert engines.near_containers(driver) == []
    assert [result.verdict.value for result in driver.last_run().results()] == ["aborted"] * 4
    assert driver.stashed() == []


def refused(driver: Driver, *arguments: str, expect: int) -> Done:
    done = driver.run(*arguments, expect=expect)
    assert "Traceback" not in done.stderr
    assert "hint: " in done.stderr
    return done


def test_engines_that_cannot_be_used(driver: Driver) -> None:
    """Each with a message, a hint, and before anything is recorded."""
    unknown = driver.with_environ(CROSSJIT_ENGINES="arm=shh://box")
    assert "did you mean 'ssh'?" in refused(unknown, "validate", expect=2).stderr
    twice = driver.with_environ(CROSSJIT_ENGINES="a=ssh://x a=ssh://y")
    assert "two engines have the name 'a'" in refused(twice, "validate", expect=2).stderr
    same = driver.with_environ(CROSSJIT_ENGINES="local other=unix:///var/run/docker.sock", DOCKER_HOST=None)
    assert "'local' and 'other' are the same engine" in refused(same, "validate", expect=2).stderr
    gone = driver.with_environ(CROSSJIT_ENGINES="local box=ssh://crossjit-nobody.invalid")
    done = refused(gone, "validate", expect=3)
    assert "docker at ssh://crossjit-nobody.invalid, by the setting engines (box)) does not answer" in done.stderr
    assert "take box out of CROSSJIT_ENGINES" in done.stderr
    assert "box is left out: " in gone.run("plan").stderr
    assert driver.runs() == ()
