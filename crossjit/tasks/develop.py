"""`test` and `lint`: for developers of crossjit, in a clone with the `dev` extra."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from invoke.context import Context

from crossjit import PROJECT
from crossjit.errors import ExitCode, InfrastructureError, UserError
from crossjit.tasks.framework import command, note, run_child, words_after_dashes
from crossjit.tasks.options import describe, number, words

SUITES = ("unit", "contract", "e2e")

# Our exit codes by pytest's exit status (https://docs.pytest.org/en/stable/reference/exit-codes.html); a run without
# tests proves nothing.
_PYTEST = {
    0: ExitCode.PASS,
    1: ExitCode.PRODUCT,
    2: ExitCode.INTERRUPTED,
    3: ExitCode.INFRASTRUCTURE,
    4: ExitCode.USER,
    5: ExitCode.VACUOUS,
}

LINT = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("pytest", "--quiet", "tests/unit/test_imports.py"),
)
LINT_FIX = (("ruff", "check", "--fix"), ("ruff", "format"), *LINT[2:])
ZIZMOR = ("zizmor", "--offline", "--no-progress", "--quiet", ".github", "action.yml")
ACTIONLINT = ("actionlint",)  # its package fetches a program from GitHub when it is installed, so it is not required
DOCS = ("mkdocs", "build", "--strict")  # fails for broken links


@command(
    iterable=["path"],
    rest="path",
    words=True,
    help=describe(
        path="test files or folders; can be given without --path; default: all of tests",
        unit="only tests/unit, which need no engine; default: off",
        contract="only tests/contract, the fake engine and the real one; default: off",
        e2e="only tests/e2e, which build and validate for real; default: off",
        slow="also the tests that take many minutes; default: off",
        keyword="pytest's -k: only tests whose names match; default: all",
        jobs="tests at a time (pytest-xdist); default: 2: they wait for the engine more than they compute",
    ),
)
def test(
    context: Context,
    path: list[str] | None = None,
    unit: bool = False,
    contract: bool = False,
    e2e: bool = False,
    slow: bool = False,
    keyword: str = "",
    jobs: str = "2",
) -> ExitCode:
    """Run crossjit's own tests: all that this machine can run.

    Arguments after ` -- ` are passed to pytest. Tests that need an engine are skipped without one; with CI=true they
    fail.
    """
    chosen = [f"tests/{name}" for name, selected in zip(SUITES, (unit, contract, e2e), strict=True) if selected]
    arguments = [*chosen, *words(path)] or ["tests"]
    if slow:
        arguments.append("--slow")
    if keyword:
        arguments += ["-k", keyword]
    parallel = number("jobs", jobs, at_least=1)
    if parallel > 1:
        arguments += ["-n", str(parallel)]
    status = _run("pytest", *arguments, *words_after_dashes(context))
    if status in _PYTEST:
        return _PYTEST[status]
    raise InfrastructureError(f"pytest ended with {status}", hint="its output above tells why")


@command(help={"fix": "let ruff fix what it can; default: only look"})
def lint(context: Context, fix: bool = False) -> ExitCode:
    """Check style, types, the import rule, and the links of the documentation.

    Runs ruff, mypy, tests/unit/test_imports.py, MkDocs and zizmor, and actionlint if it is installed: all of them,
    whatever fails.
    """
    with tempfile.TemporaryDirectory(prefix="crossjit-docs-") as site:
        steps = (*(LINT_FIX if fix else LINT), (*DOCS, "--site-dir", site))
        failed = [step for step in steps if _run(*step) != 0]
    failed += [step for step in (ZIZMOR, ACTIONLINT) if _run_program(*step, required=step is ZIZMOR) != 0]
    for step in failed:
        note(f"failed: {shlex.join(step)}")
    return ExitCode.PRODUCT if failed else ExitCode.PASS


def _run_program(name: str, *arguments: str, required: bool) -> int:
    """Run a development tool that is a program. Raises UserError if one that is required is missing."""
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which(name, path=folders)
    if program is None and required:
        raise UserError(f"{name} is not installed", hint="use ./inv, or pip install -e '.[dev]' in the clone")
    if program is None:
        note(f"{name} is not installed, so it does not run")
        return 0
    note(f"$ {shlex.join([name, *arguments])}")
    return run_child([program, *arguments], cwd=PROJECT)


def _run(module: str, *arguments: str) -> int:
    """Run a development tool of this Python in the clone. Raises UserError if it is missing."""
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"{module} is not installed for {sys.executable}", hint="use ./inv, or pip install -e '.[dev]' in the clone"
        )
    note(f"$ {shlex.join([module, *arguments])}")
    return run_child([sys.executable, "-m", module, *arguments], cwd=PROJECT)
