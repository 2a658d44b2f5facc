"""Start failures that are not the program's fault: a missing library, or the kernel's configuration.

They say nothing about CPython. Their only signs are the loader's message and the exit status: 127 from the loader, or
an ImportError for a module that was built and cannot be loaded.
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

OWN = "libpython"  # part of the build itself: if it is missing, the build is at fault

_TABLES = {Role.TARGET: "target", Role.TOOLCHAIN: "libraries", Role.DEBUG: "target"}  # of a variant's packages


def missing_library(lines: Iterable[str], role: Role, known: Collection[Package] = ()) -> InfrastructureError | None:
    """Return the error for the output of a program that did not start, or a module that was not loaded; else None.

    `role` is that of the image it runs in. `known` are packages among which the library's package is looked up.
    """
    for line in lines:
        if (match := _LIBRARY.search(line)) and not match[1].startswith(OWN):
            return _missing(match[1], role, known, line)
        if match := _MAPPING.search(line):
            return InfrastructureError(
                "ThreadSanitizer cannot work with this kernel's address randomisation",
                hint="on the engine's machine, as root: sysctl -w vm.mmap_rnd_bits=28",
                details=(match[0],),
            )
    return None


def package_of(library: str, known: Collection[Package]) -> str | None:
    """Return the Debian package of a library, by its soname; None if no known package has the name.

    Debian names a library's package after its soname: libasan.so.8 is in libasan8, libbz2.so.1.0 in libbz2-1.0. Since
    the transition to 64-bit time, some end in t64.
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
    name = package or _candidates(library)[0]
    guess = "" if package else f", or whichever package has {library}"
    return InfrastructureError(
        f"the {role} image lacks {library}, which this build loads",
        hint=f"add its package to the variant: packages.{_TABLES[role]} = [{name!r}]{guess}",
        details=(line.strip(),),
    )
