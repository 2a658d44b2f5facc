from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossjit import VALIDATE
from crossjit.config import conditions, documents
from crossjit.config.conditions import TargetEnvironment, When, capability_names, in_range
from crossjit.errors import DocumentError
from crossjit.model import Arch, Expectation, Variant

JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
FT = replace(JIT, name="ft", expects=Expectation.NONE, free_threaded=True)
EMULATED = TargetEnvironment((3, 15), Arch.AARCH64, JIT, emulated=True, cpu="cortex-a72", qemu="7.2.22")


@pytest.mark.parametrize(
    ("version", "wanted", "holds"),
    [
        ((3, 15), ">=3.14, <3.16", True),
        ((3, 13), ">=3.14, <3.16", False),
        ((3, 9), "<3.10", True),
        ((7, 2, 22), "<8.2", True),
        ((8, 2, 1), "<8.2", False),
        ((8, 2, 1), "<=8.2", True),
        ((8, 2, 1), "==8.2", True),
        ((8, 2, 1), "!=8.2", False),
        ((8, 2, 1), ">8.2", False),
        ((8, 2, 1), ">8.2.0, <8.2.2", True),
        ((8, 2), "==8.2.0", True),
        ((10, 0, 6), ">=9.2", True),
    ],
)
def test_ranges_compare_as_many_numbers_as_they_give(version: tuple[int, ...], wanted: str, holds: bool) -> None:
    assert in_range(version, wanted) is holds


@pytest.mark.parametrize("wanted", [">=3", "3.15", "", ">=3.14,", "~=3.14"])
def test_a_range_that_is_none(wanted: str) -> None:
    with pytest.raises(ValueError, match="invalid version range"):
        in_range((3, 15), wanted)


def test_conditions_must_all_hold() -> None:
    when = When(
        python=">=3.14", arch=(Arch.AARCH64,), emulated=True, variant=("jit",), cpu=("cortex-*",), qemu=">=7.2, <8.2"
    )
    assert when.holds(EMULATED)
    for changed in (
        {"python": (3, 13)},
        {"arch": Arch.X86_64},
        {"emulated": False},
        {"variant": FT},
        {"cpu": "max"},
        {"cpu": None},
        {"qemu": "8.2.0"},
        {"qemu": None},
    ):
        assert not when.holds(replace(EMULATED, **changed))
    assert When(free_threaded=True).holds(replace(EMULATED, variant=FT))
    without = replace(EMULATED, variant=replace(JIT, test_environment={"PYTHON_UOPS_OPTIMIZE": "0"}))
    assert When(optimizer=False).holds(without) and not When(optimizer=True).holds(without)
    assert When(optimizer=True).holds(EMULATED) and not When(optimizer=False).holds(EMULATED)
    assert not When(expects=(Expectation.UOPS,)).holds(EMULATED)
    assert When().holds(EMULATED)


def test_what_was_not_probed_does_not_count_as_missing() -> None:
    without = When(lacks=("pty", "timerfd"))
    for found, holds in (
        ({"pty": False, "timerfd": False, "ptrace": True}, True),
        ({"pty": False, "timerfd": True}, False),
        ({"pty": False}, False),
        ({}, False),
    ):
        assert without.holds(replace(EMULATED, capabilities=found)) is holds


def document(tmp_path: Path, when: str) -> tuple[Path, str]:
    path = tmp_path / "caveats.toml"
    path.write_text(f"python = '>=3.14'\n{when}\n")
    with pytest.raises(DocumentError) as caught:
        documents.load(path, When)
    (detail,) = caught.value.details
    return path, detail


@pytest.mark.parametrize(
    ("when", "place", "words"),
    [
        ('lacks = ["ptyy"]', "2:10", "'ptyy' is not a probed capability; did you mean 'pty'?"),
        ('lacks = ["posix_spawn_errno"]', "2:10", "did you mean 'posix-spawn-errno'?"),
        ('qemu = "8.2"', "2:8", "invalid version range '8.2'"),
        ('qemu = "<8"', "2:8", "invalid version range '<8'"),
    ],
)
def test_typos_are_told_with_their_place(tmp_path: Path, when: str, place: str, words: str) -> None:
    path, detail = document(tmp_path, when)
    assert detail.startswith(f"{path}:{place}: ")
    assert words in detail


def test_pythons_patch_release_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("python = '>=3.14.2'\n")
    with pytest.raises(DocumentError) as caught:
        documents.load(path, When)
    assert "expected Python versions of two numbers" in caught.value.details[0]


def test_the_names_are_those_of_the_feature_checks() -> None:
    names = capability_names()
    assert len(names) == len(set(names))
    assert {"ptrace", "timerfd", "posix-spawn-errno", "vfork-errno", "af-alg", "ancillary-data", "pty"} <= set(names)
    defined = "".join(path.read_text() for path in VALIDATE.glob("feature_checks_*.py"))
    assert all(f"def {name.replace('-', '_')}():" in defined for name in names)


def test_facts_can_be_recalled() -> None:
    where = replace(EMULATED, capabilities={"pty": False}, variant=replace(FT, debug=True))
    read = conditions.from_record(where.facts(), where.capabilities)
    assert read is not None
    assert read.facts() == where.facts()
    assert read.capabilities == {"pty": False}
    for when in (When(free_threaded=True, lacks=("pty",)), When(expects=(Expectation.NONE,), qemu="<8.2")):
        assert when.holds(read)
    no_optimizer = replace(where, variant=replace(FT, test_environment={"PYTHON_UOPS_OPTIMIZE": "0"}))
    read = conditions.from_record(no_optimizer.facts(), {})
    assert read is not None and When(optimizer=False).holds(read)
    assert conditions.from_record({}, {}) is None
    assert conditions.from_record({**where.facts(), "arch": "riscv64"}, {}) is None
    assert conditions.from_record({**where.facts(), "python": "3"}, {}) is None


def test_conditions_in_words() -> None:
    assert When().words == ""
    assert When(emulated=False, free_threaded=True).words == "not emulated, free-threaded"
    assert When(optimizer=False).words == "without the optimizer"
    assert When(python=">=3.14", arch=(Arch.AARCH64,), qemu="<8.2", lacks=("pty", "ptrace")).words == (
        "Python >=3.14, aarch64, QEMU <8.2, without pty and ptrace"
    )
