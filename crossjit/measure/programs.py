"""The small programs of `meter/programs/`: each shows the JIT one kind of operation."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from crossjit.images.spec import METER
from crossjit.measure.benchmarks import Benchmark, Origin

FOLDER = METER / "programs"
SCRIPT = "small_programs"
CALLS = 3  # side exits are compiled in the second one

# They do little, and the JIT shall compile them nevertheless. 3.15.0a4 is the first version that knows these variables
# (`init_interpreter` in Python/pystate.c).
ENVIRONMENT = {
    "PYTHON_JIT_JUMP_BACKWARD_INITIAL_VALUE": "63",
    "PYTHON_JIT_RESUME_INITIAL_VALUE": "127",
    "PYTHON_JIT_SIDE_EXIT_INITIAL_VALUE": "63",
}


def benchmark(folder: Path = FOLDER) -> Benchmark:
    """Return what runs all programs in one process, with a result for each."""
    return Benchmark("programs", Origin.METER, SCRIPT, tuple(_names(folder)), calls=CALLS, environment=ENVIRONMENT)


def _names(folder: Path) -> Iterator[str]:
    """Yield the programs' names in the order in which `meter/small_programs.py` runs them."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield f"{path.stem}.{node.name}"
