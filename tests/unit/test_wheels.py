"""Packages by this machine's own pip, from folders of wheels that the tests write."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit.errors import UserError
from crossjit.host import wheels
from crossjit.host.shell import LocalShell, Output
from crossjit.host.wheels import WheelTarget
from crossjit.images import Role
from crossjit.model import Arch
from crossjit.pipeline.packages import FOLDER, ScriptPackages
from tests.unit.build_fakes import RecordingProgress

TARGET = WheelTarget(Arch.AARCH64, (3, 15), free_threaded=False, glibc=41)


def write_wheel(
    folder: Path, name: str, *, tag: str = "py3-none-any", requires: Sequence[str] = (), files: Mapping[str, str] = {}
) -> Path:
    """Write version 1.0 of a package, with a module of its name."""
    path = folder / f"{name}-1.0-{tag}.whl"
    about = f"{name}-1.0.dist-info"
    metadata = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    contents = {
        f"{name}/__init__.py": f"tag = {tag!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{about}/RECORD": "",
        **files,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in contents.items():
            archive.writestr(member, text)
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def shell(index: Path) -> LocalShell:
    """This machine, whose pip is configured for a folder."""
    shell = LocalShell()
    others = {name: value for name, value in shell.environ.items() if not name.startswith("PIP_")}
    shell.environ = {**others, "PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    return shell


def test_a_package_comes_with_what_it_requires_on_the_target(index: Path, shell: LocalShell) -> None:
    arch = "platform_machine == 'aarch64'"
    path = write_wheel(
        index,
        "first",
        requires=[f"second; {arch} and python_version >= '3.15'", "absent; python_version < '3.15'"],
    )
    write_wheel(index, "second")
    found = wheels.fetch(["first"], TARGET, shell)
    assert [(wheel.name, wheel.version) for wheel in found.wheels] == [("first", "1.0"), ("second", "1.0")]
    assert found.wheels[0].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.files["second/__init__.py"] == b"tag = 'py3-none-any'\n"


@pytest.mark.parametrize(
    ("tag", "target", "fits"),
    [
        ("cp315-cp315-manylinux_2_28_aarch64", TARGET, True),
        ("cp315-cp315-manylinux2014_aarch64", TARGET, True),
        ("cp315-cp315-manylinux_2_42_aarch64", TARGET, False),
        ("cp315-cp315-manylinux_2_28_x86_64", TARGET, False),
        ("cp314-cp314-manylinux_2_28_aarch64", TARGET, False),
        ("cp312-abi3-manylinux_2_28_aarch64", TARGET, True),
        ("cp315-cp315t-manylinux_2_28_aarch64", TARGET, False),
        (
            "cp315-cp315t-manylinux_2_28_aarch64",
            WheelTarget(Arch.AARCH64, (3, 15), free_threaded=True, glibc=41),
            True,
        ),
    ],
)
def test_a_binary_package_fits_the_target(
    index: Path, shell: LocalShell, tag: str, target: WheelTarget, fits: bool
) -> None:
    write_wheel(index, "binary", tag=tag)
    if fits:
        assert wheels.fetch(["binary"], target, shell).files["binary/__init__.py"] == f"tag = {tag!r}\n".encode()
    else:
        with pytest.raises(UserError, match="No matching distribution found for binary"):
            wheels.fetch(["binary"], target, shell)


def test_files_land_where_python_imports_them(index: Path, shell: LocalShell) -> None:
    files = {
        "placed-1.0.data/platlib/placed/fast.so": "so",
        "placed-1.0.data/purelib/other.py": "py",
        "placed-1.0.data/scripts/tool": "#!python",
        "placed-1.0.data/headers/placed.h": "h",
    }
    write_wheel(index, "placed", files=files)
    found = wheels.fetch(["placed"], TARGET, shell).files
    assert found["placed/fast.so"] == b"so"
    assert found["other.py"] == b"py"
    assert not [path for path in found if "tool" in path or path.endswith(".h")]


@pytest.mark.parametrize("name", ["../../escape.py", "/etc/escape.py", "a.data/purelib/../../../escape.py"])
def test_a_wheel_stays_in_its_folder(index: Path, shell: LocalShell, name: str) -> None:
    write_wheel(index, "bad", files={name: "x"})
    with pytest.raises(UserError, match="leaves its folder"):
        wheels.fetch(["bad"], TARGET, shell)


def test_wheels_are_bounded(index: Path, shell: LocalShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels, "LARGEST", 1 << 20)
    write_wheel(index, "large", files={"large/data": "x" * (1 << 20)})
    with pytest.raises(UserError, match="more than 1 MiB"):
        wheels.fetch(["large"], TARGET, shell)


def test_a_package_that_is_not_found(
    index: Path, shell: LocalShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(UserError) as failed:
        wheels.fetch(["absent==9"], TARGET, shell)
    assert failed.value.message == "pip cannot get absent==9: No matching distribution found for absent==9"
    assert failed.value.hint.endswith("a wheel for Python 3.15 on aarch64")
    assert [*temporary.iterdir()] == []


class Says(LocalShell):
    """A machine whose pip fails with this output."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def run(self, argv: Sequence[str], **options: Any) -> Output:
        return Output(tuple(argv), 1, 0.1, stderr=self.text)


def test_addresses_of_indexes_are_not_shown() -> None:
    text = (
        "WARNING: Retrying after 'https://user:secret@pip.example/simple/x/'\n"
        "ERROR: Cannot reach https://user:secret@pip.example/simple/x/\n"
        "ERROR: No matching distribution found for x (from https://user:secret@pip.example/x.whl)\n"
    )
    with pytest.raises(UserError) as failed:
        wheels.fetch(["x"], TARGET, Says(text))
    error = failed.value
    assert "example" not in error.message + error.hint + "".join(error.details)
    assert error.message.endswith("No matching distribution found for x (from …")
    assert error.details == ("Cannot reach …",)
    assert error.hint.startswith("the index did not answer")


def test_a_python_without_pip() -> None:
    with pytest.raises(UserError, match="has none") as failed:
        wheels.fetch(["x"], TARGET, Says(f"{sys.executable}: No module named pip\n"))
    assert failed.value.hint.endswith("-m ensurepip")


@pytest.mark.parametrize(
    "text", ["", "-r secrets.txt", "./folder", "a b", "x @ https://example.org/x.whl", "git+https://example.org/x"]
)
def test_only_packages_of_an_index_can_be_required(text: str) -> None:
    with pytest.raises(UserError, match="invalid --with") as failed:
        wheels.parse([text])
    assert failed.value.hint == "such as --with attrs==25.1"


def test_requirements_are_as_pip_takes_them() -> None:
    assert wheels.parse(["attrs==25.1", "numpy[x]>=2,<3; python_version>'3'", "attrs==25.1"]) == (
        "attrs==25.1",
        "numpy[x]>=2,<3; python_version>'3'",
    )


def test_each_kind_of_python_gets_its_own_once(index: Path, shell: LocalShell) -> None:
    path = write_wheel(index, "binary", tag="cp315-cp315-manylinux_2_28_aarch64")
    write_wheel(index, "binary", tag="cp315-cp315t-manylinux_2_28_aarch64")
    image = SimpleNamespace(reference="i", version={"libc6": "2.41"}.get)
    asked: list[object] = []

    def ensure(spec: object, role: Role, arch: Arch) -> object:
        asked.append((spec, role, arch))
        return image

    ctx: Any = SimpleNamespace(ensure_image=ensure, progress=RecordingProgress())

    def prepared(*, free_threaded: bool) -> Any:
        return SimpleNamespace(
            image="spec",
            cell=SimpleNamespace(arch=Arch.AARCH64),
            python=(3, 15),
            request=SimpleNamespace(variant=SimpleNamespace(free_threaded=free_threaded)),
        )

    packages = ScriptPackages(ctx, ["binary"], shell)
    own = packages.files(prepared(free_threaded=False))
    assert own[f"{FOLDER}/binary/__init__.py"] == b"tag = 'cp315-cp315-manylinux_2_28_aarch64'\n"
    free = packages.files(prepared(free_threaded=True))
    assert free[f"{FOLDER}/binary/__init__.py"] == b"tag = 'cp315-cp315t-manylinux_2_28_aarch64'\n"
    path.unlink()
    assert packages.files(prepared(free_threaded=False)) == own
    assert [(target.free_threaded, wheel.name) for target, wheel in packages.wheels()] == [
        (False, "binary"),
        (True, "binary"),
    ]
    assert set(asked) == {("spec", Role.TARGET, Arch.AARCH64)}
    assert ScriptPackages(ctx, []).files(prepared(free_threaded=False)) == {}
