"""Compilers that a variant names: what configure is told for each way to build, and what is refused."""

from __future__ import annotations

import pytest

from crossjit.build import compilers
from crossjit.build.spec import make_spec
from crossjit.errors import UserError
from crossjit.images import Image, Package, Role
from crossjit.model import Arch, Strategy, Variant
from crossjit.sources import Kind, Source

CROSS = (Arch.AARCH64, Strategy.CROSS)
NATIVE = (Arch.X86_64, Strategy.NATIVE)
EMULATE = (Arch.AARCH64, Strategy.EMULATE)

TOOLCHAIN = Image(
    reference="toolchain",
    id="sha256:1",
    key="k" * 64,
    role=Role.TOOLCHAIN,
    arch=Arch.X86_64,
    base="bootstrap:forky",
    packages=tuple(
        Package(name, "amd64", "1-1")
        for name in ("clang-9", "clang-18", "clang-21", "gcc-16", "g++-16", "gcc-16-aarch64-linux-gnu")
    ),
)


def told(way: tuple[Arch, Strategy], *configure: str, llvm: str | None = "21") -> dict[str, str]:
    return compilers.named(Variant("tail", "", configure, ()), *way, TOOLCHAIN, llvm)


def test_nothing_is_told_where_nothing_is_asked_for() -> None:
    assert told(NATIVE, "--disable-gil") == {}


def test_a_cross_build_is_told_its_compiler() -> None:
    assert told(CROSS) == {"CC": "aarch64-linux-gnu-gcc", "CXX": "aarch64-linux-gnu-g++"}


@pytest.mark.parametrize(
    ("way", "asked", "cc", "cxx"),
    [
        (NATIVE, "CC=clang-21", "clang-21", "clang++-21"),
        (NATIVE, "CC=clang", "clang-21", "clang++-21"),
        (NATIVE, "CC=clang-18", "clang-18", "clang++-18"),
        (NATIVE, "CC=gcc", "gcc", "g++"),
        (NATIVE, "CC=gcc-16 -m64", "gcc-16 -m64", "g++-16 -m64"),
        (NATIVE, "CC=x86_64-linux-gnu-gcc", "x86_64-linux-gnu-gcc", "x86_64-linux-gnu-g++"),
        (EMULATE, "CC=clang", "clang-21", "clang++-21"),
        (CROSS, "CC=clang", "clang-21 --target=aarch64-linux-gnu", "clang++-21 --target=aarch64-linux-gnu"),
        (
            CROSS,
            "CC=clang-18 -O1",
            "clang-18 --target=aarch64-linux-gnu -O1",
            "clang++-18 --target=aarch64-linux-gnu -O1",
        ),
        (CROSS, "CC=clang --target=aarch64-linux-gnu", "clang-21 --target=aarch64-linux-gnu", None),
        (CROSS, "CC=gcc", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"),
        (CROSS, "CC=aarch64-linux-gnu-gcc", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"),
    ],
)
def test_a_compiler_is_named_for_its_arch(way: tuple[Arch, Strategy], asked: str, cc: str, cxx: str | None) -> None:
    found = told(way, asked)
    assert found["CC"] == cc
    assert cxx is None or found["CXX"] == cxx


def test_a_version_of_gcc_is_the_cross_compilers() -> None:
    assert told(CROSS, "CC=gcc-16", "CXX=g++")["CC"] == "aarch64-linux-gnu-gcc-16"


def test_the_cxx_that_is_given_is_taken() -> None:
    assert told(CROSS, "CC=clang", "CXX=g++")["CXX"] == "aarch64-linux-gnu-g++"


def test_a_clang_without_version_is_the_newest_where_the_source_names_none() -> None:
    assert told(NATIVE, "CC=clang", llvm=None)["CC"] == "clang-21"
    assert told(NATIVE, "CC=clang", llvm="18")["CC"] == "clang-18"


def test_any_compiler_will_do_where_it_compiles_for_its_own_machine() -> None:
    assert told(NATIVE, "CC=/opt/tcc") == {"CC": "/opt/tcc"}


@pytest.mark.parametrize(
    ("way", "asked", "said"),
    [
        (CROSS, "CC=/opt/tcc", "CC=/opt/tcc cannot be used in a cross build for aarch64"),
        (CROSS, "CC=x86_64-linux-gnu-gcc", "compiles for x86_64-linux-gnu, and the cell is for aarch64"),
        (NATIVE, "CC=aarch64-linux-gnu-gcc", "compiles for aarch64-linux-gnu, and the cell is for x86_64"),
        (NATIVE, "CC=clang --target=aarch64-linux-gnu", "compiles for aarch64-linux-gnu, and the cell is for x86_64"),
        (NATIVE, "CC=clang-19", "the toolchain has no clang-19"),
        (CROSS, "CC=gcc-15", "the toolchain has no gcc-15-aarch64-linux-gnu"),
        (CROSS, "CC=", "invalid CC=: expected a compiler"),
        (NATIVE, "CC='clang", "invalid CC='clang: No closing quotation"),
    ],
)
def test_a_contradiction_is_told(way: tuple[Arch, Strategy], asked: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("+", r"\+")) as caught:
        told(way, asked)
    assert caught.value.hint


def test_what_is_missing_is_told_with_what_is_there() -> None:
    with pytest.raises(UserError) as caught:
        told(NATIVE, "CC=clang-19")
    assert "clang-18 and clang-21" in caught.value.hint


def test_each_is_told_to_configure_once_and_stands_in_the_spec() -> None:
    source = Source(Kind.ARCHIVE, "3.15.0", (3, 15), "d" * 64, None, "Python", "", llvm="21")  # type: ignore[arg-type]
    variant = Variant("tail", "", ("--with-tail-call-interp", "CC=gcc", "CC=clang", "ac_cv_file__dev_ptc=yes"), ())
    spec = make_spec(source, variant, *CROSS, TOOLCHAIN)
    words = spec.configure.argv
    assert [word for word in words if word.startswith("CC=")] == ["CC=clang-21 --target=aarch64-linux-gnu"]
    assert spec.compilers == ("clang-21 --target=aarch64-linux-gnu", "clang++-21 --target=aarch64-linux-gnu")
    assert compilers.wrapped_clangs(spec.compilers) == ("clang-21", "clang++-21")
    answers = [word for word in words if word.startswith("ac_cv_file__dev_ptc=")]
    assert answers[-1] == "ac_cv_file__dev_ptc=yes", "what a variant says comes last"


def test_gcc_has_its_stand_in_anyway() -> None:
    assert compilers.wrapped_clangs(("aarch64-linux-gnu-gcc", "gcc -m64")) == ()
