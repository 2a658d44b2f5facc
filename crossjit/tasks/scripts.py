"""A user's script as an argument of a command, with the options that say when it passes and what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crossjit.errors import UserError
from crossjit.tasks.options import number

if TYPE_CHECKING:
    from crossjit.triage.user_script import Script

LARGEST = 16 << 20  # bytes

SCRIPT_HELP: Mapping[str, str] = {
    "expect": "the text that the script prints if it passes; default: it passes if it exits with 0",
    "expect_status": "the exit status of the script if it passes; default: 0, or any with --expect",
    "seconds": "how long one run of the script may take in a release build on real hardware; default: 300",
    "with_": (
        "a package that the script imports, as pip takes it (attrs==25.1), from the index that pip is configured for; "
        "only wheels are taken; can be repeated; default: none"
    ),
}


def read_script(
    names: Sequence[str],
    arguments: tuple[str, ...],
    *,
    expect: str,
    expect_status: str,
    seconds: str,
    with_: Sequence[str] | None,
) -> Script:
    """Read the script. Raises UserError if there is not exactly one that can be read, and for invalid options."""
    from crossjit.host import wheels
    from crossjit.triage.user_script import Script

    if len(names) > 1:
        raise UserError("only one script can be given", hint="write its arguments after --")
    path = Path(names[0])
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", hint="give the path of a Python file") from error
    if len(content) > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST >> 20} MiB", hint="give the path of a Python file")
    return Script(
        name=path.name,
        content=content,
        arguments=arguments,
        status=number("expect-status", expect_status, at_least=0) if expect_status else None,
        text=expect,
        seconds=number("seconds", seconds, at_least=1) if seconds else Script.seconds,
        requirements=wheels.parse(with_ or ()),
    )


def require_free(path: Path, *, force: bool) -> None:
    """Raise UserError if a file cannot be written, or exists and may not be replaced."""
    if path.exists() and not (force and path.is_file()):
        raise UserError(f"{path} exists", hint="--force replaces a file; -o names a different one")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}", hint="give -o a file in a folder that exists")
