"""Capsules and their replay, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossjit.capsule.document import CapsuleDocument, Seen
from crossjit.capsule.replay import Answer, Difference, Replayed
from crossjit.report.size_budget import LINE
from crossjit.report.tables import render
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import pluralize, printable, shortened, size


def made_as_text(document: CapsuleDocument, path: Path, digest: str) -> str:
    """Return what is in a new capsule."""
    if document.script is not None:
        what = f"{document.script.name}: {_seen(document.script.seen)}"
    else:
        what = f"{pluralize(len(document.tests), 'test')}, first {document.tests[0].name}"
    build = "in the capsule" if document.has_artifact else f"left out: {document.source.again}"
    lines = [
        f"written:   {path}, {size(path.stat().st_size)}",
        f"sha256:    {digest}",
        f"cell:      {document.cell}, {document.source.version}",
        f"failure:   {what}",
        f"build:     {build}",
    ]
    return "\n".join(lines)


def made_as_json(document: CapsuleDocument, path: Path, digest: str) -> dict[str, object]:
    """Return what is in a new capsule as JSON values."""
    seen = [document.script.seen] if document.script else [test.seen for test in document.tests]
    names = [document.script.name] if document.script else [str(test.test) for test in document.tests]
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": digest,
        "cell": str(document.cell),
        "artifact": document.artifact,
        "with_artifact": document.has_artifact,
        "source": document.source.again or document.source.origin,
        "failures": [{"name": name, **_facts(each)} for name, each in zip(names, seen, strict=True)],
    }


def replayed_as_text(
    document: CapsuleDocument, results: Sequence[Replayed], differences: Sequence[Difference], *, style: TerminalStyle
) -> str:
    """Return a table of what happened there and here, what is different here, and the answer."""
    rows = [
        (
            shortened(printable(each.name), 80),
            shortened(printable(_seen(each.there)), 80),
            f"{each.count}{f', {each.here}' if each.here else ''}",
            each.answer.value,
        )
        for each in results
    ]
    lines = [f"{document.cell}, {printable(document.source.version)}", ""]
    lines.append(render(("what", "there", "here", "answer"), rows, style))
    if differences:
        lines += ["", "different here:"]
        lines += [
            shortened(printable(f"  {each.what}: {f'{each.there} → ' if each.there else ''}{each.here}"), LINE)
            for each in differences
        ]
    same = sum(each.answer is Answer.SAME for each in results)
    lines += ["", f"the same happens here for {same} of {pluralize(len(results), 'failure')}"]
    return "\n".join(lines)


def replayed_as_json(
    document: CapsuleDocument, results: Sequence[Replayed], differences: Sequence[Difference]
) -> dict[str, object]:
    """Return what happened as JSON values."""
    return {
        "cell": str(document.cell),
        "same": all(each.answer is Answer.SAME for each in results),
        "results": [
            {
                "name": each.name,
                "answer": each.answer.value,
                "there": _facts(each.there),
                "here": {
                    "how": each.here.how if each.here else None,
                    "reason": each.here.text if each.here else None,
                    "failed": each.count.failed,
                    "ran": each.count.ran,
                },
            }
            for each in results
        ],
        "differences": [{"what": each.what, "there": each.there, "here": each.here} for each in differences],
    }


def _seen(seen: Seen) -> str:
    return f"{seen.count}, {seen.how}{f': {seen.reason}' if seen.reason else ''}"


def _facts(seen: Seen) -> dict[str, object]:
    return {"how": seen.how, "reason": seen.reason, "failed": seen.failed, "ran": seen.ran}
