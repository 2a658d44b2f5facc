"""The images of the engine without containers: a description of this machine, whose digest is part of build keys."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import NoReturn

from crossjit.engine.base import HOST, EngineFacts, Feature, cannot
from crossjit.host import tools
from crossjit.host.shell import LocalShell, Shell
from crossjit.host.tools import HostTools
from crossjit.images.image import Image, Package, digest_of
from crossjit.images.spec import ImageSpec, Role
from crossjit.model import Arch


@dataclass(frozen=True)
class HostImages:
    """Provides this machine as an image, for compiling and for running."""

    facts: EngineFacts
    shell: Shell = field(default_factory=LocalShell)

    @functools.cached_property
    def image(self) -> Image:
        """The machine; it is inspected once."""
        return _image(self.shell, self.facts)

    def ensure(self, spec: ImageSpec, role: Role, arch: Arch) -> Image:
        """Return the machine as an image of this role. Raises EngineError for roles and archs that it cannot have."""
        if arch is not self.facts.arch:
            raise cannot(Feature.FOREIGN, f"{arch} on {self.facts.arch}")
        if role not in (Role.TOOLCHAIN, Role.TARGET):
            raise cannot(Feature.IMAGES, f"such as one for {role}")
        return replace(self.image, role=role)

    def find(self, spec: ImageSpec, role: Role, arch: Arch) -> Image | None:
        """Return the machine as an image; None for what it cannot be."""
        return self.ensure(spec, role, arch) if arch is self.facts.arch else None

    def ensure_base(self, spec: ImageSpec) -> NoReturn:
        """Raise EngineError: there are no base images."""
        raise cannot(Feature.IMAGES, f"such as {spec.document.base}")


def _image(shell: Shell, facts: EngineFacts) -> Image:
    """Describe the machine."""
    found = tools.find(shell, facts.platform, facts.arch)
    key = digest_of({HOST: found.description})
    return Image(
        reference=HOST,
        id=key,
        key=key,
        role=Role.TOOLCHAIN,
        arch=facts.arch,
        base=HOST,
        packages=_packages(found),
        release=found.system,
        core=key,
        platform=facts.platform,
        llvm_folders={major: llvm.folder for major, llvm in found.llvms.items()},
        environment=found.environment,
    )


def _packages(found: HostTools) -> tuple[Package, ...]:
    """Return the relevant packages, and each LLVM under Debian's name, wherever it comes from."""
    clangs = {f"clang-{major}": llvm.version for major, llvm in found.llvms.items()}
    own = [Package(name, arch, version) for name, arch, version in found.packages if name not in clangs]
    return tuple(sorted([*own, *(Package(name, found.arch.debian, version) for name, version in clangs.items())]))
