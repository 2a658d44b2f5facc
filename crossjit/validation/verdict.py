"""Turns the probe and the suites' results into a verdict with its reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from crossjit.channels import Executor, MalformedError, ProbeRecord, probe_record
from crossjit.model import Cell, Expectation, Outcome, SuiteResult, TestResult, Variant, Verdict
from crossjit.util.text import pluralize

SHOWN = 5  # names of failed tests in a reason


def judge(
    cell: Cell, variant: Variant, probe: Mapping[str, object], suites: Sequence[SuiteResult]
) -> tuple[Verdict, tuple[str, ...]]:
    """Return a cell's verdict from the probe's facts and the suites' results.

    In this order: if a limit of ours ended the probe, failed tests make it `fail`, else it is `infra`; a build that
    does not match the cell (a different machine, the GIL on, a crash of the probe) is `fail`; one whose JIT does not do
    what the variant expects is `vacuous`, even if tests fail; a failed test that is not known makes it `fail`; a suite
    cut short by a limit of ours `infra`; a suite without tests, or without its required ones, `vacuous`; the rest is
    `pass`.
    """
    failures, limits = tuple(_failures(suites)), tuple(_limits(suites))
    try:
        facts = probe_record(probe)
    except MalformedError as error:
        return Verdict.FAIL, (f"the probe's facts cannot be read: {error}", *failures, *limits)
    if facts.unfinished is not None:
        unfinished = f"the probe did not finish: {facts.unfinished}"
        return Verdict.FAIL if failures else Verdict.INFRA, (*failures, unfinished, *limits)
    wrong = tuple(_wrong(cell, variant, facts)) if probe else ("the probe has no facts",)
    if wrong:
        return Verdict.FAIL, (*wrong, *failures, *limits)
    unproved = tuple(_no_jit(variant, facts))
    if unproved:
        return Verdict.VACUOUS, (*unproved, *(f"also: {failure}" for failure in (*failures, *limits)))
    if failures:
        return Verdict.FAIL, (*failures, *limits)
    if limits:
        return Verdict.INFRA, limits
    empty = tuple(_empty(suites))
    if empty:
        return Verdict.VACUOUS, empty
    return Verdict.PASS, tuple(_proved(variant, facts, suites))


def _wrong(cell: Cell, variant: Variant, probe: ProbeRecord) -> Iterator[str]:
    """Yield how the build does not match the cell, or does not work at all."""
    if probe.crashed is not None:
        yield f"the probe did not finish: {probe.crashed}" + (f"; {probe.output[-1]}" if probe.output else "")
        return
    machine = probe.executable.machine if probe.executable else None
    expected = cell.arch.machine(cell.platform)
    if machine != expected:
        yield f"the executable is for {machine}, not {expected}{_why(probe, 'executable')}"
    gil = probe.gil
    if gil is None:
        yield f"it is unknown whether there is a GIL{_why(probe, 'gil')}"
    elif variant.free_threaded and gil.enabled:
        off = "can be off, but is on" if gil.disabled_in_build else "is part of the build"
        yield f"the variant is free-threaded, and the GIL {off}"
    elif not variant.free_threaded and gil.disabled_in_build:
        yield "the build is free-threaded, and the variant is not"
    if probe.debug is not None and probe.debug != variant.debug:
        yield f"the build is {'a' if probe.debug else 'not a'} debug build, unlike the variant"
    for workload in probe.workloads or ():
        if not workload.correct:
            yield f"the probe's workload {workload.name!r} computed a wrong result"
    for name, error in (probe.modules.failed if probe.modules else {}).items():
        if variant.packaged and error.startswith(("ModuleNotFoundError:", "ImportError: lib")):
            continue  # it was left out, is in a package of its own, or needs a library that is
        yield f"the module {name} was built and does not import: {error}"


def _no_jit(variant: Variant, probe: ProbeRecord) -> Iterator[str]:
    """Yield why the probe does not prove that the JIT does what the variant expects."""
    if variant.expects is Expectation.NONE:
        return
    code, uops = _executors(probe, "machine code"), _executors(probe, "uops")
    expected, others = (code, uops) if variant.expects is Expectation.MACHINE_CODE else (uops, code)
    if expected:
        in_memory = probe.executable_memory.machine_code_in_it if probe.executable_memory else None
        if variant.expects is Expectation.MACHINE_CODE and in_memory == 0:
            yield "the executors' machine code is nowhere in the process's executable memory"
        return
    name = "machine code" if variant.expects is Expectation.MACHINE_CODE else "executors of the tier-2 interpreter"
    yield f"the probe found no {name}: {_reason(probe, others)}"


def _reason(probe: ProbeRecord, others: Sequence[Executor]) -> str:
    """Return why there are no executors of the expected kind, as far as the probe's facts show."""
    if probe.workloads is None:
        return f"its workloads did not run{_why(probe, 'workloads')}"
    if others:
        return f"the hot loops ran as {others[0].kind} ({pluralize(len(others), 'executor')})"
    unavailable = next((workload.unavailable for workload in probe.workloads if workload.unavailable), None)
    if probe.gil and probe.gil.disabled_in_build:
        return "the free-threaded build never runs JIT code: its hot loops made no executor" + (
            f" ({unavailable})" if unavailable else ""
        )
    if unavailable or (probe.jit and not probe.jit.available):
        return "the build has no JIT" + (f" ({unavailable})" if unavailable else "")
    if (probe.environment or {}).get("PYTHON_JIT") == "0":
        return "PYTHON_JIT=0 is in the environment"
    configured = "--enable-experimental-jit=yes-off" in (probe.configure or "")
    if (probe.jit and not probe.jit.enabled) or configured:
        by = ", configured with --enable-experimental-jit=yes-off" if configured else ""
        return f"the JIT is built in, but off{by}; its hot loops made no executor"
    return "its hot loops made no executor"


def _failures(suites: Sequence[SuiteResult]) -> Iterator[str]:
    for suite in suites:
        bad = [result for result in suite.results if result.failed]
        if bad:
            names = ", ".join(_named(result) for result in bad[:SHOWN])
            more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            yield f"{suite.suite}: {pluralize(len(bad), 'test')} failed: {names}{more}"
        yield from (f"{suite.suite}: {problem}" for problem in suite.problems if problem not in suite.limits)


def _limits(suites: Sequence[SuiteResult]) -> Iterator[str]:
    yield from (f"{suite.suite}: {limit}" for suite in suites for limit in suite.limits)


def _named(result: TestResult) -> str:
    return result.name if result.outcome is Outcome.FAILED else f"{result.name} ({result.outcome})"


def _empty(suites: Sequence[SuiteResult]) -> Iterator[str]:
    for suite in suites:
        if suite.tests_run == 0:
            yield f"{suite.suite}: no test ran"
        yield from (f"{suite.suite}: {reason}" for reason in suite.unproved)


def _proved(variant: Variant, probe: ProbeRecord, suites: Sequence[SuiteResult]) -> Iterator[str]:
    """Yield the evidence for a pass."""
    code, uops = _executors(probe, "machine code"), _executors(probe, "uops")
    if code:
        size = sum(executor.bytes or 0 for executor in code)
        yield f"the probe found {pluralize(len(code), 'executor')} with {size:,} bytes of machine code"
    elif uops:
        yield f"the probe found {pluralize(len(uops), 'executor')} of the tier-2 interpreter"
    elif variant.packaged:
        yield "this build has no JIT, so nothing is proved about one"
    if probe.gil and not probe.gil.enabled:
        yield "the GIL is off"
    for suite in suites:
        expected = sum(result.xfailed for result in suite.results)
        counts = [f"{suite.tests_run:,} tests run", f"{suite.count(Outcome.SKIPPED):,} skipped"]
        counts += [f"{expected} failed as expected"] if expected else []
        yield f"{suite.suite}: {', '.join(counts)}"
        yield from (f"{suite.suite}: {note}" for note in suite.notes)


def _executors(probe: ProbeRecord, kind: str) -> list[Executor]:
    return [executor for workload in probe.workloads or () for executor in workload.executors if executor.kind == kind]


def _why(probe: ProbeRecord, name: str) -> str:
    """Return the last line of the error in determining a fact, as a suffix in parentheses."""
    lines = probe.errors.get(name, "").strip().splitlines()
    return f" ({lines[-1]})" if lines else ""
