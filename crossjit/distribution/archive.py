"""An archive of stencils: a `.tar.gz` of the files that build.py wrote, pyconfig.h, and a description of both.

The same stencils make the same bytes. What is read comes from anybody: a header, or an archive, also without a
description. Of an archive, only the known names are read, each within its limit.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from crossjit.errors import InfrastructureError, UserError
from crossjit.model import Arch
from crossjit.pipeline.stencils import CONFIG, LARGEST, OPTION, file_names
from crossjit.sources.tarball import DAMAGED, decompressed
from crossjit.stash.manifest import SourceFacts
from crossjit.util import files, tar
from crossjit.util.budget import BUDGET, TreeCount
from crossjit.util.text import join_words

DESCRIPTION = "stencils.json"
SCHEMA = 1
HINT = "give a header such as jit_stencils-x86_64-unknown-linux-gnu.h, or an archive that has one"

_BUDGET = replace(BUDGET, tree=512 << 20, members=10_000)
_HEAD = re.compile(rb"// ([0-9a-f]{64})\n(?:// \$ ([^\n]{0,4000})\n)?")  # Tools/jit/_targets.py
_FUNCTION = b"\nemit_"


@dataclass(frozen=True)
class Description:
    """What stencils were made of. `digest` is that of all of it: two archives with the same one have the same inputs.

    `llvm` is LLVM's full version, `libc` that of the headers, `configure` configure's line, `command` that of the
    stencils, `pyconfig` the digest of pyconfig.h. `files` has the digests of the files.
    """

    variant: str
    version: str
    arch: Arch
    source: SourceFacts
    llvm: str
    libc: str
    image: str
    configure: str
    command: tuple[str, ...]
    pyconfig: str
    files: Mapping[str, str] = field(default_factory=dict)
    crossjit: str = ""
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """The digest of the inputs, with LLVM's version: 64 hex digits."""
        inputs = (self.source.digest, self.arch, self.llvm, self.libc, self.configure, *self.command, self.pyconfig)
        return hashlib.sha256("\0".join(inputs).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The name of its archive without the suffix, such as `stencils-3.15.0-aarch64-jit-llvm21.1.8`."""
        return f"stencils-{self.version}-{self.arch}-{self.variant}-llvm{self.llvm}"

    @property
    def python(self) -> tuple[int, int] | None:
        """CPython's major and minor version, if it can be read."""
        found = re.match(r"(\d{1,3})\.(\d{1,3})(?!\d)", self.version)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def major(self) -> str:
        """LLVM's major version."""
        return self.llvm.partition(".")[0]


@dataclass(frozen=True)
class Shipped:
    """Stencils that somebody made: files by name, and what is known of them.

    `inputs` is the digest in the first line of their header, `command` the command in its second one.
    """

    files: Mapping[str, bytes]
    arch: Arch | None
    inputs: str = ""
    command: str = ""
    pyconfig: bytes | None = None
    description: Description | None = None

    @property
    def debug(self) -> bool:
        """Whether the command says that they are for a debug build."""
        return "--debug" in self.command.split()

    @property
    def llvm(self) -> str | None:
        """LLVM's major version, if it is known."""
        if self.description:
            return self.description.major
        found = re.search(rf"{OPTION}[= ][\"']?(\d+)", self.command)
        return found[1] if found else None


def write(folder: Path, description: Description, made: Mapping[str, bytes], pyconfig: bytes) -> Path:
    """Write an archive into a folder, and return its path. Raises InfrastructureError."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(made.items())}
    description = replace(description, files=digests)
    text = json.dumps({**asdict(description), "digest": description.digest}, indent=2) + "\n"
    members = {DESCRIPTION: text.encode(), CONFIG: pyconfig, **dict(sorted(made.items()))}
    path = folder / f"{description.name}.tar.gz"
    packed = tar.packed({f"{description.name}/{name}": content for name, content in members.items()})
    with files.translate_os_errors(InfrastructureError, "cannot write the stencils", folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.replace(path, gzip.compress(packed.read(), mtime=0))
    return path


def read(path: Path) -> Shipped:
    """Read a header or an archive. Raises UserError for anything else."""
    try:
        with path.open("rb") as file:
            begin = file.read(2)
            content = begin + file.read(LARGEST) if begin == b"//" else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read: {(error.strerror or '').lower()}", hint=HINT) from error
    if content:
        return _shipped(str(path), {path.name: content})
    try:
        return _shipped(str(path), _members(path))
    except (*DAMAGED, tarfile.TarError, OSError, ValueError, LookupError, ArithmeticError) as error:
        raise UserError(
            f"{path} is neither a header with stencils nor an archive of them: {error}", hint=HINT
        ) from error


def _members(path: Path) -> Mapping[str, bytes]:
    """Return the files with known names, wherever they are in the archive."""
    known = {DESCRIPTION, CONFIG, *(name for arch in Arch for name in file_names(arch))}
    found: dict[str, bytes] = {}
    with decompressed(path) as stream:
        for member, content in tar.read(stream, TreeCount(str(path), budget=_BUDGET, error=UserError, hint=HINT)):
            name = member.name.rpartition("/")[2]
            if content is None or name not in known:
                continue
            if name in found or member.size > LARGEST:
                raise UserError(f"{path} has {name} twice, or it is too large", hint=HINT)
            found[name] = content.read()
    return found


def _shipped(label: str, found: Mapping[str, bytes]) -> Shipped:
    pyconfig, described = found.get(CONFIG), found.get(DESCRIPTION)
    made = {name: content for name, content in found.items() if name not in (CONFIG, DESCRIPTION)}
    name = stencil_header(made)
    if name is None:
        raise UserError(f"{label} has no stencils of CPython's JIT", hint=HINT)
    head = _HEAD.match(made[name])
    command = (head[2] or b"").decode("utf-8", "replace") if head else ""
    description = _description(label, described) if described else None
    arch = description.arch if description else _arch(label, name) or _arch(label, command)
    return Shipped(made, arch, head[1].decode() if head else "", command, pyconfig, description)


def stencil_header(made: Mapping[str, bytes]) -> str | None:
    """Return the name of the file that has the stencils; the others include it, or have what belongs to them."""
    return next((name for name, content in made.items() if name.endswith(".h") and _FUNCTION in content), None)


def _arch(label: str, text: str) -> Arch | None:
    """Return the arch of a triple in a text, if there is one. Raises UserError for another system's."""
    found = re.search(r"\b(x86_64|aarch64|i686)-[\w.]+(?:-[\w.]+)+", text)
    if found is None:
        return None
    arch = Arch.of_machine(found[1])
    if arch is None or "linux-gnu" not in found[0]:
        raise UserError(
            f"{label} is for {found[0]}, whose stencils cannot be made here",
            hint=f"there are those for {join_words([*Arch])} with Linux and glibc",
        )
    return arch


def _description(label: str, content: bytes) -> Description:
    try:
        value = json.loads(content)
        claimed = value.pop("digest")
        description = _type().validate_python(value, strict=False)
    except (ValueError, AttributeError, KeyError, TypeError, ValidationError) as error:
        raise UserError(f"{label} has an invalid {DESCRIPTION}", hint=HINT) from error
    if claimed != description.digest:
        raise UserError(f"{label} is damaged: the digest in {DESCRIPTION} is not that of its inputs", hint=HINT)
    return description


@cache
def _type() -> TypeAdapter[Description]:
    return TypeAdapter(Description)
