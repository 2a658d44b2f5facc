"""Adopting a Python that was built elsewhere: asking it how it was built, and byte-compiling its library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import crossjit
from crossjit import channels
from crossjit.channels import BuildFacts, MalformedError
from crossjit.engine.base import Container, Engine, EngineFacts
from crossjit.errors import InfrastructureError, UserError
from crossjit.images import Role, loading
from crossjit.progress import Step
from crossjit.util.tar import packed
from crossjit.validation import probe
from crossjit.validation.target import HOME, PYTHON, SCRIPTS, Opener, Target, find_libraries, install_scripts

TREE = f"{HOME}/tree"  # a copy of the tree, which gets the .pyc files
SHOWN = 10  # lines of the output
COMPILER = "compile_library.py"
COMPILE_SECONDS = 600  # native: it takes 15

_COPY = ("cp", "--recursive", "--no-dereference", "--preserve=mode,links", f"{TREE}/.", "/")


@contextlib.contextmanager
def installed(engine: Engine, facts: EngineFacts, target: Target, tree: Opener) -> Iterator[Container]:
    """Start a container of the target with a tree installed in it; `tree` opens a tar of a folder `tree`."""
    with probe.started(engine, facts, target) as container:
        with tree() as tar:
            container.put(tar, HOME)
        completed = container.run(_COPY, user="0:0")
        if completed.returncode:
            raise InfrastructureError(f"the Python cannot be installed in the target: {completed.how}")
        find_libraries(container, target.variant)
        install_scripts(container)
        yield container


def ask(container: Container, target: Target) -> tuple[BuildFacts, dict[str, object]]:
    """Return an installed Python's facts about its build, parsed and as JSON values.

    Raises UserError if it does not run in the target or is not CPython, InfrastructureError for a library that the
    target lacks, and EngineErrors.
    """
    lines: list[str] = []
    limit = probe.probe_seconds(target.emulation)
    completed = container.run((PYTHON, f"{SCRIPTS}/build_facts.py"), on_line=lines.append, timeout=limit)
    if completed.returncode and (missing := loading.missing_library(lines, Role.TARGET, target.packages)):
        raise missing
    problem = completed.how
    try:
        if completed.returncode == 0:
            found = channels.read(BuildFacts, lines[-1] if lines else "")
            if found.implementation == "cpython":
                return found, channels.value_of(lines[-1])
            problem = f"it is {found.implementation}"
    except MalformedError as error:
        problem = f"its facts cannot be read: {error}"
    raise UserError(
        f"{target.cell}: this Python does not run as a CPython: {problem}",
        hint=f"give a CPython for {target.cell.arch} that runs on Debian",
        details=tuple(lines[-SHOWN:]),
    )


def byte_compile(container: Container, target: Target, prefix: str, jobs: int, step: Step) -> None:
    """Write the .pyc files of the library below `prefix` into the copy of the tree. Raises InfrastructureError.

    Without them, each process of a suite would compile what it imports.
    """
    script = crossjit.PROJECT / "toolchain" / COMPILER
    container.put(packed({f"{SCRIPTS}/{COMPILER}": script.read_bytes()}), "/")
    limit = COMPILE_SECONDS * (probe.EMULATED if target.emulation else 1)
    argv = (PYTHON, f"{SCRIPTS}/{COMPILER}", "--root", TREE, "--prefix", prefix, "--jobs", str(jobs))
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        step.line(line)

    completed = container.run(argv, env={"PYTHON_JIT": "0"}, on_line=on_line, timeout=limit)
    if completed.returncode:
        raise InfrastructureError(
            f"{target.cell}: its library cannot be byte-compiled: {completed.how}",
            hint="its own interpreter failed to do it; the last lines of its output are above",
            details=tuple(lines[-SHOWN:]),
        )
