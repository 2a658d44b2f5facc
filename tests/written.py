"""Reading what was written as those do who it must not command: a terminal, and the runner of GitHub Actions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

GITHUB = {"GITHUB_ACTIONS": "true"}
OURS = ("group", "endgroup", "stop-commands")

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def commands(log: str) -> Iterator[str]:
    """Read a log as the runner does, and yield the names of the commands that it takes.

    `ActionCommandManager` and `ActionCommand` of actions/runner: `::name data::` at a line's beginning, `##[name]`
    anywhere in it, and after `stop-commands` nothing until the token comes as a command of its own.
    """
    token = None
    for line in re.split(r"\r\n|\r|\n", log):
        found = re.match(r"\s*::([^\s:]+)(?: [^:]*)?::(.*)", line)
        names = ([found[1]] if found else []) + re.findall(r"##\[([\w-]+)", line)
        for name in names:
            if token is not None:
                token = None if name == token else token
            else:
                yield name
                token = found[2] if found and name == "stop-commands" else None


def check_characters(log: str, *, color: bool = False) -> None:
    assert not CONTROL.findall(COLOUR.sub("", log) if color else log)


def check(log: str, *, color: bool = False, also: Sequence[str] = ()) -> None:
    check_characters(log, color=color)
    assert set(commands(log)) <= {*also}
