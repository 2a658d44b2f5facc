"""The command lines that repeat parts of a run: a cell, a shell in it, a test, its triage."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from crossjit.config import recipes
from crossjit.model import Cell, ModuleRun, Outcome, TestResult
from crossjit.runs.model import Run

_SETTING = re.compile(r"[A-Z][A-Z_]*=")

_TASKS = ("build", "validate", "shell")  # tasks with options for cells
# Options that choose cells, or resume a run; a line for one cell has its own.
_CHOOSING = ("--arch", "--recipe", "--variant", "--resume", "--json")
_PORTION = ("--suite", "--tests", "--shard", "--rebuild")
_HOW_BUILT = ("--strategy", "--source", "--cpu")

Option = tuple[str, ...]  # its name, and its value if it has one


@dataclass(frozen=True)
class _Line:
    """A parsed command line; `task` is empty if it could not be parsed."""

    settings: tuple[str, ...] = ()
    program: str = ""
    task: str = ""
    options: tuple[Option, ...] = ()

    def recipe(self, cell: Cell) -> str:
        """Return the cell's recipe as it was given, maybe as a path."""
        named = [word for option in self.options if option[0] == "--recipe" for word in "".join(option[1:]).split(",")]
        return next((word for word in named if recipes.name_of(word) == cell.recipe), cell.recipe)

    def selectors(self, cell: Cell) -> tuple[str, ...]:
        """Return the options that choose one cell."""
        return "--recipe", self.recipe(cell), "--arch", cell.arch.value, "--variant", cell.variant

    def words(self, *names: str, without: bool = False) -> tuple[str, ...]:
        """Return the options of these names as words, or with `without` all others."""
        return tuple(word for option in self.options if (option[0] in names) is not without for word in option)

    def written(self, *words: str) -> str:
        """Return a command line of the same program, with the same settings."""
        return " ".join([*self.settings, shlex.join([self.program, *words])])


def cell_line(run: Run, cell: Cell) -> str:
    """Return the command line that repeats one cell of a run, with the run's other options and settings."""
    line = _read(run.reproduce)
    if not line.task:
        return run.reproduce
    return line.written(line.task, *line.selectors(cell), *line.words(*_CHOOSING, without=True))


def shell_line(run: Run, cell: Cell) -> str:
    """Return the command line that opens a shell where the cell's tests ran."""
    line = _read(run.reproduce)
    return line.written("shell", *line.selectors(cell), *line.words(*_HOW_BUILT)) if line.task else ""


def lines_for(run: Run, cell: Cell, test: TestResult, module: ModuleRun | None) -> tuple[str, ...]:
    """Return the command lines that run one test again in its suite, triage it, and debug its crash."""
    line, pattern = _read(run.reproduce), _pattern(test.name, module)
    if not line.task or not pattern:
        return ()
    options = line.words(*_CHOOSING, *_PORTION, without=True)
    again = line.written("validate", *line.selectors(cell), *options, "--suite", test.suite, "--tests", pattern)
    named = f"{line.recipe(cell)}/{cell.arch}/{cell.variant}"
    cell_of = ("--cell", named)
    lines = (again, line.written("triage", *cell_of, "--tests", pattern, *line.words(*_HOW_BUILT)))
    if test.outcome not in (Outcome.CRASHED, Outcome.TIMED_OUT) or not test.name.startswith("test."):
        return lines
    return (*lines, line.written("debug", *cell_of, "--test", test.name, *line.words(*_HOW_BUILT)))


def _pattern(name: str, module: ModuleRun | None) -> str:
    """Return a test's pattern for `--tests`; for a fixture that of its whole class or module."""
    bare = name.partition(" [")[0]
    if module is None:
        return ""
    if not bare.startswith(f"test.{module.name}."):
        return module.name  # the module itself, or a script of ours
    above, _, last = bare.rpartition(".")
    if last in ("setUpClass", "tearDownClass"):
        return f"{above}.*"
    return module.name if last in ("setUpModule", "tearDownModule") else bare


@lru_cache(maxsize=8)
def _read(line: str) -> _Line:
    try:
        words = shlex.split(line)
    except ValueError:
        return _Line()
    first = next((number for number, word in enumerate(words) if not _SETTING.match(word)), len(words))
    program, task, *arguments = (*words[first:], "", "")
    if task not in _TASKS:
        return _Line()
    settings = (word.partition("=") for word in words[:first])
    return _Line(
        settings=tuple(f"{name}={shlex.quote(value)}" for name, _, value in settings),
        program=program,
        task=task,
        options=tuple(_options([word for word in arguments if word])),
    )


def _options(words: list[str]) -> Iterator[Option]:
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--":
            yield (word,)
        elif equals:
            yield name, value
        elif queue and not queue[0].startswith("--"):
            yield name, queue.pop(0)
        else:
            yield (name,)
