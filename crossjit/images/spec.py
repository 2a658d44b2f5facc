"""Image specifications: reading `images/<name>/image.toml`, and choosing an image. Pure except for reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

import crossjit
from crossjit.config import documents
from crossjit.config.setting import SNAPSHOT
from crossjit.errors import DocumentError, UserError, did_you_mean
from crossjit.model import Arch, ExtraPackages
from crossjit.settings import Settings
from crossjit.util.text import join_words

_UNUSED_SUFFIXES = frozenset({".json", ".lock", ".md", ".py", ".toml"})  # files of a context that builds never read

FILE = "image.toml"
DOCKERFILE = "Dockerfile"

METER = crossjit.PROJECT / "meter"  # the build context of meter images, with release.sh and update.sh of the others

PackageName = Annotated[str, Field(pattern=r"^([a-z0-9+.-]|\{llvm\}|\{triple\})+$")]
Packages = tuple[PackageName, ...]


class Role(StrEnum):
    """What an image is for: compiling CPython, running it, debugging it with gdb, or counting its instructions."""

    TOOLCHAIN = "toolchain"
    TARGET = "target"
    DEBUG = "debug"
    METER = "meter"

    @property
    def account(self) -> str:
        """The unprivileged user with uid 1000 in it."""
        return "builder" if self is Role.TOOLCHAIN else "tester"


@documents.table
class System:
    """Packages of every root file system that is unpacked and never run."""

    packages: Packages
    """packages that are there in every root file system that is unpacked and never run"""


@documents.table
class Toolchain:
    """Packages of toolchain images."""

    tools: Packages
    """programs, of the image's own architecture; {llvm} stands for each LLVM version"""
    cross: Packages
    """cross compilers for a foreign architecture; {triple} stands for its GNU triple"""
    libraries: Packages
    """libraries and headers that CPython is built with, for every architecture"""


@documents.table
class Target:
    """Packages of target images."""

    packages: Packages
    """packages that a built CPython needs at run time"""


@documents.table
class Debug:
    """Packages of debug images."""

    packages: Packages
    """a gdb of the host's architecture that has Python and knows every architecture"""


@documents.table
class Meter:
    """The QEMU of meter images: a source package, which is built there."""

    packages: Packages
    """packages that it is built with"""
    source: PackageName
    """the source package's name"""
    files: Annotated[
        Mapping[
            Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9+.~_-]*$")],
            Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")],
        ],
        Field(min_length=1),
    ]
    """the source package's files, with their SHA-256"""


@documents.table
class ImageDocument:
    """An `image.toml`."""

    summary: Annotated[str, Field(min_length=1)]
    """one line for people"""
    suite: Annotated[str, Field(pattern=r"^[a-z]+$")]
    """the Debian suite's code name"""
    base: Annotated[str, Field(pattern=r"^[^\s@]+$")]
    """the base image's reference in a registry, without a digest"""
    llvm: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9]+$")], ...], Field(min_length=1)]
    """the suite's major LLVM versions that the toolchain gets"""
    system: System
    toolchain: Toolchain
    target: Target
    debug: Debug
    meter: Meter | None = None
    """the QEMU of the meter; one image has it, for all others"""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """pins the base image in the registry"""
    snapshot: Annotated[str, Field(pattern=f"^{SNAPSHOT}$")] | None = None
    """the date of the mirror's snapshot that all packages come from, such as 20261101T000000Z"""
    llvm_on_request: tuple[Annotated[str, Field(pattern=r"^[0-9]+$")], ...] = ()
    """its other LLVM versions, which the toolchain gets only if one is requested"""
    aliases: Mapping[PackageName, PackageName] = Field(default_factory=dict)
    """this suite's names of packages that variants name differently"""


@dataclass(frozen=True)
class ImageSpec:
    """One distribution's images: its name, its `image.toml`, and the build context with its Dockerfile.

    `extra` are a variant's additional packages. `mirror` is the URL of the snapshot that all packages come from; if it
    is empty, they come from apt's mirror. `more_llvm` are the requested ones of `llvm_on_request`.
    """

    name: str
    context: Path
    document: ImageDocument
    extra: ExtraPackages = field(default_factory=ExtraPackages)
    mirror: str = ""
    more_llvm: tuple[str, ...] = ()

    def having(self, extra: ExtraPackages) -> ImageSpec:
        """Return it with a variant's packages, under their names in this suite."""
        aliases = self.document.aliases
        named = {key: tuple(aliases.get(name, name) for name in names) for key, names in vars(extra).items()}
        return replace(self, extra=ExtraPackages(**named))

    @property
    def summary(self) -> str:
        """One line for people."""
        return self.document.summary

    @property
    def suite(self) -> str:
        """The Debian suite's code name."""
        return self.document.suite

    @property
    def llvm(self) -> tuple[str, ...]:
        """LLVM's major versions in the toolchain."""
        return (*self.document.llvm, *self.more_llvm)

    @property
    def available_llvm(self) -> tuple[str, ...]:
        """LLVM's major versions that the toolchain has, or can get."""
        return (*self.document.llvm, *self.document.llvm_on_request)

    def with_llvm(self, version: str) -> ImageSpec:
        """Return it with one of its available LLVM versions in the toolchain."""
        return self if version in self.llvm else replace(self, more_llvm=(*self.more_llvm, version))

    @property
    def meter(self) -> Meter:
        """The QEMU of the meter. Raises UserError if this image has none."""
        if self.document.meter is None:
            raise UserError(f"the image {self.name} has no meter", hint=f"add a [meter] table to its {FILE}")
        return self.document.meter

    def files(self, role: Role) -> tuple[Path, ...]:
        """Return the files of the build context, whose content is part of an image's key."""
        folders = (METER, self.context) if role is Role.METER else (self.context,)
        names = ("release.sh", "update.sh")
        return tuple(
            path
            for folder in folders
            for path in sorted(folder.iterdir())
            if path.is_file() and path.suffix not in _UNUSED_SUFFIXES and (folder is folders[0] or path.name in names)
        )

    def packages(self, role: Role, arch: Arch, host_arch: Arch) -> tuple[str, ...]:
        """Return the packages to install, by apt's names.

        A toolchain of the host's own arch compiles for all archs; all other images have one arch only, and are
        unpacked without running anything.
        """
        document = self.document
        if role is Role.METER:
            return self.meter.packages
        if role is not Role.TOOLCHAIN:
            own = document.target.packages if role is Role.TARGET else document.debug.packages
            return (*document.system.packages, *own)
        tools = tuple(_llvm_names(document.toolchain.tools, document.llvm))
        libraries = document.toolchain.libraries
        if arch is not host_arch:
            return (*document.system.packages, *tools, *libraries)
        triples = [foreign.triple.replace("_", "-") for foreign in arch.others]
        cross = tuple(name.replace("{triple}", triple) for triple in triples for name in document.toolchain.cross)
        return (*tools, *cross, *libraries, *_foreign(libraries, arch))

    def extra_packages(self, role: Role, arch: Arch, host_arch: Arch) -> tuple[str, ...]:
        """Return the packages to install in addition: of a requested LLVM, and those that a variant needs."""
        extra, llvm = self.extra, self.llvm
        if role is not Role.TOOLCHAIN:
            return tuple(_llvm_names(extra.target, llvm)) if role is Role.TARGET else ()
        own = (name for name in self.document.toolchain.tools if "{llvm}" in name)
        tools = (*_llvm_names(own, self.more_llvm), *_llvm_names(extra.toolchain, llvm))
        libraries = tuple(_llvm_names(extra.libraries, llvm))
        return (*tools, *libraries, *(_foreign(libraries, arch) if arch is host_arch else ()))


def _llvm_names(names: Iterable[str], versions: Iterable[str]) -> Iterator[str]:
    """Yield packages' names, those with `{llvm}` for each version."""
    for name in names:
        if "{llvm}" in name:
            yield from (name.replace("{llvm}", version) for version in versions)
        else:
            yield name


def _foreign(packages: Iterable[str], arch: Arch) -> Iterator[str]:
    """Yield the packages for each foreign arch, by apt's names."""
    return (f"{name}:{foreign.debian}" for foreign in arch.others for name in packages)


def load(folder: Path) -> ImageSpec:
    """Read one image's folder, whose name is the image's. Raises DocumentError with all errors."""
    document = documents.load(folder / FILE, ImageDocument)
    own = (folder / DOCKERFILE).is_file()
    return ImageSpec(name=folder.name, context=folder if own else folder.parent, document=document)


def configured(settings: Settings) -> tuple[ImageSpec, ...]:
    """Read crossjit's images, with the snapshot of the user's settings or an image's document.

    Raises UserError for a snapshot without a mirror, DocumentError as `load_all` does.
    """
    specs = []
    for spec in load_all(crossjit.PROJECT / "images"):
        date = settings.snapshot or spec.document.snapshot
        if date and not settings.snapshot_mirror:
            raise UserError(
                f"the snapshot {date} needs a mirror that has it",
                hint="set CROSSJIT_SNAPSHOT_MIRROR to its URL, with {date} in place of the date",
            )
        specs.append(replace(spec, mirror=settings.snapshot_mirror.replace("{date}", date)) if date else spec)
    return tuple(specs)


def load_all(folder: Path) -> tuple[ImageSpec, ...]:
    """Read every `<name>/image.toml` in a folder, sorted by name.

    Raises DocumentError with the errors of all of them, or if there is none.
    """
    specs: list[ImageSpec] = []
    errors: list[DocumentError] = []
    for path in sorted(folder.glob(f"*/{FILE}")):
        try:
            specs.append(load(path.parent))
        except DocumentError as error:
            errors.append(error)
    if errors:
        raise documents.together(errors)
    if not specs:
        raise DocumentError(f"{folder}: there is no image in it", hint=f"each is a folder with an {FILE}")
    return tuple(specs)


def spec_for(llvm: str | None, specs: Iterable[ImageSpec], name: str | None = None) -> ImageSpec:
    """Choose the image with this LLVM major version; with None any, preferably with the newest LLVM.

    One that has it anyway is preferred to one that gets it on request. `name` is the user's choice. Raises UserError if
    no image has that LLVM, or the named one does not.
    """
    by_name = {spec.name: spec for spec in specs}
    if name is not None and name not in by_name:
        near = did_you_mean(name, by_name)
        raise UserError(f"there is no image {name!r}{near}", hint=f"there are {', '.join(by_name)}")
    suitable = [spec for spec in by_name.values() if llvm is None or llvm in spec.llvm]
    suitable = suitable or [spec.with_llvm(llvm) for spec in by_name.values() if llvm and llvm in spec.available_llvm]
    if name is not None:
        chosen = next((spec for spec in suitable if spec.name == name), None)
        if chosen is None:
            owners = ", ".join(spec.name for spec in suitable)
            raise UserError(
                f"the image {name} has LLVM {' and '.join(by_name[name].llvm)}, the source needs LLVM {llvm}",
                hint=f"choose the image {owners}, or leave it out" if owners else _offer(by_name.values()),
            )
        return chosen
    if not suitable:
        raise UserError(f"no image has LLVM {llvm}, which the source needs", hint=_offer(by_name.values()))
    return max(suitable, key=lambda spec: max(map(int, spec.llvm)))


def require_llvm(versions: Iterable[str], specs: Iterable[ImageSpec]) -> None:
    """Raise UserError for an LLVM major version that no image has or can get."""
    listed = tuple(specs)
    available = {version for spec in listed for version in spec.available_llvm}
    for version in versions:
        if version not in available:
            raise UserError(f"no image has LLVM {version}", hint=_offer(listed))


def spec_with_meter(specs: Iterable[ImageSpec]) -> ImageSpec:
    """Return the image that has the meter. Raises DocumentError if none has."""
    for spec in specs:
        if spec.document.meter is not None:
            return spec
    raise DocumentError("no image has a meter", hint=f"add a [meter] table to the {FILE} of one")


def _offer(specs: Iterable[ImageSpec]) -> str:
    offers = "; ".join(f"{spec.name} has {join_words(spec.available_llvm)}" for spec in specs)
    return f"{offers}; add a folder beside theirs for a different distribution"
