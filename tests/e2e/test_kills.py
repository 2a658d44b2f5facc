"""`kill -9` of the process in each phase: nothing half is in the stash, and the next command cleans and succeeds."""

from __future__ import annotations

import fcntl
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossjit.images import Image, Role
from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Driver, Running
from tests.project import copy_project

pytestmark = pytest.mark.engine

# Seconds between the phase's beginning and the kill: the first is run by default, the others by --slow.
DELAYS = [pytest.param(delay, marks=pytest.mark.slow if delay else ()) for delay in (0.0, 0.1, 0.3, 0.7, 1.5)]


def kill(running: Running, driver: Driver, step: str, delay: float) -> list[str]:
    """Kill it, check what is on record of it, and return the containers that it left."""
    time.sleep(delay)
    left = driver.containers()
    running.kill()
    assert driver.is_aborted()
    (listed,) = driver.run("runs", "list", "--json").json
    assert listed["state"] == "aborted"
    assert "aborted in " in driver.run("runs", "list").stdout
    (cell,) = driver.run("runs", "show", "--json").json["cells"]
    assert cell["verdict"] == "aborted"
    assert f"the run died in: {step}" in cell["reasons"][0] or f", {step} " in cell["reasons"][0]
    return left


def recover(driver: Driver, arguments: tuple[str | Path, ...], left: list[str]) -> None:
    """Run the same again: it succeeds, and nothing is left of either."""
    again = driver.start(*arguments, "--json").released()
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.json["cells"][0]["verdict"] == "pass"
    assert driver.leftovers(*left) == []
    assert len(driver.stashed()) == 1
    driver.run("stash", "verify")


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("phase", ["configure", "make", "install"])
def test_kill_while_building(driver: Driver, recipe: Path, tmp_path: Path, phase: str, delay: float) -> None:
    (tmp_path / "held").mkdir()
    source = tiny_source.archive(tmp_path / "held", {f"hold-{phase}": ""})
    build = ("build", "--recipe", recipe, "--source", source.path)
    running = driver.start(*build)
    container = running.until_held(phase)
    left = kill(running, driver, phase, delay)
    assert left == [container]
    assert f"holding in {phase}\n" in driver.logs(), "what was running when it died is the best there is in a log"
    assert driver.stashed() == []
    recover(driver, build, left)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("step", ["unpack", "pack", "probe"])
def test_kill_between_engine_and_stash(driver: Driver, recipe: Path, step: str, delay: float) -> None:
    """These are over in no time, so that the delay, made short, moves the kill through them and the next."""
    running = driver.start("build", "--recipe", recipe)
    running.until_in(step)
    time.sleep(delay / 10)
    left = driver.containers()
    running.kill()
    assert driver.is_aborted()
    for artifact in driver.stashed():  # on a busy machine the kill may come when it is there: whole
        driver.run("stash", "verify", artifact["id"])
    recover(driver, ("build", "--recipe", recipe), left)


@pytest.mark.parametrize("delay", DELAYS)
def test_kill_while_stashing(driver: Driver, recipe: Path, delay: float) -> None:
    """All is packed and probed, and about to appear in the stash."""
    lock = driver.settings.stash / "locks/stash+.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        running = driver.start("build", "--recipe", recipe)
        running.until_in("stash")
        left = kill(running, driver, "stash", delay)
    assert list(driver.settings.stash.glob("tmp/*/artifact")), "it was in the making"
    assert driver.stashed() == []
    recover(driver, ("build", "--recipe", recipe), left)


@pytest.mark.parametrize("delay", DELAYS)
def test_kill_while_a_suite_runs(driver: Driver, recipe: Path, tmp_path: Path, delay: float) -> None:
    """What was built before is whole, and is taken from the stash."""
    (tmp_path / "held").mkdir()
    source = tiny_source.archive(tmp_path / "held", {"hold-suite": ""})
    validate = ("validate", "--recipe", recipe, "--source", source.path)
    running = driver.start(*validate)
    container = running.until_held("suite")
    left = kill(running, driver, "jit", delay)
    assert left == [container]
    (artifact,) = driver.stashed()
    driver.run("stash", "verify", artifact["id"])
    recover(driver, validate, left)
    assert driver.last_run().results()[0].from_stash


def test_a_suite_that_was_killed_goes_on_where_it_stopped(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    source = tiny_source.archive(tmp_path / "held", {"hold-suite": ""})
    running = driver.start("validate", "--recipe", recipe, "--source", source.path)
    running.until_held("suite")
    running.kill()
    assert driver.is_aborted()
    refused = driver.run("validate", "--resume", "last", "--shard", "1/2", expect=2)
    assert "leave the other options out" in refused.stderr
    again = driver.start("validate", "--resume", "last", "--json").released()
    assert again.returncode == 0, again.stdout + again.stderr
    (cell,) = again.json["cells"]
    assert cell["verdict"] == "pass"
    assert cell["suites"][0]["run"] == 600
    assert any("1 module taken from an earlier run" in note for note in cell["suites"][0]["notes"])
    assert "--resume" not in again.json["reproduce"]
    # and a run that came to its end is not run again
    finished = driver.run("validate", "--resume", "last", "--json")
    assert finished.json["cells"][0]["suites"] == cell["suites"]
    assert driver.leftovers() == []


class SlowServer(http.server.ThreadingHTTPServer):
    """Gives an archive, but its second half only when it may."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _SlowHandler)
        self.content = content
        self.half = threading.Event()
        self.rest = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{tiny_source.TOP}.tar.gz"

    def handle_error(self, request: object, client_address: object) -> None:
        """Take it calmly that clients are killed."""


class _SlowHandler(http.server.BaseHTTPRequestHandler):
    server: SlowServer

    def do_GET(self) -> None:
        content = self.server.content
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.server.half.set()
        self.server.rest.wait()
        self.wfile.write(content[len(content) // 2 :])

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def slow_server(tiny: tiny_source.Archive) -> Iterator[SlowServer]:
    server = SlowServer(tiny.path.read_bytes())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.rest.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("delay", DELAYS)
def test_kill_while_downloading(
    driver: Driver, tmp_path: Path, tiny: tiny_source.Archive, slow_server: SlowServer, delay: float
) -> None:
    recipe = tiny_source.recipe(tmp_path / "slow.toml", tiny, places=(slow_server.url,))
    build = ("build", "--recipe", recipe)
    running = driver.start(*build)
    running.until("half of the archive", slow_server.half.is_set)
    left = kill(running, driver, "source", delay)
    assert left == []
    slow_server.rest.set()
    recover(driver, build, left)


@pytest.fixture
def project(tmp_path: Path, own_images: dict[tuple[Role, Arch], Image], host_arch: Arch) -> Path:
    """A copy of crossjit with one more image, which is made on top of the usual ones in three seconds."""
    copy = copy_project(tmp_path / "project")
    folder = copy / "images/tiny"
    folder.mkdir()
    document = (copy / "images/forky/image.toml").read_text()
    folder.joinpath("image.toml").write_text(document.replace('llvm = ["21"]', 'llvm = ["99"]'))
    stages = "".join(
        f"FROM {image.reference} AS {role}\nARG BASE ACCOUNT PACKAGES FOREIGN\n"
        f"RUN echo {tmp_path} {role} >/made && sleep 3\n"
        for (role, arch), image in own_images.items()
        if arch is host_arch
    )
    asked = f"FROM {own_images[Role.TOOLCHAIN, host_arch].reference} AS release\nARG BASE ASKED\n"  # as it was
    folder.joinpath("Dockerfile").write_text(f"ARG BASE\n{stages}{asked}")
    return copy


@pytest.mark.parametrize("delay", DELAYS)
def test_kill_while_an_image_is_made(
    make_driver: MakeDriver, recipe: Path, tmp_path: Path, project: Path, delay: float
) -> None:
    driver = make_driver(project=project)
    (tmp_path / "other").mkdir()
    source = tiny_source.archive(tmp_path / "other", {"Tools/jit/_llvm.py": '_LLVM_VERSION = "99"\n'})
    build = ("build", "--recipe", recipe, "--source", source.path)
    running = driver.start(*build)
    running.until_in("image")
    client = "--target toolchain"  # not the one before it, which asks what the mirror has
    running.until("a client that makes the image", lambda: any(client in each for each in driver.processes_now()))
    left = kill(running, driver, "image", delay)
    recover(driver, build, left)
    assert len(set(driver.images())) == 2
