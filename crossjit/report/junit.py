"""A run as JUnit XML, the format that GitHub's actions and GitLab read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from crossjit.model import CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report import diagnoses, output, reproduce
from crossjit.report.diagnoses import Diagnoses
from crossjit.report.failures import Modules
from crossjit.runs.model import Run
from crossjit.util.text import printable, shortened
from crossjit.validation import reason

MESSAGE = 300  # characters of an attribute

# JUnit's element for a cell's verdict, which is a test case of its own; without it a cell without tests, or whose pass
# proves nothing, would look passed.
_VERDICTS = {Verdict.FAIL: "failure", Verdict.VACUOUS: "failure", Verdict.INFRA: "error", Verdict.ABORTED: "error"}

_OUTCOMES = {
    Outcome.FAILED: "failure",
    Outcome.ERROR: "error",
    Outcome.TIMED_OUT: "error",
    Outcome.CRASHED: "error",
}


def document(run: Run, results: Sequence[CellResult]) -> bytes:
    """Return the XML: for each cell a suite with its verdict, and one for each of its suites.

    A known failure is skipped, with the reason, so that the document has failures only if the run has. `classname`
    starts with the cell's name, because readers treat tests of the same name as the same test.
    """
    root = ElementTree.Element("testsuites", {"name": f"crossjit {run.id}"})
    diagnosed = diagnoses.of(run, [result.cell for result in results])
    for result in results:
        root.append(_cell(run, result))
        for suite in result.suites:
            root.append(_suite(run, result, suite, diagnosed))
    _count(root, list(root.iter("testcase")), sum(suite.seconds for result in results for suite in result.suites))
    ElementTree.indent(root, " ")
    document = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True).decode()
    return f"{output.markup(document)}\n".encode()


def _cell(run: Run, result: CellResult) -> ElementTree.Element:
    element = _element("testsuite", name=str(result.cell), timestamp=_when(run))
    properties = ElementTree.SubElement(element, "properties")
    for name, value in (
        ("verdict", result.verdict.value),
        ("artifact", result.artifact),
        ("build key", result.build_key),
        ("strategy", result.strategy.value if result.strategy else None),
        ("engine", result.engine),
        ("reproduce", reproduce.cell_line(run, result.cell)),
    ):
        if value:
            properties.append(_element("property", name=name, value=value))
    case = _element("testcase", classname=str(result.cell), name="verdict", time="0")
    if (tag := _VERDICTS.get(result.verdict)) is not None:
        text = "\n".join((*result.reasons, *result.details))
        case.append(_said(tag, result.verdict.value, next(iter(result.reasons), result.verdict.value), text))
    element.append(case)
    _count(element, [case], sum(result.seconds.values()))
    return element


def _suite(run: Run, result: CellResult, suite: SuiteResult, diagnosed: Diagnoses) -> ElementTree.Element:
    element = _element("testsuite", name=f"{result.cell} {suite.suite}", timestamp=_when(run))
    if suite.caveats:
        properties = ElementTree.SubElement(element, "properties")
        properties.extend(_element("property", name="no evidence", value=caveat) for caveat in suite.caveats)
    modules = Modules(suite.modules)
    cases = [_case(run, result, test, modules, diagnosed) for test in suite.results]
    element.extend(cases)
    remarks = [*suite.problems, *suite.unproved, *suite.notes]
    if remarks:
        element.append(_text("system-out", "\n".join(remarks)))
    _count(element, cases, suite.seconds)
    return element


def _case(
    run: Run, result: CellResult, test: TestResult, modules: Modules, diagnosed: Diagnoses
) -> ElementTree.Element:
    bare, space, label = test.name.partition(" [")
    place, _, name = bare.rpartition(".")
    classname = " ".join(filter(None, (f"{result.cell}.{test.suite}", place)))
    element = _element("testcase", classname=classname, name=name + space + label, time=f"{test.seconds:.3f}")
    if test.xfailed:
        element.append(_said("skipped", "", f"known failure: {test.known}", test.message))
    elif test.outcome is Outcome.SKIPPED:
        element.append(_said("skipped", "", reason.of(test.message), ""))
    elif test.outcome.is_failure:
        about = reason.of(test.message) or test.outcome.value
        concluded = diagnosed.get((result.cell, test.suite, test.name))
        triage = f"triage (run {concluded.run}): {concluded}" if concluded else ""
        text = "\n\n".join(filter(None, (test.message.rstrip("\n"), triage))) if triage else test.message
        element.append(_said(_OUTCOMES[test.outcome], test.outcome.value, about, text))
        lines = reproduce.lines_for(run, result.cell, test, modules.of(test.name))
        if lines:
            element.append(_text("system-out", "\n".join(lines)))
    elif test.xpassed:
        element.append(_text("system-out", f"an unexpected pass: listed as a known failure ({test.known})"))
    return element


def _said(tag: str, kind: str, message: str, text: str) -> ElementTree.Element:
    attributes = {"message": shortened(message, MESSAGE)} | ({"type": kind} if kind else {})
    element = _element(tag, **attributes)
    if text:
        element.text = printable(text)
    return element


def _element(tag: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.Element(tag, {name: printable(value) for name, value in attributes.items()})


def _text(tag: str, text: str) -> ElementTree.Element:
    element = ElementTree.Element(tag)
    element.text = printable(text)
    return element


def _count(element: ElementTree.Element, cases: Sequence[ElementTree.Element], seconds: float) -> None:
    """Set the sums, which JUnit has on every level."""
    element.set("tests", str(len(cases)))
    for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        element.set(name, str(sum(case.find(tag) is not None for case in cases)))
    element.set("time", f"{seconds:.3f}")


def _when(run: Run) -> str:
    return run.started.strftime("%Y-%m-%dT%H:%M:%S")
