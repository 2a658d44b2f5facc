"""File systems that have no locks or do not sync, as some of networks: told, and borne where it does no harm."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from crossjit.errors import CrossjitError, InfrastructureError
from crossjit.host.setup import _alone
from crossjit.images import ImageBuilder
from crossjit.model import Arch
from crossjit.progress import SilentStep
from crossjit.runs import history
from crossjit.settings import Settings
from crossjit.sources import cache
from crossjit.stash import packing
from crossjit.stash.store import Store
from crossjit.util import files
from tests.fakes.engine import FakeEngine

LACKING = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


@pytest.fixture(params=LACKING, ids=errno.errorcode.get)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def locks_a_key(home: Path) -> None:
    with Store(home / "stash").lock("a" * 64):
        pass


def locks_a_source(home: Path) -> None:
    with cache.locked(Settings(home=home), "x", SilentStep()):
        pass


def makes_a_workspace(home: Path) -> None:
    with cache.workspace(home / "tmp"):
        pass


def locks_an_image(home: Path) -> None:
    with ImageBuilder(FakeEngine(), Arch.X86_64, home).locked("x", "x"):
        pass


def locks_the_host(home: Path) -> None:
    with _alone(Settings(home=home), lambda text: None):
        pass


def lists_runs(home: Path) -> None:
    (home / "runs/x").mkdir(parents=True)
    (home / "runs/x/alive.lock").touch()
    history.is_alive(Settings(home=home), "x")


@pytest.mark.usefixtures("without_locks")
@pytest.mark.parametrize(
    "work", [locks_a_key, locks_a_source, makes_a_workspace, locks_an_image, locks_the_host, lists_runs]
)
@pytest.mark.filterwarnings("error")
def test_a_file_system_without_locks_is_told(work: Callable[[Path], None], tmp_path: Path) -> None:
    """Nor is a lock taken in their place that outlives who is killed."""
    with pytest.raises(InfrastructureError) as told:
        work(tmp_path)
    assert "CROSSJIT_HOME" in told.value.hint
    assert any(os.strerror(number).lower() in told.value.message.lower() for number in LACKING)


@pytest.fixture(params=[errno.EINVAL, errno.ENOTSUP, errno.ENOSYS], ids=errno.errorcode.get)
def without_sync(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def only(folders: bool) -> None:
        real = os.fsync

        def sync(descriptor: int) -> None:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode) or not folders:
                raise OSError(request.param, os.strerror(request.param))
            real(descriptor)

        monkeypatch.setattr(os, "fsync", sync)

    return only


def test_folders_that_do_not_sync_are_borne(without_sync: Callable[[bool], None], tmp_path: Path) -> None:
    without_sync(True)
    files.replace(tmp_path / "x", b"x")
    assert (tmp_path / "x").read_bytes() == b"x"


def writes_a_file(folder: Path) -> None:
    files.replace(folder / "x", b"x")


def packs(folder: Path) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        member = tarfile.TarInfo("top")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    content.seek(0)
    packing.pack(content, folder / "packed")


@pytest.mark.parametrize("work", [writes_a_file, packs])
def test_files_that_do_not_sync_are_told(
    without_sync: Callable[[bool], None], work: Callable[[Path], None], tmp_path: Path
) -> None:
    without_sync(False)
    with (
        pytest.raises(InfrastructureError) as told,
        files.translate_os_errors(InfrastructureError, "cannot write", tmp_path),
    ):
        work(tmp_path)
    assert "CROSSJIT_HOME" in told.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_to_sync_a_folder_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)
    with (
        pytest.raises(CrossjitError, match="input/output"),
        files.translate_os_errors(InfrastructureError, "cannot", tmp_path),
    ):
        files.sync_folder(tmp_path)
