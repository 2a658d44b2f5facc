"""`ci init` and `ci publish`: crossjit in GitHub Actions."""

from __future__ import annotations

import os
from pathlib import Path

from invoke.context import Context

from crossjit import PROJECT
from crossjit.errors import UserError
from crossjit.tasks.framework import command, show, show_bytes
from crossjit.util.paths import full_path

WORKFLOW = Path(".github/workflows/crossjit.yml")
EXAMPLE = PROJECT / "docs" / "crossjit.yml"


@command(
    help={
        "folder": "a clone of CPython or of a fork; can be given without --folder; required",
        "force": "replace the workflow if it differs; default: off",
    }
)
def init(context: Context, folder: str, force: bool = False) -> None:
    """Write the workflow that runs crossjit for each pull request into a repository: `ci init FOLDER`."""
    from crossjit.util import files

    root = full_path(folder)
    if not (root / ".git").exists():
        raise UserError(f"{root} is not a git repository", hint="give the folder of a clone of CPython")
    path, content = root / WORKFLOW, EXAMPLE.read_bytes()
    if path.is_file() and path.read_bytes() == content:
        show(f"{path} is current")
        return
    if path.exists() and not force:
        raise UserError(f"{path} exists and differs", hint="--force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}", hint="give a folder that can be written") from error
    show(f"written: {path}\nto use it: git add {WORKFLOW}, commit, push, and make the check `jit / gate` required")


@command(
    help={
        "run": "a run's id, the beginning of its id, or last; default: last",
        "folder": "a folder for report.html and junit.xml; required",
    }
)
def publish(context: Context, folder: str, run: str = "last") -> None:
    """Publish a run in a job of GitHub Actions.

    Writes report.html and junit.xml, adds to the job's summary, sets the step's outputs `run`, `verdict` and `report`,
    and prints an annotation for each failed test.
    """
    from crossjit import settings
    from crossjit.report import html, junit, markdown, workflow_commands
    from crossjit.runs import history
    from crossjit.runs.model import worst

    loaded = history.load(settings.load(), run)
    results = loaded.results()
    target = full_path(folder)
    reports = {
        "report.html": html.page(loaded, results).encode(),
        "junit.xml": junit.document(loaded, results),
    }
    outputs = {
        "run": loaded.id,
        "verdict": worst(result.verdict for result in results).value if results else "infra",
        "report": str(target / "report.html"),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in reports.items():
            (target / name).write_bytes(content)
        _append("GITHUB_STEP_SUMMARY", markdown.summary(loaded, results))
        _append("GITHUB_OUTPUT", "".join(f"{name}={value}\n" for name, value in outputs.items()))
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename}: {error.strerror}", hint="give a folder that can be written"
        ) from error
    show_bytes(workflow_commands.commands(results).encode())


def _append(variable: str, text: str) -> None:
    """Append to the file that GitHub's runner names in a variable."""
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
