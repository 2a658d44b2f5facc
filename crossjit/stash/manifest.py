"""What is known of an artifact: its manifest, as a value and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import StashError
from crossjit.model import Arch, Cell, Strategy

SCHEMA = 1

_NOT_STASHED = datetime(1970, 1, 1, tzinfo=UTC)


class ArtifactKind(StrEnum):
    """What an artifact is for: a cell's build, or the Python that runs CPython's own tools in cross builds."""

    CELL = "cell"
    BUILD_PYTHON = "build-python"


@dataclass(frozen=True)
class SourceFacts:
    """What was built: `kind` is archive, git or checkout, `origin` where it came from, `llvm` what it asks for.

    `regenerate` is what make was called with before anything was compiled.
    """

    kind: str
    digest: str
    origin: str = ""
    commit: str | None = None
    diff_digest: str | None = None
    llvm: str | None = None
    regenerate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tree:
    """One named tree of an artifact: the `.tar.zst` by sha256 and size, and what unpacks from it.

    `digest` is of the tree itself (see `packing.Packed`), `files` the number of regular files, `unpacked` their bytes.
    """

    object: str
    size: int
    digest: str
    files: int
    unpacked: int


@dataclass(frozen=True)
class Manifest:
    """All that is known of an artifact; `manifest.json` in the stash and in an export.

    Whoever builds fills it; `created`, `sequence`, `tree_digest` (that of the tree `install`) and `trees` are set as it
    is stashed. `sequence` grows from artifact to artifact, which `created` does not where a clock is set: it tells
    which is newer, and is 0 in those of before there was one. `probed_in` says in what the probe ran (see `evidence`).
    `images` maps `toolchain` and `target` to facts of them, `seconds` maps phases to wall time; `build_python` is the
    whole id of the artifact whose Python ran CPython's own tools in a cross build. `base_key` is common to builds whose
    sources differ in their tests only, and `derived_from` the whole id of such an artifact that this one was made of
    instead of being compiled; both are None where there is no such thing. `domain` is the source's trust domain.

    Versioning: within a schema, keys may be added with a default; readers ignore keys that they do not know, and
    rewriting a manifest drops them (nothing rewrites one). A change that an older reader would misunderstand counts
    `schema` up, and older readers refuse it.
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
    schema: int = SCHEMA

    @property
    def age(self) -> tuple[int, datetime, str]:
        """What artifacts are ordered by, the oldest first."""
        return self.sequence, self.created, self.build_key

    @property
    def subject(self) -> str:
        """What the artifact is of, for people and for counting how many of a kind there are."""
        return str(self.cell) if self.cell else f"{self.kind} {self.version} {self.arch}"


class NewerSchemaError(StashError):
    """The manifest was written by a crossjit that knows more."""


def dump(manifest: Manifest) -> bytes:
    """Write a manifest as JSON, the same bytes for the same value."""
    return to_json(_type().dump_python(manifest, mode="json"))


def parse(content: bytes) -> Manifest:
    """Read a manifest. Raises StashError where it is damaged, NewerSchemaError where it is from a newer crossjit."""
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


def to_json(document: Mapping[str, object]) -> bytes:
    """Write JSON for the stash. Escaped, so that file names that are no UTF-8 survive as lone surrogates."""
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


@cache
def _type() -> TypeAdapter[Manifest]:
    return TypeAdapter(Manifest)
