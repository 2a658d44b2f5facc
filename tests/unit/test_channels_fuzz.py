"""Whatever comes out of a container, all that is made of it ends in a result or in an error in words.

A few rounds each; `--hypothesis-profile=thorough` makes them 1,500.
"""

from __future__ import annotations

import contextlib
import glob
import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from hypothesis import given
from hypothesis import strategies as st

from crossjit.build.container import cache_report
from crossjit.channels import ModuleExit
from crossjit.debugger import findings
from crossjit.engine.base import Container, ContainerOptions
from crossjit.errors import CrossjitError
from crossjit.images import Image, Role
from crossjit.known_failures import test_inventory
from crossjit.measure import marks, process, session
from crossjit.measure.model import CellMeasurement, Side
from crossjit.model import Arch, CellResult, SuiteResult, Verdict
from crossjit.progress import Silent
from crossjit.report import compare, gdb, html, junit, markdown, measure, tables, terminal_style
from crossjit.report.crashes import crashes_text
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.stash import test_lists
from crossjit.stash.store import Store
from crossjit.validation import capabilities, crashes, probe, results, run_suite
from crossjit.validation.list_tests import list_tests
from crossjit.validation.target import Target
from crossjit.validation.verdict import judge
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.benchmarked import benchmark, plugin_lines
from tests.unit.test_debugger import SECTIONS, STOP
from tests.unit.test_debugger import START as GDB_START
from tests.unit.test_inventory import stashed
from tests.unit.test_validation import CELL, DONE, END, FAILS, GREEN, JIT, LOG, PLAN, REPORT, START, event, facts, tree

# -- JSON that is near to what is expected, and JSON that is not

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([0, -1, 1 << 70, 1e308, float("nan"), float("inf")]))
NAMES = st.sampled_from(
    ["../../../../etc/passwd", "/dev/zero", "/etc/passwd", "..", "", "a\0b", "x" * 5000, "000-test_s.log", "order.json"]
)
WORDS = st.one_of(st.text(), NAMES, st.sampled_from(["\x1b]0;x\x07", "::error::x", "\ud800", "end", "machine code"]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)),
    max_leaves=8,
)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Change something in a value of JSON: at a place that hypothesis draws."""
    if isinstance(value, Mapping) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        inside = {**value, key: changed(draw, value[key])}
        return {name: each for name, each in inside.items() if name != key} if draw(st.integers(0, 6)) == 0 else inside
    if isinstance(value, (list, tuple)) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], changed(draw, value[place]), *value[place + 1 :]]
    if isinstance(value, Mapping) and draw(st.booleans()):
        return {**value, draw(WORDS): draw(VALUES)}
    return draw(VALUES)


@st.composite
def like(draw: st.DrawFn, *examples: object) -> Any:
    """Draw one of the examples, changed at most twice."""
    value = draw(st.sampled_from(examples))
    for _ in range(draw(st.integers(0, 2))):
        value = changed(draw, value)
    return value


@st.composite
def lines_like(draw: st.DrawFn, *examples: object) -> list[str]:
    """Draw lines in about the examples' order, some changed, some twice or not at all, and noise."""
    lines = []
    for example in examples:
        for _ in range(draw(st.sampled_from([1, 1, 1, 1, 0, 2]))):
            value = changed(draw, example) if draw(st.integers(0, 3)) == 0 else example
            lines.append(json.dumps(value))
    noise = st.one_of(st.text(max_size=40), VALUES.map(json.dumps), st.sampled_from(["{", "[" * 3000, '{"a":' * 3000]))
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), draw(noise))
    return [line.replace("\n", " ") for line in lines]


XML = st.sampled_from(
    [
        *('time="x"', 'errors="abc"', 'failures="-1"', 'name=""', "<a>", "</testcase>", "<failure>", "<skipped/>"),
        *("&a;", "<![CDATA[", "\x00", "\ud800", '<!DOCTYPE a [<!ENTITY a "b">]>', "<?xml encoding='x'?>", "<" * 9),
    ]
)


ATTRIBUTES = st.one_of(
    st.sampled_from(["0", "1", "0.25", "x", "abc", "-1", "1e9", "nan", "inf", "1_0", "\u0663", "", " 1", "9" * 400]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=9),
)


@st.composite
def reports(draw: st.DrawFn) -> bytes:
    """Draw JUnit XML: well-formed with wrong values, or with something put in or cut out, or none."""
    text = draw(st.sampled_from([REPORT, GREEN.decode(), FAILS["000-test_s.xml"].decode()]))
    for name in ("time", "errors", "failures", "name"):
        if draw(st.integers(0, 2)) == 0:
            wrong = quoteattr(draw(ATTRIBUTES))
            text = re.sub(rf'{name}="[^"]*"', lambda match, put=f"{name}={wrong}": put, text)  # type: ignore[misc]
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        begin = draw(st.integers(0, len(text)))
        text = text[:begin] + draw(st.one_of(XML, st.text(max_size=10))) + text[begin + draw(st.integers(0, 30)) :]
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "latin-1"])), "replace")
    return draw(st.sampled_from([content, content, content, b"", content[: len(content) // 2]]))


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """Draw a log: pieces of real ones, in any order, with bytes between."""
    pieces = [
        *LOG.splitlines(keepends=True),
        "test_x (test.test_s.C.test_x) ... ",
        "Fatal Python error: Aborted\n",
        "Timeout (0:05:00)!\n",
        "a.c:7: f: Assertion `x' failed.\n",
        "=" * 70 + "\nFAIL: a (b)\n",
        "skipped -- \n",
        "\u2028\x85",
    ]
    drawn = draw(st.lists(st.one_of(st.sampled_from([piece.encode() for piece in pieces]), st.binary(max_size=30))))
    return b"".join(drawn)


# -- what is done with it: any exception but one in words is a failure


def target_of(engine: FakeEngine) -> Target:
    info = engine.add_image("crossjit/target", arch=Arch.AARCH64)
    image = Image("crossjit/target", info.id, "k", Role.TARGET, Arch.AARCH64, "bootstrap:forky", ())
    return Target(image, "artifact", tree, CELL, JIT, (3, 15), "crossjit-suite", {}, None, {"QEMU_CPU": "cortex-a72"})


def saying(*lines: str) -> FakeEngine:
    """Make an engine whose every python3 says these lines."""

    def program(process: FakeProcess) -> int:
        for line in lines:
            process.write_line(line)
        return 0

    engine = FakeEngine()
    engine.programs["python3"] = program
    engine.add_image("any", arch=Arch.AARCH64)
    return engine


def container(engine: FakeEngine) -> AbstractContextManager[Container]:
    return engine.container(ContainerOptions("any", arch=Arch.AARCH64, name="any", labels={}))


def check_reports(probe: Mapping[str, object], suites: tuple[SuiteResult, ...] = (), caches: Any = None) -> None:
    """Judge, record, read the record, and make all reports of it."""
    verdict, reasons = judge(CELL, JIT, probe, suites)
    result = CellResult(CELL, verdict, reasons, probe=dict(probe), suites=suites, caches=dict(caches or {}))
    with tempfile.TemporaryDirectory() as home:
        with RunRecord.start(Settings(home=Path(home)), ("invoke", "validate"), {}, cells=(CELL,)) as record:
            record.set_cell(result)
        run = record.run
        read = run.result(CELL)
        assert read is not None
        assert read.verdict is verdict
        json.dumps(tables.cell_json(read, whole=True), allow_nan=False)
        tables.results_text([read], run=run.id, reproduce="x", style=terminal_style.TerminalStyle())
        html.page(run, [read])
        junit.document(run, [read])
        markdown.summary(run, [read])
        crashes_text(run)
        comparison = compare.compare([read], [read])
        compare.as_text(comparison, before="a", after="b")


def check_events(lines: Sequence[str], files: Mapping[str, bytes]) -> None:
    """Run a suite whose runner says these lines, take it up where it stopped, and report."""

    def program(process: FakeProcess) -> int:
        if process.argv[1].endswith("capabilities.py"):
            process.write_line('{"capabilities": {"pty": {"works": true, "detail": ""}}}')
            return 0
        for name, content in files.items():
            process.write_file(f"{run_suite.RESULTS}/000-test_s/{name}", content)
        for line in lines:
            process.write_line(line)
        return 0

    engine = saying()
    engine.programs["python3"] = program
    with tempfile.TemporaryDirectory() as place:
        earlier = None
        for folder in (Path(place, "first"), Path(place, "second")):
            result = run_suite.run_suite(
                engine, target_of(engine), "jit", jobs=1, folder=folder, progress=Silent(), earlier=earlier
            )
            assert {path.name for path in (folder / "jit").iterdir()} <= {*files, "order.json", "runner.log"}
            earlier = folder
        check_reports(facts("machine code"), (result,))


def check_probe(lines: Sequence[str]) -> None:
    """Probe, and report."""
    engine = saying(*lines)
    target, options = target_of(engine), {}
    if hasattr(target, "environment"):  # it has none in versions before variants had one
        options["variant"] = JIT
    with container(engine) as opened:
        seen = probe.probe(opened, tree, cell=CELL, emulation=target.emulation, progress=Silent(), **options)  # type: ignore[arg-type]
    check_reports(seen)


def check_recorded_probe(recorded: Mapping[str, object]) -> None:
    """Judge by what a manifest says that a probe said."""
    judge(CELL, JIT, recorded, ())
    tables.cell_json(CellResult(CELL, Verdict.PASS, (), probe=dict(recorded)))


def check_benchmark(lines: list[str], plugin: list[str]) -> None:
    one = benchmark("go")
    on, off = (Side(CELL, "a" * 64, "3.15.0", jit) for jit in (True, False))
    ended: process.Process | process.ProblemError
    try:
        facts = process.read_facts([f"{process.FACTS}{line}" for line in lines])
        found = marks.read_whole("".join(f"{line}\n" for line in plugin))
        ended = process.Process(process.samples(one, facts, found), frozenset(facts.libraries), frozenset())
    except process.ProblemError as error:
        ended = error
    outcomes = [session.Outcome(session.Job(one, side), ended, 1.0) for side in (on, off)]
    measurement = CellMeasurement(on, off, results=tuple(session.results([one], on, off, outcomes)))
    measure.as_text([measurement], terminal_style.TerminalStyle(live=True))
    measure.document([measurement], run="run", reproduce="")


def check_capabilities(lines: Sequence[str]) -> None:
    """Probe capabilities, and report."""
    with container(saying(*lines)) as opened:
        probed = capabilities.probe(opened, "/usr/local/bin/python3", "capabilities.py")
    list(probed.known.items())
    check_reports(facts("machine code"), (SuiteResult("jit", (), 1.0, capabilities=probed.facts),))


def check_test_list(lines: Sequence[str]) -> None:
    """Have a CPython list its tests, keep the list in the stash, and look for tests in it."""
    engine = saying(*lines)
    listed = list_tests(engine, target_of(engine), Silent())
    with tempfile.TemporaryDirectory() as place:
        artifact = stashed(Store(Path(place)))
        test_lists.keep(Path(place), artifact, listed)
        assert test_lists.find(Path(place), artifact) == listed
    found = test_inventory.of_list(listed)
    for name in listed.tests:
        assert found.may_have(glob.escape(name))


def check_cache_report(line: str) -> None:
    """Ask the caches, and report."""
    with container(saying(line)) as opened:
        found = cache_report(opened)
    check_reports(facts("machine code"), caches=found)


def check_module(content: bytes, log: bytes, fields: Mapping[str, object]) -> None:
    """Collect what a module left: its report, and how it crashed."""
    ended = ModuleExit.read(event(**fields))
    with tempfile.TemporaryDirectory() as place:
        for name in ("000-test_s.xml", "000-test_s.jsonl"):
            Path(place, name).write_bytes(content)
        Path(place, "000-test_s.log").write_bytes(log)
        found = results.of_module("jit", ended, Path(place))
        crashed = crashes.of_module(ended, found.results, Path(place))
    check_reports(facts("machine code"), (SuiteResult("jit", found.results, 1.0, crashes=crashed),))


def check_gdb(lines: Sequence[str]) -> None:
    """Read gdb's report, and show it."""
    found = findings.read(lines)
    if found is not None:
        gdb.shown(CELL, found)
        gdb.written(CELL, found, program_log="")
        json.dumps(gdb.as_json(CELL, found), allow_nan=False)


def in_words(check: Callable[..., None], *arguments: object) -> None:
    """Let a check raise what is told in words."""
    with contextlib.suppress(CrossjitError):
        check(*arguments)


# -- the rounds

SCRIPT = {"kind": "script", "name": "/x/ft_workload.py", "checks": "000-test_s.jsonl"}
KILLED = {"status": -11, "signal": "SIGSEGV"}
CHECKS = (
    {"check": "list_pop", "outcome": "started"},
    {"check": "list_pop", "outcome": "passed", "seconds": 0.5, "message": ""},
    {"check": "dict_pop", "outcome": "started"},
)
ABLE = {"capabilities": {"pty": {"works": True, "detail": "a terminal"}, "ptrace": {"works": None, "detail": ""}}}
BENCHMARK = {
    "names": ["go"],
    "jit": True,
    "libraries": ["libc.so.6"],
    "extension_modules": ["math"],
    "executors": 1,
    "bytes": 4096,
}
MARKS = [*map(json.loads, plugin_lines([[{"jit": 20, "interpreter": 10}, {"jit": 20}]]).splitlines())]
COUNTS: tuple[object, ...] = ({"compiler": {"hit": 3, "miss": 1}, "llvm": {"hit": 0, "miss": 0}}, {})


@given(lines_like(PLAN, START, {**END, **KILLED}, DONE), reports(), logs())
def test_the_runners_events(lines: list[str], report: bytes, log: bytes) -> None:
    in_words(check_events, lines, {"000-test_s.xml": report, "000-test_s.log": log})


@given(lines_like(facts("machine code", "uops")))
def test_the_probes_facts(lines: list[str]) -> None:
    in_words(check_probe, lines)


@given(like(facts("machine code"), {"crashed": "killed by SIGSEGV", "output": ["Fatal"]}, {}))
def test_a_manifests_probe(recorded: Any) -> None:
    if isinstance(recorded, dict):
        in_words(check_recorded_probe, recorded)


@given(lines_like(ABLE))
def test_capabilities(lines: list[str]) -> None:
    in_words(check_capabilities, lines)


@given(lines_like(BENCHMARK), lines_like(*MARKS))
def test_a_benchmarks_facts_and_marks(lines: list[str], plugin: list[str]) -> None:
    in_words(check_benchmark, lines, plugin)


@given(lines_like({"modules": ["test", "test.test_s"]}, {"tests": ["test.test_s.C.test_x", "test.test_s.C.test_y"]}))
def test_a_list_of_tests(lines: list[str]) -> None:
    in_words(check_test_list, lines)


@given(like(*COUNTS).map(json.dumps) | st.text())
def test_the_caches_report(line: str) -> None:
    in_words(check_cache_report, line)


@given(reports(), logs(), st.sampled_from([0, 1, 2, 3, 4, 5, 130]))
def test_a_modules_report(report: bytes, log: bytes, status: int) -> None:
    in_words(check_module, report, log, {"junit": "000-test_s.xml", "status": status})


@given(lines_like(*CHECKS).map("\n".join), logs(), st.sampled_from([{}, KILLED, {"status": 1}]))
def test_a_scripts_checks(lines: str, log: bytes, how: dict[str, object]) -> None:
    in_words(check_module, lines.encode("utf-8", "replace"), log, {**SCRIPT, **how})


@given(logs(), like(event(), event(**KILLED), event(status=1), event(command=["python3"], env={"A": "1"}, **KILLED)))
def test_crashes(log: bytes, ended: Any) -> None:
    if isinstance(ended, dict):
        in_words(check_module, b"", log, ended)


@given(lines_like(GDB_START, STOP, *SECTIONS, {"event": "exit", "code": 3}, DONE))
def test_gdbs_report(lines: list[str]) -> None:
    in_words(check_gdb, lines)
