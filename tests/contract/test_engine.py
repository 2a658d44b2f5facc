"""One contract for every engine: what `engine/base.py` promises, tried on the fake and on the real ones."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from crossjit.engine.base import OWNED, Container, EngineObject, Limits
from crossjit.engine.cli_engine import CliEngine
from crossjit.errors import CrossjitError, EngineError, Interrupted, OutOfMemoryError
from crossjit.host import emulation
from crossjit.model import Arch
from crossjit.util.budget import TreeCount
from crossjit.util.tar import read as read_tar
from tests.contract.bench import (
    ALTERNATE,
    GLUTTON,
    GLUTTONS_PARENT,
    HOST_ARCH,
    MARK,
    OFFSPRING,
    OTHER_ARCH,
    RAGGED,
    SHELL,
    WAITING,
    Bench,
    add,
    dies,
    exits,
    lines_of,
    processes,
    sh,
)
from tests.contract.registry import Registry, served
from tests.fakes.engine import FakeEngine

MIB = 1 << 20


def containers(bench: Bench, **labels: str) -> list[EngineObject]:
    return [thing for thing in bench.engine.owned({MARK: bench.mark, **labels}) if thing.kind == "container"]


def tar_of(*members: tuple[str, bytes, dict[str, Any]]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data, attributes in members:
            add(tar, name, data, **attributes)
    stream.seek(0)
    return stream


def members_of(container: Container, path: str) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    with container.get(path) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        found = {}
        for member in tar:
            content = tar.extractfile(member) if member.isfile() else None
            found[member.name] = (member, content.read() if content else b"")
        return found


# -- what it is


def test_facts(bench: Bench) -> None:
    facts = bench.engine.facts()
    assert facts.arch is HOST_ARCH
    assert facts.version[0].isdigit()
    assert (facts.buildx is None) is (bench.is_podman or bench.is_host)  # podman builds by itself
    assert bool(facts.lacks) is bench.is_host
    assert facts.cores >= 1
    assert facts.memory > 256 * MIB


def test_an_engine_is_asked_what_its_machine_runs(container_bench: Bench) -> None:
    """With the answer of this machine's binfmt_misc, which is the engine's own here."""
    bench, here = container_bench, emulation.registered()
    if isinstance(bench.engine, FakeEngine):
        bench.engine.emulated = here
    found = bench.engine.emulators(bench.labels)
    assert {arch: each.version for arch, each in found.items()} == {
        arch: each.version for arch, each in here.items() if each.usable and arch is not HOST_ARCH
    }
    assert all(each.usable and not each.interpreter for each in found.values()) or not bench.real
    assert containers(bench) == []
    if bench.real:  # for anybody who cleans up; who was first is up to those who share the engine
        tags = {thing.name for thing in bench.engine.owned({})}
        assert len([tag for tag in tags if "crossjit/trial-" in tag]) == len(HOST_ARCH.others)


def test_stopping_it_ends_what_other_threads_do(bench: Bench) -> None:
    """A new client of the same engine is as good as a new process."""
    engine = bench.another_client()
    ready = threading.Event()

    def work() -> None:
        with engine.container(bench.options()) as container:
            while True:
                container.run(sh(WAITING) if bench.real else ["true"], on_line=lambda line: ready.set())
                ready.set()  # the fake's time is virtual, so that nothing waits there

    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(work)
        assert ready.wait(60)
        engine.stop()
        with pytest.raises(Interrupted):
            doing.result(30)
    assert containers(bench) == []
    with pytest.raises(Interrupted), engine.container(bench.options()):
        pass
    if isinstance(engine, FakeEngine):
        engine.stopped = False
    assert containers(bench) == []


# -- commands


@pytest.mark.parametrize(
    ("argv", "returncode"),
    [
        (["true"], 0),
        (["false"], 1),
        # the client's own words for engine failures, said by a command: still the command's
        *((sh(exits(code)), code) for code in (2, 125, 126, 127, 255)),
        (sh(dies("KILL", 9)), -signal.SIGKILL),
        (sh(dies("SEGV", 11)), -signal.SIGSEGV),
        (sh(dies("TERM", 15)), -signal.SIGTERM),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_exit_status(bench: Bench, argv: list[str], returncode: int) -> None:
    with bench.container() as container:
        completed = container.run(argv)
    assert completed.returncode == returncode
    assert completed.argv == tuple(argv)


def test_a_signal_has_a_name(bench: Bench) -> None:
    with bench.container() as container:
        assert container.run(sh(dies("KILL", 9))).how == "killed by SIGKILL"


def test_a_command_that_does_not_exist(bench: Bench) -> None:
    lines: list[str] = []
    with bench.container() as container:
        assert container.run(["no-such-program"], on_line=lines.append).returncode == 127
    assert "no-such-program" in lines[0]
    assert "not found" in lines[0]


def test_lines_of_stdout_and_stderr_keep_their_order(bench: Bench) -> None:
    with bench.container() as container:
        lines = lines_of(container, sh(ALTERNATE))
    assert lines == [f"{stream} {number}" for number in range(200) for stream in ("out", "err")]


def test_empty_undecodable_and_unfinished_lines(bench: Bench) -> None:
    with bench.container() as container:
        assert lines_of(container, sh(RAGGED)) == ["a", "", "�b", "last"]


def test_arguments_arrive_as_they_are(bench: Bench) -> None:
    argument = "a 'b' \"c\" $HOME `id` * \\ ; é"
    with bench.container() as container:
        assert lines_of(container, ["echo", argument]) == [argument]


def test_environment(bench: Bench) -> None:
    with bench.container(env={"OURS": "container", "KEPT": "a=b c"}) as container:
        said = lines_of(container, ["env"], env={"OURS": "command"})
        assert "OURS=command" in said
        assert "KEPT=a=b c" in said
        assert "OURS=container" in lines_of(container, ["env"])


def test_nothing_of_the_hosts_environment_gets_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROSSJIT_CONTRACT_LEAK", "leaked")
    with bench.container() as container:
        assert not [line for line in lines_of(container, ["env"]) if "leaked" in line]


def test_working_folder(bench: Bench) -> None:
    with bench.container() as container:
        assert lines_of(container, ["pwd"], cwd="/work") == ["/work"]
        with pytest.raises(EngineError):
            container.run(["pwd"], cwd="/no/such/folder")


@pytest.mark.parametrize(("user", "uid", "gid"), [("worker", "1000", "1000"), ("1234:2345", "1234", "2345")])
def test_user(container_bench: Bench, user: str, uid: str, gid: str) -> None:
    with container_bench.container() as container:
        assert lines_of(container, ["id", "-u"]) == ["0"]
        assert lines_of(container, ["id", "-u"], user=user) == [uid]
        assert lines_of(container, ["id", "-g"], user=user) == [gid]
    with container_bench.container(user=user) as container:
        assert lines_of(container, ["id", "-u"]) == [uid]
        assert lines_of(container, ["id", "-u"], user="root") == ["0"]


def test_a_user_that_does_not_exist(bench: Bench) -> None:
    with bench.container() as container, pytest.raises(EngineError):
        container.run(["true"], user="no-such-user")


@pytest.mark.parametrize("unprivileged", [False, True])
def test_a_timeout_kills_all_that_the_command_started(bench: Bench, unprivileged: bool) -> None:
    user = bench.worker if unprivileged else None
    lines: list[str] = []
    with bench.container() as container:
        began = time.monotonic()
        completed = container.run(sh(OFFSPRING), timeout=0.5, on_line=lines.append, user=user)
        assert completed.returncode == -signal.SIGKILL
        assert time.monotonic() - began < 10
        assert lines == ["ready"]
        assert not [line for line in processes(bench, container) if "sleep 90" in line]
        assert lines_of(container, ["echo", "alive"]) == ["alive"]


def test_a_timeout_that_is_not_reached(bench: Bench) -> None:
    with bench.container() as container:
        assert container.run(["true"], timeout=60).returncode == 0


def test_a_listener_that_fails_ends_the_command(bench: Bench) -> None:
    def listen(line: str) -> None:
        raise LookupError(line)

    with bench.container() as container:
        with pytest.raises(LookupError, match="ready"):
            container.run(sh(WAITING), on_line=listen)
        assert not [line for line in processes(bench, container) if "sleep 90" in line]


# -- copying in and out


def owner(bench: Bench, member: tarfile.TarInfo) -> tuple[int, int] | None:
    """Return the owner of a file that comes out, None if the engine does not tell the one in the container."""
    return (member.uid, member.gid) if bench.tells_owners else None


def test_put_and_get_keep_owners_modes_and_links(bench: Bench) -> None:
    tree = tar_of(
        ("tree", b"", {"type": tarfile.DIRTYPE, "mode": 0o750, "uid": 1000, "gid": 1000}),
        ("tree/program", b"#!/bin/sh\n", {"mode": 0o4755, "uid": 1000, "gid": 100, "mtime": 1_000_000_000}),
        ("tree/secret", b"x" * 100_000, {"mode": 0o600, "uid": 54321, "gid": 65432}),
        ("tree/link", b"", {"type": tarfile.SYMTYPE, "linkname": "program"}),
    )
    with bench.container() as container:
        container.put(tree, "/work")
        found = members_of(container, "/work/tree")
        assert lines_of(container, ["cat", "/work/tree/program"], user=bench.worker) == ["#!/bin/sh"]
        if bench.real:
            names = [f"/work/tree{name}" for name in ("", "/program", "/secret")]
            owners = lines_of(container, ["stat", "-c", "%u:%g", *names], user=bench.worker)
            own = f"{os.getuid()}:{os.getgid()}"
            assert owners == ([own] * 3 if bench.is_host else ["1000:1000", "1000:100", "54321:65432"])
    found = {name.rstrip("/"): what for name, what in found.items()}
    assert set(found) == {"tree", "tree/program", "tree/secret", "tree/link"}
    member, content = found["tree/program"]
    assert (member.mode & 0o7777, member.mtime) == (0o4755, 1_000_000_000)
    assert owner(bench, member) in (None, (1000, 100))
    assert content == b"#!/bin/sh\n"
    member, content = found["tree/secret"]
    assert member.mode & 0o7777 == 0o600
    assert owner(bench, member) in (None, (54321, 65432))
    assert content == b"x" * 100_000
    member, _ = found["tree"]
    assert (member.isdir(), member.mode & 0o7777) == (True, 0o750)
    assert owner(bench, member) in (None, (1000, 1000))
    member, _ = found["tree/link"]
    assert (member.issym(), member.linkname) == (True, "program")


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 1 << 18, (1 << 20) + 7])
def test_a_tar_that_comes_out_is_whole(bench: Bench, size: int) -> None:
    """What stashes read it with accepts no archive without its end."""
    tree = tar_of(
        ("tree", b"", {"type": tarfile.DIRTYPE, "mode": 0o755}),
        ("tree/one", bytes(size), {"mode": 0o644}),
        ("tree/two", b"2", {"mode": 0o644}),
    )
    with bench.container() as container:
        container.put(tree, "/work")
        with container.get("/work/tree") as stream:
            found = [member.name.rstrip("/") for member, _ in read_tar(stream, TreeCount("the tree"))]
    assert sorted(found) == ["tree", "tree/one", "tree/two"]


def test_what_a_command_writes_comes_out(container_bench: Bench) -> None:
    with container_bench.container() as container:
        assert container.run(["touch", "made"], cwd="/tmp", user="1234:2345").returncode == 0
        assert container.run(["mv", "/tmp/made", "/tmp/moved"], user="1234:2345").returncode == 0
        ((name, (member, _)),) = members_of(container, "/tmp/moved").items()
    assert name == "moved"
    assert owner(container_bench, member) in (None, (1234, 2345))


def test_get_of_a_missing_path(bench: Bench) -> None:
    with bench.container() as container:
        with pytest.raises(FileNotFoundError), container.get("/work/no-such-file"):
            pass
        with pytest.raises(FileNotFoundError), container.get("/no/such/folder/file"):
            pass


def test_get_may_stop_early(bench: Bench) -> None:
    with bench.container() as container:
        container.put(tar_of(("large", bytes(8 * MIB), {})), "/work")
        with container.get("/work/large") as stream:
            assert len(stream.read(512)) == 512
        with pytest.raises(LookupError), container.get("/work/large") as stream:
            raise LookupError
        assert lines_of(container, ["echo", "alive"]) == ["alive"]


def test_put_into_a_missing_folder(bench: Bench) -> None:
    with bench.container() as container, pytest.raises(EngineError):
        container.put(tar_of(("file", b"", {})), "/no/such/folder")


def test_put_of_something_that_is_no_tar(bench: Bench) -> None:
    with bench.container() as container, pytest.raises(EngineError):
        container.put(io.BytesIO(b"this is no tar archive" * 100), "/work")


def test_a_container_that_is_not_writable(container_bench: Bench) -> None:
    with container_bench.container(writable=False, tmpfs=("/tmp",), user="worker") as container:
        assert container.run(["touch", "/work/file"], user="root").returncode != 0
        assert container.run(["touch", "/tmp/file"]).returncode == 0
        container.put(tar_of(("put", b"in memory\n", {"mode": 0o640, "uid": 1000, "gid": 1000})), "/tmp")
        assert lines_of(container, ["cat", "/tmp/put"]) == ["in memory"]
        member, content = members_of(container, "/tmp/put")["put"]
        assert (content, member.mode & 0o7777, member.uid) == (b"in memory\n", 0o640, 1000)
        with pytest.raises(FileNotFoundError), container.get("/tmp/no-such-file"):
            pass
        with pytest.raises(EngineError):
            container.put(tar_of(("put", b"", {"uid": 1000, "gid": 1000})), "/work")
        assert members_of(container, "/etc")


def test_a_volume_outlives_its_containers(bench: Bench) -> None:
    name = f"crossjit-contract-{uuid4().hex[:12]}"
    for _ in range(2):
        bench.engine.ensure_volume(name, bench.labels)  # the second time it is there
    try:
        with bench.container(volumes={name: "/kept"}, user=bench.worker) as container:
            # the engine makes it root's: who owns it is told by putting the folder itself
            container.put(
                tar_of(("kept", b"", {"type": tarfile.DIRTYPE, "mode": 0o755, "uid": 1000, "gid": 1000})), "/"
            )
            assert container.run(["touch", "/kept/file"]).returncode == 0
        with bench.container(volumes={name: "/elsewhere"}) as container:
            assert container.run(["cat", "/elsewhere/file"]).returncode == 0
        with bench.container(volumes={name: "/below:ro"}, user=bench.worker) as container:
            assert container.run(["cat", "/below/file"]).returncode == 0
            if not bench.is_host:  # which must be told that it need not isolate, and isolates nothing
                assert container.run(["touch", "/below/other"]).returncode != 0, "who owns it cannot write to it either"
        with bench.container() as container:
            assert container.run(["cat", "/kept/file"]).returncode != 0
        (found,) = (thing for thing in bench.engine.owned({MARK: bench.mark}) if thing.kind == "volume")
        assert found.name == name
    finally:
        bench.engine.remove(EngineObject("volume", name, name, {}))
    assert not [thing for thing in bench.engine.owned({MARK: bench.mark}) if thing.kind == "volume"]


# -- what a container may


def test_there_is_no_network_unless_asked_for(container_bench: Bench) -> None:
    with container_bench.container() as container:
        devices = [line.partition(":")[0].strip() for line in lines_of(container, ["cat", "/proc/net/dev"])[2:]]
        assert devices == ["lo"]
    with container_bench.container(network=True) as container:
        assert len(lines_of(container, ["cat", "/proc/net/dev"])) > 3


def status(container: Container) -> dict[str, str]:
    said = (line.partition(":") for line in lines_of(container, ["cat", "/proc/self/status"]))
    return {key: value.strip() for key, _, value in said}


def test_capabilities_are_dropped(container_bench: Bench) -> None:
    with container_bench.container() as container:
        found = status(container)
        assert int(found["CapEff"], 16) == 0
        assert int(found["CapBnd"], 16) == 0
        assert found["NoNewPrivs"] == "1"
    with container_bench.container(capabilities=("CHOWN",)) as container:
        assert int(status(container)["CapEff"], 16).bit_count() == 1


@pytest.mark.parametrize("user", [None, "worker"])
def test_running_out_of_memory_is_not_the_commands_failure(container_bench: Bench, user: str | None) -> None:
    with container_bench.container(limits=Limits(memory=32 * MIB), user=user) as container:
        with pytest.raises(OutOfMemoryError) as caught:
            container.run(sh(GLUTTON))
        assert caught.value.hint
        assert container.run(["false"]).returncode == 1  # what was killed earlier is not this one's fault
        assert container.run(sh(GLUTTONS_PARENT)).returncode == 0
        assert container.run(["false"]).returncode == 1


def test_a_container_ends_by_itself(bench: Bench) -> None:
    with (
        pytest.raises(EngineError, match="reached its time limit"),
        bench.container(limits=Limits(seconds=1)) as container,
    ):
        container.run(["sleep", "60"])


def test_the_number_of_processes_is_limited(real_bench: Bench) -> None:
    fork = "i=0; while [ $i -lt 60 ]; do sleep 30 & i=$((i+1)); done; echo all"
    with real_bench.container(limits=Limits(pids=30)) as container:
        lines: list[str] = []
        assert container.run(["sh", "-c", fork], on_line=lines.append, timeout=20).returncode != 0
        assert "all" not in lines


def test_nothing_of_the_host_is_mounted(real_bench: Bench) -> None:
    with real_bench.container() as container:
        mounts = [line.split() for line in lines_of(container, ["cat", "/proc/self/mountinfo"])]
    disks = {words[4] for words in mounts if words[words.index("-") + 2].startswith("/dev/")}
    # the engine's own: name resolution, the init that reaps, and podman's word that this is a container
    names = {"/etc/resolv.conf", "/etc/hostname", "/etc/hosts"}
    assert disks <= names | {"/sbin/docker-init", "/run/podman-init", "/run/.containerenv"}


def test_orphans_are_reaped(real_bench: Bench) -> None:
    with real_bench.container() as container:
        lines_of(container, ["sh", "-c", "(sleep 0 & sleep 0 & sleep 0 &); sleep 0.2"])
        assert not [state for state in lines_of(container, ["sh", "-c", "cat /proc/[0-9]*/stat"]) if " Z " in state]


# -- starting and removing


def test_an_image_that_is_not_there(bench: Bench) -> None:
    with pytest.raises(EngineError, match="there is no image"), bench.container(image="crossjit-contract:none"):
        pass
    assert bench.engine.image("crossjit-contract:none") is None


def test_an_image_of_another_arch(container_bench: Bench) -> None:
    error = f"is for {OTHER_ARCH}, not for {HOST_ARCH}"
    with pytest.raises(EngineError, match=error), container_bench.container(image=container_bench.other_image):
        pass
    assert not containers(container_bench)


def test_labels_and_removal(bench: Bench) -> None:
    with bench.container(name=(name := f"crossjit-contract-{uuid4().hex}"), labels={**bench.labels, "x": "y z"}):
        (found,) = containers(bench)
        assert (found.kind, found.name) == ("container", name)
        assert found.labels["x"] == "y z"
        assert containers(bench, x="y z") == [found]
        assert containers(bench, x="other") == []
    assert not containers(bench)


@pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt, SystemExit])
def test_removal_after_an_exception(bench: Bench, error: type[BaseException]) -> None:
    with pytest.raises(error), bench.container():
        raise error
    assert not containers(bench)


def test_a_name_that_is_taken_already(bench: Bench) -> None:
    name = f"crossjit-contract-{uuid4().hex}"
    with bench.container(name=name) as first:
        with pytest.raises(EngineError), bench.container(name=name):
            pass
        assert lines_of(first, ["echo", "alive"]) == ["alive"]


def test_a_container_that_is_removed_by_others(bench: Bench) -> None:
    def remove(line: str) -> None:
        bench.engine.remove(containers(bench)[0])

    with bench.container() as container:
        with pytest.raises(EngineError):
            container.run(sh(WAITING), on_line=remove, timeout=30)
        with pytest.raises(EngineError):
            container.run(["true"])
        with pytest.raises(EngineError), container.get("/work"):
            pass
        with pytest.raises(EngineError):
            container.put(tar_of(("file", b"", {})), "/work")


def test_a_container_has_its_images_labels_too(container_bench: Bench) -> None:
    mark = uuid4().hex
    with container_bench.container(labels={OWNED: "override", "x": mark}):
        (found,) = container_bench.engine.owned({"x": mark})
    assert {OWNED: "override", MARK: container_bench.mark, "x": mark}.items() <= found.labels.items()


def test_things_without_our_label_are_not_ours(container_bench: Bench) -> None:
    mark = uuid4().hex
    tag = f"crossjit-contract-{mark}:foreign"
    made = container_bench.engine.import_image(container_bench.rootfs, tag=tag, arch=HOST_ARCH, labels={"x": mark})
    try:
        with container_bench.container(image=tag, labels={"x": mark}):
            assert container_bench.engine.owned({"x": mark}) == []
            assert made.id not in {thing.id for thing in container_bench.engine.owned({})}
    finally:
        container_bench.engine.remove(EngineObject("image", made.id, tag, {}))


def test_start_and_removal_cost_less_than_a_second(live_bench: Bench) -> None:
    def cost() -> float:
        began = time.monotonic()
        with live_bench.container():
            pass
        return time.monotonic() - began

    assert min(cost() for _ in range(3)) < 1.0


INTERRUPTED = """
    import sys
    from pathlib import Path
    from crossjit.engine import connect
    from crossjit.engine.base import HOST, OWNED, ContainerOptions
    from crossjit.model import Arch
    from crossjit.settings import Settings
    engine, image, arch, mark, home = sys.argv[1:]
    labels = {OWNED: "contract", "crossjit.contract": mark}
    options = ContainerOptions(image, arch=Arch(arch), name=f"crossjit-contract-{mark}", labels=labels,
                               isolated=engine != HOST)
    with connect(Settings(Path(home), engine=engine)).container(options) as container:
        container.run(["sh", "-c", "echo ready; sleep 906"], on_line=lambda line: print(line, flush=True))
"""


def start_interrupted(bench: Bench, mark: str, before: str = "") -> subprocess.Popen[bytes]:
    """Start a process that runs a command in a container until it is interrupted."""
    program = before + textwrap.dedent(INTERRUPTED)
    name = bench.engine.facts().name
    return subprocess.Popen(
        [sys.executable, "-c", program, name, bench.image, HOST_ARCH, mark, str(bench.home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruptions_in_quick_succession_leave_no_container(live_bench: Bench, number: signal.Signals) -> None:
    mark = uuid4().hex
    # as the tasks do: SIGTERM is an interruption, too
    before = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
    process = start_interrupted(live_bench, mark, before)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.03)  # removal takes longer: the next one comes in the midst of it
    _, said = process.communicate(timeout=30)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in said
    assert live_bench.engine.owned({MARK: mark}) == []


def test_an_interruption_while_the_container_is_made(live_bench: Bench) -> None:
    """Interrupt as soon as the engine has the container, which may be before its id is known on this side."""
    mark = uuid4().hex
    process = start_interrupted(live_bench, mark)
    deadline = time.monotonic() + 20
    while not live_bench.engine.owned({MARK: mark}) and time.monotonic() < deadline:
        pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert live_bench.engine.owned({MARK: mark}) == []


# -- images


def test_import_tag_and_remove(container_bench: Bench) -> None:
    labels = {**container_bench.labels, "odd": "a 'b' \"c\" $HOME \\ d=e", MARK: uuid4().hex}
    tag = f"crossjit-contract-{uuid4().hex}:1"
    made = container_bench.engine.import_image(container_bench.rootfs, tag=tag, arch=OTHER_ARCH, labels=labels)
    assert made.arch is OTHER_ARCH
    assert labels.items() <= made.labels.items()
    assert container_bench.engine.image(tag) == made
    assert container_bench.engine.image(made.id) == made
    container_bench.engine.tag(tag, f"{tag}-other")
    assert container_bench.engine.image(f"{tag}-other") == made
    (found,) = container_bench.engine.owned({MARK: labels[MARK]})
    assert (found.kind, found.id) == ("image", made.id)
    container_bench.engine.remove(found)
    assert container_bench.engine.image(tag) is None
    assert container_bench.engine.image(f"{tag}-other") is None
    container_bench.engine.remove(found)  # once more: no error


def test_tag_of_an_image_that_is_not_there(container_bench: Bench) -> None:
    with pytest.raises(EngineError):
        container_bench.engine.tag("crossjit-contract:none", "crossjit-contract:other")


def test_import_of_something_that_is_no_tar(container_bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"no tar at all" * 1000)
    for name in ("broken.tar", "absent.tar"):
        with pytest.raises(EngineError):
            container_bench.engine.import_image(
                tmp_path / name, tag="crossjit-contract:broken", arch=HOST_ARCH, labels={}
            )


def build(bench: Bench, context: Path, dockerfile: str, target: str, **options: Any) -> Any:
    (context / "Dockerfile").write_text(textwrap.dedent(dockerfile))
    tag = f"crossjit-contract-{uuid4().hex}:built"
    options = {"arch": HOST_ARCH, "arguments": {}, "labels": bench.labels, "tag": tag} | options
    return bench.engine.build_image(context, target=target, **options)


@pytest.mark.parametrize("arch", list(Arch))
def test_build_from_scratch_for_any_arch(container_bench: Bench, tmp_path: Path, arch: Arch) -> None:
    (tmp_path / "rootfs.tar").write_bytes(container_bench.rootfs.read_bytes())
    lines: list[str] = []
    labels = {**container_bench.labels, "odd": 'a "b" $c', MARK: uuid4().hex}
    made = build(
        container_bench, tmp_path, "FROM scratch AS rootfs\nADD rootfs.tar /\n", "rootfs",
        arch=arch, labels=labels, on_line=lines.append,
    )  # fmt: skip
    assert made.arch is arch
    assert labels.items() <= made.labels.items()
    assert lines
    if arch is HOST_ARCH:
        with container_bench.container(image=made.id) as container:
            assert lines_of(container, ["echo", "built"]) == ["built"]
    for thing in container_bench.engine.owned({MARK: labels[MARK]}):
        container_bench.engine.remove(thing)


def test_build_takes_arguments_and_local_bases(container_bench: Bench, tmp_path: Path) -> None:
    made = build(
        container_bench, tmp_path, "ARG BASE=none\nFROM ${BASE} AS one\nENV X=1\nFROM one AS two\nENV Y=2\n", "two",
        arguments={"BASE": container_bench.image},
    )  # fmt: skip
    with container_bench.container(image=made.id) as container:
        assert lines_of(container, ["cat", "/proc/net/dev"])


def test_a_build_that_fails_shows_its_last_lines(container_bench: Bench, tmp_path: Path) -> None:
    if isinstance(container_bench.engine, FakeEngine):
        container_bench.engine.broken_stages["broken"] = ("some words", "more words")
    lines: list[str] = []
    dockerfile = f"FROM {container_bench.image} AS broken\nRUN echo some words; echo more words >&2; exit 3\n"
    with pytest.raises(EngineError) as caught:
        build(
            container_bench, tmp_path, dockerfile, "broken", on_line=lines.append,
        )  # fmt: skip
    assert any("some words" in line for line in caught.value.details)
    assert any("more words" in line for line in lines)


def test_build_for_a_foreign_arch_runs_programs_of_its_own(real_bench: Bench, tmp_path: Path) -> None:
    """The files of a foreign image are made by programs of the engine's arch, and can be read from there."""
    labels, tag = {**real_bench.labels, MARK: uuid4().hex}, f"crossjit-contract-{uuid4().hex}:foreign"
    made = build(
        real_bench,
        tmp_path,
        """\
        ARG BASE
        FROM --platform=$BUILDPLATFORM ${BASE} AS native
        ARG TARGETARCH
        RUN mkdir /made && echo "$TARGETARCH $(stat -c %s /bin/sh)" >/made/about
        FROM scratch AS foreign
        COPY --from=native /made /
        ENV WHAT="a b"
        """,
        "foreign",
        arch=OTHER_ARCH,
        arguments={"BASE": real_bench.image},
        labels=labels,
        tag=tag,
    )
    assert made.arch is OTHER_ARCH
    assert isinstance(real_bench.engine, CliEngine)
    variables = real_bench.engine.cli.call("inspect", "image", "inspect", "--format", "{{json .Config.Env}}", made.id)
    assert "WHAT=a b" in json.loads(variables)
    copy = build(
        real_bench,
        tmp_path,
        """\
        ARG BASE
        ARG IMAGE
        ARG PLATFORM
        FROM --platform=$BUILDPLATFORM ${BASE} AS native
        FROM --platform=${PLATFORM} ${IMAGE} AS finished
        FROM native AS listing
        COPY --from=finished /about /about
        """,
        "listing",
        arguments={"BASE": real_bench.image, "IMAGE": tag, "PLATFORM": OTHER_ARCH.platform},
    )
    with real_bench.container(image=copy.id) as container:
        arch, size = lines_of(container, ["cat", "/about"])[0].split()
    assert arch == OTHER_ARCH.debian
    assert int(size) == Path("/bin/sh").stat().st_size
    (image,) = real_bench.engine.owned({MARK: labels[MARK]})  # and no container, and nothing half done
    assert image.id == made.id
    real_bench.engine.remove(image)


@pytest.mark.parametrize(
    "dockerfile",
    ["FROM scratch AS other\n", "FROM scratch AS wanted\nADD absent.tar /\n", "FROM none.invalid/x AS wanted"],
)
def test_a_build_that_cannot_start(container_bench: Bench, tmp_path: Path, dockerfile: str) -> None:
    with pytest.raises(EngineError) as caught:
        build(container_bench, tmp_path, dockerfile, "wanted")
    assert caught.value.details


def test_a_build_without_a_dockerfile(container_bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(EngineError):
        container_bench.engine.build_image(tmp_path, target="x", arch=HOST_ARCH, tag="x:1", arguments={}, labels={})


def test_pull_from_a_registry_that_cannot_be_resolved_fails_at_once(container_bench: Bench) -> None:
    began = time.monotonic()
    with pytest.raises(EngineError, match="cannot pull") as caught:
        container_bench.engine.pull("none.invalid/image:1", arch=HOST_ARCH)
    assert time.monotonic() - began < 5
    assert caught.value.details


@pytest.mark.engine("docker")
@pytest.mark.parametrize(("failures", "asked"), [(0, None), (1, None), (1000, 3)])
def test_pull_from_a_registry(docker_bench: Bench, failures: int, asked: int | None) -> None:
    """The image comes for the arch that was asked for; trouble that passes is waited out, but not for ever."""
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        pytest.skip("the engine is on another machine and does not see this one's loopback")
    engine = docker_bench.engine
    labels = {OWNED: "contract", MARK: uuid4().hex}
    with served(Registry(docker_bench.rootfs.read_bytes(), labels, failures)) as registry:
        reference = f"{registry.address}/tiny:1"
        try:
            if asked is not None:
                with pytest.raises(EngineError, match=r"cannot pull .* three times over"):
                    engine.pull(reference, arch=HOST_ARCH)
                assert registry.asked >= asked
                return
            for arch in (OTHER_ARCH, HOST_ARCH):
                pulled = engine.pull(reference, arch=arch)
                assert pulled == f"{registry.address}/tiny@{registry.digest}"
                found = engine.image(pulled)
                assert found is not None
                assert found.arch is arch
            with docker_bench.container(image=pulled) as container:
                assert lines_of(container, ["echo", "pulled"]) == ["pulled"]
            asked_before = registry.asked
            with pytest.raises(EngineError, match="cannot pull"):
                engine.pull(f"{registry.address}/tiny:2", arch=HOST_ARCH)
            assert registry.asked == asked_before
        finally:
            for thing in engine.owned({MARK: labels[MARK]}):
                engine.remove(thing)


# -- a command with the terminal


def test_shell(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    prepared: list[str] = []

    def prepare(container: Container) -> None:
        container.put(tar_of(("file", b"", {})), "/work")
        prepared.extend(lines_of(container, ["id", "-u"]))

    returned = bench.engine.shell(bench.options(user=bench.worker), prepare, sh(SHELL), cwd="/work")
    assert returned == 7
    assert prepared == [str(os.getuid()) if bench.is_host else "1000"]
    assert not containers(bench)
    if bench.real:
        assert "from the shell" in capfd.readouterr().out


# -- an engine that is not there


def everything(bench: Bench, tmp_path: Path) -> list[Any]:
    """Return one call of each of the engine's operations."""
    engine = bench.engine

    def start() -> None:
        with bench.container():
            pass

    return [
        engine.facts,
        start,
        lambda: engine.image(bench.image),
        lambda: engine.pull("none.invalid/image:1", arch=HOST_ARCH),
        lambda: engine.import_image(bench.rootfs, tag="crossjit-contract:x", arch=HOST_ARCH, labels={}),
        lambda: build(bench, tmp_path, "FROM scratch AS x\nENV A=1\n", "x"),
        lambda: engine.tag(bench.image, "crossjit-contract:x"),
        lambda: engine.owned({}),
        *(
            lambda kind=kind: engine.remove(EngineObject(kind, "crossjit-contract-none", "none", {}))
            for kind in ("container", "volume", "image")
        ),
    ]


def break_engine(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(bench.engine, FakeEngine):
        bench.engine.die()
    else:
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/closed.sock")


def require_daemon(bench: Bench) -> None:
    if bench.is_podman:
        pytest.skip("podman has no daemon")


def test_an_engine_that_does_not_answer(
    container_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_daemon(container_bench)
    operations = everything(container_bench, tmp_path)
    break_engine(container_bench, tmp_path, monkeypatch)
    for operation in operations:
        with pytest.raises(EngineError, match="does not answer") as caught:
            operation()
        assert "./inv setup" in caught.value.hint
        assert caught.value.exit_code == 3


def test_an_engine_that_dies_under_a_container(
    container_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first error is told; what is left is noted, and there when the engine is back."""
    require_daemon(container_bench)
    with pytest.raises(EngineError, match="does not answer"), container_bench.container() as container:
        assert container.run(["true"]).returncode == 0
        with monkeypatch.context() as patch:
            break_engine(container_bench, tmp_path, patch)
            for operation in (
                lambda: container.put(tar_of(("file", b"", {})), "/work"),
                lambda: container.get("/work").__enter__(),
                lambda: container.run(["true"]),
            ):
                with pytest.raises(EngineError, match="does not answer"):
                    operation()
        break_engine(container_bench, tmp_path, monkeypatch)
        container.run(["true"])
    noted = container_bench.engine.leftovers.pop()
    assert "does not answer" in noted.reason
    if isinstance(container_bench.engine, FakeEngine):
        container_bench.engine.revive()
    monkeypatch.undo()
    (left,) = containers(container_bench)
    assert noted.what == f"the container {left.name}"
    assert noted.remedy.endswith(f" rm --force --volumes {left.name}")
    container_bench.engine.remove(left)
    container_bench.engine.remove(left)  # once more: no error
    assert not containers(container_bench)


def client(folder: Path, script: str) -> None:
    """Put a client of ours first on PATH."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.engine("docker")
def test_a_client_that_is_not_installed(docker_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossjit.engine.cli_engine import CliEngine

    bench = Bench(CliEngine("docker"), True, docker_bench.rootfs, docker_bench.image, docker_bench.other_image)
    monkeypatch.setenv("PATH", str(tmp_path))
    for operation in everything(bench, tmp_path):
        with pytest.raises(CrossjitError, match="docker is not installed") as caught:
            operation()
        assert "./inv setup" in caught.value.hint


@pytest.mark.engine("docker")
def test_a_client_without_buildx(docker_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from crossjit.engine.cli_engine import CliEngine

    lacks = 'case $1 in buildx) exit 1 ;; info) docker "$@" | sed s/buildx/other/g ;; *) exec docker "$@" ;; esac'
    client(tmp_path, f"PATH={os.environ['PATH']}\n{lacks}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    bench = Bench(CliEngine("docker"), True, docker_bench.rootfs, docker_bench.image, docker_bench.other_image)
    assert bench.engine.facts().buildx is None
    with pytest.raises(EngineError, match="has no buildx") as caught:
        build(bench, tmp_path, "FROM scratch AS x\nENV A=1\n", "x")
    assert "./inv setup" in caught.value.hint


@pytest.mark.engine("docker")
def test_an_old_engine_that_imports_for_its_own_arch_only(
    docker_bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker 20.10 ignores `import --platform`; leaving the option out makes a newer one do the same."""
    from crossjit.engine.cli_engine import CliEngine

    forget = """
    if [ "$1 $2" = "image import" ]; then
      for argument in "$@"; do
        shift
        if [ "$argument" = --platform ]; then skip=yes; elif [ "$skip" ]; then skip=; else set -- "$@" "$argument"; fi
      done
    fi"""
    client(tmp_path, f'{forget}\nPATH={os.environ["PATH"]}\nexec docker "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    labels = {OWNED: "contract", MARK: uuid4().hex}
    engine = CliEngine("docker")
    made = engine.import_image(docker_bench.rootfs, tag="crossjit-contract:old", arch=OTHER_ARCH, labels=labels)
    try:
        assert made.arch is OTHER_ARCH
        assert labels.items() <= made.labels.items()
    finally:
        left = engine.owned({MARK: labels[MARK]})
        for thing in left:
            engine.remove(thing)
    assert [thing.id for thing in left] == [made.id]
