"""Listing the tests of a CPython in its target."""

from __future__ import annotations

from crossjit.channels import MalformedError, TestList, TestListReader
from crossjit.engine.base import Engine
from crossjit.errors import ProductError
from crossjit.progress import Progress
from crossjit.validation.probe import EMULATED, ran_out
from crossjit.validation.target import MARGIN, PYTHON, SCRIPTS, Target, memory_for, target_limits

SECONDS = 600  # native: it takes 4, with sanitizers 20


def list_tests(engine: Engine, target: Target, progress: Progress) -> TestList:
    """Let regrtest list the tests of a target's CPython, in a new container.

    Raises ProductError if there is no complete list, EngineError and its kin for failures of the engine.
    """
    seconds = SECONDS * (EMULATED if target.emulation else 1)
    limits = target_limits(memory_for(engine.facts(), jobs=1), seconds + MARGIN)
    reader = TestListReader()
    with progress.step("list tests", str(target.cell)) as step:
        step.update(detail="installing")
        with engine.container(target.options(limits)) as container:
            target.install(container)
            step.update(detail="running")

            def take(line: str) -> None:
                reader.take(line)
                step.update(detail=f"{reader.count:,} tests")

            argv = (PYTHON, f"{SCRIPTS}/list_tests.py")
            completed = container.run(argv, env={"PYTHON_JIT": "0"}, on_line=take, timeout=seconds)
        if ran_out(completed, seconds):
            raise ProductError(f"it did not list its tests within {seconds:,} s")
        if completed.returncode:
            raise ProductError(f"it cannot list its tests: {reader.said[:1000] or completed.how}")
        try:
            return reader.whole()
        except MalformedError as error:
            raise ProductError(f"its list of tests cannot be read: {error}") from error
