"""How a user's script ended in each cell, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from crossjit.host.wheels import Wheel, WheelTarget
from crossjit.report import diagnoses
from crossjit.report.size_budget import LINE
from crossjit.report.tables import render
from crossjit.report.terminal_style import TerminalStyle
from crossjit.triage import diagnosis
from crossjit.triage.user_script import Reproduction, rows
from crossjit.util.text import shortened
from crossjit.validation import reason

NOTHING = "the script passes everywhere"


def as_text(reproductions: Sequence[Reproduction], *, style: TerminalStyle) -> str:
    """Return a table of the results, and below it a conclusion for each cell in which the script failed."""
    return "\n".join(_lines(reproductions, style))


def _lines(reproductions: Sequence[Reproduction], style: TerminalStyle) -> Iterator[str]:
    table = [
        (
            str(cell),
            result.experiment.value,
            str(result.count),
            shortened(reason.of(result.message), diagnoses.MESSAGE),
        )
        for cell, result in rows(reproductions)
    ]
    yield render(("cell", "condition", "outcome", "said"), table, style)
    concluded = [each.diagnosis for each in reproductions if each.diagnosis]
    if concluded:
        yield ""
        yield diagnoses.as_text(concluded, style=style)
    elif not any(each.failed for each in reproductions):
        yield f"\n{NOTHING}"


def as_json(reproductions: Sequence[Reproduction]) -> list[dict[str, object]]:
    """Return the results as JSON values, a table for each cell."""
    return [
        {
            "cell": str(each.cell),
            "failed": each.failed,
            "results": [
                {
                    "condition": result.experiment.value,
                    "failed": result.count.failed,
                    "passed": result.count.passed,
                    "crashed": result.count.crashed,
                    "hung": result.count.hung,
                    "absent": result.count.absent,
                    "message": shortened(result.message, LINE),
                }
                for result in each.results
            ],
            "diagnosis": diagnosis.as_json(each.diagnosis) if each.diagnosis else None,
        }
        for each in reproductions
    ]


def packages_as_json(wheels: Iterable[tuple[WheelTarget, Wheel]]) -> list[dict[str, object]]:
    """Return the wheels that a script's packages came from as JSON values, with the Python that each is for."""
    return [
        {
            "arch": target.arch.value,
            "python": ".".join(map(str, target.python)),
            "free_threaded": target.free_threaded,
            "name": wheel.name,
            "version": wheel.version,
            "sha256": wheel.sha256,
        }
        for target, wheel in wheels
    ]
