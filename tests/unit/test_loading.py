"""What keeps a program from starting that says nothing about it."""

from __future__ import annotations

import pytest

from crossjit.images import Package, Role, loading

LOADER = "./python: error while loading shared libraries: {}: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("library", "package"),
    [
        ("libasan.so.8", "libasan8"),
        ("libbz2.so.1.0", "libbz2-1.0"),
        ("libssl.so.3", "libssl3t64"),
        ("libgdbm_compat.so.4", "libgdbm-compat4t64"),
        ("libsqlite3.so.0", "libsqlite3-0"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libz.so.1", None),
    ],
)
def test_a_librarys_package_is_told_by_its_name(library: str, package: str | None) -> None:
    names = ("libasan8", "libbz2-1.0", "libssl3t64", "libgdbm-compat4t64", "libsqlite3-0", "libstdc++6", "zlib1g")
    assert loading.package_of(library, [Package(name, "amd64", "1") for name in names]) == package


def test_a_package_that_is_not_known_is_guessed_and_said_so() -> None:
    found = loading.missing_library([LOADER.format("libtsan.so.2")], Role.TOOLCHAIN)
    assert found is not None
    assert found.message == "the toolchain image lacks libtsan.so.2, which this build loads"
    assert found.hint == (
        "add its package to the variant: packages.libraries = ['libtsan2'], or whichever package has libtsan.so.2"
    )


def test_a_kernel_that_threadsanitizer_cannot_work_with_is_told() -> None:
    found = loading.missing_library(["==7==FATAL: ThreadSanitizer: unexpected memory mapping 0x5d-0x5e"], Role.TARGET)
    assert found is not None and "vm.mmap_rnd_bits=28" in found.hint


@pytest.mark.parametrize(
    "line",
    [
        LOADER.format("libpython3.15.so.1.0"),
        "libfoo.so.1: cannot open shared object file: No such file or directory",
        "error: test_ctypes: dlopen failed",
        "",
    ],
)
def test_what_else_is_said_is_no_such_trouble(line: str) -> None:
    assert loading.missing_library([line], Role.TARGET) is None
