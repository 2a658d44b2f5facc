"""Runs the small programs of `programs/` as a script for pyperf, one benchmark each: its functions without a `_`.

Each shows the JIT one kind of operation, so that they execute all kinds of uops together. `effect` compares
what becomes of them.
"""

import importlib
import pathlib

import pyperf

runner = pyperf.Runner()
folder = pathlib.Path(__file__).parent / "programs"
for path in sorted(folder.glob("*.py")):
    module = importlib.import_module(f"{folder.name}.{path.stem}")
    for name, program in vars(module).items():
        if getattr(program, "__module__", None) == module.__name__ and not name.startswith("_"):
            runner.bench_func(f"{path.stem}.{name}", program)
