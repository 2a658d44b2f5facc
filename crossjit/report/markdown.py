"""A run as Markdown, such as for the summary of a job on GitHub, or a comment."""

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

# GitHub accepts a mebibyte for a step (https://docs.github.com/actions/reference/limits), and 65,536 characters for a
# comment, which only runs with very many failures exceed.
ROOM_OUTPUT = 500_000
SHOWN = 50  # failures; the rest is counted
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
    """Return text on one line, with Markdown's and HTML's special characters as character references.

    https://spec.commonmark.org/0.31.2/#entity-and-numeric-character-references
    """
    line = " ".join(printable(shortened(text, limit)).split())
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", line)


def summary(run: Run, results: Sequence[CellResult]) -> str:
    """Return the summary: the cells, failures with folded output, and caveats."""
    verdict_line = headline([result.verdict for result in results])
    blocks = [f"## crossjit: {escaped(verdict_line)}", _table(results) if results else ""]
    blocks += [f"The run ended with: {escaped(run.error.message)}"] if run.error else []
    blocks += [_broken(run, result) for result in results if result.verdict is not Verdict.PASS]
    blocks += _failures(run, results)
    blocks += _diagnoses(run, results)
    blocks += _unexpected(results)
    blocks += _caveats(results)
    blocks.append(f"Run {code(run.id)}. The same again:\n\n{preformatted(run.reproduce)}")
    return output.markup("\n\n".join(filter(None, blocks))) + "\n"


def _table(results: Sequence[CellResult]) -> str:
    several = any(result.engine for result in results)
    headers = ("cell", "verdict", "tests", "time", "artifact", *(["engine"] if several else []))
    rows = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    for result in results:
        seconds = sum(result.seconds.values())
        cells = (
            escaped(str(result.cell)),
            f"{_SIGNS[result.verdict]} {result.verdict}",
            escaped("; ".join(_counts(suite) for suite in result.suites) or "none ran"),
            duration(seconds) if seconds else "",
            escaped(result.artifact or ""),
            *([escaped(result.engine or "")] if several else []),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _counts(suite: SuiteResult) -> str:
    count = Counter(kind(test) for test in suite.results)
    words = {"went wrong": "went wrong", "known": "failed as expected", "unexpected": "passed unexpectedly"}
    parts = [f"{suite.tests_run:,} run", *(f"{count[key]:,} {word}" for key, word in words.items() if count[key])]
    return f"{suite.suite}: {', '.join(parts)}"


def _broken(run: Run, result: CellResult) -> str:
    """Describe why a cell did not pass, and the command that repeats it alone."""
    lines = [f"**{escaped(str(result.cell))}**: {result.verdict}", ""]
    lines += [f"- {escaped(reason)}" for reason in result.reasons[:LINES]]
    details = "\n".join(shortened(line, LINE) for line in result.details[-LINES:])
    lines += ["", preformatted(details)] if details else []
    return "\n".join([*lines, "", preformatted(reproduce.cell_line(run, result.cell))])


def _failures(run: Run, results: Sequence[CellResult]) -> list[str]:
    collected = failures.of(run, results)
    if not collected.number:
        return []
    room = SizeBudget(ROOM_OUTPUT, overhead=400)
    shown = some(collected.shown[:SHOWN], room, _weighed)
    blocks = [f"### {pluralize(collected.number, 'test')} went wrong"]
    for failure in shown.items:
        about = f": {escaped(failure.about)}" if failure.about else ""
        title = f"{code(failure.name)} {failure.outcomes} in {escaped(failure.cells)}{about}"
        parts = [f"<details><summary>{title}</summary>"]
        for time in failure.times:
            parts.append(f"{escaped(str(time.cell))}: {time.test.outcome}")
            parts += [preformatted(time.output)] if time.output else []
            parts += [preformatted("\n".join(time.lines))] if time.lines else []
        blocks.append("\n\n".join([*parts, "</details>"]))
    omitted = collected.number - len(shown.items)
    return [*blocks, *([f"And {pluralize(omitted, 'test')} more."] if omitted else [])]


def _diagnoses(run: Run, results: Sequence[CellResult]) -> list[str]:
    """Return triage's conclusions: a line for each layer and test."""
    concluded = diagnoses.by_layer(diagnoses.of(run, [result.cell for result in results]))
    if not concluded:
        return []
    lines = [
        f"- **{escaped(str(item.conclusion))}**: {code(item.test)} in {escaped(cells)}: {escaped(item.conclusion.why)}"
        for item, cells in concluded[:SHOWN]
    ]
    omitted = [f"And {pluralize(len(concluded) - SHOWN, 'test')} more."] if len(concluded) > SHOWN else []
    return ["### Whose failure it is", "\n".join(lines), *omitted]


def _weighed(failure: Failure) -> str:
    return "".join("".join((failure.name, time.output, *time.lines)) for time in failure.times)


def _unexpected(results: Sequence[CellResult]) -> list[str]:
    reasons = failures.by_reason(results, lambda test: test.xpassed)
    if not reasons:
        return []
    lines = [f"- {pluralize(item.number, 'test')} listed as known: {escaped(item.reason)}" for item in reasons[:LINES]]
    return ["### Unexpected passes", "\n".join(lines)]


def _caveats(results: Sequence[CellResult]) -> list[str]:
    listed = failures.caveats(results)
    if not listed:
        return []
    lines = [f"- No evidence {escaped(caveat)} ({escaped(cells)})" for caveat, cells in listed[:LINES]]
    return ["### What this is no evidence of", "\n".join(lines)]


def code(text: str) -> str:
    """Return text as code, on one line."""
    return f"<code>{escaped(text)}</code>"


def preformatted(text: str) -> str:
    """Return a preformatted block, on lines of its own, in which blank lines and Markdown have no meaning."""
    return f"<pre>\n{html.escape(printable(text))}\n</pre>"
