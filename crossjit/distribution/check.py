"""Whether shipped stencils are those that their source has made: file by file, byte by byte. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from crossjit.distribution.archive import Shipped, stencil_header
from crossjit.effect import uops
from crossjit.effect.uops import Kind
from crossjit.errors import InfrastructureError
from crossjit.measure import stencils
from crossjit.model import Cell, Verdict
from crossjit.pipeline.stencils import Configuration, StencilFiles

# A comment that a compiler reads as one: it neither goes on in the next line nor ends before its own.
_COMMENT = re.compile(rb"[ \t]*//(?![^\n]*\\[ \t\f\v]*$)(?!.*\?\?/)[^\r\n]*")
LINES = 40  # of the differences between two pyconfig.h


class Match(StrEnum):
    """How a file is like the one that was made here. `comments`: all but comments is the same."""

    IDENTICAL = "identical"
    COMMENTS = "comments"
    DIFFERENT = "different"
    NOT_MADE = "not made"


@dataclass(frozen=True)
class FileCheck:
    """A shipped file; `line` is the number of the first line that is not the same, comments left out of account."""

    name: str
    match: Match
    line: int | None = None


@dataclass(frozen=True)
class Changed:
    """A stencil that is not the same: in the shipped file it has so many bytes, and as it was made here."""

    name: str
    kind: Kind
    shipped: int
    made: int


@dataclass(frozen=True)
class Check:
    """What came of making shipped stencils again.

    `inputs` says whether the digest in the header's first line is that of this source and configuration: None if there
    is none. `pyconfig` are the differences between the pyconfig.h that came with them, with which they were made again,
    and that of configure here; None if none came. `shipped_llvm` is the full version that is said to have made them, if
    it is known, `llvm` the one that made them here. `changed` are the stencils that are not the same, of `stencils`
    altogether; None if the shipped ones cannot be read.
    """

    cell: Cell
    version: str
    llvm: str
    shipped_llvm: str | None
    files: tuple[FileCheck, ...]
    inputs: bool | None
    stencils: int
    changed: tuple[Changed, ...] | None
    pyconfig: tuple[str, ...] | None = None
    unlike_source: bool = False

    @property
    def verdict(self) -> Verdict:
        """Pass if they are the source's. Nothing is proved by another LLVM that makes others."""
        if all(each.match in (Match.IDENTICAL, Match.COMMENTS) for each in self.files):
            return Verdict.PASS
        return Verdict.FAIL if self.shipped_llvm in (None, self.llvm) else Verdict.VACUOUS


def check(
    shipped: Shipped, made: StencilFiles, configuration: Configuration, cell: Cell, version: str, llvm: str, source: str
) -> Check:
    """Compare shipped stencils with those that were made of a source, whose digest is `source`."""
    described = shipped.description
    name, own_name = stencil_header(shipped.files), stencil_header(made.files)
    assert name and own_name
    # a header may have any name
    own = {**made.files, name: made.files[own_name]}
    count, changed = _changed(shipped.files[name], made.files[own_name])
    return Check(
        cell,
        version,
        llvm,
        described.llvm if described else None,
        tuple(_file(each, content, own.get(each)) for each, content in sorted(shipped.files.items())),
        made.files[own_name].startswith(f"// {shipped.inputs}\n".encode()) if shipped.inputs else None,
        count,
        changed,
        None if shipped.pyconfig is None else tuple(_differences(configuration.pyconfig, shipped.pyconfig)),
        described is not None and described.source.digest != source,
    )


def _file(name: str, shipped: bytes, made: bytes | None) -> FileCheck:
    if made is None:
        return FileCheck(name, Match.NOT_MADE)
    if shipped == made:
        return FileCheck(name, Match.IDENTICAL)
    if not name.endswith(".h"):
        return FileCheck(name, Match.DIFFERENT)
    ours, theirs = list(_code(made)), list(_code(shipped))
    if [line for _, line in ours] == [line for _, line in theirs]:
        return FileCheck(name, Match.COMMENTS)
    apart = next(
        (number for (number, line), (_, own) in zip(theirs, ours, strict=False) if line != own),
        theirs[-1][0] if theirs else 1,
    )
    return FileCheck(name, Match.DIFFERENT, apart)


def _code(header: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a header that are not comments, with their numbers."""
    for number, line in enumerate(header.split(b"\n"), 1):
        if not _COMMENT.fullmatch(line):
            yield number, line


def _changed(shipped: bytes, made: bytes) -> tuple[int, tuple[Changed, ...] | None]:
    own = stencils.by_name(made.decode("utf-8", "replace"))
    try:
        theirs = stencils.by_name(shipped.decode("utf-8", "replace"))
    except InfrastructureError:
        return len(own), None
    found = [variant for uop in uops.compare(theirs, own).uops for variant in uop.variants]
    changed = tuple(
        Changed(each.name, each.kind, _bytes(theirs, each.name), _bytes(own, each.name))
        for each in sorted(found, key=lambda each: each.name)
    )
    return len({*own, *theirs}), changed


def _bytes(named: Mapping[str, stencils.Stencil], name: str) -> int:
    return len(named[name].code) if name in named else 0


def _differences(own: bytes, shipped: bytes) -> Iterator[str]:
    before, after = (content.decode("utf-8", "replace").splitlines() for content in (own, shipped))
    found = [
        line
        for line in difflib.unified_diff(before, after, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    yield from found[:LINES]
    if len(found) > LINES:
        yield f"and {len(found) - LINES} more"
