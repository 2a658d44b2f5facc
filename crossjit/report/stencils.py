"""Stencils that were made, and whether shipped ones are their source's: as text and as JSON. Prints nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from crossjit.distribution.archive import Description
from crossjit.distribution.check import Check, Match
from crossjit.effect.uops import Kind
from crossjit.model import Verdict
from crossjit.report import tables
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import pluralize

MOST = 20  # stencils that are listed
_WORDS = {
    Match.IDENTICAL: "the same bytes",
    Match.COMMENTS: "the same but for comments",
    Match.DIFFERENT: "not the same",
    Match.NOT_MADE: "not made of this source",
}
_KINDS = {Kind.NEW: "missing", Kind.GONE: "not of this source", Kind.CHANGED: "code", Kind.RELOCATED: "relocations"}


Written = Sequence[tuple[Path, Description]]
"""Archives that were written, and what they were made of."""


def archives_json(written: Written) -> list[dict[str, str]]:
    """Return what was written as JSON values."""
    return [
        {"path": str(path), "arch": str(about.arch), "llvm": about.llvm, "digest": about.digest}
        for path, about in written
    ]


def archives_text(written: Written) -> str:
    """Return what was written: the path of each archive, and what it was made of."""
    return "\n".join(
        f"{path}\n  {about.version} {about.arch}, LLVM {about.llvm}, inputs {about.digest}" for path, about in written
    )


def as_json(found: Check, *, path: str, run: str, reproduce: str) -> dict[str, Any]:
    """Return a check as JSON values."""
    value: dict[str, Any] = TypeAdapter(Check).dump_python(found, mode="json")
    return {
        "path": path,
        "verdict": str(found.verdict),
        "headline": headline(found),
        **value,
        "run": run,
        "reproduce": reproduce,
    }


def headline(found: Check) -> str:
    """Return the answer in a sentence, without its full stop."""
    made = f"LLVM {found.llvm} makes of {found.version} ({found.cell})"
    if found.verdict is Verdict.PASS:
        return f"These are the stencils that {made}"
    if found.verdict is Verdict.VACUOUS:
        return (
            f"Nothing is proved: LLVM {found.shipped_llvm} is said to have made these stencils, and they are not "
            f"those that {made}"
        )
    return f"These are not the stencils that {made}"


def as_text(found: Check, style: TerminalStyle) -> str:
    """Return the answer, each file, what is not the same, and what is known of the inputs."""
    rows = [(each.name, _WORDS[each.match], f"line {each.line}" if each.line else "") for each in found.files]
    blocks = [f"{headline(found)}.", tables.render(("file", "is", "differs from"), rows, style)]
    blocks += ["\n".join(_stencils(found, style))]
    blocks += ["\n".join(_inputs(found))]
    return "\n\n".join(filter(None, blocks))


def _stencils(found: Check, style: TerminalStyle) -> Iterator[str]:
    if found.changed is None:
        yield "the stencils in the header cannot be read, so they cannot be compared one by one"
        return
    if not found.changed:
        yield f"all {found.stencils:,} stencils are the same"
        return
    yield f"{pluralize(len(found.changed), 'stencil')} of {found.stencils:,} not the same:"
    yield ""
    rows = [(each.name, _KINDS[each.kind], f"{each.shipped:,}", f"{each.made:,}") for each in found.changed[:MOST]]
    yield tables.render(("stencil", "what", "bytes, shipped", "bytes, made"), rows, style)
    if len(found.changed) > MOST:
        yield f"and {pluralize(len(found.changed) - MOST, 'stencil')} more"


def _inputs(found: Check) -> Iterator[str]:
    if found.inputs is False:
        yield (
            "the digest in the first line is not that of this source and configuration: pyconfig.h, Tools/jit, "
            "executor_cases.c.h or an option is not the same"
        )
    if found.unlike_source:
        yield "the archive says that they were made of a source with another digest"
    if found.shipped_llvm not in (None, found.llvm):
        yield f"LLVM {found.shipped_llvm} is said to have made them, LLVM {found.llvm} did here"
    if found.pyconfig:
        yield "the pyconfig.h that came with them was used, which is not that of configure here:"
        yield from (f"  {line}" for line in found.pyconfig)
