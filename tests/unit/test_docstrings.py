"""The examples in docstrings give what they show."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("crossjit", "validate", "gdb", "toolchain", "benchmarks")
WITH_EXAMPLES = [
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=str)
def test_examples(path: Path) -> None:
    failed, tried = doctest.testmod(module_of(path), optionflags=doctest.ELLIPSIS)
    assert tried
    assert not failed


def module_of(path: Path) -> ModuleType:
    """Import a module of a package by its name, and a script, which stands alone, by its file."""
    if (ROOT / path).with_name("__init__.py").exists():
        return importlib.import_module(".".join(path.with_suffix("").parts))
    spec = importlib.util.spec_from_file_location(path.stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
