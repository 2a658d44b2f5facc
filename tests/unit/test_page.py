"""The HTML page as text: what is on it, that it is sound, that nothing gets out of its place, how large it gets."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.model import Arch, Cell, CellResult, Outcome, SuiteResult, TestResult, Verdict
from crossjit.report import cells, failures, html
from crossjit.report.size_budget import SizeBudget, some
from crossjit.report.text import headline
from crossjit.runs.model import Run, RunError, RunState
from crossjit.settings import Settings
from crossjit.triage.decide import Layer
from crossjit.triage.diagnosis import save
from crossjit.util.text import join_words, printable, shortened
from crossjit.validation import reason
from tests import example_runs

VOID = {"meta", "link", "br", "img"}
LIMIT = 2_000_000


class Parsed(HTMLParser):
    """A page's elements in order, its text, and what is wrong with its nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def example(settings: Settings) -> Run:
    return example_runs.record(settings, example_runs.results())


def page(run: Run, results: tuple[CellResult, ...] | None = None) -> Parsed:
    return Parsed(html.page(run, run.results() if results is None else results))


def test_the_page_is_sound_html(example: Run) -> None:
    text = html.page(example, example.results())
    parsed = Parsed(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert parsed.wrong == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    links = [str(attributes["href"]) for attributes in parsed.all("a")]
    assert links
    assert [link for link in links if not (link.startswith("#") and link[1:] in ids)] == []
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all("scope" in attributes for attributes in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table")) == 2
    assert parsed.all("script") == []
    assert not [attributes for _, attributes in parsed.elements if "src" in attributes]


def test_it_says_what_there_is_to_say(example: Run) -> None:
    text = " ".join(page(example).text.split())
    for said in (
        "3 of 7 cells failed, 1 proved nothing, 1 could not be tried, 1 did not finish",
        "./inv validate --recipe 3.15,3.14 --arch all",
        "./inv validate --recipe 3.15 --arch aarch64 --variant jit",
        "./inv shell --recipe 3.14 --arch x86_64 --variant jit",
        "4 tests, each with all cells where it went wrong",
        "✗ crashed test.test_sys_settrace.RaisingTraceFuncTestCase.test_deep_recursion",
        "jit in 3.15/x86_64/jit, 3.15/aarch64/jit: AssertionError: '_GUARD_TOS_INT' unexpectedly found",
        "./inv triage --cell 3.15/aarch64/jit --tests test.test_capi.test_opt.TestUops.test_guard_is_folded",
        "cells/3.15-aarch64-jit/jit/000-test_sys_settrace.log",
        "Unexpected passes",
        f"1 test: {example_runs.NO_PTRACE}",
        f"2 tests: {example_runs.NO_TIMERFD}",
        "No evidence about pointer authentication: the CPU model that QEMU played has none (3.15/aarch64/jit)",
        "1 executor with 4,096 bytes of machine code",
        "no machine code: the hot loops made no executor",
        "a free-threaded build, off",
        "killed by SIGILL",
        "error: unknown type name 'patch_func'",
        "docker 26.1.5, x86_64, 2 cores, 24 GiB",
        "aarch64: QEMU 7.2.22, by default as cortex-a72",
        "perf is missing 12 tests",
        "test_os 2 known",
        "test_sys 110 passed, 1 went wrong",
        "test_monitoring did not run: the suite's time was over",
        "make 5m 36s",
    ):
        assert said in text, said


def test_what_went_wrong_comes_before_what_did_not(example: Run) -> None:
    text = page(example).text.partition("What these verdicts mean")[2]
    order = (
        "error: unknown type",
        "4 tests, each",
        "test_deep",
        "test.test_sys.",
        "Failed as expected",
        "Cell by cell",
    )
    assert sorted(order, key=text.index) == list(order)
    after = text.partition("Cell by cell")[2]
    assert after.index("▲ infra 3.14/aarch64/jit") < after.index("✓ pass 3.15/x86_64/ft")


def test_passed_tests_are_counted_by_module(example: Run) -> None:
    text = page(example).text
    assert "test_dis 230" in text
    assert "test_number_1" not in text


def test_verdicts_are_told_by_word_and_sign(example: Run) -> None:
    text = page(example).text
    for mark in ("✓ pass", "✗ fail", "○ vacuous", "▲ infra", "■ aborted"):
        assert mark in text


def test_capabilities_are_shown_where_there_are_any(example: Run) -> None:
    suite = SuiteResult("jit", (), 1.0)
    told = {
        "ptrace": {"works": False, "detail": "ENOSYS"},
        "vfork": {"works": True, "detail": ""},
        "aslr": {"works": None},
        "odd": "text",
    }
    object.__setattr__(suite, "capabilities", told)
    cell = CellResult(Cell("3.15", Arch.X86_64, "jit"), Verdict.PASS, (), suites=(suite,))
    text = " ".join(page(example, (cell,)).text.split())
    assert "1 of 3 feature checks worked" in text
    assert text.index("✗ does not ptrace ENOSYS") < text.index("? unknown aslr") < text.index("✓ works vfork")
    assert "feature checks" not in page(example).text


def test_a_run_that_is_under_way_or_came_to_nothing(example: Run) -> None:
    running = replace(example, state=RunState.RUNNING, finished=None)
    one = example.results()[2:3]
    text = " ".join(page(running, one).text.split())
    assert "1 of 7 cells done so far: the cell passed" in text
    assert "not done yet" in text
    assert "Still running" in page(running, ()).text
    ended = replace(example, cells=(), error=RunError("no image has LLVM 22"))
    text = page(ended, ()).text
    assert "The run ended before any cell" in text
    assert "no image has LLVM 22" in text
    assert page(ended, ()).wrong == []


def test_what_triage_concluded_stands_beside_the_test_with_its_table(example: Run) -> None:
    before = page(example)
    assert "triage:" not in before.text
    parsed = page(example_runs.triage(example))
    assert parsed.wrong == []
    text = " ".join(parsed.text.split())
    for said in (
        "What triage says they are about: JIT backend of one arch, 1 test; optimizer, 1 test.",
        "✗ crashed test.test_sys_settrace.RaisingTraceFuncTestCase.test_deep_recursion",
        "triage: JIT backend of one arch",
        "Triage: JIT backend of one arch: passes with the JIT off, in the tier-2 interpreter and on the other arch",
        "Concluded 2026-11-24 07:30:00 UTC by run 20261124-070000-beef.",
        "JIT off PYTHON_JIT=0 failed 0 of 3",
        "tier-2 interpreter 3.15/aarch64/interp failed 3 of 3 test.test_sys_settrace: killed by SIGSEGV",
    ):
        assert said in text, said
    assert text.count("What this was concluded from") == 3
    tables = parsed.all("table")
    assert len(parsed.all("caption")) == len(tables) == 5
    assert all("scope" in attributes for attributes in parsed.all("th"))


def test_few_failures_are_open_and_many_are_not(example: Run) -> None:
    def opened(results: tuple[CellResult, ...]) -> int:
        return sum("open" in attributes for attributes in page(example, results).all("details"))

    assert opened(example_runs.results()[:1]) == 2
    assert opened(example_runs.results()) == 0


def test_hostile_text_stays_text(example: Run) -> None:
    results = example_runs.hostile()
    (cell,) = results
    concluded = [
        example_runs.diagnosis(cell.cell, test.name, Layer.UNCLEAR, test.message, message=test.message)
        for test in cell.suites[0].results
    ]
    save(example.cell_folder(cell.cell), example_runs.TRIAGE, concluded)
    text = html.page(example, results)
    parsed = Parsed(text)
    assert parsed.wrong == []
    assert {tag for tag, _ in parsed.elements} <= {tag for tag, _ in page(example_runs.triage(example)).elements}
    assert not [name for _, attributes in parsed.elements for name in attributes if name.startswith("on")]
    assert "<script>document.title = 'taken over'</script>" in parsed.text
    assert "{{ 7 * 7 }} {% raw %}" in parsed.text
    assert "\\x00\\x07\\x9b2J \\x0d over the line" in parsed.text
    assert "half of a pair: \\ud83d, no character: \\ufffe\\uffff" in parsed.text
    assert "turned \\u202e round" in parsed.text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e]", text)
    text.encode()


@given(st.text(st.characters(), max_size=60))
def test_any_text_becomes_one_that_can_be_encoded_and_parsed(text: str) -> None:
    made = printable(text)
    made.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", made)
    assert printable(made) == made


@pytest.mark.parametrize(("bad", "least"), [(0, 100_000), (300, 400_000), (60_000, 400_000)])
def test_a_page_is_never_too_large(example: Run, bad: int, least: int) -> None:
    results = example_runs.full_run(bad=bad)
    text = html.page(example, results)
    size = len(text.encode())
    assert least < size < LIMIT
    parsed = Parsed(text)
    assert parsed.wrong == []
    if bad:
        assert f"{bad:,} tests, each with all cells" in parsed.text
    if bad == 60_000:
        assert re.search(r"And [\d,]+ tests more; ./inv report \S+ --json has them all", parsed.text)


def test_tables_of_triage_take_room_as_well(settings: Settings) -> None:
    results = example_runs.full_run(bad=3000)
    run = example_runs.record(settings, results, also=())
    for result in results:
        tests = [test.name for test in result.suites[0].results if test.failed]
        found = [
            example_runs.diagnosis(result.cell, name, Layer.FLAKY, "<why>" * 20, suite="full", message="<&'>" * 99)
            for name in tests
        ]
        save(run.cell_folder(result.cell), example_runs.TRIAGE, found)
    text = html.page(run, results)
    assert len(text.encode()) < LIMIT
    assert text.count("What this was concluded from") > 20
    assert "(triage: flaky (5 of 5))" in text
    room, taken = failures.ROOM_OUTPUT, text.partition("<h4>By name only")[0].partition('id="wrong"')[2]
    assert len(taken.encode()) < room * 1.05


def test_a_page_of_everything_at_once_is_not_too_large(example: Run) -> None:
    """All cells that there are, each with what takes room: failures, known ones, skips, modules, facts."""
    reason = "a reason of some length that could stand in a list, number {}"
    tests = [
        TestResult(
            "full",
            f"test.test_module_{number % 700}.Case.test_with_a_name_{number}",
            (Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED, Outcome.PASSED)[number % 4],
            1.0,
            f"{number} <'&'> " * 300,
            reason.format(number % 50) if number % 8 in (1, 3) else None,
        )
        for number in range(2000)
    ]
    suite = SuiteResult("full", tuple(tests), 9.0, notes=tuple(f"note <{number}>" * 9 for number in range(400)))
    every = tuple(
        CellResult(
            Cell(recipe, arch, variant),
            Verdict.FAIL,
            ("a reason",) * 9,
            probe={**example_runs.probe(), "flags": {f"flag <{number}>": number for number in range(300)}},
            suites=(suite,),
            seconds={f"phase {number}": 1.0 for number in range(12)},
            details=("<&>" * 900,) * 90,
        )
        for recipe in ("3.13", "3.14", "3.15", "main")
        for arch in Arch
        for variant in ("jit", "jit-debug", "ft", "ft-debug", "ft-jit", "interp", "nojit")
    )
    size = len(html.page(example, every).encode())
    assert size < LIMIT


# its parts


def test_tests_are_found_in_their_modules() -> None:
    found = failures.Modules(
        [
            example_runs.module("test_capi.test_opt", 1.0),
            example_runs.module("test_capi", 1.0),
            example_runs.module("test_dict", 1.0),
            example_runs.module("test_dict", 1.0, label="stress"),
            example_runs.module("ft_workload", 1.0),
        ]
    )

    def name(test: str) -> str | None:
        module = found.of(test)
        return f"{module.name} {module.label}".strip() if module else None

    assert name("test.test_capi.test_opt.A.test_b") == "test_capi.test_opt"
    assert name("test.test_capi.test_misc.A.test_b") == "test_capi"
    assert name("test.test_dict.A.test_b [stress]") == "test_dict stress"
    assert name("test.test_dict.A.test_b") == "test_dict"
    assert name("ft_workload.handover") == "ft_workload"
    assert name("test.test_dictionary.A.test_b") is None
    assert found.title("test.test_dict.A.test_b [stress]") == "test_dict [stress]"
    assert found.title("test.test_os.test_posix.A.test_b [x]") == "test_os.test_posix [x]"
    assert found.title("builtins.bytes.hex") == "builtins.bytes"
    assert found.title("alone") == "alone"


def test_the_worst_failures_come_first(example: Run) -> None:
    def cell(arch: Arch, *tests: TestResult) -> CellResult:
        suites = (SuiteResult("jit", tests, 1.0),)
        return CellResult(Cell("3.15", arch, "jit"), Verdict.FAIL, (), suites=suites)

    failed = TestResult("jit", "b", Outcome.FAILED)
    crashed, other = TestResult("jit", "c", Outcome.CRASHED), TestResult("jit", "a", Outcome.FAILED)
    found = failures.of(example, [cell(Arch.X86_64, failed, crashed, other), cell(Arch.AARCH64, failed)])
    assert [(each.name, len(each.times)) for each in found.shown] == [("c", 1), ("b", 2), ("a", 1)]
    assert found.shown[1].cells == "3.15/x86_64/jit, 3.15/aarch64/jit"


def test_room_is_what_text_takes_when_escaped() -> None:
    room = SizeBudget(100, overhead=10)
    assert not room.holds("<" * 23)
    assert room.left == 100
    assert room.holds("<" * 20)
    assert room.left == 10
    some_of = some(["aa", "<<", "bb"], SizeBudget(25, overhead=5), str)
    assert (some_of.items, some_of.more) == (("aa", "<<"), 1)


def test_shares_of_times() -> None:
    (first, second) = example_runs.full_run(tests=10, modules=20)
    longer = replace(second, seconds={"make": 600.0, "full": 8000.0})
    times = cells.phases([first, longer])
    assert [time.share for time in times] == [50.0, 100.0]
    assert [phase.share for phase in times[0].phases] == [6.98, 93.02]
    (unmeasured,) = cells.phases([replace(first, seconds={})])
    assert (unmeasured.phases, unmeasured.share) == ((), 0.0)
    assert cells.phases([replace(first, seconds={}, suites=())]) == ()
    (timing, _) = cells.timings([first, second])
    assert len(timing.modules) == cells.LONGEST
    assert timing.number == 20
    assert (timing.modules[0].name, timing.modules[0].share) == ("test_module_019", 100.0)


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        ([], "no cell has a verdict"),
        ([Verdict.PASS], "the cell passed"),
        ([Verdict.PASS] * 2, "all 2 cells passed"),
        ([Verdict.VACUOUS], "the cell proved nothing"),
        ([Verdict.PASS, Verdict.ABORTED, Verdict.FAIL], "1 of 3 cells failed, 1 did not finish"),
    ],
)
def test_headlines(verdicts: list[Verdict], said: str) -> None:
    assert headline(verdicts) == said


def test_text_is_made_short_and_listed() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd…ghijk"
    assert reason.of("one\n two \n \n") == "two"
    assert reason.of("") == ""
    assert [join_words(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
