"""The engines that the contract holds for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from crossjit.engine.base import HOST, OWNED
from crossjit.engine.cli_engine import CliEngine
from crossjit.engine.host_engine import HostEngine
from crossjit.engine.host_paths import OWN
from tests.conftest import need_engine, why_no_engine
from tests.contract.bench import HOST_ARCH, OTHER_ARCH, Bench, pack_rootfs, run_script
from tests.fakes.engine import FakeEngine
from tests.fakes.files import FakeFiles

REAL = [pytest.param("docker", marks=pytest.mark.engine("docker"))]
if why_no_engine("podman") is None:
    REAL.append(pytest.param("podman", marks=pytest.mark.engine("podman")))


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tarball = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    pack_rootfs(tarball)
    return tarball


def _real(name: str, rootfs: Path) -> Iterator[Bench]:
    need_engine(name)
    engine = CliEngine(name)
    base = f"crossjit-contract-{uuid4().hex[:12]}"
    bench = Bench(engine, True, rootfs, f"{base}:host", f"{base}:other")
    try:
        engine.import_image(rootfs, tag=bench.image, arch=HOST_ARCH, labels=bench.labels)
        engine.import_image(rootfs, tag=bench.other_image, arch=OTHER_ARCH, labels=bench.labels)
        yield bench
    finally:
        for thing in engine.owned({**bench.labels, OWNED: "contract"}):
            engine.remove(thing)


@pytest.fixture(scope="session")
def docker_bench(rootfs: Path) -> Iterator[Bench]:
    yield from _real("docker", rootfs)


@pytest.fixture(scope="session")
def podman_bench(rootfs: Path) -> Iterator[Bench]:
    yield from _real("podman", rootfs)


@pytest.fixture
def fake_bench(rootfs: Path) -> Bench:
    engine = FakeEngine(arch=HOST_ARCH, programs={"sh": run_script}, users={"root": 0, "worker": 1000})
    files = FakeFiles.base()
    files.make_folder("/work")
    bench = Bench(engine, False, rootfs, "tiny:host", "tiny:other")
    engine.add_image(bench.image, arch=HOST_ARCH, files=files, labels=bench.labels)
    engine.add_image(bench.other_image, arch=OTHER_ARCH, files=files, labels=bench.labels)
    return bench


@pytest.fixture
def host_bench(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    engine = HostEngine(tmp_path_factory.mktemp("host") / HOST, own=(*OWN, "/work"))
    bench = Bench(engine, True, rootfs, HOST, HOST)
    yield bench
    assert not [thing.name for thing in engine.owned({}) if thing.kind == "container"], "a container was left behind"


@pytest.fixture(params=["fake", *REAL, HOST])
def bench(request: pytest.FixtureRequest) -> Bench:
    """An engine, fake or real, or the host."""
    made = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(made, Bench)
    return made


@pytest.fixture(params=["fake", *REAL])
def container_bench(request: pytest.FixtureRequest) -> Bench:
    """An engine of containers, fake or real, for what the host refuses: see `test_host_engine.py`."""
    made = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(made, Bench)
    return made


@pytest.fixture(params=[*REAL, HOST])
def live_bench(request: pytest.FixtureRequest) -> Bench:
    """An engine that runs something: a real one, or the host."""
    made = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(made, Bench)
    return made


@pytest.fixture(params=REAL)
def real_bench(request: pytest.FixtureRequest) -> Bench:
    """A real engine of containers, for what the fake does not model and the host refuses."""
    made = request.getfixturevalue(f"{request.param}_bench")
    assert isinstance(made, Bench)
    return made
