"""Unexpected exceptions: their messages, and files with their tracebacks for a bug report."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path

import crossjit
from crossjit import settings
from crossjit.errors import CrossjitError, InfrastructureError, ProductError
from crossjit.model import CellResult, Verdict
from crossjit.util import files


def as_crossjit_error(error: Exception, home: Path) -> CrossjitError:
    """Turn any exception into an error for users.

    Disk errors are described. The traceback of any other exception is written into the state folder `home`, or the
    folder for temporary files, or is in the details if neither works.
    """
    if isinstance(error, CrossjitError):
        return error
    if isinstance(error, OSError):
        folder = Path(os.fsdecode(error.filename)).parent if isinstance(error.filename, (str, bytes)) else home
        try:
            with files.translate_os_errors(InfrastructureError, "the disk refused", folder):
                raise error
        except InfrastructureError as refused:
            return refused
        except OSError:
            pass
    path = _write(error, (home / "crashes", Path(tempfile.gettempdir())))
    return InfrastructureError(
        f"this is a bug in crossjit: {type(error).__name__}: {error}",
        hint=f"please report it with {path}; CROSSJIT_DEBUG=1 shows it here" if path else "please report it",
        details=() if path else tuple(_text(error).splitlines()),
    )


def result_of(home: Path, result: CellResult, error: Exception) -> CellResult:
    """Return a cell's result with an error's verdict and reasons."""
    shown = as_crossjit_error(error, home)
    verdict = Verdict.FAIL if isinstance(shown, ProductError) else Verdict.INFRA
    reasons = (shown.message, *([f"hint: {shown.hint}"] if shown.hint else []))
    traced = "".join(traceback.format_exception(error)).splitlines() if settings.wants_traceback() else ()
    return replace(result, verdict=verdict, reasons=reasons, details=(*shown.details, *traced))


def _write(error: Exception, folders: tuple[Path, ...]) -> Path | None:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{os.urandom(2).hex()}.txt"
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(_text(error), encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return folder / name
    return None


def _text(error: Exception) -> str:
    about = f"crossjit {crossjit.__version__}, Python {platform.python_version()}, {platform.platform()}"
    return f"{about}\n{shlex.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
