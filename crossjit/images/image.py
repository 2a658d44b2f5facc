"""An image in the engine, and the record of its packages."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crossjit.engine.base import HOST
from crossjit.errors import InfrastructureError
from crossjit.images.spec import Role
from crossjit.model import Arch, Platform
from crossjit.util import files


@dataclass(frozen=True, order=True)
class Package:
    """An installed package: name, Debian's name of its architecture (or `all`), Debian's version."""

    name: str
    arch: str
    version: str

    @property
    def upstream(self) -> str:
        """The version without Debian's epoch and revision: `21.1.8` for `1:21.1.8-13`."""
        without_epoch = self.version.rpartition(":")[2] if ":" in self.version else self.version
        return without_epoch.rpartition("-")[0] or without_epoch


@dataclass(frozen=True)
class Image:
    """An image in the engine.

    `reference` is its tag, `id` the engine's content id, `key` the digest of its inputs, `base` its base image
    (`debian@sha256:…` or `bootstrap:<suite>@<Release>`), `release` the digests of the mirror's Release files at the
    build; `core` is the key without these.

    The host's only image, in the engine without containers, is a description of the machine: `key` and `packages` are
    those of its compilers and libraries, `llvm_folders` the folders of its LLVMs by their major versions, `environment`
    the variables that its compilers need.
    """

    reference: str
    id: str
    key: str
    role: Role
    arch: Arch
    base: str
    packages: tuple[Package, ...]
    release: str = ""
    core: str = ""
    platform: Platform = Platform.LINUX
    llvm_folders: Mapping[str, str] = field(default_factory=dict, hash=False)
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_host(self) -> bool:
        """Whether it is the machine itself, so that nothing of it is isolated."""
        return self.base == HOST

    def llvm_folder(self, major: str) -> str:
        """Return the folder of an LLVM, which has `bin`. Raises InfrastructureError if the host has none."""
        if not self.is_host:
            return f"/usr/lib/llvm-{major}"
        if (folder := self.llvm_folders.get(major)) is None:
            others = f" (it has {', '.join(sorted(self.llvm_folders))})" if self.llvm_folders else ""
            raise InfrastructureError(
                f"this machine has no LLVM {major}, which the source needs{others}",
                hint=f"{self.platform.install_llvm.format(llvm=major)}; or name the folder of one, "
                "which has bin/clang, in LLVM_TOOLS_INSTALL_DIR",
            )
        return folder

    @property
    def fingerprint(self) -> str:
        """The digest of the packages, 64 hex digits: images with the same key may differ in their packages."""
        return hashlib.sha256(listing(self.packages).encode()).hexdigest()

    def version(self, package: str) -> str | None:
        """Return the upstream version of a package of the image's own arch, None if it is not installed."""
        arches = (self.arch.debian, "all")
        return next((item.upstream for item in self.packages if item.name == package and item.arch in arches), None)

    def llvm_version(self, major: str) -> str | None:
        """Return the full version of this LLVM major, such as `21.1.8`; None if the image has none."""
        return self.version(f"clang-{major}")

    def facts(self) -> dict[str, object]:
        """Return the facts for a manifest: the image's identity, and the versions that matter."""
        facts: dict[str, object] = {
            "reference": self.reference,
            "id": self.id,
            "key": self.key,
            "base": self.base,
            "fingerprint": self.fingerprint,
            "release": self.release,
        }
        # the package gcc only depends on the one with the compiler, and has a different version
        gcc = next((package.name for package in self.packages if re.fullmatch(r"gcc-[0-9]+", package.name)), "gcc")
        versions = {"gcc": self.version(gcc), "libc": self.version("libc6")}
        return facts | {name: version for name, version in versions.items() if version is not None}


def listing(packages: tuple[Package, ...]) -> str:
    """Write packages as text, one a line."""
    return "".join(f"{package.name} {package.arch} {package.version}\n" for package in packages)


def parse_listing(text: str) -> tuple[Package, ...]:
    """Parse the output of `listing`, or an image's own list. Raises InfrastructureError for an invalid list."""
    rows = [line.split() for line in text.splitlines()]
    if not rows or any(len(row) != 3 for row in rows):
        raise InfrastructureError(
            "an image's list of packages is damaged", hint="remove the image, then run the same command again"
        )
    return tuple(Package(*row) for row in rows)


def remember(home: Path, image_id: str, packages: tuple[Package, ...]) -> None:
    """Record an image's packages, so that they are known without starting a container."""
    path = _path(home, image_id)
    with files.translate_os_errors(InfrastructureError, "cannot record an image's details", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, listing(packages).encode())


def known_packages(home: Path, image_id: str) -> tuple[Package, ...] | None:
    """Return an image's recorded packages; None if there is no record."""
    try:
        return parse_listing(_path(home, image_id).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, InfrastructureError):
        return None


def digest_of(parts: Mapping[str, object]) -> str:
    """Return the digest of JSON values, 64 hex digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _path(home: Path, image_id: str) -> Path:
    return home / "images" / f"{image_id.removeprefix('sha256:')}.packages"
