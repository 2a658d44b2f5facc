"""What code runs on: architectures, emulators, and what a host can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Arch(StrEnum):
    """The architecture that the built CPython runs on."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @property
    def debian(self) -> str:
        """Debian's name, `amd64` or `arm64`; container platforms use the same words."""
        return {Arch.X86_64: "amd64", Arch.AARCH64: "arm64"}[self]

    @property
    def platform(self) -> str:
        """The OCI platform, such as `linux/arm64`."""
        return f"linux/{self.debian}"

    @property
    def triple(self) -> str:
        """The GNU triple that Debian's compilers and configure use."""
        return f"{self.value}-linux-gnu"

    @property
    def elf_machine(self) -> str:
        """The ELF header's machine, in pyelftools' words."""
        return {Arch.X86_64: "EM_X86_64", Arch.AARCH64: "EM_AARCH64"}[self]


@dataclass(frozen=True)
class Emulator:
    """What the kernel starts for programs of a foreign arch, as registered in binfmt_misc.

    `name` is the handler's; `version` QEMU's (`7.2.22`), None where the interpreter cannot be seen from here; `fixed`
    is binfmt's flag F: the interpreter was opened at registration, so that containers need none inside; `cpu` the model
    that it plays by default.
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
        """Whether containers, which have no QEMU inside, can run programs of this arch."""
        return self.enabled and self.fixed


@dataclass(frozen=True)
class EmulationSupport:
    """What the engine's machine can run: its own arch, and others through `emulators`.

    `local` is False where the engine is on another machine than this process (remote, Docker Desktop): then what is
    registered there cannot be seen, and foreign archs are unknown rather than impossible.
    """

    arch: Arch
    emulators: Mapping[Arch, Emulator]
    local: bool = True

    def runs(self, arch: Arch) -> bool | None:
        """Whether containers of this arch run here; None if that is not known before one is tried."""
        if arch is self.arch:
            return True
        if not self.local:
            return None
        emulator = self.emulators.get(arch)
        return emulator is not None and emulator.usable
