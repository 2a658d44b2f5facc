"""What all tests share: the `--slow` option, the markers `engine` and `browser`, engines and settings."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import filelock
import hypothesis
import pytest

from crossjit.engine import connect
from crossjit.engine.base import Engine
from crossjit.errors import EngineError
from crossjit.settings import Settings
from tests.fakes.engine import FakeEngine
from tests.project import copy_project

os.environ.setdefault("CROSSJIT_CONFIG", os.devnull)  # a developer's own settings are not those of the tests

# How long an example takes says how busy the machine is; it is no reason to fail.
hypothesis.settings.register_profile("crossjit", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("crossjit"), max_examples=1500)
hypothesis.settings.load_profile("crossjit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that take many minutes, too")
    parser.addoption("--rounds", type=int, help="how many examples hypothesis makes of what says no number itself")


def pytest_configure(config: pytest.Config) -> None:
    if rounds := config.getoption("--rounds"):
        hypothesis.settings.register_profile("rounds", max_examples=rounds)
        hypothesis.settings.load_profile("rounds")
    # A shell has what it starts in its background ignore Ctrl-C, and so would all that the tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes: --slow runs it"))


@functools.cache
def why_no_engine(name: str) -> str | None:
    """Return why the engine cannot be used, None if it can."""
    try:
        connect(Settings(home=Path(os.devnull), engine=name)).facts()
    except EngineError as error:
        return f"{error.message} ({error.hint})"
    return None


def lack(what: str, reason: str) -> NoReturn:
    """Skip the test, which needs something that is not here; in CI, where it must be, fail."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}: {reason}", pytrace=False)
    pytest.skip(reason)


def need_engine(name: str) -> None:
    """Skip the test without an engine; in CI, where one must be, fail."""
    if (reason := why_no_engine(name)) is not None:
        lack("an engine", reason)


BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_browser() -> str:
    """Return where Chromium is; skip the test without one, or fail in CI, where one must be."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        lack("a browser", f"there is no browser to look at pages with: none of {', '.join(BROWSERS)} is on PATH")
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (marker := item.get_closest_marker("engine")) is not None:
        need_engine(*marker.args or (os.environ.get("CROSSJIT_ENGINE") or "docker",))
    if item.get_closest_marker("browser") is not None:
        find_browser()


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The Python of a fresh environment with the wheel in it, made once for all workers, as pip is configured."""
    temp = tmp_path_factory.getbasetemp()
    folder = (temp if worker_id == "master" else temp.parent) / "installed"
    python = folder / "venv" / "bin" / "python"
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            copy_project(folder / "project")  # whose files do not come and go while other tests run
            pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
            commands = (
                (*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(folder / "project")),
                (sys.executable, "-m", "venv", "--without-pip", str(python.parent.parent)),
                (*pip, "--python", str(python), "install", "--no-compile", "--find-links", str(folder), "crossjit"),
            )
            for command in commands:
                done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            (folder / "done").touch()
    return python


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a state folder of the test's own."""
    return Settings(home=tmp_path / "home", engine=os.environ.get("CROSSJIT_ENGINE") or "docker")


@pytest.fixture
def fake_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def real_engine(settings: Settings) -> Engine:
    """The real engine; the test should be marked `engine`."""
    need_engine(settings.engine)
    return connect(settings)
