"""Who may do what: nothing on the host belongs to anybody else, and containers can do no more than they must."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest

from crossjit.build import cache_volume, layout
from crossjit.engine import confinement
from crossjit.sources import trust
from crossjit.util.budget import BUDGET
from tests.e2e import tiny_source
from tests.e2e.conftest import MakeDriver
from tests.e2e.driver import Driver

pytestmark = pytest.mark.engine

SOMEBODY = 54321


def as_somebody(driver: Driver) -> Driver:
    """Return the driver as a user who is not root, but may talk to the engine, as members of its group may.

    The user may read everything, since a clone and its .venv may be where only root can.
    """
    if os.geteuid() != 0:
        return driver
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv to become another user with")
    host = (
        os.environ.get("DOCKER_HOST")
        or driver.engine("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip()
    )
    if driver.client != "docker" or not host.startswith("unix://"):
        pytest.skip("whether another user may talk to the engine is known of docker's socket only")
    group = Path(host.removeprefix("unix://")).stat().st_gid
    for path in (driver.cwd.parent, *driver.cwd.parent.rglob("*")):
        os.chown(path, SOMEBODY, SOMEBODY)
    may_read = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    prefix = ("setpriv", "--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--groups", str(group), *may_read)
    user_home = driver.cwd.parent / "user"
    user_home.mkdir()
    os.chown(user_home, SOMEBODY, SOMEBODY)
    return Driver(driver.home, driver.cwd, {**driver.environ, "HOME": str(user_home)}, driver.project, prefix)


def strangers(folders: Iterable[Path], owner: int) -> list[str]:
    """List what belongs to somebody else, or would let somebody else in with another's rights."""
    found = []
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            status = path.lstat()
            if (status.st_uid, status.st_gid) != (owner, owner if owner == SOMEBODY else status.st_gid):
                found.append(f"{path}: {status.st_uid}:{status.st_gid}")
            if not stat.S_ISLNK(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
                found.append(f"{path}: mode {status.st_mode:o}")
    return found


def test_nothing_on_the_host_belongs_to_anybody_else(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """A run that validates, one that fails, an export: every file is the user's who started it."""
    user = as_somebody(driver)
    owner = SOMEBODY if user.prefix else os.geteuid()
    user.run("validate", "--recipe", recipe)
    (tmp_path / "broken").mkdir()
    broken = tiny_source.archive(tmp_path / "broken", {"Python/broken.c": "#error no\n"})
    user.run("build", "--recipe", recipe, "--source", broken.path, expect=1)
    export = user.home / "export"
    user.run("stash", "export", user.stashed()[0]["id"], export)
    assert strangers((user.home, user.cwd), owner) == []
    assert len(list(user.home.rglob("*"))) > 30
    assert user.leftovers() == []


def test_containers_can_do_no_more_than_they_must(make_driver: MakeDriver, recipe: Path, tmp_path: Path) -> None:
    """Looked at while they run, from outside and from inside: those of the build, of the probe, and of the suite."""
    driver = make_driver()
    (tmp_path / "held").mkdir()
    changes = {"hold-make": "", "hold-probe": "", "hold-suite": ""}
    source = tiny_source.archive(tmp_path / "held", changes)
    running = driver.start("validate", "--recipe", recipe, "--source", source.path, "--json")
    for purpose in ("build", "probe", "jit"):
        container = running.container(purpose)
        running.until("it to run", lambda name=container: driver.inspect(name)["State"]["Running"])  # type: ignore[misc]
        look(driver, container, purpose)
        if purpose == "build":
            running.until_held("make")
        driver.release(container)
    done = running.released()
    assert done.returncode == 0, done.stderr
    assert driver.leftovers() == []


def look(driver: Driver, container: str, purpose: str) -> None:
    told = driver.inspect(container)
    host = told["HostConfig"]
    kept = [(mount["Type"], mount["Name"], mount["Destination"]) for mount in told["Mounts"]]
    own = ("volume", cache_volume.name(driver.settings, trust.CHECKOUTS), layout.CACHE)
    below = ("volume", cache_volume.name(driver.settings), layout.CACHE_BELOW)
    assert sorted(kept) == (sorted([own, below]) if purpose == "build" else []), "no cache where tests run"
    assert [mount["Destination"] for mount in told["Mounts"] if not mount["RW"]] == (
        [layout.CACHE_BELOW] if purpose == "build" else []
    ), "the recipes' own cache is read, and not written"
    assert not host["Binds"]
    assert not host["Devices"]
    assert host["NetworkMode"] == "none"
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert "no-new-privileges" in json.dumps(host["SecurityOpt"])
    assert (host["PidMode"], host["UTSMode"], host["UsernsMode"]) == ("", "", "")
    assert host["IpcMode"] in ("private", "")
    assert host["Memory"] > 0
    assert host["MemorySwap"] == host["Memory"]
    assert host["PidsLimit"] > 0
    assert told["Config"]["User"] == confinement.KEEPER, "whom nothing else runs as, so that nothing else ends it"
    most = {each["Name"]: each["Hard"] for each in host["Ulimits"]}
    assert most == {"core": 0, "nofile": 4096, "fsize": BUDGET.tree if purpose == "build" else -1}
    assert not [each for each in told["Config"]["Env"] if str(Path.home()) in each], "nothing of the host's leaks in"

    inside = driver.execute(container, "cat", "/proc/self/status")
    status = dict(line.split(":\t", 1) for line in inside.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1000"] * 4
    assert {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    assert driver.execute(container, "ls", "/sys/class/net").split() == ["lo"]
    assert driver.execute(container, "sh", "-c", "touch /usr/x 2>&1 || echo refused").endswith("refused\n")
