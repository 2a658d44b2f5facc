"""Architectures, operating systems, emulators, and which architectures a host can run."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import EnumType, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

ARCHES = Path(__file__).with_name("arches")
PLATFORMS = Path(__file__).with_name("platforms")
E = TypeVar("E", bound=StrEnum)


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


_FACTS = {path.stem: _read(path) for path in ARCHES.glob("*.toml")}


def _member(cls: type[E], path: Path, facts: Mapping[str, Any]) -> E:
    """Make an enum's member of its file's name and facts. Raises ValueError unless these are the annotated ones."""
    if wrong := facts.keys() ^ cls.__annotations__.keys():
        raise ValueError(f"{path}: keys missing or unknown: {', '.join(sorted(wrong))}")
    member = str.__new__(cls, path.stem)
    member._value_ = path.stem
    vars(member).update(facts)
    return member


class _OfFiles(EnumType):
    """Makes an enum's members from the files in `arches/`, in the order of Debian's names."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], **kwds: Any) -> Any:  # type: ignore[override]
        members = super().__prepare__(name, bases, **kwds)
        for arch in sorted(_FACTS, key=lambda arch: str(_FACTS[arch]["debian"])):
            members[arch.upper()] = arch
        return members

    if TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Arch: ...


class Arch(StrEnum, metaclass=_OfFiles):
    """The architecture that the built CPython runs on."""

    debian: str
    """Debian's name, `amd64` or `arm64`; container platforms use the same words."""
    aliases: list[str]
    """Other names of it."""
    elf_machine: str
    """The ELF header's machine, under pyelftools' name."""
    elf_number: int
    """The same as a number."""
    loader: str
    """The file name of glibc's loader."""
    library_cache_flags: int
    """The flags of a library in glibc's `ld.so.cache`."""
    runner: str
    """GitHub's hosted runner of this arch."""
    exit_42: str
    """Machine code that ends a process with the status 42, in hexadecimal digits."""
    cpu: str
    """The CPU model that QEMU emulates by default."""

    def __new__(cls, name: str) -> Arch:
        """Make a member from its file."""
        return _member(cls, ARCHES / f"{name}.toml", _FACTS[name])

    def machine(self, platform: Platform) -> str:
        """Return the machine in the headers of a platform's executables."""
        return platform.machines.get(self.value, self.elf_machine)

    @property
    def platform(self) -> str:
        """The OCI platform, such as `linux/arm64`."""
        return f"linux/{self.debian}"

    @property
    def triple(self) -> str:
        """The GNU triple that Debian's compilers and configure use."""
        return f"{self.value}-linux-gnu"

    @property
    def others(self) -> tuple[Arch, ...]:
        """All archs but this one."""
        return tuple(arch for arch in Arch if arch is not self)

    @classmethod
    def of_machine(cls, name: str) -> Arch | None:
        """Return the arch by a kernel's or an engine's name: Linux says `aarch64`, macOS and Docker `arm64`."""
        return next((arch for arch in cls if name.casefold() in (arch.value, arch.debian)), None)


class Platform(StrEnum):
    """The operating system that the built CPython runs on. What is known of it is in `platforms/NAME.toml`."""

    LINUX = "linux"
    MACOS = "macos"

    system: str
    """The kernel's name, as `uname -s` prints it."""
    machines: dict[str, str]
    """The machines in headers of executables by arch; empty for ELF, and for any arch."""
    program: str
    """The name of the built Python in the build folder."""
    library_path: str
    """The variable with the folders that the loader searches."""
    llvm: list[str]
    """Where this machine's LLVMs are: patterns of folders that have `bin`."""
    install_llvm: str
    """How to install one; `{llvm}` is its major version."""
    install_tools: str
    """How to install a compiler, make and Python."""
    more_path: list[str]
    """Folders of programs that are not in the usual PATH."""
    configure: list[str]
    """Arguments for configure, before a variant's own."""
    environment: dict[str, str]
    """Variables for a build."""
    since: list[int]
    """The first version of CPython, major and minor, that is built with these arguments and variables."""
    runners: dict[str, str]
    """GitHub's hosted runners, by arch; an arch's own if there is none."""
    remark: str
    """A caveat for the reasons of each verdict."""

    def __new__(cls, name: str) -> Platform:
        """Make a member from its file."""
        path = PLATFORMS / f"{name}.toml"
        return _member(cls, path, _read(path))

    @classmethod
    def of_system(cls, name: str) -> Platform | None:
        """Return the platform by the kernel's name."""
        return next((platform for platform in cls if platform.system == name), None)

    def place(self, arch: Arch) -> str:
        """Name an arch of it: `aarch64` on Linux, `macos-aarch64` elsewhere."""
        return arch.value if self is Platform.LINUX else f"{self}-{arch}"

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The archs that it exists for."""
        return tuple(arch for arch in Arch if arch.value in self.machines or not self.machines)

    def arguments(self, python: tuple[int, int]) -> tuple[str, ...]:
        """Return the arguments for a version's configure."""
        return tuple(self.configure) if python >= tuple(self.since) else ()

    def variables(self, python: tuple[int, int]) -> dict[str, str]:
        """Return the variables for a version's build."""
        return dict(self.environment) if python >= tuple(self.since) else {}

    def runner(self, arch: Arch) -> str:
        """Return the label of GitHub's hosted runner."""
        return self.runners.get(arch.value, arch.runner)


@dataclass(frozen=True)
class Emulator:
    """The interpreter that binfmt_misc registers for programs of a foreign arch.

    `name` is the handler's. `interpreter` is its path on this machine, empty for an engine elsewhere. `version` is
    QEMU's (`7.2.22`), None if it is unknown. `fixed` is binfmt's flag F: the interpreter was opened at registration,
    so containers need none inside. `cpu` is the model that it emulates by default.
    """

    arch: Arch
    name: str
    interpreter: str
    version: str | None
    fixed: bool
    enabled: bool
    cpu: str

    @property
    def usable(self) -> bool:
        """Whether containers without QEMU inside can run programs of this arch."""
        return self.enabled and self.fixed


@dataclass(frozen=True)
class EmulationSupport:
    """The archs that the engine's machine can run: its own, and others through `emulators`.

    `local` is False if the engine is on a different machine than this process (remote, Docker Desktop). Its emulators
    are then what the engine was asked for (`Engine.emulators`), since this machine's are not its own.
    """

    arch: Arch
    emulators: Mapping[Arch, Emulator]
    local: bool = True

    def runs(self, arch: Arch) -> bool:
        """Whether containers of this arch run here."""
        emulator = self.emulators.get(arch)
        return arch is self.arch or (emulator is not None and emulator.usable)
