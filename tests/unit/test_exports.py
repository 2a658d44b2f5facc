"""A run as JUnit XML and as Markdown, its facts in words, and the lines that do it again."""

from __future__ import annotations

import io
import re
import shlex
from dataclasses import replace
from xml.etree import ElementTree

import junitparser
import pytest
from markdown_it import MarkdownIt

from crossjit.model import Arch, Cell, ModuleRun, Outcome, TestResult
from crossjit.report import facts, html, junit, markdown, reproduce, tables
from crossjit.report.terminal_style import style_of
from crossjit.runs.model import Run
from crossjit.settings import Settings
from tests import example_runs

JIT = Cell("3.15", Arch.AARCH64, "jit")


@pytest.fixture
def example(settings: Settings) -> Run:
    return example_runs.record(settings, example_runs.results())


# JUnit


def test_junit_counts_on_every_level(example: Run) -> None:
    root = ElementTree.fromstring(junit.document(example, example.results()))
    for element in (root, *root.iter("testsuite")):
        cases = list(element.iter("testcase"))
        assert element.get("tests") == str(len(cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(name) == str(sum(case.find(tag) is not None for case in cases))
        assert float(element.get("time") or "nan") >= 0
    assert all(len(case.findall("failure") + case.findall("error")) <= 1 for case in root.iter("testcase"))


def test_junit_is_red_where_the_run_is(example: Run) -> None:
    report = junitparser.JUnitXml.fromstring(junit.document(example, example.results()))
    cases = {(suite.name, case.name): case for suite in report for case in suite}

    def how(suite: str, case: str) -> list[tuple[str, str | None]]:
        return [(type(each).__name__, each.type) for each in cases[suite, case].result]

    assert how("3.15/x86_64/ft", "verdict") == []
    assert how("3.15/x86_64/jit", "verdict") == [("Failure", "fail")]
    assert how("3.15/aarch64/ft-jit", "verdict") == [("Failure", "vacuous")]
    assert how("3.14/aarch64/jit", "verdict") == [("Error", "infra")]
    assert how("3.14/x86_64/ft", "verdict") == [("Error", "aborted")]
    assert how("3.15/aarch64/jit jit", "test_deep_recursion") == [("Error", "crashed")]
    assert how("3.15/aarch64/jit jit", "test_monitoring [stress]") == [("Error", "timed out")]
    assert how("3.15/aarch64/jit jit", "test_guard_is_folded") == [("Failure", "failed")]
    assert how("3.15/aarch64/jit jit", "test_timerfd_poll") == [("Skipped", None)]
    assert how("3.15/aarch64/jit jit", "test_bt") == []


def test_junit_tells_what_a_person_needs(example: Run) -> None:
    root = ElementTree.fromstring(junit.document(example, example.results()))

    def case(name: str) -> ElementTree.Element:
        return next(each for each in root.iter("testcase") if each.get("name") == name)

    failure = case("test_guard_is_folded").find("failure")
    assert failure is not None
    assert str(failure.get("message")).startswith("AssertionError: '_GUARD_TOS_INT'")
    assert str(failure.text).startswith("Traceback (most recent call last):\n")
    assert case("test_guard_is_folded").get("classname") == "3.15/x86_64/jit.jit test.test_capi.test_opt.TestUops"
    assert "--tests test.test_capi.test_opt.TestUops.test_guard_is_folded" in str(
        case("test_guard_is_folded").findtext("system-out")
    )
    known = case("test_timerfd_poll").find("skipped")
    assert known is not None
    assert known.get("message") == f"known failure: {example_runs.NO_TIMERFD}"
    assert "an unexpected pass" in str(case("test_bt").findtext("system-out"))
    properties = {(each.get("name"), each.get("value")) for each in root.iter("property")}
    assert ("reproduce", "./inv validate --recipe 3.15 --arch aarch64 --variant jit") in properties
    assert ("no evidence", "about speed: wall time under emulation says nothing about hardware") in properties
    names = [(each.get("classname"), each.get("name")) for each in root.iter("testcase")]
    assert len(names) == len(set(names)), "readers take tests of the same name for the same test"


def test_junit_holds_hostile_text(example: Run) -> None:
    written = junit.document(example, example_runs.hostile())
    root = ElementTree.fromstring(written)
    assert {each.tag for each in root.iter()} == {
        *("testsuites", "testsuite", "testcase", "properties", "property"),
        *("failure", "error", "skipped", "system-out"),
    } - {"error"}
    messages = [each.text or "" for each in root.iter("failure")]
    assert any("</script><script>" in message for message in messages)
    assert any("\\ud83d" in message and "\\uffff" in message for message in messages)
    assert any("]]>" in message for message in messages)


def test_junit_of_a_full_run_is_written_whole(example: Run) -> None:
    written = junit.document(example, example_runs.full_run())
    root = ElementTree.parse(io.BytesIO(written)).getroot()
    assert (root.get("tests"), root.get("skipped"), root.get("failures")) == ("120002", "10000", "0")


# Markdown

GITHUB = MarkdownIt("commonmark", {"html": True}).enable("table")
ELEMENT = re.compile(r"<(/?[a-z0-9]+)")


def elements(text: str) -> set[str]:
    """Return the elements of what GitHub makes of Markdown."""
    return {name.strip("/") for name in ELEMENT.findall(GITHUB.render(text))}


def test_markdown_says_what_there_is_to_say(example: Run) -> None:
    text = markdown.summary(example, example.results())
    rendered = GITHUB.render(text)
    for said in (
        "<h2>crossjit: 3 of 7 cells failed, 1 proved nothing, 1 could not be tried, 1 did not finish</h2>",
        "<td>3.15/aarch64/jit</td>\n<td>❌ fail</td>",
        "<td>⚪ vacuous</td>",
        "jit: 704 run, 4 went wrong, 2 failed as expected, 1 passed unexpectedly",
        "<h3>4 tests went wrong</h3>",
        "test.test_capi.test_opt.TestUops.test_guard_is_folded</code> failed in 3.15/x86_64/jit, 3.15/aarch64/jit",
        "Traceback (most recent call last):\n  File &quot;",
        "<h3>Unexpected passes</h3>",
        "<li>No evidence about pointer authentication: the CPU model that QEMU played has none (3.15/aarch64/jit)</li>",
        "error: unknown type name &#x27;patch_func&#x27;",
        "./inv validate --recipe 3.15 --arch x86_64 --variant jit",
    ):
        assert said in rendered.replace("&#95;", "_"), said
    assert rendered.count("<details>") == rendered.count("</details>") == 4
    assert rendered.count("<td>") == 7 * 5


def test_markdown_of_a_green_run_is_short(example: Run) -> None:
    results = example.results()[2:3]
    text = markdown.summary(example, results)
    assert text.startswith("## crossjit: the cell passed\n")
    assert len(text.splitlines()) < 15
    assert markdown.summary(example, ()).startswith("## crossjit: no cell has a verdict\n")


def test_markdown_holds_hostile_text(example: Run) -> None:
    text = markdown.summary(example, example_runs.hostile())
    assert elements(text) <= elements(markdown.summary(example, example.results()))
    rendered = GITHUB.render(text)
    assert "javascript:alert" not in re.findall(r'(?:href|src)="([^"]*)', rendered)
    assert "<em>" not in rendered
    assert "*stars* _lines_" in rendered
    assert rendered.count("<td>") == 5
    text.encode()


def test_markdown_fits_a_jobs_summary(example: Run) -> None:
    text = markdown.summary(example, example_runs.full_run(bad=3000))
    assert "And 2,9" in text
    assert 100_000 < len(text.encode()) < 1_000_000


# facts


def test_facts_of_a_probe_are_words() -> None:
    told = {fact.name: fact.value for fact in facts.of_probe(example_runs.probe(emulated=True, machine="EM_AARCH64"))}
    assert told == {
        "Python": "3.15.0rc2 (main, Nov 23 2026, 05:40:00) [GCC 16.1.0]",
        "machine code": "1 executor with 4,096 bytes of machine code",
        "JIT": "built in and on",
        "GIL": "part of the build, on",
        "executable": "EM_AARCH64, 64 bits",
        "emulated": "by QEMU, as cortex-a72",
        "debug build": "no",
        "compiler": "GCC 16.1.0",
        "C library": "glibc 2.43",
        "configured with": "'--enable-experimental-jit=yes' '--build=x86_64-linux-gnu'",
        "environment": "QEMU_CPU=cortex-a72",
        "extension modules": "2 imported; absent: _tkinter",
    }


def test_facts_that_are_missing_or_odd_are_left_out() -> None:
    assert facts.of_probe({}) == ()
    odd = {"gil": None, "jit": None, "workloads": [{"executors": "?"}], "modules": 3, "errors": {"gil": "Traceback"}}
    told = {fact.name: fact.value for fact in facts.of_probe(odd)}
    assert told["JIT"] == "this version has no sys._jit to ask"
    assert told["unknown"] == "gil"
    assert not {"GIL", "machine code", "extension modules"} & set(told)
    assert [fact.value for fact in facts.of_probe({"crashed": "killed by SIGILL"})] == ["killed by SIGILL"]
    assert facts.of_run({}) == ()


def test_facts_are_compared_leaf_by_leaf() -> None:
    before = {
        "probe": {
            "libc": "glibc 2.42",
            "steps_active": 1,
            "workloads": [{"name": "loop", "seconds": 1.0, "executors": [{"bytes": 4096}]}],
            "modules": {"imported": ["_bz2", "_ssl"], "absent": {}},
            "debug": False,
        }
    }
    after = {
        "probe": {
            "libc": "glibc 2.43",
            "steps_active": 2,
            "workloads": [{"name": "loop", "seconds": 2.0, "executors": [{"bytes": 8192}]}],
            "modules": {"imported": ["_ssl", "_lzma"], "absent": {"_bz2": "missing"}},
            "debug": False,
        }
    }
    assert [(each.name, each.before, each.after) for each in facts.changed(before, after)] == [
        ("probe.libc", "glibc 2.42", "glibc 2.43"),
        ("probe.workloads.0.executors.0.bytes", "4096", "8192"),
        ("probe.modules.imported", "_bz2", "_lzma"),
        ("probe.modules.absent._bz2", None, "missing"),
    ]
    assert facts.changed(before, before) == ()


# lines that do it again


@pytest.mark.parametrize(
    ("line", "alone", "shell"),
    [
        (
            "./inv validate --arch all --recipe 3.14,3.15",
            "./inv validate --recipe 3.15 --arch aarch64 --variant jit",
            "./inv shell --recipe 3.15 --arch aarch64 --variant jit",
        ),
        (
            "CROSSJIT_JOBS=3 CROSSJIT_SOURCE_MIRROR='/a /b c' invoke build --variant=jit,ft --source 'a b#x' --rebuild",
            "CROSSJIT_JOBS=3 CROSSJIT_SOURCE_MIRROR='/a /b c' invoke build --recipe 3.15 --arch aarch64 --variant jit "
            "--source 'a b#x' --rebuild",
            "CROSSJIT_JOBS=3 CROSSJIT_SOURCE_MIRROR='/a /b c' invoke shell --recipe 3.15 --arch aarch64 --variant jit "
            "--source 'a b#x'",
        ),
        (
            "crossjit validate --recipe ./mine/3.15.toml --recipe 3.14 --cpu max --json --resume 2026",
            "crossjit validate --recipe ./mine/3.15.toml --arch aarch64 --variant jit --cpu max",
            "crossjit shell --recipe ./mine/3.15.toml --arch aarch64 --variant jit --cpu max",
        ),
        ("", "", ""),
        ("invoke 'half of", "invoke 'half of", ""),
    ],
)
def test_a_cell_alone_is_done_with_the_runs_other_options(example: Run, line: str, alone: str, shell: str) -> None:
    run = replace(example, reproduce=line)
    assert reproduce.cell_line(run, JIT) == alone
    assert reproduce.shell_line(run, JIT) == shell


def test_a_cells_line_is_one_that_the_command_line_takes(example: Run) -> None:
    from crossjit.tasks import commandline, namespace

    failed = TestResult("jit", "test.test_dis.A.test_b", Outcome.FAILED)
    again = reproduce.lines_for(example, JIT, failed, ModuleRun("test_dis", "", 1.0, "exit status 2", "x.log"))
    for line in (reproduce.cell_line(example, JIT), reproduce.shell_line(example, JIT), *again):
        program, task, *options = shlex.split(line)
        assert program == "./inv"
        assert commandline.rewrite([task, *options], namespace) == [task, *options]
        known = {f"--{name}" for argument in namespace[task].get_arguments() for name in argument.names}
        assert {word for word in options if word.startswith("--")} <= known


@pytest.mark.parametrize(
    ("name", "module", "pattern"),
    [
        ("test.test_dis.A.test_b", "test_dis", "test.test_dis.A.test_b"),
        ("test.test_a.test_b.C.test_d [stress]", "test_a.test_b", "test.test_a.test_b.C.test_d"),
        ("test.test_dis", "test_dis", "test_dis"),
        ("test.test_dis.A.setUpClass", "test_dis", "'test.test_dis.A.*'"),
        ("test.test_dis.setUpModule", "test_dis", "test_dis"),
        ("ft_workload.handover", "ft_workload", "ft_workload"),
        ("builtins.hex", None, None),
    ],
)
def test_one_test_again(example: Run, name: str, module: str | None, pattern: str | None) -> None:
    line = (
        "CROSSJIT_JOBS=3 ./inv validate --arch all --recipe ./a/3.15.toml --shard 1/2 --suite full --rebuild --cpu max"
    )
    run = replace(example, reproduce=line)
    ran = ModuleRun(module, "", 1.0, "exit status 2", "x.log") if module else None
    lines = reproduce.lines_for(run, JIT, TestResult("jit", name, Outcome.FAILED), ran)
    if pattern is None:
        assert lines == ()
        return
    assert lines == (
        "CROSSJIT_JOBS=3 ./inv validate --recipe ./a/3.15.toml --arch aarch64 --variant jit --cpu max --suite jit "
        f"--tests {pattern}",
        f"CROSSJIT_JOBS=3 ./inv triage --cell ./a/3.15.toml/aarch64/jit --tests {pattern} --cpu max",
    )
    refused = replace(example, reproduce="./inv triage last")
    assert reproduce.lines_for(refused, JIT, TestResult("jit", name, Outcome.FAILED), ran) == ()
    assert reproduce.cell_line(refused, JIT) == "./inv triage last"


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIMED_OUT])
def test_a_crashed_test_has_a_line_for_gdb(example: Run, outcome: Outcome) -> None:
    from crossjit.tasks import namespace

    run = replace(example, reproduce="./inv validate --arch aarch64 --cpu max")
    ran = ModuleRun("test_dict", "stress", 1.0, "killed by SIGSEGV", "x.log")
    test = TestResult("jit", "test.test_dict.T.test_x [stress]", outcome)
    *_, line = reproduce.lines_for(run, JIT, test, ran)
    assert line == "./inv debug --cell 3.15/aarch64/jit --test 'test.test_dict.T.test_x [stress]' --cpu max"
    known = {f"--{name}" for argument in namespace["debug"].get_arguments() for name in argument.names}
    assert {word for word in shlex.split(line) if word.startswith("--")} <= known
    script = ModuleRun("ft_workload", "", 1.0, "killed by SIGSEGV", "x.log")
    assert len(reproduce.lines_for(run, JIT, replace(test, name="ft_workload.handover"), script)) == 2


# Several engines


def test_every_report_says_which_engine_ran_a_cell(example: Run) -> None:
    first, second, *rest = example.results()
    results = (replace(first, engine="near"), replace(second, engine="<far>", lost_on=("near",)), *rest)
    text = tables.results_text(results, run="x", reproduce="y", style=style_of(io.StringIO(), {}))
    header, *rows = text.splitlines()[: len(results) + 1]
    assert header.split()[-1] == "engine"
    assert [row.split()[-1] for row in rows[:3]] == ["near", "<far>", "-"]
    assert "  near went away before it was done" in text
    listed = tables.results_json(results, run="x", reproduce="y")["cells"]
    assert isinstance(listed, list)
    assert [(cell["engine"], cell["lost_on"]) for cell in listed[:3]] == [
        ("near", []),
        ("<far>", ["near"]),
        (None, []),
    ]
    rows = [line for line in markdown.summary(example, results).splitlines() if line.startswith("|")]
    assert rows[0].endswith("| artifact | engine |")
    assert rows[2].endswith("| near |")
    assert {row.count("|") for row in rows[: len(results) + 2]} == {7}
    properties = ElementTree.fromstring(junit.document(example, results)).iter("property")
    assert [each.get("value") for each in properties if each.get("name") == "engine"] == ["near", "<far>"]
    page = html.page(example, results)
    assert "<dt>engine</dt><dd>near</dd>" in page
    assert "<dt>engine</dt><dd>&lt;far&gt;, after near went away</dd>" in page


def test_with_one_engine_no_report_mentions_it(example: Run) -> None:
    results = example.results()
    text = tables.results_text(results, run="x", reproduce="y", style=style_of(io.StringIO(), {}))
    assert "engine" not in text.splitlines()[0]
    assert "| engine |" not in markdown.summary(example, results)
    assert html.page(example, results).count("<dt>engine</dt>") == 1  # the run's


def test_the_facts_of_a_run_on_several_engines() -> None:
    engine = {"name": "docker", "version": "28.2.2", "arch": "x86_64", "cores": 2, "memory": 8 << 30, "buildx": "0.13"}
    ability = {"arch": "x86_64", "emulators": {"aarch64": {"version": "9.2", "cpu": "max"}}}
    one = {"engine": engine, "ability": ability}
    both = {"near": one, "far": {"engine": {**engine, "cores": 64}, "ability": {**ability, "emulators": {}}}}
    shown = {fact.name: fact.value for fact in facts.of_run({"crossjit": "1", **one, "engines": both})}
    assert shown["engine"].startswith("near: docker 28.2.2, x86_64, 2 cores, ")
    assert "; far: docker 28.2.2, x86_64, 64 cores, " in shown["engine"]
    assert shown["emulators"] == "near: aarch64: QEMU 9.2, by default as max"
