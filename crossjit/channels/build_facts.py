"""How a CPython was built, as it says itself (`validate/build_facts.py`). Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.probe import JitSwitches
from crossjit.channels.reading import Count, Line, Text, Word
from crossjit.config import documents


@documents.table
class BuildFacts:
    """The facts; `macros` are `_Py_JIT` and `_Py_TIER2` as the compiler got them, `jit` is None without `sys._jit`."""

    implementation: Word
    version: Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+\.[0-9A-Za-z+.]+$", max_length=50)]
    configure: Text
    compiler: Line
    debug: bool
    free_threaded: bool
    macros: Annotated[dict[Word, Count], Field(max_length=2)]
    jit: JitSwitches | None = None
