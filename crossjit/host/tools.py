"""The compilers, LLVMs and libraries of this machine, for the engine without containers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crossjit.host.shell import Shell
from crossjit.model import Arch, Platform

PYTHON = "Python"
# What a build runs, with the arguments that make each print its version; any one of several names will do.
PROGRAMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "C compiler": (("gcc", "--version"), ("cc", "--version")),
    "C++ compiler": (("g++", "--version"), ("c++", "--version")),
    "linker": (("ld", "-v"),),
    "make": (("make", "--version"),),
    PYTHON: (("python3", "--version"),),
    "pkg-config": (("pkg-config", "--version"),),
}
OPTIONAL = ("pkg-config",)  # without it, configure finds fewer libraries
# what makes 3.15's stencils; earlier versions need some of it
LLVM_TOOLS = ("clang", "llvm-dwarfdump", "llvm-objdump", "llvm-readobj")
LLVM_FOLDER = "LLVM_TOOLS_INSTALL_DIR"  # the variable that CPython's configure knows as well

_CLANG = re.compile(r"(?<!Apple )clang version (\d+)\.(\d+\.\d+\S*)")
# They decide which extension modules there are, and what is linked to.
_PACKAGES = re.compile(
    r"(?:gcc|g\+\+|binutils|libc6|libc6-dev|ccache|clang|llvm|libclang|libllvm|libstdc\+\+|"
    r"lib(?:bz2|ffi|gdbm|lzma|mpdec|ncurses|readline|sqlite3|ssl|zstd|uuid)|uuid-dev|zlib1g|"
    r"openssl|xz|zstd|gdbm|readline|sqlite|mpdecimal|ncurses|bzip2|tcl-tk)[\w.+@-]*"
)


@dataclass(frozen=True)
class Llvm:
    """An LLVM: its folder, which has `bin`, its version, and the tools that it lacks."""

    folder: str
    version: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class HostTools:
    """What this machine builds with. `programs` are the first lines of the programs' versions, None without one.

    `llvms` are by major version. `system` describes the operating system, with its C library and SDK; `packages` are
    (name, architecture, version) of the package manager. `environment` are the variables that the compilers need.
    """

    platform: Platform
    arch: Arch
    system: str
    programs: Mapping[str, str | None] = field(default_factory=dict)
    llvms: Mapping[str, Llvm] = field(default_factory=dict)
    packages: tuple[tuple[str, str, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    python: tuple[int, ...] = ()

    @property
    def description(self) -> dict[str, object]:
        """All that a build's output may depend on, as JSON values."""
        return {
            "platform": self.platform.value,
            "arch": self.arch.value,
            "system": self.system,
            "programs": dict(self.programs),
            "llvms": {major: [llvm.folder, llvm.version] for major, llvm in self.llvms.items()},
            "packages": [list(package) for package in self.packages],
            "environment": dict(self.environment),
        }


def find(shell: Shell, platform: Platform, arch: Arch) -> HostTools:
    """Look for the machine's tools. Runs each, and the package manager; changes nothing and raises nothing."""
    programs = {what: _version(shell, commands) for what, commands in PROGRAMS.items()}
    return HostTools(
        platform=platform,
        arch=arch,
        system=_system(shell, platform),
        programs=programs,
        llvms=_llvms(shell, platform),
        packages=tuple(sorted(_packages(shell, arch))),
        environment=_environment(shell, platform),
        python=tuple(int(part) for part in re.findall(r"\d+", programs[PYTHON] or "")[:2]),
    )


def _version(shell: Shell, commands: Sequence[Sequence[str]]) -> str | None:
    """Return the first line of the first program's version that is there."""
    for command in commands:
        output = shell.run(command, timeout=30)
        lines = (output.stdout or output.stderr).splitlines()
        if output.ok and lines:
            return lines[0].strip()
    return None


def _system(shell: Shell, platform: Platform) -> str:
    if platform is Platform.MACOS:
        asked: list[tuple[str, ...]] = [
            ("sw_vers", "-productVersion"),
            ("sw_vers", "-buildVersion"),
            ("xcrun", "--show-sdk-version"),
        ]
        names: tuple[str, ...] = ("macOS", "build", "SDK")
    else:
        asked = [("getconf", "GNU_LIBC_VERSION")]
        names = ("",)
    answers = (shell.run(command, timeout=30).stdout.strip() for command in asked)
    said = " ".join(f"{name} {answer}".strip() for name, answer in zip(names, answers, strict=True) if answer)
    return ", ".join(filter(None, (_release(shell), said)))


def _release(shell: Shell) -> str:
    try:
        text = (shell.root / "etc/os-release").read_text(errors="replace")
    except OSError:
        return ""
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return match[1] if match else ""


def _environment(shell: Shell, platform: Platform) -> Mapping[str, str]:
    """Return upstream's `export SDKROOT="$(xcrun --show-sdk-path)"` for macOS."""
    if platform is not Platform.MACOS:
        return {}
    output = shell.run(("xcrun", "--show-sdk-path"), timeout=30)
    return {"SDKROOT": output.stdout.strip()} if output.ok and output.stdout.strip() else {}


def _llvms(shell: Shell, platform: Platform) -> Mapping[str, Llvm]:
    """Return the LLVMs by major version: the user's first, then those of the usual folders, and of Homebrew."""
    found: dict[str, Llvm] = {}
    for folder in _llvm_folders(shell, platform):
        output = shell.run((f"{folder}/bin/clang", "--version"), timeout=30)
        if output.ok and (match := _CLANG.search(output.stdout)) and match[1] not in found:
            missing = tuple(tool for tool in LLVM_TOOLS if shell.which(f"{folder}/bin/{tool}") is None)
            found[match[1]] = Llvm(folder, f"{match[1]}.{match[2]}", missing)
    return found


def _llvm_folders(shell: Shell, platform: Platform) -> Iterator[str]:
    if named := shell.environ.get(LLVM_FOLDER):
        yield named.rstrip("/")
    for pattern in platform.llvm:
        for folder in sorted(shell.root.glob(pattern.lstrip("/")), reverse=True):
            yield str(folder)
    for clang in _clangs_on_path(shell):
        yield str(Path(os.path.realpath(clang)).parent.parent)


def _clangs_on_path(shell: Shell) -> Iterator[str]:
    for major in range(40, 17, -1):  # from LLVM 18, which 3.13 needs
        if path := shell.which(f"clang-{major}"):
            yield path


def _packages(shell: Shell, arch: Arch) -> Iterator[tuple[str, str, str]]:
    listing = shell.run(("dpkg-query", "-W", "-f", "${Package} ${Architecture} ${Version}\n"), timeout=60)
    rows = [line.split() for line in listing.stdout.splitlines()] if listing.ok else []
    if not rows:
        listing = shell.run(("brew", "list", "--versions"), timeout=60)
        names = [line.split() for line in listing.stdout.splitlines()] if listing.ok else []
        rows = [[row[0], arch.debian, row[-1]] for row in names if len(row) > 1]
    return ((row[0], row[1], row[2]) for row in rows if len(row) == 3 and _PACKAGES.fullmatch(row[0]))
