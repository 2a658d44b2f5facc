"""Every error that a user can see: a message, a hint that says what to do, and the exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """The process's exit codes; the README lists them."""

    PASS = 0
    PRODUCT = 1
    USER = 2
    INFRASTRUCTURE = 3
    VACUOUS = 4
    INTERRUPTED = 130


@dataclass(frozen=True)
class Leftover:
    """An object that could not be removed from the engine, the reason, and the command that removes it."""

    what: str
    reason: str
    remedy: str


def leave(error: BaseException, leftovers: Iterable[Leftover]) -> None:
    """Attach leftovers to an exception; they are reported with it."""
    error.__dict__["leftovers"] = tuple(dict.fromkeys((*left_by(error), *leftovers)))


def left_by(error: BaseException) -> tuple[Leftover, ...]:
    """Return the leftovers attached to an exception."""
    return tuple(error.__dict__.get("leftovers", ()))


class CrossjitError(Exception):
    """The base class: `message` is one sentence, `hint` what the user can do, `details` lines to show below."""

    exit_code = ExitCode.INFRASTRUCTURE

    def __init__(self, message: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details


class UserError(CrossjitError):
    """The user's input is wrong."""

    exit_code = ExitCode.USER


class DocumentError(UserError):
    """A TOML file is wrong; `details` holds every error with file, line and column."""


class SourceError(UserError):
    """The requested source does not exist or is not a CPython that can be built."""


class ProductError(CrossjitError):
    """CPython itself is at fault: it does not compile, or a test of it fails."""

    exit_code = ExitCode.PRODUCT


class BuildError(ProductError):
    """A command of the build failed; `details` holds the last relevant lines of its log."""


class TreeError(ProductError):
    """A build's output cannot be stored: it is not a self-contained tree of files, folders and links."""


class InfrastructureError(CrossjitError):
    """crossjit or the machine is at fault."""


class ScriptError(InfrastructureError):
    """One of crossjit's scripts failed in a container, or the machine did; the command that it runs did not."""


class EngineError(InfrastructureError):
    """The container engine is missing, died, or refused a request."""


class OutOfMemoryError(EngineError):
    """The kernel killed a process in the container because memory ran out."""


class DownloadError(InfrastructureError):
    """No location has the file, or the download does not match its digest."""


class StashError(InfrastructureError):
    """The stash cannot be written, or its content is damaged."""


class Interrupted(CrossjitError):  # noqa: N818 - an interruption is not an error
    """The user pressed Ctrl-C, or the process received a signal to end."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest choice, or an empty text if none is close."""
    by_folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
