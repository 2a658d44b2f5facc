"""What uops do, as far as their build tells: which are guards, check types, or change reference counts. Pure.

Their names and flags are those of `Include/internal/pycore_uop_metadata.h`, and what each does is in
`Python/executor_cases.c.h`: both are generated from `Python/bytecodes.c`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from enum import StrEnum

from crossjit.errors import InfrastructureError

METADATA = "pycore_uop_metadata.h"  # in a build's internal headers
CASES = "Python/executor_cases.c.h"  # in its source

_FLAGS = re.compile(r"^    \[(_\w+)\] = ((?:HAS_\w+_FLAG(?: \| )?)+|0),$", re.MULTILINE)
_CASE = re.compile(r"^        case (_\w+?)(?:_r\d\d)?: \{$", re.MULTILINE)
_ASSERTION = re.compile(r"^\s*assert\(.*?\);$", re.MULTILINE | re.DOTALL)

_LEAVES = re.compile(r"\bHAS_(?:EXIT|DEOPT)_FLAG\b")
_TYPE = re.compile(r"\bPy_TYPE\(|\bPyStackRef_TYPE\(|\btp_version_tag\b|\w+_Check(?:Exact)?(?:AndCompact)?\(")
_REFERENCE = re.compile(
    r"\b_?Py_X?(?:INCREF|DECREF|NewRef|SETREF|CLEAR)\w*\(|\bPyStackRef_(?:X?CLOSE|CLEAR|DUP|FromPyObjectNew)\w*\("
    r"|\b_?Py_DECREF_\w+\(|\bDECREF_INPUTS\("
)


class Operation(StrEnum):
    """What uops are counted by. A guard may leave the trace; one that checks a type is a type check, too."""

    GUARDS = "guards"
    TYPE_CHECKS = "type checks"
    REFERENCE_COUNTS = "reference-count operations"


@dataclass(frozen=True)
class Operations:
    """The names of a build's uops by operation, and of all."""

    known: frozenset[str]
    of: dict[Operation, frozenset[str]]


def read(metadata: str, cases: str) -> Operations:
    """Read what the uops do. Raises InfrastructureError for an unknown form."""
    flags = dict(_FLAGS.findall(metadata))
    bodies = _bodies(cases)
    if not flags or not bodies:
        raise InfrastructureError(
            f"{METADATA if not flags else CASES} has an unknown form: it names no uops",
            hint="CPython's cases generator has changed: crossjit/effect/operations.py must follow",
        )
    guards = {name for name, value in flags.items() if _LEAVES.search(value)}
    return Operations(
        frozenset(bodies),
        {
            Operation.GUARDS: frozenset(guards),
            Operation.TYPE_CHECKS: frozenset(guards & _matching(bodies, _TYPE)),
            Operation.REFERENCE_COUNTS: frozenset(_matching(bodies, _REFERENCE)),
        },
    )


def _bodies(cases: str) -> dict[str, str]:
    """Return the C code of each uop: that of all its variants, without assertions."""
    found: dict[str, list[str]] = defaultdict(list)
    begins = list(_CASE.finditer(cases))
    for number, begin in enumerate(begins, 1):
        end = begins[number].start() if number < len(begins) else len(cases)
        found[begin[1]].append(cases[begin.end() : end])
    return {name: _ASSERTION.sub("", "".join(texts)) for name, texts in found.items()}


def _matching(bodies: dict[str, str], pattern: re.Pattern[str]) -> set[str]:
    return {name for name, body in bodies.items() if pattern.search(body)}
