"""Escapes all output: no control character reaches a terminal, no workflow command reaches GitHub's runner.

The output of tests, builds and repositories is not trusted. A terminal interprets `ESC`; GitHub's runner interprets
`::name::` at the start of a line, and `##[name]` anywhere in one, on stdout and stderr
(https://docs.github.com/actions/reference/workflow-commands-for-github-actions; `ActionCommand.cs` of actions/runner).
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping

from crossjit.util.text import NO_TEXT, printable

# Colours and bold as rich writes them; nothing that hides text, moves the cursor, or queries the terminal.
_COLOUR = re.compile(r"(\x1b\[(?:0|1|2|3[0-7]|9[0-7])(?:;(?:0|1|2|3[0-7]|9[0-7]))*m)")
_COMMAND_START = re.compile(r"^(\s*):(?=:)", re.MULTILINE)


def on_github(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether output goes to GitHub's runner."""
    return environ.get("GITHUB_ACTIONS") == "true"


def text(content: str, *, color: bool = False, environ: Mapping[str, str] = os.environ) -> str:
    """Return lines that are safe for stdout or stderr; colours stay if the stream supports them."""
    parts = _COLOUR.split(content) if color else [content]
    shown = "".join(part if color and _COLOUR.fullmatch(part) else printable(part) for part in parts)
    return uncommanded(shown) if on_github(environ) else shown


def uncommanded(content: str) -> str:
    """Return lines without commands for the runner.

    `::` is ignored between `stop-commands` and its token, which nobody can guess; `##[` is escaped.
    """
    content = content.replace("##[", "##\\[")
    if "::" not in content:
        return content
    token = secrets.token_hex(16)
    return f"::stop-commands::{token}\n{content}\n::{token}::"


def group(title: str, content: str) -> str:
    """Return lines folded under a title in the runner's log."""
    return f"::group::{command_value(title)}\n{uncommanded(printable(content))}\n::endgroup::"


def command_value(content: str, special: str = "") -> str:
    """Return text as the value of a command of the runner, or of its property, which `special` characters would end."""
    shown = printable(content)
    for character in f"%\r\n{special}":
        shown = shown.replace(character, f"%{ord(character):02X}")
    return shown.replace("##[", "##\\[")


def json(document: str) -> str:
    """Return an equal JSON document in which unsafe characters and `##[` are escaped."""
    return NO_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", document).replace("##[", "##\\u005b")


def markup(document: str) -> str:
    """Return an equal HTML, XML or Markdown document without commands for the runner."""
    return _COMMAND_START.sub(r"\1&#58;", document).replace("##[", "##&#91;")
