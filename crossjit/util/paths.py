"""Paths as users type them: relative to the current folder, maybe with a `~`."""

from __future__ import annotations

from pathlib import Path

from crossjit.errors import UserError


def expanded(text: str) -> Path:
    """Return the path with its `~` replaced. Raises UserError if there is no such home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{text!r}: there is no such home folder", hint="write the path without ~, or with ./ before it"
        ) from error


def full_path(text: str) -> Path:
    """Return the absolute path. Raises UserError if there is no such home folder, or the current folder is gone."""
    try:
        return expanded(text).absolute()
    except FileNotFoundError as error:
        raise UserError(f"{text!r}: the current folder is gone", hint="cd to another folder") from error
