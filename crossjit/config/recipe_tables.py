"""The types of the TOML tables in recipes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from crossjit.config.documents import table
from crossjit.model import Arch, Expectation

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # cells' names become names of containers and files
_PACKAGE = r"^([a-z0-9+.-]|\{llvm\})+$"
_VARIABLE = r"^[A-Z][A-Z0-9_]*$"
_SHA256 = r"^[0-9A-Fa-f]{64}$"
_PLACE = r"^(https?://[^/\s]+/\S+|file:///\S+|debian:[a-z][a-z0-9-]*/\S+)$"

# Variables and options that crossjit sets.
_OWN_VARIABLES = ("HOME", "LANG", "LC_ALL", "PATH", "PYTHON_JIT", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ")
_OWN_PREFIXES = ("CCACHE_", "CROSSJIT_", "LD_", "QEMU_")
_RESERVED = ("--prefix", "--exec-prefix", "--srcdir", "--build", "--host", "--with-build-python")


def _sha256(text: str) -> str:
    if not re.fullmatch(_SHA256, text):
        raise ValueError(f"a sha256 is 64 hexadecimal digits; this is {len(text)} characters")
    return text.lower()


def _place(text: str) -> str:
    if not re.fullmatch(_PLACE, text):
        raise ValueError(f"invalid location {text!r}: expected a URL, or debian:<component>/<path in the pool>")
    return text


def _name(text: str) -> str:
    if not re.fullmatch(NAME, text):
        raise ValueError(f"invalid name {text!r}: expected letters, digits, '.', '_' and '-'")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(_VARIABLE, text):
        raise ValueError(f"invalid variable {text!r}: expected capital letters, digits and '_'")
    if text in _OWN_VARIABLES or text.startswith(_OWN_PREFIXES):
        raise ValueError(f"{text} is set by crossjit")
    return text


def _argument(text: str) -> str:
    if not re.match(r"--[a-z]|[A-Za-z_]\w*=", text):
        raise ValueError(f"invalid configure argument {text!r}: expected --option or NAME=value")
    if text.partition("=")[0] in _RESERVED:
        raise ValueError(f"{text.partition('=')[0]} is set by crossjit")
    return text


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": NAME})]
Sha256 = Annotated[str, AfterValidator(_sha256), WithJsonSchema({"type": "string", "pattern": _SHA256})]
PlaceText = Annotated[str, AfterValidator(_place), WithJsonSchema({"type": "string", "pattern": _PLACE})]
Argument = Annotated[str, AfterValidator(_argument)]
Variable = Annotated[str, AfterValidator(_variable), WithJsonSchema({"type": "string", "pattern": _VARIABLE})]
PackageName = Annotated[str, Field(pattern=_PACKAGE)]


@table
class Archive:
    """A release archive."""

    version: str
    """CPython's own version, such as 3.15.0rc2; the archive is checked to have it."""
    sha256: Sha256
    """The archive's digest, 64 hexadecimal digits."""
    places: Annotated[tuple[PlaceText, ...], Field(min_length=1)]
    """Where the archive may be, tried in order: a URL, or debian:<component>/<pool path> on apt's mirror."""


@table
class Git:
    """A git repository and what to take from it."""

    url: str
    """The repository's URL, or a path relative to the recipe's folder."""
    ref: str
    """A branch, a tag, a commit, or pull/N/head."""


@table
class PackagesTable:
    """Debian packages that a variant needs in addition to the images' own; {llvm} is each LLVM version of an image."""

    toolchain: tuple[PackageName, ...] = ()
    """Programs of the toolchain image."""
    libraries: tuple[PackageName, ...] = ()
    """Libraries to link to, in the toolchain image for both architectures."""
    target: tuple[PackageName, ...] = ()
    """Packages that the built CPython loads, in the target image."""


@table
class VariantTable:
    """One way to configure CPython."""

    summary: str
    """What it is, in one line."""
    configure: tuple[Argument, ...]
    """Arguments for configure."""
    expects: Expectation
    """What the probe must find before passing tests prove something about the JIT."""
    suites: tuple[str, ...]
    """The suites that validate runs, in order; the probe always runs."""
    debug: bool = False
    """Whether it is a debug build."""
    free_threaded: bool = False
    """Whether it is built without the GIL."""
    environment: Mapping[Variable, str] = Field(default_factory=dict)
    """Environment variables for building and running it; {tools} is CPython's Tools folder."""
    test_environment: Mapping[Variable, str] = Field(default_factory=dict)
    """Environment variables of its suites alone."""
    packages: PackagesTable = Field(default_factory=PackagesTable)
    """Debian packages that it needs in addition to the images' own."""
    arches: Annotated[tuple[Arch, ...], Field(min_length=1)] = tuple(Arch)
    """The architectures that it can be built for."""


@table
class VariantsTable:
    """The file of the variants that recipes share."""

    variants: Mapping[Name, VariantTable]
    """The variants by name."""


@table
class VariantChanges:
    """A recipe's changes to a shared variant; or, under a new name, a complete variant of its own."""

    summary: str | None = None
    """What it is, in one line."""
    configure: tuple[Argument, ...] | None = None
    """Arguments for configure, in place of the shared variant's."""
    expects: Expectation | None = None
    """What the probe must find before passing tests prove something about the JIT."""
    suites: tuple[str, ...] | None = None
    """The suites that validate runs, in order; the probe always runs."""
    debug: bool | None = None
    """Whether it is a debug build."""
    free_threaded: bool | None = None
    """Whether it is built without the GIL."""
    environment: Mapping[Variable, str] | None = None
    """Environment variables for building and running it; {tools} is CPython's Tools folder."""
    test_environment: Mapping[Variable, str] | None = None
    """Environment variables of its suites alone."""
    packages: PackagesTable | None = None
    """Debian packages that it needs in addition to the images' own."""
    arches: Annotated[tuple[Arch, ...], Field(min_length=1)] | None = None
    """The architectures that it can be built for."""


@table
class RecipeTable:
    """A recipe: which CPython, and which variants of it. It has [archive] or [git]."""

    summary: str
    """What it is, in one line."""
    offers: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The names of the variants that can be built, in their order."""
    default_variants: Annotated[tuple[str, ...], Field(min_length=1)]
    """The variants selected by default."""
    default: bool = False
    """Whether this recipe is selected by default; exactly one of crossjit's own must be."""
    archive: Archive | None = None
    """The release archive to build."""
    git: Git | None = None
    """The repository to build from."""
    variants: Mapping[Name, VariantChanges] = Field(default_factory=dict)
    """Changes to shared variants, and variants of the recipe's own."""
