"""The fewest tests of some modules that still fail together, by CPython's own `test.bisect_cmd`.

For a module that fails only after another: the tests of both are left out by halves until the failure is gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from crossjit.engine.base import Container
from crossjit.errors import InfrastructureError, Interrupted, UserError
from crossjit.model import Cell
from crossjit.pipeline.context import BuildContext
from crossjit.progress import Step
from crossjit.reduction.script import End
from crossjit.util.safe_files import first_file
from crossjit.util.text import pluralize
from crossjit.validation.target import HOME, MARGIN, PYTHON, Target, memory_for, target_limits

LEFT = f"{HOME}/left.txt"  # a test's full name on each line
ROUNDS = 1000  # of halving; the time is the limit
REGRTEST = (PYTHON, "-X", "faulthandler", "-m", "test")
_ITERATION = re.compile(r"\[\+\] Iteration (\d+)/\d+: run \d+ tests/(\d+)")
_NAME = re.compile(r"[\w.]+")


@dataclass(frozen=True)
class TestReduction:
    """The tests that fail together: how many there were, and those that are left."""

    __test__ = False  # pytest would collect it by its name

    cell: Cell
    modules: tuple[str, ...]
    before: int
    tests: tuple[str, ...]
    rounds: int
    end: End


def reduce(ctx: BuildContext, target: Target, modules: Sequence[str], *, minutes: int) -> TestReduction:
    """Leave out tests of modules, which run in this order in one process, for as long as they fail.

    Raises UserError for modules that pass, EngineErrors.
    """
    limits = target_limits(memory_for(ctx.facts, 1), 3 * minutes * 60 + 2 * MARGIN)
    with (
        ctx.progress.step("reduce", f"{target.cell}: {', '.join(modules)}") as step,
        ctx.engine.container(target.options(limits)) as container,
    ):
        step.update(detail="installing")
        target.install(container)
        every = _listed(container, modules)
        step.update(detail=f"running all {pluralize(len(every), 'test')}")
        if container.run((*REGRTEST, *modules), on_line=step.line, timeout=minutes * 60).returncode == 0:
            raise UserError(
                f"{', '.join(modules)} pass in {target.cell}", hint="give the cell, and the modules in their order"
            )
        listener = _Listener(step)
        try:
            container.run(
                (PYTHON, "-m", "test.bisect_cmd", "-n", "1", "-N", str(ROUNDS), "-o", LEFT, *modules),
                on_line=listener.take,
                timeout=minutes * 60,
            )
        except (Interrupted, KeyboardInterrupt):
            return TestReduction(
                target.cell, tuple(modules), len(every), _left(container, every), listener.rounds, End.INTERRUPTED
            )
        left = _left(container, every)
        step.update(detail=f"running {pluralize(len(left), 'test')} again")
        again = container.run((*REGRTEST, "--matchfile", LEFT, *modules), on_line=step.line, timeout=minutes * 60)
        if again.returncode == 0:
            raise InfrastructureError(
                "the tests that are left pass when they run again",
                hint="the failure is intermittent: run it again, or reduce a script that repeats it",
                details=left[:20],
            )
        end = End.SMALLEST if listener.completed else End.TIME
        return TestReduction(target.cell, tuple(modules), len(every), left, listener.rounds, end)


class _Listener:
    """Handles the lines of `test.bisect_cmd`, which has the tests' own output among them."""

    def __init__(self, step: Step) -> None:
        self.rounds = 0
        self.completed = False
        self._step = step

    def take(self, line: str) -> None:
        """Handle one line."""
        if match := _ITERATION.match(line):
            self.rounds = int(match[1])
            self._step.update(detail=f"{pluralize(int(match[2]), 'test')} left; round {self.rounds}")
        elif line.startswith(("Bisection completed", "Bisection failed")):
            self.completed = True
        else:
            self._step.line(line)


def _listed(container: Container, modules: Sequence[str]) -> tuple[str, ...]:
    """List the modules' tests. Raises UserError if there are none."""
    lines: list[str] = []
    done = container.run((PYTHON, "-m", "test", "--list-cases", *modules), on_line=lines.append, timeout=600)
    tests = tuple(line for line in lines if _NAME.fullmatch(line))
    if done.returncode or not tests:
        raise UserError(
            f"the tests of {', '.join(modules)} cannot be listed: {done.how}",
            hint="give names of modules, such as test_dict",
            details=tuple(lines[-10:]),
        )
    return tests


def _left(container: Container, every: Sequence[str]) -> tuple[str, ...]:
    """Read the tests that are left; all, if there is no list yet."""
    try:
        with container.get(LEFT) as tar:
            names = first_file(tar).decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return tuple(every)
    left = set(names)
    return tuple(name for name in every if name in left)
