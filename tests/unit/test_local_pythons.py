"""Folders and archives with an installed Python: what is found in them, and what is refused."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from crossjit.config.pythons import LocalKind, LocalPython
from crossjit.errors import ExitCode, UserError
from crossjit.model import Arch, Strategy
from crossjit.pipeline import installed
from crossjit.pythons import local
from crossjit.stash import manifest as manifests
from crossjit.stash import packing
from crossjit.stash.manifest import ArtifactKind, Manifest, SourceFacts
from crossjit.tasks import options
from crossjit.util.budget import BUDGET
from tests.unit.test_build_python import ARM, X86


def elf(arch: Arch) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, arch.elf_number) + b"rest"


def make(folder: Path, *, arch: Arch = X86, prefix: str = "") -> Path:
    """Make an installed Python as `make install` does."""
    root = folder / prefix
    (root / "bin").mkdir(parents=True)
    (root / "lib/python3.15/test").mkdir(parents=True)
    (root / "bin/python3.15").write_bytes(elf(arch))
    (root / "bin/python3.15").chmod(0o755)
    (root / "bin/python3").symlink_to("python3.15")
    (root / "lib/python3.15/os.py").write_text("import sys\n")
    os.link(root / "lib/python3.15/os.py", root / "lib/python3.15/same.py")
    return folder


def archived(folder: Path, target: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(target, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, arcname="python/install")
    return target


def members(python: LocalPython) -> tuple[dict[str, str], str]:
    with local.opened(python) as (stream, digest), tarfile.open(fileobj=stream) as tar:
        return {member.name: member.linkname for member in tar}, digest


@pytest.mark.parametrize("prefix", ["", "usr/local", "python/install"])
def test_a_folder_is_read_as_a_tree_below_usr_local(prefix: str, tmp_path: Path) -> None:
    python = local.inspect(make(tmp_path / "mine", prefix=prefix))
    assert (python.kind, python.prefix, python.program, python.arch) == (LocalKind.FOLDER, prefix, "python3", X86)
    names, _ = members(python)
    assert names["tree/usr/local/bin/python3"] == "python3.15"
    assert "tree/usr/local/lib/python3.15/os.py" in names


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_an_archive_is_the_same_as_its_folder(mode: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", arch=ARM)
    python = local.inspect(archived(folder, tmp_path / "cpython-3.15+x.tar.gz", mode))
    assert (python.kind, python.prefix, python.arch) == (LocalKind.ARCHIVE, "python/install", ARM)
    assert python.name == "cpython-3.15-x"
    assert members(python)[1] == members(local.inspect(folder))[1]


def test_the_digest_is_the_stashs_own(tmp_path: Path) -> None:
    python = local.inspect(make(tmp_path / "mine"))
    with local.opened(python) as (stream, digest):
        packed = packing.pack(stream, tmp_path / "packed.tar.zst", below=local.PREFIX)
    assert packed.tree_digest == digest


def test_a_program_of_another_name_gets_its_link(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    (folder / "bin/python3").unlink()
    python = local.inspect(folder)
    assert python.program == "python3.15"
    assert members(python)[0]["tree/usr/local/bin/python3"] == "python3.15"


def test_an_unchanged_export_says_which_llvm(tmp_path: Path) -> None:
    folder = make(tmp_path / "export", prefix="usr/local")
    python = local.inspect(folder)
    _, digest = members(python)
    manifest = Manifest(
        ArtifactKind.CELL, "k" * 64, "3.15.0", X86, SourceFacts("archive", "d"), Strategy.NATIVE, "", llvm="21.1.8"
    )
    (folder / "manifest.json").write_bytes(manifests.dump(replace(manifest, tree_digest=digest)))
    assert members(python)[1] == digest, "the manifest is no part of the tree"
    assert local.exported_llvm(python, digest) == "21.1.8"
    (folder / "usr/local/lib/python3.15/os.py").write_text("changed")
    assert local.exported_llvm(python, members(python)[1]) is None


def no_library(folder: Path) -> None:
    (folder / "lib/python3.15/os.py").unlink()


def no_program(folder: Path) -> None:
    (folder / "bin/python3").unlink()
    (folder / "bin/python3.15").unlink()


def a_script(folder: Path) -> None:
    (folder / "bin/python3.15").write_bytes(b"#!/bin/sh\nexec /usr/bin/python3\n")


def a_link_out(folder: Path) -> None:
    (folder / "bin/python3.15").unlink()
    (folder / "bin/python3.15").symlink_to("/usr/bin/python3")


def another_machine(folder: Path) -> None:
    (folder / "bin/python3.15").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 243))


def an_environment(folder: Path) -> None:
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (no_library, "no standard library"),
        (no_program, "no program bin/python3"),
        (a_script, "not a program of Linux"),
        (a_link_out, "not a program of Linux"),
        (another_machine, "ELF number 243"),
        (an_environment, "virtual environment"),
    ],
)
def test_a_folder_that_is_no_python(change: Callable[[Path], None], why: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "mine")
    change(folder)
    with pytest.raises(UserError, match=why) as raised:
        local.inspect(folder)
    assert raised.value.hint
    assert raised.value.exit_code is ExitCode.USER


@pytest.mark.parametrize("name", ["/", "/usr", "/nonexistent/python"])
def test_a_path_that_cannot_be_one(name: str) -> None:
    with pytest.raises(UserError):
        local.inspect(Path(name))


def test_a_python_of_another_arch_than_claimed(tmp_path: Path) -> None:
    folder = make(tmp_path / "mine", arch=ARM)
    with pytest.raises(UserError, match=r"is an aarch64 Python: expected x86_64$") as raised:
        installed.recipe_of(local.inspect(folder), [X86])
    assert "--arch" in raised.value.hint
    recipe = installed.recipe_of(local.inspect(folder), [X86, ARM])
    assert recipe.variants["installed"].arches == (ARM,)


def hostile(*added: tuple[str, bytes, str]) -> BinaryIO:
    """Make a tar of a Python with more members: names, types, and what links point to."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in (("bin/python3", elf(X86)), ("lib/python3.15/os.py", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for name, kind, target in added:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    stream.seek(0)
    return cast(BinaryIO, stream)


@pytest.mark.parametrize(
    "member",
    [
        ("../out", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("lib/device", tarfile.CHRTYPE, ""),
        ("lib/pipe", tarfile.FIFOTYPE, ""),
        ("lib/absolute", tarfile.SYMTYPE, "/etc/passwd"),
        ("lib/out", tarfile.SYMTYPE, "../../../../etc"),
        ("lib/hard", tarfile.LNKTYPE, "../etc/passwd"),
        ("lib/missing", tarfile.LNKTYPE, "lib/nothing"),
    ],
)
def test_an_archive_with_a_hostile_member(member: tuple[str, bytes, str], tmp_path: Path) -> None:
    path = tmp_path / "python.tar"
    path.write_bytes(hostile(member).read())
    with pytest.raises(UserError) as raised, local.opened(local.inspect(path)):
        pass
    assert raised.value.exit_code is ExitCode.USER
    assert raised.value.hint


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_damaged_archive(mode: str, tmp_path: Path) -> None:
    path = archived(make(tmp_path / "mine"), tmp_path / "python.tar", mode)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 4])
    with pytest.raises(UserError, match="cannot be read"), local.opened(local.inspect(path)):
        pass


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "python.tar"
    path.write_text("no tar\n" * 200)
    with pytest.raises(UserError, match="cannot be read"):
        local.inspect(path)


def test_more_than_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archived(make(tmp_path / "mine"), tmp_path / "python.tar", "w")
    monkeypatch.setattr("crossjit.util.budget.BUDGET", replace(BUDGET, members=3))
    with pytest.raises(UserError, match="more than 3 files"):
        local.inspect(path)


@pytest.mark.parametrize(
    "others",
    [
        {"recipe": ["3.15"]},
        {"variant": ["jit"]},
        {"source": "https://x/y.git"},
        {"strategy": "cross"},
        {"no_cache": True},
    ],
)
def test_options_that_say_how_to_build_are_refused(others: dict[str, object]) -> None:
    with pytest.raises(UserError, match="--python cannot be combined with --") as raised:
        options.read(python="debian:forky/python3.15", **others)  # type: ignore[arg-type]
    assert raised.value.hint


def test_a_path_is_kept_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.read(python="here").python == str(tmp_path / "here")
    assert options.in_full(["probe", "--python", "here", "--python=debian:forky/python3.15"]) == [
        *("probe", "--python", str(tmp_path / "here"), "--python=debian:forky/python3.15")
    ]
