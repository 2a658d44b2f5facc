"""Results as text and as JSON. Nothing is printed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial

from crossjit import PROGRAM
from crossjit.errors import CrossjitError, Interrupted
from crossjit.model import Cell, CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report.size_budget import LINE
from crossjit.report.terminal_style import TerminalStyle
from crossjit.util.text import duration, printable, shortened
from crossjit.validation import reason


def error_text(error: CrossjitError) -> str:
    """Return an error for stderr: its message, indented details, and hint."""
    word = "interrupted" if isinstance(error, Interrupted) else "error"
    lines = [f"{word}: {error.message}", *(f"  {detail}" for detail in error.details)]
    if error.hint:
        lines.append(f"hint: {error.hint}")
    return "\n".join(lines)


def render(headers: Sequence[str], rows: Sequence[Sequence[str]], style: TerminalStyle) -> str:
    """Format a table: ruled and wrapped to the width on a terminal, else aligned text, a line for each row."""
    return _ruled(headers, rows, style) if style.live else _aligned(headers, rows)


def _aligned(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(headers), *([printable(cell).replace("\n", " ") for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _ruled(headers: Sequence[str], rows: Sequence[Sequence[str]], style: TerminalStyle) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if style.unicode else box.ASCII2, pad_edge=False, show_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row))
    console = Console(
        width=style.width,
        force_terminal=style.color,
        no_color=not style.color,
        color_system="standard" if style.color else None,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


_STYLES = {
    Verdict.PASS.value: "green",
    Verdict.FAIL.value: "bold red",
    Verdict.VACUOUS.value: "yellow",
    Verdict.INFRA.value: "magenta",
    Verdict.ABORTED.value: "dim",
    "ok": "green",
    "no": "bold red",
}

HEADERS = ("cell", "verdict", "built", "tests", "time", "artifact")


def results_text(
    results: Sequence[CellResult],
    *,
    run: str,
    reproduce: str,
    style: TerminalStyle,
    about: Callable[[Cell, TestResult], object] = lambda cell, test: None,
) -> str:
    """Return a run's results: the table of cells, their reasons and caveats, and the command that repeats the run.

    `about` returns a failed test's diagnosis, if any.
    """
    several = any(result.engine for result in results)
    headers = (*HEADERS, "engine") if several else HEADERS
    parts = [
        render(headers, [(*_row(result), *([result.engine or "-"] if several else [])) for result in results], style)
    ]
    for result in results:
        remarks = [*result.reasons, *(f"no evidence {caveat}" for caveat in result.caveats)]
        remarks += [f"{line}" for suite in result.suites for line in _bad(suite, partial(about, result.cell))]
        remarks += [f"cache hits: {_cached(result)}"] if _cached(result) else []
        remarks += (
            [f"derived from {result.derived_from[:12]}, which has different tests"] if result.derived_from else []
        )
        remarks += [f"{name} went away before it was done" for name in result.lost_on]
        if remarks:
            parts.append(
                "\n".join(
                    [
                        f"{result.cell}: {result.verdict}",
                        *(f"  {line}" for line in dict.fromkeys(remarks)),
                        *(f"    {line}" for line in result.details),
                    ]
                )
            )
    parts.append(f"run:       {run}\nreproduce: {reproduce}")
    return "\n\n".join(parts)


def _row(result: CellResult) -> tuple[str, ...]:
    built = "from the stash" if result.from_stash else str(result.strategy or "-")
    time = sum(result.seconds.values())
    return (
        str(result.cell),
        result.verdict.value,
        built,
        "; ".join(_counts(suite) for suite in result.suites) or "-",
        duration(time) if time else "-",
        result.artifact or "-",
    )


def _counts(suite: SuiteResult) -> str:
    """Format a suite's counts: `jit 2,113 run, 57 skipped, 1 failed, 3 known`."""
    counts = Counter(
        "passed unexpectedly" if result.xpassed else "known" if result.known else result.outcome.value
        for result in suite.results
    )
    words = (
        Outcome.SKIPPED.value,
        *(outcome.value for outcome in Outcome if outcome.is_failure),
        *("known", "passed unexpectedly"),
    )
    parts = [f"{suite.tests_run:,} run", *(f"{counts[word]:,} {word}" for word in words if counts[word])]
    return f"{suite.suite} {', '.join(parts)}"


def _cached(result: CellResult) -> str:
    """Format the caches' hit rates: `compiler 98% of 441, stencils 100% of 1`."""
    parts = (
        f"{part} {100 * hits // (hits + misses)}% of {hits + misses:,}"
        for part, (hits, misses) in result.caches.items()
        if hits + misses > 0  # old versions did not check these numbers
    )
    return ", ".join(parts)


def _bad(suite: SuiteResult, about: Callable[[TestResult], object], limit: int = 20) -> list[str]:
    """Return a line for each failed test, with its message's main line, and its diagnosis, if any, on a second line."""
    bad = [result for result in suite.results if result.failed]
    lines = []
    for result in bad[:limit]:
        message, diagnosis = shortened(reason.of(result.message), LINE), about(result)
        line = f"{result.outcome}: {suite.suite}: {result.name}" + (f" ({message})" if message else "")
        lines.append(line + (f"\n    {diagnosis}" if diagnosis else ""))
    if len(bad) > limit:
        lines.append(f"and {len(bad) - limit} more in {suite.suite}; `{PROGRAM} runs show` lists them all")
    return lines


def results_json(results: Sequence[CellResult], *, run: str, reproduce: str) -> dict[str, object]:
    """Return a run's results as JSON values; times in seconds, full artifact ids and build keys."""
    from crossjit.runs.model import exit_code

    return {
        "run": run,
        "reproduce": reproduce,
        "exit_code": int(exit_code(results)),
        "cells": [cell_json(result) for result in results],
    }


def cell_json(result: CellResult, *, whole: bool = False) -> dict[str, object]:
    """Return one cell's result as JSON values; `whole` with every test and module, not only failures."""
    return {
        "cell": str(result.cell),
        "recipe": result.cell.recipe,
        "arch": result.cell.arch.value,
        "variant": result.cell.variant,
        "verdict": result.verdict.value,
        "reasons": list(result.reasons),
        "details": list(result.details),
        "caveats": list(result.caveats),
        "artifact": result.artifact,
        "build_key": result.build_key,
        "from_stash": result.from_stash,
        "derived_from": result.derived_from,
        "engine": result.engine,
        "lost_on": list(result.lost_on),
        "strategy": result.strategy.value if result.strategy else None,
        "caches": {part: {"hits": hits, "misses": misses} for part, (hits, misses) in result.caches.items()},
        "probe": dict(result.probe),
        "seconds": {phase: round(seconds, 3) for phase, seconds in result.seconds.items()},
        "suites": [_suite_json(suite) | (_rest_json(suite) if whole else {}) for suite in result.suites],
    }


def _suite_json(suite: SuiteResult) -> dict[str, object]:
    return {
        "suite": suite.suite,
        "seconds": round(suite.seconds, 3),
        "run": suite.tests_run,
        "counts": {outcome.value: suite.count(outcome) for outcome in Outcome},
        "problems": list(suite.problems),
        "limits": list(suite.limits),
        "unproved": list(suite.unproved),
        "notes": list(suite.notes),
        "crashes": [asdict(crash) for crash in suite.crashes],
        "conditions": dict(suite.conditions),
        "capabilities": dict(suite.capabilities),
        "bad": [_test_json(result) for result in suite.results if result.outcome.is_failure],
        "unexpected_passes": [_test_json(result) for result in suite.results if result.xpassed],
    }


def _rest_json(suite: SuiteResult) -> dict[str, object]:
    return {
        "caveats": list(suite.caveats),
        "modules": [asdict(module) for module in suite.modules],
        "tests": [_test_json(result) for result in suite.results],
    }


def _test_json(result: TestResult) -> dict[str, object]:
    return {
        "name": result.name,
        "outcome": result.outcome.value,
        "seconds": round(result.seconds, 3),
        "message": result.message,
        "known": result.known,
    }
