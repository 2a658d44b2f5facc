"""Parses gdb's report about a stopped program: the lines of `gdb/session.py`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from crossjit.channels import Begun, Exit, MalformedError, Section, Stop, Whole, read_line

SECTIONS = 50  # of a report, at most


@dataclass(frozen=True)
class GdbReport:
    """One program under gdb. `about` names it; `stop` is None if it ended, with `exit_code`, if any.

    `sections` are titles and texts, the most important first; `whole` is False if gdb died before the end. `wrong` is
    the number of invalid lines.
    """

    about: str
    stop: Stop | None = None
    exit_code: int | None = None
    ended: bool = False
    sections: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    wrong: int = 0

    def section(self, title: str) -> str:
        """Return a section's text, empty if there is none."""
        return next((text for name, text in self.sections if name == title), "")


def read(lines: Iterable[str]) -> GdbReport | None:
    """Read a report's lines about the last program that was started; None if there was none.

    Invalid lines are skipped, and counted.
    """
    report: GdbReport | None = None
    whole, wrong = False, 0
    for line in filter(None, lines):
        try:
            event = read_line(line)
        except MalformedError:
            wrong += 1
            continue
        match event:
            case Begun():
                report = GdbReport(event.about)
            case Whole():
                whole = True
            case _ if report is None:
                wrong += 1
            case Stop():
                report = replace(report, stop=event)
            case Exit():
                report = replace(report, exit_code=event.code, ended=True)
            case Section():
                report = replace(report, sections=(*report.sections[-SECTIONS:], (event.title, event.text)))
    return replace(report, whole=whole, wrong=wrong) if report is not None else None
