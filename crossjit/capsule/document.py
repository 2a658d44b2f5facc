"""The description in a capsule, `capsule.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from crossjit import PROGRAM
from crossjit.config import documents
from crossjit.config.recipe_tables import NAME
from crossjit.errors import UserError
from crossjit.model import Arch, Cell, Platform
from crossjit.triage.odds import Count
from crossjit.triage.rerun import TestRerun
from crossjit.triage.user_script import Script
from crossjit.validation.failure import Failure, How

SCHEMA = 1
HINT = f"ask whoever made it for a new one; {PROGRAM} capsule makes them"

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=NAME)]
Environment = Mapping[str, str]
MemberName = Literal["recipe.toml", "variants.toml", "script", "install.tar.zst", "support.tar.zst"]

RECIPE: MemberName = "recipe.toml"
VARIANTS: MemberName = "variants.toml"
SCRIPT: MemberName = "script"
INSTALL: MemberName = "install.tar.zst"
SUPPORT: MemberName = "support.tar.zst"


@documents.table
class Member:
    """A file in the capsule."""

    size: Size
    sha256: Digest


@documents.table
class Seen:
    """How a test, or the script, failed, and how often: as in Failure, with its `text` as `reason`."""

    how: How
    kind: str
    reason: str
    failed: Annotated[int, Field(ge=1)]
    ran: Annotated[int, Field(ge=1)]

    @property
    def failure(self) -> Failure:
        """The failure."""
        return Failure(self.how, self.kind, text=self.reason)

    @property
    def count(self) -> Count:
        """The outcomes."""
        return Count(failed=self.failed, passed=self.ran - self.failed)

    @classmethod
    def of(cls, failure: Failure, count: Count) -> Seen:
        """Describe a failure that was seen so often."""
        return cls(how=failure.how, kind=failure.kind, reason=failure.text, failed=count.failed, ran=count.ran)


@documents.table
class SeenTest:
    """A test of a suite, as in TestRerun, and how it failed."""

    seen: Seen
    name: str
    suite: str
    kind: Literal["module", "script"]
    module: str
    label: str
    match: str
    env: Environment
    arguments: tuple[str, ...]
    seconds: Annotated[int, Field(ge=1, le=86_400)]
    with_others: bool

    @property
    def test(self) -> TestRerun:
        """The test, to run it again."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(TestRerun)[:-1]}
        return TestRerun(**{**values, "env": tuple(sorted(self.env.items()))})

    @classmethod
    def of(cls, test: TestRerun, seen: Seen) -> SeenTest:
        """Describe a test."""
        values: dict[str, Any] = {field.name: getattr(test, field.name) for field in dataclasses.fields(TestRerun)[:-1]}
        return cls(seen=seen, **{**values, "env": dict(test.env)})


@documents.table
class WheelFacts:
    """A package of a script."""

    name: str
    version: str
    sha256: Digest


@documents.table
class SeenScript:
    """A script, as in Script, the variables with which it failed, and how. Its content is a member."""

    seen: Seen
    name: Annotated[str, Field(pattern=r"^[^/\x00]+$", max_length=255)]
    arguments: tuple[str, ...]
    status: int | None
    text: str
    seconds: Annotated[int, Field(ge=1, le=86_400)]
    env: Environment
    packages: tuple[WheelFacts, ...] = ()

    def script(self, content: bytes) -> Script:
        """Return the script with this content; the versions of its packages are those that it failed with."""
        if self.name in (".", ".."):
            raise UserError(f"invalid name of a script: {self.name!r}", hint=HINT)
        requirements = tuple(f"{wheel.name}=={wheel.version}" for wheel in self.packages)
        return Script(self.name, content, self.arguments, self.status, self.text, self.seconds, requirements)

    @classmethod
    def of(cls, script: Script, env: Environment, seen: Seen, packages: tuple[WheelFacts, ...]) -> SeenScript:
        """Describe a script."""
        return cls(
            seen=seen,
            name=script.name,
            arguments=script.arguments,
            status=script.status,
            text=script.text,
            seconds=script.seconds,
            env=env,
            packages=packages,
        )


@documents.table
class Source:
    """The source that was built. `again` is a value of --source that gets it anywhere, empty if there is none."""

    kind: str
    version: str
    origin: str
    commit: str | None
    digest: Digest
    diff_digest: str | None
    llvm: str | None
    again: Annotated[str, Field(pattern=r"^(https://\S+)?$")]


@documents.table
class Place:
    """Where it was seen: the target image with its packages (`name arch version`), and QEMU, None if native."""

    image: str
    key: str
    release: str
    packages: tuple[str, ...]
    qemu: str | None
    cpu: str | None


@documents.table
class CapsuleDocument:
    """All that is known of the failure. `artifact` is the full id of the build."""

    schema: int
    crossjit: str
    made: str
    recipe: Name
    arch: Arch
    variant: str
    strategy: str
    source: Source
    configure: str
    compiler: str | None
    build_key: str
    artifact: Digest
    toolchain: Mapping[str, str]
    place: Place
    members: Mapping[MemberName, Member]
    script: SeenScript | None = None
    tests: tuple[SeenTest, ...] = ()
    platform: Platform = Platform.LINUX

    @property
    def cell(self) -> Cell:
        """The cell."""
        return Cell(self.recipe, self.arch, self.variant, self.platform)

    @property
    def has_artifact(self) -> bool:
        """Whether the build is in the capsule."""
        return INSTALL in self.members


def dump(document: CapsuleDocument) -> bytes:
    """Return a description as JSON."""
    value = pydantic.TypeAdapter(CapsuleDocument).dump_python(document, mode="json")
    return (json.dumps(value, indent=2) + "\n").encode("ascii")


def parse(content: bytes) -> CapsuleDocument:
    """Read a description. Raises UserError for an invalid one, or one of a newer crossjit."""
    try:
        schema = json.loads(content)["schema"]
        if isinstance(schema, int) and schema > SCHEMA:
            raise UserError(
                f"the capsule has schema {schema}, this crossjit reads up to {SCHEMA}", hint="use a newer crossjit"
            )
        document = pydantic.TypeAdapter(CapsuleDocument).validate_json(content, strict=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, pydantic.ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"the capsule's description is invalid: {reason}", hint=HINT) from error
    wanted = {RECIPE, VARIANTS, *([SCRIPT] if document.script else [])}
    if not wanted <= document.members.keys() or bool(document.script) == bool(document.tests):
        raise UserError("the capsule's description is invalid: it lacks the recipe, or what failed", hint=HINT)
    if any(seen.failed > seen.ran for seen in [each.seen for each in (document.script, *document.tests) if each]):
        raise UserError("the capsule's description is invalid: more failures than runs", hint=HINT)
    return document
