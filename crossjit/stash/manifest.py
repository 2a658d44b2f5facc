"""An artifact's manifest, as a value and as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import StashError
from crossjit.model import Arch, Cell, Strategy

SCHEMA = 2  # the newest that can be read
BUILT = 1  # the schema of what is built here
INSTALLED = 2  # that of a Python that was built elsewhere

_NOT_STASHED = datetime(1970, 1, 1, tzinfo=UTC)


class ArtifactKind(StrEnum):
    """What an artifact is for.

    It is a cell's build, the Python that runs CPython's own tools in cross builds, or a Python that was built
    elsewhere.
    """

    CELL = "cell"
    BUILD_PYTHON = "build-python"
    INSTALLED = "installed"


@dataclass(frozen=True)
class SourceFacts:
    """The source that was built: `kind` is archive, git or checkout, `llvm` the LLVM version that it requires.

    Of a Python that was built elsewhere, `kind` is debian, folder or archive, and `origin` what `--python` named.

    `regenerate` are make's arguments for regenerating files before the build.
    """

    kind: str
    digest: str
    origin: str = ""
    commit: str | None = None
    diff_digest: str | None = None
    llvm: str | None = None
    regenerate: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class PackageFacts:
    """A package of Debian that a Python was installed from, with the sha256 of its .deb."""

    name: str
    arch: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Tree:
    """One named tree of an artifact: sha256 (`object`) and size of its `.tar.zst`, and facts of its content.

    `digest` is the digest of the tree itself (see `packing.Packed`), `files` the number of regular files, `unpacked`
    their size in bytes.
    """

    object: str
    size: int
    digest: str
    files: int
    unpacked: int


@dataclass(frozen=True)
class Manifest:
    """The facts of an artifact; `manifest.json` in the stash and in an export.

    The build fills it; `created`, `sequence`, `tree_digest` (of the tree `install`) and `trees` are set when it is
    stashed. `sequence` increases with each artifact, even if the clock is set back, so it orders artifacts by age; it
    is 0 in manifests older than this key. `probed_in` are the conditions in which the probe ran (see `evidence`).
    `images` maps `toolchain` and `target` to facts of the images, `seconds` maps phases to wall time. `build_python` is
    the full id of the artifact whose Python ran CPython's own tools in a cross build. `base_key` is shared by builds
    that differ only in their tests; `derived_from` is the full id of the artifact with this key from which this one was
    derived instead of being compiled. Both may be None. `domain` is the source's trust domain. `inputs` are the fields
    of the build's specification, of which the build key is the digest (see `key_of`); empty in older manifests. Of a
    Python that was built elsewhere, `packages` are Debian's, and `build_facts` are what it says of its build
    (`BuildFacts`).

    Versioning: within a schema, keys may be added with a default. Readers ignore unknown keys; rewriting a manifest
    would drop them, but nothing rewrites one. A change that an older reader would misunderstand increments `schema`,
    and older readers reject it.
    """

    kind: ArtifactKind
    build_key: str
    version: str
    arch: Arch
    source: SourceFacts
    strategy: Strategy
    configure: str
    cell: Cell | None = None
    recipe: str | None = None
    variant: str | None = None
    images: dict[str, dict[str, object]] = field(default_factory=dict)
    llvm: str | None = None
    compiler: str | None = None
    build_python: str | None = None
    base_key: str | None = None
    derived_from: str | None = None
    domain: str = ""
    inputs: dict[str, object] = field(default_factory=dict)
    packages: tuple[PackageFacts, ...] = ()
    build_facts: dict[str, object] = field(default_factory=dict)
    qemu: str | None = None
    cpu: str | None = None
    crossjit: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    probe: dict[str, object] = field(default_factory=dict)
    probed_in: dict[str, str | None] = field(default_factory=dict)
    created: datetime = _NOT_STASHED
    sequence: int = 0
    tree_digest: str = ""
    trees: dict[str, Tree] = field(default_factory=dict)
    schema: int = BUILT

    @property
    def age(self) -> tuple[int, datetime, str]:
        """The sort key of artifacts, oldest first."""
        return self.sequence, self.created, self.build_key

    @property
    def subject(self) -> str:
        """The cell, or a description of a build Python; shown to people, and used by `gc` to group artifacts."""
        return str(self.cell) if self.cell else f"{self.kind} {self.version} {self.arch}"


class NewerSchemaError(StashError):
    """The manifest was written by a newer crossjit."""


def dump(manifest: Manifest) -> bytes:
    """Return a manifest as JSON; equal manifests give equal bytes."""
    return to_json(_type().dump_python(manifest, mode="json"))


def parse(content: bytes) -> Manifest:
    """Read a manifest. Raises StashError if it is damaged, NewerSchemaError if it was written by a newer crossjit."""
    try:
        document = json.loads(content)
        schema = document["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerSchemaError(
                f"the manifest has schema {schema}, this crossjit reads up to {SCHEMA}", hint="use a newer crossjit"
            )
        return _type().validate_python(document)
    except (ValueError, KeyError, TypeError) as error:  # ValidationError and JSON's errors are ValueErrors
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise StashError(f"the manifest is damaged: {reason}", hint="build the cell again to repair it") from error


def key_of(inputs: Mapping[str, object], source: object = None) -> str:
    """Return the build key that recorded inputs give; with the digest of another source, the key for that."""
    of_key = {name: value for name, value in inputs.items() if name != "core"}
    if source is not None:
        of_key["source"] = source
    return hashlib.sha256(json.dumps(of_key, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def to_json(document: Mapping[str, object]) -> bytes:
    """Return JSON for the stash, in ASCII: file names that are not UTF-8 survive as escaped lone surrogates."""
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


@cache
def _type() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
