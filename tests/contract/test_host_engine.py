"""What the host refuses as an engine, and where its containers' files are."""

from __future__ import annotations

import io
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from crossjit.engine import host_processes
from crossjit.engine.base import Feature, Limits
from crossjit.engine.host_engine import HostEngine
from crossjit.errors import CrossjitError, EngineError, UserError
from tests.contract.bench import HOST_ARCH, OTHER_ARCH, Bench, add, lines_of
from tests.contract.test_engine import INTERRUPTED, members_of, start_interrupted, tar_of

assert INTERRUPTED

# A request for each feature that the host lacks. It has to be refused before anything is started.
REFUSED: dict[Feature, list[Callable[[Bench, Path], object]]] = {
    Feature.ISOLATION: [
        lambda bench, folder: start(bench, isolated=True),
        lambda bench, folder: start(bench, writable=False),
        lambda bench, folder: start(bench, tmpfs=("/tmp",)),
        lambda bench, folder: start(bench, capabilities=("CHOWN",)),
        lambda bench, folder: start(bench, user="worker", run_as="root"),
    ],
    Feature.MEMORY: [lambda bench, folder: start(bench, limits=Limits(memory=1 << 30))],
    Feature.FOREIGN: [lambda bench, folder: start(bench, arch=OTHER_ARCH)],
    Feature.IMAGES: [
        lambda bench, folder: bench.engine.pull("debian:none", arch=HOST_ARCH),
        lambda bench, folder: bench.engine.import_image(bench.rootfs, tag="x:1", arch=HOST_ARCH, labels={}),
        lambda bench, folder: bench.engine.tag(bench.image, "x:1"),
        lambda bench, folder: bench.engine.build_image(
            folder, target="x", arch=HOST_ARCH, tag="x:1", arguments={}, labels={}
        ),
    ],
}


def start(bench: Bench, run_as: str | None = None, **options: object) -> None:
    with bench.container(**options) as container:
        container.run(["true"], user=run_as)


def test_every_lack_is_declared_and_tried(host_bench: Bench) -> None:
    assert host_bench.engine.emulators({}) == {}
    assert set(host_bench.engine.facts().lacks) == set(REFUSED) == set(Feature)


@pytest.mark.parametrize(
    ("feature", "request_it"), [(feature, each) for feature, requests in REFUSED.items() for each in requests]
)
def test_what_it_lacks_is_refused(
    host_bench: Bench, tmp_path: Path, feature: Feature, request_it: Callable[[Bench, Path], object]
) -> None:
    with pytest.raises(EngineError, match="the host as an engine cannot") as caught:
        request_it(host_bench, tmp_path)
    assert str(feature) in caught.value.message
    assert "CROSSJIT_ENGINE=docker" in caught.value.hint
    assert caught.value.exit_code == 3


def test_options_ask_for_isolation_unless_they_say_otherwise(host_bench: Bench) -> None:
    """Nothing that was written for containers runs on the host by accident."""
    options = host_bench.options()
    assert not options.isolated
    assert type(options)(options.image, options.arch, "x", {}).isolated


@pytest.mark.parametrize("name", ["with space", "colon:", "dollar$", "quote'"])
def test_a_folder_that_make_cannot_work_in(tmp_path: Path, host_bench: Bench, name: str) -> None:
    engine = HostEngine(tmp_path / name)
    with pytest.raises(UserError, match="cannot be built below") as caught, engine.container(host_bench.options()):
        pass
    assert "CROSSJIT_HOME" in caught.value.hint
    assert caught.value.exit_code == 2


def test_what_is_built_one_after_another_is_built_in_one_place(host_bench: Bench) -> None:
    def place() -> str:
        return str(container._paths.place("/crossjit"))  # type: ignore[attr-defined]

    with host_bench.container() as container:
        first = place()
        with host_bench.container() as container:
            assert place() != first
    with host_bench.container() as container:
        assert place() == first


def test_a_number_that_has_another_owner_by_now(host_bench: Bench) -> None:
    """A container that was removed by others leaves the next one with its number alone."""
    with pytest.raises(EngineError, match="was removed"), host_bench.container() as old:
        host_bench.engine.remove(next(iter(host_bench.engine.owned({}))))
        with host_bench.container() as new:
            with pytest.raises(EngineError, match="was removed"):
                old.run(["true"])
            assert lines_of(new, ["echo", "alive"]) == ["alive"]
        old.run(["true"])


def test_links_lead_into_the_container(host_bench: Bench) -> None:
    links = tar_of(
        ("inner", b"", {"type": tarfile.SYMTYPE, "linkname": "/work/file"}),
        ("outer", b"", {"type": tarfile.SYMTYPE, "linkname": "/bin/sh"}),
        ("file", b"content\n", {"mode": 0o644}),
        ("again", b"", {"type": tarfile.LNKTYPE, "linkname": "file"}),
    )
    with host_bench.container() as container:
        container.put(links, "/work")
        assert lines_of(container, ["cat", "/work/inner"]) == ["content"]
        found = {name: member for name, (member, _) in members_of(container, "/work").items()}
    assert found["work/inner"].linkname == "/work/file"
    assert found["work/outer"].linkname == "/bin/sh"
    assert {found["work/file"].islnk(), found["work/again"].islnk()} == {True, False}


@pytest.mark.parametrize("name", ["../../../escaped", "/../../escaped", "link/escaped"])
def test_nothing_is_unpacked_outside(host_bench: Bench, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        add(tar, "link", type=tarfile.SYMTYPE, linkname="../../../..")  # from its folder: above the engine's
        add(tar, name, b"x", mode=0o644)
    stream.seek(0)
    with host_bench.container() as container:
        try:
            container.put(stream, "/work")
        except EngineError as error:
            assert "leads out of the container" in error.details[0]
        above = host_bench.home.parent
        outside = [path for path in above.rglob("escaped") if "fs" not in path.relative_to(above).parts]
        assert outside == []


def test_processes_that_leave_their_session_end_with_the_container(host_bench: Bench) -> None:
    seconds = "9071.5"
    with host_bench.container() as container:
        container.run(["sh", "-c", f"(setsid sleep {seconds} >/dev/null 2>&1 &)"])
        assert _sleeping(seconds)
    deadline = time.monotonic() + 5
    while _sleeping(seconds) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _sleeping(seconds)


def _sleeping(seconds: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_what_a_killed_process_leaves_is_removed(host_bench: Bench) -> None:
    """SIGKILL leaves a folder with its processes; whoever removes it, by its labels, ends them as well."""
    mark = "killed"
    process = start_interrupted(host_bench, mark)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    (left,) = host_bench.engine.owned({"crossjit.contract": mark})
    assert host_processes.of(host_processes.CONTAINER, left.id)
    host_bench.engine.remove(left)
    assert host_bench.engine.owned({}) == []
    assert host_processes.of(host_processes.CONTAINER, left.id) == []


def test_a_volume_in_use_stays(host_bench: Bench) -> None:
    host_bench.engine.ensure_volume("kept", host_bench.labels)
    (volume,) = host_bench.engine.owned({})
    with host_bench.container(volumes={"kept": "/cache"}), pytest.raises(CrossjitError, match="cannot remove"):
        host_bench.engine.remove(volume)
    host_bench.engine.remove(volume)
    assert host_bench.engine.owned({}) == []
