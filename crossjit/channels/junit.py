"""Regrtest's JUnit XML. It is untrusted: the tested program may have written it. Pure.

`RegressionTestResult` in Lib/test/libregrtest/testresult.py writes it: `testsuite` elements with counts, which contain
`testcase` elements, which contain the test's outcome.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from crossjit.channels import MalformedError
from crossjit.util.budget import BUDGET

DEPTH = 10  # nested elements
ELEMENTS = 20  # for each test, on average
ENDS = 20  # elements about the outcome of one test
NAME = 4_000  # characters of a test's name with a subtest's parameters
SAID = ("skipped", "failure", "error", "outcome")  # `outcome`: an unexpected success

_SECONDS = re.compile(r"\d{1,8}(\.\d{1,9})?")
_COUNT = re.compile(r"\d{1,8}")


@dataclass(frozen=True)
class Case:
    """One test. `said` are the elements about its outcome, each with its text."""

    name: str
    seconds: float
    said: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """All cases, and the number of errors and failures in the report's counts, which may have no case."""

    cases: tuple[Case, ...]
    bad: int


def read(content: bytes) -> Report:
    """Parse a report. Raises MalformedError for one that is damaged, defines entities, or exceeds a limit."""
    target = _Target()
    parser = ElementTree.XMLParser(target=target)  # noqa: S314 - the target refuses document types, which define entities
    try:
        parser.feed(content)
        parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an unknown encoding
        raise MalformedError(str(error)) from error
    if target.suites == 0:
        raise MalformedError("it has no test suite")
    return Report(tuple(target.cases), target.bad)


class _Target:
    """Handles the elements as the parser reads them, without building a tree."""

    def __init__(self) -> None:
        self.cases: list[Case] = []
        self.bad = 0
        self.suites = 0
        self._elements = 0
        self._path: list[str] = []
        self._name = ""
        self._seconds = 0.0
        self._said: list[tuple[str, str]] = []
        self._message = ""
        self._text: list[str] = []

    def doctype(self, *about: object) -> None:
        """Refuse a document type, which could define entities; regrtest does not write one."""
        raise MalformedError("it declares a document type")

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        """Handle the start of an element."""
        self._elements += 1
        self._path.append(tag)
        if len(self._path) > DEPTH or self._elements > BUDGET.tests * ELEMENTS:
            raise MalformedError("it has too many elements")
        match self._path:
            case [*_, "testsuite"]:
                self.suites += 1
                self.bad += sum(_count(attributes.get(name)) for name in ("errors", "failures"))
            case ["testsuites"]:
                self.suites += 1
            case [*_, "testcase"]:
                self._name, self._seconds, self._said = attributes.get("name", ""), _seconds(attributes.get("time")), []
                if len(self._name) > NAME or len(self.cases) >= BUDGET.tests:
                    raise MalformedError("it has too many tests, or a name that is too long")
            case [*_, "testcase", _]:
                self._message, self._text = attributes.get("message", ""), []

    def data(self, text: str) -> None:
        """Handle text of an element."""
        if self._path[-2:-1] == ["testcase"]:
            self._text.append(text)

    def end(self, tag: str) -> None:
        """Handle the end of an element."""
        match self._path:
            case [*_, "testcase", said] if said in SAID:
                self._said.append((said, "".join(self._text) or self._message))
                if len(self._said) > ENDS:
                    raise MalformedError("it has too much text about one test")
            case [*_, "testcase"] if self._name:
                self.cases.append(Case(self._name, self._seconds, tuple(self._said)))
        self._path.pop()

    def close(self) -> None:
        """Do nothing at the document's end."""


def _count(text: str | None) -> int:
    if text and not _COUNT.fullmatch(text):
        raise MalformedError(f"{text[:50]!r} is not a number of tests")
    return int(text) if text else 0


def _seconds(text: str | None) -> float:
    if text and not _SECONDS.fullmatch(text):
        raise MalformedError(f"{text[:50]!r} is not a number of seconds")
    return float(text) if text else 0.0
