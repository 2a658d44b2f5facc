"""A run as Markdown: the summary of a job on GitHub, a comment, a note."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence

from crossjit.model import CellResult, SuiteResult, Verdict
from crossjit.report import diagnoses, failures, output, reproduce
from crossjit.report.cells import kind
from crossjit.report.failures import Failure
from crossjit.report.size_budget import LINE, SizeBudget, some
from crossjit.report.text import headline
from crossjit.runs.model import Run
from crossjit.util.text import duration, pluralize, printable, shortened

# GitHub takes a mebibyte of a step (https://docs.github.com/actions/reference/limits); comments take 65,536 characters,
# which all but very red runs stay under.
ROOM_OUTPUT = 500_000
SHOWN = 50  # failures, the rest is counted
LINES = 20  # of reasons, problems and notes

_SIGNS = {
    Verdict.PASS: "✅",
    Verdict.FAIL: "❌",
    Verdict.VACUOUS: "⚪",
    Verdict.INFRA: "⚠️",
    Verdict.ABORTED: "⏹️",
}

_SPECIAL = re.compile(r"""[\\`*_{}\[\]()<>#+!|~&"'@$]""")


def escaped(text: str, limit: int = LINE) -> str:
    """Return text on one line that means nothing to Markdown or HTML: as character references, which make no structure.

    https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references
    """
    line = " ".join(printable(shortened(text, limit)).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)


def summary(run: Run, results: Sequence[CellResult]) -> str:
    """Return the summary: the cells, what went wrong with its output folded away, and what this is no evidence of."""
    said = headline([result.verdict for result in results])
    blocks = [f"## crossjit: {escaped(said)}", _table(results) if results else ""]
    blocks += [f"The run ended with: {escaped(run.error.message)}"] if run.error else []
    blocks += [_broken(run, result) for result in results if result.verdict is not Verdict.PASS]
    blocks += _failures(run, results)
    blocks += _diagnoses(run, results)
    blocks += _unexpected(results)
    blocks += _caveats(results)
    blocks.append(f"Run {_code(run.id)}. The same again:\n\n{_pre(run.reproduce)}")
    return output.markup("\n\n".join(filter(None, blocks))) + "\n"


def _table(results: Sequence[CellResult]) -> str:
    rows = ["| cell | verdict | tests | time | artifact |", "|---|---|---|---|---|"]
    for result in results:
        seconds = sum(result.seconds.values())
        cells = (
            escaped(str(result.cell)),
            f"{_SIGNS[result.verdict]} {result.verdict}",
            escaped("; ".join(_counts(suite) for suite in result.suites) or "none ran"),
            duration(seconds) if seconds else "",
            escaped(result.artifact or ""),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _counts(suite: SuiteResult) -> str:
    count = Counter(kind(test) for test in suite.results)
    words = {"went wrong": "went wrong", "known": "failed as expected", "unexpected": "passed unexpectedly"}
    said = [f"{suite.tests_run:,} run", *(f"{count[key]:,} {word}" for key, word in words.items() if count[key])]
    return f"{suite.suite}: {', '.join(said)}"


def _broken(run: Run, result: CellResult) -> str:
    """Say why a cell did not pass, and what does it alone again."""
    lines = [f"**{escaped(str(result.cell))}**: {result.verdict}", ""]
    lines += [f"- {escaped(reason)}" for reason in result.reasons[:LINES]]
    details = "\n".join(shortened(line, LINE) for line in result.details[-LINES:])
    lines += ["", _pre(details)] if details else []
    return "\n".join([*lines, "", _pre(reproduce.cell_line(run, result.cell))])


def _failures(run: Run, results: Sequence[CellResult]) -> list[str]:
    found = failures.of(run, results)
    if not found.number:
        return []
    room = SizeBudget(ROOM_OUTPUT, overhead=400)
    shown = some(found.shown[:SHOWN], room, _weighed)
    blocks = [f"### {pluralize(found.number, 'test')} went wrong"]
    for failure in shown.items:
        about = f": {escaped(failure.about)}" if failure.about else ""
        title = f"{_code(failure.name)} {failure.outcomes} in {escaped(failure.cells)}{about}"
        parts = [f"<details><summary>{title}</summary>"]
        for time in failure.times:
            parts.append(f"{escaped(str(time.cell))}: {time.test.outcome}")
            parts += [_pre(time.output)] if time.output else []
            parts += [_pre("\n".join(time.lines))] if time.lines else []
        blocks.append("\n\n".join([*parts, "</details>"]))
    left = found.number - len(shown.items)
    return [*blocks, *([f"And {pluralize(left, 'test')} more."] if left else [])]


def _diagnoses(run: Run, results: Sequence[CellResult]) -> list[str]:
    """Say what triage concluded: a line for each layer and test."""
    found = diagnoses.by_layer(diagnoses.of(run, [result.cell for result in results]))
    if not found:
        return []
    lines = [
        f"- **{escaped(str(each.conclusion))}**: {_code(each.test)} in {escaped(cells)}: {escaped(each.conclusion.why)}"
        for each, cells in found[:SHOWN]
    ]
    left = [f"And {pluralize(len(found) - SHOWN, 'test')} more."] if len(found) > SHOWN else []
    return ["### Whose failure it is", "\n".join(lines), *left]


def _weighed(failure: Failure) -> str:
    return "".join("".join((failure.name, time.output, *time.lines)) for time in failure.times)


def _unexpected(results: Sequence[CellResult]) -> list[str]:
    found = failures.by_reason(results, lambda test: test.xpassed)
    if not found:
        return []
    lines = [f"- {pluralize(each.number, 'test')} listed as known: {escaped(each.reason)}" for each in found[:LINES]]
    return ["### Unexpected passes", "\n".join(lines)]


def _caveats(results: Sequence[CellResult]) -> list[str]:
    found = failures.caveats(results)
    if not found:
        return []
    lines = [f"- No evidence {escaped(caveat)} ({escaped(cells)})" for caveat, cells in found[:LINES]]
    return ["### What this is no evidence of", "\n".join(lines)]


def _code(text: str) -> str:
    return f"<code>{escaped(text)}</code>"


def _pre(text: str) -> str:
    """Return a block in which blank lines and Markdown mean nothing, on lines of its own."""
    return f"<pre>\n{html.escape(printable(text))}\n</pre>"
