"""Answers to one question, such as a bisection's: a file in the run's folder for each form that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossjit.runs.model import run_errors
from crossjit.util import files

# and the names of their files
QUESTIONS = BISECT, HISTORY, EFFECT, COMPILERS, STENCILS = "bisect", "history", "effect", "compilers", "stencils"
FORMS = {"json": ".json", "markdown": ".md", "html": ".html", "text": ".txt"}


def file_of(question: str, form: str) -> str:
    """Return the name of an answer's file.

    >>> file_of(HISTORY, "text")
    'history.txt'
    """
    return question + FORMS[form]


def write(folder: Path, question: str, texts: Mapping[str, str]) -> None:
    """Write an answer into a run's folder in these forms. Raises InfrastructureError."""
    with run_errors(folder):
        for form, text in texts.items():
            files.replace(folder / file_of(question, form), text.encode("utf-8", "replace"))


def recorded(folder: Path, form: str, questions: Sequence[str] = QUESTIONS) -> bytes | None:
    """Return the answer in a run's folder; None if there is none, or not in this form."""
    if form not in FORMS:
        return None
    paths = (folder / file_of(question, form) for question in questions)
    return next((path.read_bytes() for path in paths if path.is_file()), None)
