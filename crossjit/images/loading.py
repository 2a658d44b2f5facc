"""What keeps a program from starting that is not its own fault: a library that is not installed, the kernel's set-up.

Such a failure says nothing about CPython. The loader's message is the only sign of it, beside the exit status: 127 of
the loader, or an ImportError of a module that was built and cannot be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from crossjit.errors import InfrastructureError
from crossjit.images import Package, Role

_LIBRARY = re.compile(
    r"(?:error while loading shared libraries|ImportError): ([\w.+-]+\.so[\w.+-]*): cannot open shared object file"
)
_MAPPING = re.compile(r"FATAL: ThreadSanitizer: (?:unexpected memory mapping|memory layout is incompatible).*")

OWN = "libpython"  # what a build is to bring itself: without it, the build is at fault

_TABLES = {Role.TARGET: "target", Role.TOOLCHAIN: "libraries", Role.DEBUG: "target"}  # of a variant's packages


def missing_library(lines: Iterable[str], role: Role, known: Collection[Package] = ()) -> InfrastructureError | None:
    """Return the error for what a program that did not start, or a module that was not loaded, said; None if it is none
    of these.

    `role` is the image's that it was to run in, `known` are packages by whose names a library's can be told.
    """
    for line in lines:
        if (found := _LIBRARY.search(line)) and not found[1].startswith(OWN):
            return _missing(found[1], role, known, line)
        if found := _MAPPING.search(line):
            return InfrastructureError(
                "ThreadSanitizer cannot work with this kernel's address randomisation",
                hint="on the engine's machine, as root: sysctl -w vm.mmap_rnd_bits=28",
                details=(found[0],),
            )
    return None


def package_of(library: str, known: Collection[Package]) -> str | None:
    """Return the Debian package of a library, by its soname; None if none of the known ones is of that name.

    Debian names a library's package after its soname: libasan.so.8 is in libasan8, libbz2.so.1.0 in libbz2-1.0. Since
    the year 2038 was thought of, some end in t64.
    """
    names = {package.name for package in known}
    return next((name for name in _candidates(library) if name in names), None)


def _candidates(library: str) -> tuple[str, ...]:
    stem, _, version = library.lower().replace("_", "-").partition(".so")
    version = version.lstrip(".")
    plain = f"{stem}-{version}" if version and stem[-1:].isdecimal() else f"{stem}{version}"
    names = tuple(dict.fromkeys((plain, f"{stem}-{version}" if version else stem, stem)))
    return tuple(f"{name}{suffix}" for name in names for suffix in ("", "t64"))


def _missing(library: str, role: Role, known: Collection[Package], line: str) -> InfrastructureError:
    package = package_of(library, known)
    wanted = package or _candidates(library)[0]
    guess = "" if package else f", or whichever package has {library}"
    return InfrastructureError(
        f"the {role} image lacks {library}, which this build loads",
        hint=f"add its package to the variant: packages.{_TABLES[role]} = [{wanted!r}]{guess}",
        details=(line.strip(),),
    )
