"""The crashes and hangs of a run as text, with faulthandler's output. Nothing is printed here."""

from __future__ import annotations

from crossjit import PROGRAM
from crossjit.runs.model import Run

SHOWN = 5  # crashes of a suite; all are in the JSON


def crashes_text(run: Run) -> str:
    """Describe a run's crashes and hangs, and how to debug the first; empty if there are none."""
    parts = []
    for result in run.results():
        for suite in result.suites:
            for crash in suite.crashes[:SHOWN]:
                log = run.cell_folder(result.cell) / suite.suite / crash.log
                lines = [f"{result.cell}: {suite.suite}: {crash.test}: {crash.how}"]
                lines += [f"  $ {crash.command}"] if crash.command else []
                lines += [f"  {line}".rstrip() for line in crash.traceback] or ["  faulthandler wrote nothing"]
                parts.append("\n".join([*lines, f"  log: {log}"]))
            if len(suite.crashes) > SHOWN:
                parts.append(
                    f"{result.cell}: {suite.suite}: and {len(suite.crashes) - SHOWN} more that crashed or hung"
                )
    if parts:
        parts.append(f"at the crash with gdb: {PROGRAM} debug {run.id}")
    return "\n\n".join(parts)
