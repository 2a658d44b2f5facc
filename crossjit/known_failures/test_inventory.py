"""The tests of one CPython build, made from its own list.

A module without a listed test was skipped, could not be imported, or has no tests. Such a module is *open*: it may have
any test. So a name that an inventory cannot have is not a test of that build.
"""

from __future__ import annotations

import bisect
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from crossjit.channels import TestList
from crossjit.known_failures.entries import literal_head, may_begin

_CLASS_FIXTURES = ("setUpClass", "tearDownClass")
_MODULE_FIXTURES = ("setUpModule", "tearDownModule")


@dataclass(frozen=True)
class Inventory:
    """The tests of one CPython.

    `names` are full names (`test.test_os.test_posix.PosixTester.test_x`), with those of modules and of `setUpClass` and
    its like, which fail under such names; `open` are beginnings of names of which nothing more is known.
    """

    names: frozenset[str]
    open: frozenset[str] = frozenset()

    def may_have(self, pattern: str) -> bool:
        """Tell whether there is, or may be, a test whose name matches."""
        return any(may_begin(pattern, beginning) for beginning in self.open) or bool(self.matching(pattern))

    def matching(self, pattern: str) -> tuple[str, ...]:
        """Return the names that match, sorted."""
        return matching(self._sorted, pattern)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)


def matching(names: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Return of sorted names those that match a pattern."""
    head = literal_head(pattern)
    start = bisect.bisect_left(names, head)
    end = bisect.bisect_left(names, head + "\U0010ffff", start)
    return tuple(name for name in names[start:end] if fnmatch.fnmatchcase(name, pattern))


def family(name: str) -> str:
    """Return the module or package right below `test` that a name or pattern is about: `test.test_os`."""
    return ".".join(literal_head(name).split(".")[:2])


def of_list(listed: TestList) -> Inventory:
    """Make an inventory from a list of tests."""
    classes = {name.rpartition(".")[0] for name in listed.tests}
    within = {beginning for name in classes for beginning in _beginnings(name)}
    names = {
        *listed.tests,
        *listed.modules,
        *(f"{each}.{fixture}" for each in classes for fixture in _CLASS_FIXTURES),
        *(f"{each}.{fixture}" for each in listed.modules for fixture in _MODULE_FIXTURES),
    }
    return Inventory(frozenset(names), frozenset(f"{name}." for name in listed.modules if name not in within))


def _beginnings(name: str) -> list[str]:
    """Return a dotted name and its parents: `a.b.c`, `a.b`, `a`."""
    parts = name.split(".")
    return [".".join(parts[:number]) for number in range(len(parts), 0, -1)]
