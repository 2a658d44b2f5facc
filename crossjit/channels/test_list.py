"""The tests that a CPython lists (`validate/list_tests.py`). Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import MalformedError, read
from crossjit.config import documents
from crossjit.util.budget import BUDGET

MODULES = 10_000
TestName = Annotated[str, Field(min_length=1, max_length=4_000)]  # as long as in a report


@documents.table
class TestList:
    """The modules of a test package and the tests that regrtest lists; one line has a part of them."""

    __test__ = False  # not a test class, whatever pytest makes of its name

    modules: Annotated[tuple[TestName, ...], Field(max_length=MODULES)] = ()
    tests: Annotated[tuple[TestName, ...], Field(max_length=BUDGET.tests)] = ()


class TestListReader:
    """Reads a list line by line. `said` is the last line that is not JSON, `problem` what is wrong with the list."""

    __test__ = False  # nor is it

    def __init__(self) -> None:
        self.problem: MalformedError | None = None
        self.said = ""
        self._modules: list[str] = []
        self._tests: list[str] = []
        self._size = 0

    @property
    def count(self) -> int:
        """The number of tests so far."""
        return len(self._tests)

    def take(self, line: str) -> None:
        """Take one line."""
        if self.problem is not None or not line.startswith("{"):
            self.said = line or self.said
            return
        try:
            part = read(TestList, line)
        except MalformedError as error:
            self.problem = error
            return
        self._modules += part.modules
        self._tests += part.tests
        self._size += sum(map(len, (*part.modules, *part.tests)))
        if self._size > BUDGET.messages or len(self._tests) > BUDGET.tests or len(self._modules) > MODULES:
            self.problem = MalformedError("it names too many tests")

    def whole(self) -> TestList:
        """Return the whole list, sorted, without duplicates. Raises MalformedError."""
        if self.problem is not None:
            raise self.problem
        if not self._tests:
            raise MalformedError("it names no tests")
        return TestList(tuple(sorted(set(self._modules))), tuple(sorted(set(self._tests))))
