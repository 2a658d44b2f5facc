"""What gdb saw where a program stopped: the lines of `debug/session.py` as values. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True)
class Uop:
    """Where in an executor's machine code the program was.

    `level` is the number of the native frame that was in it: 0 if the pc itself was. `number` counts the executor's
    uops, from 0 to `uops` - 1, and is None behind them; `offset` is in bytes from the uop's beginning, or from the
    code's, at address `code`, which has `size` bytes. `function` was compiled: its name and place.
    """

    address: str
    code: str
    size: int
    function: str
    uops: int
    uop: str
    number: int | None
    offset: int
    level: int


@dataclass(frozen=True)
class Stop:
    """Where a program stopped. `signal` is None if none stopped it; `interrupted` says that its time was over.

    `place` says what the pc is in, in words: `JIT code`, `the program`, a library's path.
    """

    signal: str | None
    interrupted: bool
    pc: str
    place: str
    instruction: str = ""
    function: str = ""
    source: str = ""
    executor: Uop | None = None


@dataclass(frozen=True)
class Sighting:
    """One program under gdb. `about` says which; `stop` is None if it came to its end, with `exit_code`, if any.

    `sections` are titles and texts, the most telling first; `whole` is False if gdb died over them.
    """

    about: str
    stop: Stop | None = None
    exit_code: int | None = None
    ended: bool = False
    sections: tuple[tuple[str, str], ...] = ()
    whole: bool = False

    def section(self, title: str) -> str:
        """Return a section's text, nothing where there is none."""
        return next((text for name, text in self.sections if name == title), "")


def read(lines: Iterable[str]) -> Sighting | None:
    """Read a report's lines: what is told of the last program that was started. None if none was.

    A line that is half written is left out.
    """
    about: str | None = None
    stop, code, ended, whole = None, None, False, False
    sections: list[tuple[str, str]] = []
    for line in lines:
        try:
            told = json.loads(line)
            match told:
                case {"event": "start"}:
                    about, stop, code, ended, sections = str(told["about"]), None, None, False, []
                case {"event": "stop"}:
                    stop = _stop_type().validate_python(told)
                case {"event": "exit"}:
                    code, ended = told["code"], True
                case {"event": "section"}:
                    sections.append((str(told["title"]), str(told["text"])))
                case {"event": "done"}:
                    whole = True
        except (ValueError, KeyError, ValidationError):
            continue
    return None if about is None else Sighting(about, stop, code, ended, tuple(sections), whole)


@cache
def _stop_type() -> TypeAdapter[Stop]:
    return TypeAdapter(Stop)
