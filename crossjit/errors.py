"""Every error a user can meet: a message, a hint that says what to do, and the exit code."""

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
    """What could not be removed from the engine, why not, and the command that removes it."""

    what: str
    reason: str
    remedy: str


def leave(error: BaseException, leftovers: Iterable[Leftover]) -> None:
    """Have an exception carry what is left, to be told where it ends."""
    error.__dict__["leftovers"] = tuple(dict.fromkeys((*left_by(error), *leftovers)))


def left_by(error: BaseException) -> tuple[Leftover, ...]:
    """Return what an exception says is left."""
    return tuple(error.__dict__.get("leftovers", ()))


class CrossjitError(Exception):
    """Base of all: `message` is one sentence, `hint` what the user can do about it, `details` lines to show below."""

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
    """The source that was asked for does not exist or is not a CPython that can be built."""


class ProductError(CrossjitError):
    """CPython itself is at fault: it does not compile, or a test of it fails."""

    exit_code = ExitCode.PRODUCT


class BuildError(ProductError):
    """A command of the build failed; `details` holds the last relevant lines of its log."""


class TreeError(ProductError):
    """What a build left cannot be kept: it is not a tree of files, folders and links of its own."""


class InfrastructureError(CrossjitError):
    """Our side or the machine's."""


class ScriptError(InfrastructureError):
    """A script of ours failed in a container, or the machine did under it; the command that it runs did not."""


class EngineError(InfrastructureError):
    """The container engine is absent, died, or refused."""


class OutOfMemoryError(EngineError):
    """The kernel killed something in the container for its memory."""


class DownloadError(InfrastructureError):
    """No place had the file, or what came was not what its digest says."""


class StashError(InfrastructureError):
    """The stash cannot be written, or what it holds is damaged."""


class Interrupted(CrossjitError):  # noqa: N818 - an interruption is not an error
    """The user pressed Ctrl-C or the process was asked to end."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the choice that is most like the word, or nothing where none is."""
    by_folded = {choice.casefold(): choice for choice in choices}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""
