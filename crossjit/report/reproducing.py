"""The lines that do again what a run did: a cell alone, a shell in it, one test there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from crossjit import recipes
from crossjit.model import Cell, ModuleRun, TestResult
from crossjit.runs import Run

_SETTING = re.compile(r"[A-Z][A-Z_]*=")

# Options of `validate` that choose cells, and one that goes on with a run: a line for one cell has its own, or none.
_CHOOSING = ("--arch", "--recipe", "--variant", "--resume")
_SHELL_TAKES = ("--strategy", "--source", "--cpu")


def cell_line(run: Run, cell: Cell) -> str:
    """Return the command line that does one cell of a run again, with the run's other options and settings."""
    settings, program, task, options = _parts(run.reproduce)
    if not task:
        return run.reproduce
    kept = [option for option in options if option[0] not in (*_CHOOSING, "--json")]
    return _line(settings, [program, task, *_selectors(cell, options), *(word for option in kept for word in option)])


def shell_line(run: Run, cell: Cell) -> str:
    """Return the command line that opens a shell where the cell's tests ran."""
    settings, program, task, options = _parts(run.reproduce)
    if not task:
        return ""
    kept = [option for option in options if option[0] in _SHELL_TAKES]
    return _line(
        settings, [program, "shell", *_selectors(cell, options), *(word for option in kept for word in option)]
    )


def command_for(result: TestResult, module: ModuleRun | None) -> str:
    """Return what runs one test in that shell, or nothing: a group with a label has an environment of its own."""
    if module is None or module.label or not module.name.rpartition(".")[2].startswith("test_"):
        return ""
    name = result.name.partition(" ")[0]
    above, _, last = name.rpartition(".")
    if last in ("setUpClass", "tearDownClass"):
        name = f"{above}.*"
    whole = name == f"test.{module.name}" or last in ("setUpModule", "tearDownModule")
    return shlex.join(["python3", "-m", "test", "-v", *([] if whole else ["-m", name]), module.name])


def _parts(line: str) -> tuple[list[str], str, str, list[tuple[str, ...]]]:
    """Split a line into settings, program, task and options, each with its value if it has one."""
    try:
        words = shlex.split(line)
    except ValueError:
        return [], "", "", []
    first = next((number for number, word in enumerate(words) if not _SETTING.match(word)), len(words))
    program, task = (*words[first:], "", "")[:2]
    return words[:first], program, task, list(_options(words[first + 2 :]))


def _options(words: list[str]) -> Iterator[tuple[str, ...]]:
    queue = list(words)
    while queue:
        word = queue.pop(0)
        name, equals, value = word.partition("=")
        if not word.startswith("--") or word == "--":
            yield (word,)
        elif equals:
            yield (name, value)
        elif queue and not queue[0].startswith("--"):
            yield (name, queue.pop(0))
        else:
            yield (name,)


def _selectors(cell: Cell, options: list[tuple[str, ...]]) -> list[str]:
    """Choose one cell; a recipe that was named by its file stays so."""
    named = [word for option in options if option[0] == "--recipe" for word in "".join(option[1:]).split(",")]
    recipe = next((word for word in named if recipes.name_of(word) == cell.recipe), cell.recipe)
    return ["--recipe", recipe, "--arch", cell.arch.value, "--variant", cell.variant]


def _line(settings: list[str], words: list[str]) -> str:
    named = (setting.partition("=") for setting in settings)
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, _, value in named), shlex.join(words)])
