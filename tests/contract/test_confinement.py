"""What a container may take of the host: of its engine, its memory, its disk, and what its client knows."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest

from crossjit.engine.base import Container, EngineObject, Limits
from crossjit.engine.cli_engine import CliEngine
from crossjit.engine.process import finish
from crossjit.errors import EngineError
from crossjit.util import budget
from crossjit.util.budget import BUDGET, Budget, BudgetError
from tests.contract.bench import RAMPAGE, TORRENT, Bench, lines_of, processes, sh
from tests.contract.test_engine import build, tar_of

MIB = 1 << 20
SECRET = "hunter2"
PROXY = f"http://user:{SECRET}@proxy.invalid:3128"


def put_large(container: Container, size: int = MIB) -> None:
    container.put(tar_of(("large", b"x" * size, {"mode": 0o644})), "/work")


# -- nothing that runs in it ends it


@pytest.mark.parametrize("user", [None, "worker"])
def test_a_command_cannot_end_its_container(container_bench: Bench, user: str | None) -> None:
    """Else a build that kills all it can would be an engine's failure."""
    with container_bench.container(user=user) as container:
        assert container.run(sh(RAMPAGE)).returncode == 3
        assert lines_of(container, ["echo", "alive"]) == ["alive"]


def test_a_command_that_an_earlier_one_kills(real_bench: Bench) -> None:
    with real_bench.container(user="worker") as container:
        container.run(["sh", "-c", "(while :; do kill -KILL -1; done) >/dev/null 2>&1 &"])  # may kill its own parent
        for _ in range(3):
            assert container.run(["sleep", "5"]).returncode == -9


# -- what it says and hands out is bounded


def test_a_line_without_an_end_loses_it(bench: Bench) -> None:
    with bench.container() as container:
        put_large(container)
        (line,) = lines_of(container, ["cat", "/work/large"])
    assert line == "x" * BUDGET.line + f" … ({MIB - BUDGET.line:,} more bytes)"


def test_a_command_that_writes_without_an_end(bench: Bench) -> None:
    heard: list[int] = []
    with bench.container(user=bench.worker) as container:
        put_large(container)
        with pytest.raises(BudgetError, match=r"sh wrote more than 209,715,200 bytes") as caught:
            container.run(sh(TORRENT), on_line=lambda line: heard.append(len(line)), timeout=120)
        assert caught.value.exit_code == 1
        assert not [line for line in processes(bench, container) if "sleep 90" in line]
    assert max(heard) < BUDGET.line + 100


def test_a_tar_stream_is_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Budget(tree=MIB, members=1)
    with bench.container() as container:
        put_large(container, 8 * MIB)
        for module in ("tests.fakes.engine", "crossjit.engine.cli_container", "crossjit.engine.host_container"):
            monkeypatch.setattr(f"{module}.BUDGET", small)
        read = 0
        with pytest.raises(BudgetError, match="is longer than"), container.get("/work/large") as stream:
            while data := stream.read(1 << 16):
                read += len(data)
        assert read <= small.stream
        assert lines_of(container, ["echo", "alive"]) == ["alive"]


def test_what_a_client_says_is_bounded() -> None:
    ended = finish(["sh", "-c", "head -c 30000000 /dev/zero; head -c 30000000 /dev/zero >&2; exit 4"], timeout=60)
    assert ended.returncode == 4
    assert (len(ended.stdout), len(ended.stderr)) == (budget.ANSWER, budget.ANSWER)


def test_a_client_that_does_not_end_is_killed_in_time() -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        finish(["sh", "-c", "yes"], timeout=0.5)
    assert time.monotonic() - began < 5


# -- what it may take


def limits_of(container: Container) -> dict[str, tuple[str, str]]:
    found = {}
    for line in lines_of(container, ["cat", "/proc/self/limits"]):
        if match := re.match(r"Max (.+?) +(\d+|unlimited) +(\d+|unlimited)(?: |$)", line):
            found[match[1]] = match[2], match[3]
    return found


def test_limits_of_a_process(bench: Bench) -> None:
    with bench.container() as container:
        found = limits_of(container)
    assert found["file size"] == (str(BUDGET.tree), str(BUDGET.tree))
    assert found["core file size"] == ("0", "0")
    assert found["open files"] == ("4096", "4096")


def test_a_limit_on_files_that_tests_may_raise(bench: Bench) -> None:
    with bench.container(limits=Limits(file_size=8 << 30, file_size_may_be_raised=True)) as container:
        assert limits_of(container)["file size"] == (str(8 << 30), "unlimited")


def test_a_file_is_no_larger_than_its_limit(live_bench: Bench) -> None:
    with live_bench.container(limits=Limits(file_size=MIB * 3 // 2)) as container:
        put_large(container)
        assert container.run(["sh", "-c", "cat /work/large >/tmp/one"]).returncode == 0
        assert container.run(["sh", "-c", "cat /work/large /work/large >/tmp/two"]).returncode != 0
        assert container.run(["sh", "-c", "ulimit -f unlimited"]).returncode != 0


def test_processes_and_cores_are_limited_unasked(real_bench: Bench) -> None:
    assert isinstance(real_bench.engine, CliEngine)
    with real_bench.container() as container:
        (state,) = json.loads(real_bench.engine.cli.call("look", "container", "inspect", container.id))
    assert state["HostConfig"]["PidsLimit"] == Limits().pids
    assert state["HostConfig"]["CpuShares"] == 512


# -- proxies, which may hold credentials


@pytest.fixture
def settings_with_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's settings and the environment name proxies."""
    folder = tmp_path / "client"
    folder.mkdir()
    proxies = {"httpProxy": PROXY, "httpsProxy": PROXY, "noProxy": "none.invalid"}
    (folder / "config.json").write_text(json.dumps({"proxies": {"default": proxies}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy"):
        monkeypatch.setenv(name, PROXY)


@pytest.mark.usefixtures("settings_with_proxies")
def test_no_proxy_gets_into_a_container_without_network(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    with bench.container(env={"OURS": "1"}) as container:
        said = [*lines_of(container, ["env"]), *lines_of(container, ["env"], env={"OURS": "2"}, user=bench.worker)]
    assert "OURS=2" in said
    assert not [line for line in said if "proxy" in line.lower() or SECRET in line]
    status = bench.engine.shell(bench.options(), lambda inside: None, ["env"])
    assert status == 0
    assert SECRET not in capfd.readouterr().out


@pytest.mark.engine("docker")
@pytest.mark.usefixtures("settings_with_proxies")
def test_a_container_with_network_has_the_clients_proxies(docker_bench: Bench) -> None:
    with docker_bench.container(network=True) as container:
        assert f"HTTP_PROXY={PROXY}" in lines_of(container, ["env"])


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "NO_PROXY"])
def test_an_images_build_has_the_environments_proxies(
    real_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They are in nothing that is made: neither the image, nor its history, nor a command line."""
    assert isinstance(real_bench.engine, CliEngine)
    monkeypatch.setenv(name, PROXY)
    lines: list[str] = []
    dockerfile = f"FROM {real_bench.image} AS proxied\nRUN echo {uuid4().hex}; echo here: ${name}\n"
    made = build(real_bench, tmp_path, dockerfile, "proxied", on_line=lines.append)
    try:
        assert [line for line in lines if f"here: {PROXY}" in line]
        for question in (("image", "inspect", made.id), ("history", "--no-trunc", made.id)):
            assert SECRET not in real_bench.engine.cli.call("look", *question)
    finally:
        real_bench.engine.remove(EngineObject("image", made.id, made.id, {}))


# -- which engine it is


@pytest.mark.engine("docker")
@pytest.mark.parametrize(
    ("environment", "where", "undo"),
    [
        ({"DOCKER_HOST": "unix:///nowhere/x.sock"}, "unix:///nowhere/x.sock, by DOCKER_HOST", "unset DOCKER_HOST"),
        ({"DOCKER_CONTEXT": "dead"}, "unix:///nowhere/y.sock, by the docker context 'dead'", "unset DOCKER_CONTEXT"),
        ({"DOCKER_CONTEXT": "gone"}, "by the docker context 'gone'", "unset DOCKER_CONTEXT"),
        ({}, "unix:///nowhere/y.sock, by the docker context 'dead'", "docker context use default"),
    ],
)
def test_an_engine_elsewhere_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], where: str, undo: str
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    client = ["docker", "context"]
    subprocess.run([*client, "create", "dead", "--docker", "host=unix:///nowhere/y.sock"], check=True)
    if not environment:
        subprocess.run([*client, "use", "dead"], check=True)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(EngineError, match="does not answer") as caught:
        CliEngine().facts()
    assert where in caught.value.message
    assert undo in caught.value.hint
    assert "start it" not in caught.value.hint


# -- processors


SHARES = ["sh", "-c", "cat /sys/fs/cgroup/cpu.weight 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.shares"]


def test_an_idle_container_can_be_hurried(bench: Bench) -> None:
    with bench.container(limits=Limits(idle=True)) as container:
        container.hurry()
        assert lines_of(container, ["echo", "alive"]) == ["alive"]


def test_what_is_idle_gets_a_small_share_of_the_processors(real_bench: Bench) -> None:
    with real_bench.container() as usual, real_bench.container(limits=Limits(idle=True)) as idle:
        normal, small = (int(lines_of(container, SHARES)[0]) for container in (usual, idle))
        assert small < normal / 10
        idle.hurry()
        assert int(lines_of(idle, SHARES)[0]) == normal
