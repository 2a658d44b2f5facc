"""What gdb saw where a program stopped: the lines of `gdb/session.py` as values. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from crossjit.channels import Begun, Exit, MalformedError, Section, Stop, Whole, read_line

SECTIONS = 50  # of a report that are kept


@dataclass(frozen=True)
class GdbReport:
    """One program under gdb. `about` says which; `stop` is None if it came to its end, with `exit_code`, if any.

    `sections` are titles and texts, the most telling first; `whole` is False if gdb died over them. `wrong` counts the
    report's lines that could not be used.
    """

    about: str
    stop: Stop | None = None
    exit_code: int | None = None
    ended: bool = False
    sections: tuple[tuple[str, str], ...] = ()
    whole: bool = False
    wrong: int = 0

    def section(self, title: str) -> str:
        """Return a section's text, nothing where there is none."""
        return next((text for name, text in self.sections if name == title), "")


def read(lines: Iterable[str]) -> GdbReport | None:
    """Read a report's lines: what is told of the last program that was started. None if none was.

    A line that cannot be used is left out, and counted.
    """
    found: GdbReport | None = None
    whole, wrong = False, 0
    for line in filter(None, lines):
        try:
            told = read_line(line)
        except MalformedError:
            wrong += 1
            continue
        match told:
            case Begun():
                found = GdbReport(told.about)
            case Whole():
                whole = True
            case _ if found is None:
                wrong += 1
            case Stop():
                found = replace(found, stop=told)
            case Exit():
                found = replace(found, exit_code=told.code, ended=True)
            case Section():
                found = replace(found, sections=(*found.sections[-SECTIONS:], (told.title, told.text)))
    return replace(found, whole=whole, wrong=wrong) if found is not None else None
