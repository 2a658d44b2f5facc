"""The benchmarks' packages: fetched once, kept by their digests, never used if they are not what is pinned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from crossjit.errors import UserError
from crossjit.host.shell import LocalShell
from crossjit.host.wheels import Wheel
from crossjit.measure import packages
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_wheels import index, shell, write_wheel  # noqa: F401 - fixtures

Pins = dict[str, Wheel]


@pytest.fixture
def pins(index: Path, monkeypatch: pytest.MonkeyPatch) -> Pins:  # noqa: F811
    """Two packages in the index, which are pinned."""
    script = {"pyperformance/data-files/benchmarks/bm_go/run_benchmark.py": "go"}
    other = {"pyperformance/data-files/benchmarks/bm_gopher/run_benchmark.py": "other"}
    paths = {
        "six": write_wheel(index, "six"),
        "pyperformance": write_wheel(index, "pyperformance", files={**script, **other}),
    }
    found = {name: Wheel(name, "1.0", hashlib.sha256(path.read_bytes()).hexdigest()) for name, path in paths.items()}
    monkeypatch.setattr(packages, "pinned", lambda: found)
    return found


def test_packages_are_fetched_once(
    pins: Pins,
    index: Path,  # noqa: F811
    shell: LocalShell,  # noqa: F811
    tmp_path: Path,
) -> None:
    progress = RecordingProgress()
    paths = packages.ensure(["six"], tmp_path, progress, shell)
    assert paths == {"six": tmp_path / "wheels" / f"{pins['six'].sha256}.whl"}
    for path in index.iterdir():
        path.unlink()
    assert packages.ensure(["six"], tmp_path, progress, shell) == paths
    assert progress.steps == ["packages"]
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == [f"{pins['six'].sha256}.whl"]


def test_a_damaged_package_is_fetched_again(pins: Pins, shell: LocalShell, tmp_path: Path) -> None:  # noqa: F811
    (path,) = packages.ensure(["six"], tmp_path, RecordingProgress(), shell).values()
    path.write_bytes(b"")
    packages.ensure(["six"], tmp_path, RecordingProgress(), shell)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == pins["six"].sha256


def test_what_is_not_pinned_is_not_taken(
    pins: Pins,
    index: Path,  # noqa: F811
    shell: LocalShell,  # noqa: F811
    tmp_path: Path,
) -> None:
    write_wheel(index, "six", files={"six/more.py": "x"})
    with pytest.raises(UserError) as failed:
        packages.ensure(["six"], tmp_path, RecordingProgress(), shell)
    assert failed.value.message.startswith("pip cannot get six==1.0: ")
    assert failed.value.hint == "the index must have these wheels, unchanged"
    assert list((tmp_path / "wheels").iterdir()) == []


def test_a_package_that_the_index_lacks(pins: Pins, index: Path, shell: LocalShell, tmp_path: Path) -> None:  # noqa: F811
    next(index.glob("six*")).unlink()
    with pytest.raises(UserError, match=r"No matching distribution found for six==1\.0"):
        packages.ensure(["six"], tmp_path, RecordingProgress(), shell)


def test_of_pyperformance_only_the_scripts_that_run_are_installed(
    pins: Pins,
    shell: LocalShell,  # noqa: F811
    tmp_path: Path,
) -> None:
    paths = packages.ensure(["six", "pyperformance"], tmp_path, RecordingProgress(), shell)
    found = packages.contents(paths, {"go"})
    assert found[f"{packages.FOLDER}/{packages.BENCHMARKS}/bm_go/run_benchmark.py"] == b"go"
    assert found[f"{packages.FOLDER}/six/__init__.py"] == b"tag = 'py3-none-any'\n"
    assert not [path for path in found if "gopher" in path]
