"""A measurement's page and its Markdown as text: what they say, that they are sound, and that nothing gets out."""

from __future__ import annotations

import html as escaping
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from crossjit.measure.model import CellMeasurement, Result, Sample
from crossjit.model import Arch
from crossjit.report import measure_page
from crossjit.report.measure_chart import KINDS, Axis, folded, parts, shares, within
from crossjit.report.measure_markdown import as_markdown
from crossjit.report.measure_page import change, headline
from crossjit.settings import Settings
from crossjit.tasks import report, runs
from crossjit.util.text import printable
from tests import example_measurements as examples
from tests.example_runs import HOSTILE
from tests.unit.test_page import Parsed

LIMIT = 1_000_000


def page(found: tuple[CellMeasurement, ...]) -> str:
    return measure_page.page(found, run="20261124-070000-beef", reproduce="./inv measure --arch all --full")


def words(found: tuple[CellMeasurement, ...]) -> str:
    return " ".join(escaping.unescape(re.sub("<[^>]*>", " ", page(found))).split())


@pytest.mark.parametrize(
    "found",
    [
        examples.both(),
        examples.both()[1:],
        examples.hostile(),
        (examples.vacuous(),),
        (*examples.both(), examples.vacuous()),
        (replace(examples.both()[0], results=()),),
    ],
    ids=["both", "one", "hostile", "vacuous", "mixed", "empty"],
)
def test_the_page_is_sound_html(found: tuple[CellMeasurement, ...]) -> None:
    text = page(found)
    parsed = Parsed(re.sub(r"(<(?:rect|circle|line|use|input)[^>]*?)/?>", "", text))
    assert text.lstrip().startswith('<!DOCTYPE html>\n<html lang="en">')
    assert parsed.wrong == []
    ids = [attributes["id"] for _, attributes in parsed.elements if "id" in attributes]
    assert [name for name, number in Counter(ids).items() if number > 1] == []
    used = [str(attributes["href"]) for attributes in Parsed(text).all("a") + Parsed(text).all("use")]
    assert used
    assert [link for link in used if link[1:] not in ids] == []
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert all("scope" in attributes for attributes in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert parsed.all("script") == []
    assert not [attributes for _, attributes in parsed.elements if "src" in attributes]
    assert all(attributes.get("aria-hidden") for attributes in parsed.all("svg") if attributes.get("class") != "plot")
    assert len(text.encode()) < LIMIT


def test_it_says_what_there_is_to_say() -> None:
    text = words((*examples.both(), examples.vacuous()))
    for said in (
        "With the JIT on: 14.8 % fewer instructions on x86_64 and 18.5 % fewer instructions on aarch64",
        "These are counts of instructions under QEMU, not times",
        "./inv measure --arch all --full",
        "3.15/x86_64/ft-jit: the probe found no machine code. Nothing was measured there.",
        "CPython 3.15, jit: instructions with the JIT on against off, warm call",
        "geometric mean 0.852 of 53 benchmarks 0.815 of 53 benchmarks",
        "best 0.440 richards 0.440 richards",
        "worst 1.310 megamorphic_calls",
        "slower by more than 1, 5, 10, 20 % 8, 2, 1, 1 4, 2, 1, 1",
        "untouched 5 5 failed 1 1 unreliable 1 1",
        "richards ● x86_64 0.440 □ aarch64 0.440 JIT share on x86_64 56 % JIT share on aarch64 41 %",
        "Untouched: no JIT code ran, though the JIT was on (5)",
        "generators: 1.001 on x86_64; 1.000 on aarch64",
        "sympy_sum: JIT on: exit status 1: ModuleNotFoundError: No module named 'mpmath' on x86_64 and aarch64",
        "Unreliable: what was counted is no evidence (1) telco:",
        "x86_64, JIT off 100.0 % interpreter's loop 55.0 %",
        "x86_64, JIT on 86.5 % JIT code",
        "interpreter's loop 55.0 % 23.7 % 55.0 % 21.7 %",
        "libraries 5.0 % 2.6 % 5.0 % 2.4 % libc.so.6 5.0 % 2.6 % 5.0 % 2.4 %",
        "3.15/aarch64/jit: 53 benchmarks",
        "65 executors, 130 KiB",
        "against 3.15/aarch64/jit, JIT off: CPython 3.15.0rc2, artifact 4d4ebe6d4c0a what instructions, warm call",
        "cortex-a72",
        "60 results, table cdcdcdcdcdcd",
    ):
        assert said in text, said


def test_the_chart_is_in_the_chosen_order() -> None:
    lines = [each["style"] for each in Parsed(page(examples.both())).all("li") if each.get("class") == "row"]
    assert len(lines) == 53
    places = [[int(place) for place in re.findall(r":(\d+);", str(line))] for line in lines]
    assert [each[0] for each in places] == list(range(53)), "the worst is the first in the document"
    for order in zip(*places, strict=True):
        assert sorted(order) == list(range(53))
    assert len(places[0]) == len(re.findall('type="radio"', page(examples.both()))) == 5
    assert len(re.findall('type="radio"', page(examples.both()[:1]))) == 3, "one cell has one order of ratios"
    text = page(examples.both())
    names = re.findall(r'<li class="row"[^>]*><span class="name">(\w+)<', text)
    by_name = sorted(zip([each[4] for each in places], names, strict=True))
    assert [name for _, name in by_name] == sorted(names)


def test_a_benchmark_without_a_ratio_on_one_arch_is_still_a_line() -> None:
    first, second = examples.both()
    without = replace(second, results=tuple(each for each in second.results if each.name != "richards"))
    text = words((first, without))
    assert "richards ● x86_64 0.440 - JIT share on x86_64 56 % -" in text
    alone = replace(first, results=tuple(each for each in first.results if each.name != "richards"))
    heights = [
        re.search(r'>richards</span>.*?<rect class="s2"[^>]* y="(\d+)"', page(found), re.DOTALL)
        for found in ((first, second), (alone, second))
    ]
    assert len({height[1] for height in heights if height}) == 1, "a mark keeps its height beside no other"
    untouched = replace(
        second,
        results=tuple(
            replace(each, measured=each.baseline) if each.name == "richards" else each for each in second.results
        ),
    )
    text = words((first, untouched))
    assert "□ aarch64 1.000 untouched" in text
    assert "untouched 5 6" in text


def test_a_tiny_share_of_jit_code_is_not_none() -> None:
    tiny = Result("tiny", "tiny", Sample(({"jit": 1, "python": 999},)), Sample(({"python": 1000},)))
    assert "JIT share on x86_64 <1 %" in words((replace(examples.both()[0], results=(tiny,)),))


def test_without_symbols_the_loop_is_not_named() -> None:
    text = words((examples.measurement(Arch.X86_64, symbols=False),))
    assert "interpreter's loop" not in text
    assert "unknown" in text
    assert "rest of CPython" in text


def test_nothing_hostile_gets_out() -> None:
    text = page(examples.hostile())
    parsed = Parsed(text)
    assert not parsed.all("script")
    assert not parsed.all("img")
    assert not parsed.all("b")
    for hostile in HOSTILE[:6]:
        assert hostile not in text
    assert printable(HOSTILE[0]) in parsed.text
    assert not [number for number, line in enumerate(text.splitlines()) if line.lstrip().startswith("::")]
    assert "##[" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    styles = [str(attributes.get("style", "")) for _, attributes in parsed.elements]
    assert all(re.fullmatch(r"(--by-\d:\d+;)*", style) for style in styles)


def test_a_page_of_very_many_benchmarks_stays_small() -> None:
    first = examples.both()[0]
    sample = first.results[0]
    many = tuple(replace(sample, name=f"benchmark_{'x' * 200}_{number}") for number in range(5000))
    failed = tuple(
        Result(f"failed_{number}", "failed", trouble=examples.PROBLEMS["sympy_sum"][0], problem="<&>" * 5000)
        for number in range(5000)
    )
    found = tuple(replace(each, results=(*many, *failed)) for each in examples.both())
    text = page(found)
    assert len(text.encode()) < 2 * LIMIT
    assert "And 4,600 benchmarks more; <code>./inv report 20261124-070000-beef --json</code> has them all." in text


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0.8, "20.0 % fewer instructions"),
        (1.05, "5.0 % more instructions"),
        (1.0001, "neither fewer instructions nor more instructions"),
    ],
)
def test_a_change_in_words(ratio: float, said: str) -> None:
    assert change(ratio, measure_page.WORDS["instructions"]) == said


def test_the_headline_names_cells_that_differ_in_more_than_their_arch() -> None:
    first = examples.both()[0]
    other = replace(first, measured=replace(first.measured, cell=replace(first.cell, recipe="3.14")))
    assert headline((first, other)) == (
        "With the JIT on: 14.8 % fewer instructions in 3.15/x86_64/jit and 14.8 % fewer instructions in 3.14/x86_64/jit"
    )
    assert headline((examples.vacuous(),)) == "Nothing was measured"
    assert "3.14" not in headline((first, replace(other, vacuous="no code", results=())))


def test_an_axis_holds_every_ratio_and_has_1_on_it() -> None:
    axis = Axis.of([0.44, 1.31])
    assert 0 < axis.place(0.44) < axis.place(1.0) < axis.place(1.31) < 100
    assert 1.0 in axis.ticks
    gaps = [axis.place(after) - axis.place(before) for before, after in itertools.pairwise(axis.ticks)]
    assert min(gaps) >= 10
    assert all(5 < axis.place(tick) < 95 for tick in axis.ticks)
    assert Axis.of([]).ticks == (0.9, 1.0, 1.1)
    far = Axis.of([1e9, 1e-9])
    assert (far.place(1e9), far.place(1e-9)) == (100, 0)


def test_parts_of_a_bar() -> None:
    counts = {"jit": 500, "lib:libc.so.6": 100, "lib:libm.so.6": 100, "ext:_json": 50, "unheard_of": 50, "python": 200}
    assert folded(counts) == {"jit": 500, "lib": 200, "ext": 50, "other": 50, "python": 200}
    mean = shares([({"jit": 50}, 100), ({"jit": 900, "python": 100}, 1000)])
    assert mean == {"jit": 70, "python": 5}
    found = parts(folded(counts) | {"gc": 0.01})
    assert [part.kind for part in found] == [KINDS[name] for name in ("jit", "python", "ext", "lib", "other")]
    assert [part.start for part in found][:2] == [0, 500]
    assert found[-1].start == 950.01
    inner = [(part.kind.name, part.kind.style, part.start, part.width) for part in within(counts)]
    assert inner == [("_json", "ext", 700, 50), ("libc.so.6", "lib", 750, 100), ("libm.so.6", "lib", 850, 100)]


def test_markdown_has_the_worst_and_fits_a_comment() -> None:
    text = as_markdown((*examples.both(), examples.vacuous()), run="20261124-beef", reproduce="./inv measure")
    assert len(text.splitlines()) < 60
    shown = escaping.unescape(text)
    for said in (
        "## crossjit: With the JIT on: 14.8 % fewer instructions on x86_64",
        "| geometric mean | **0.852** of 53 | **0.815** of 53 |",
        "| slower by more than 1, 5, 10, 20 % | 8, 2, 1, 1 | 4, 2, 1, 1 |",
        "| <code>megamorphic_calls</code> | 3.15/aarch64/jit | 1.310 | 54 % |",
        "- 3.15/x86_64/ft-jit: vacuous: the probe found no machine code",
        "- unreliable: <code>telco</code> in 3.15/aarch64/jit: the sides have different extension modules",
        "<pre>\n./inv measure\n</pre>",
    ):
        assert said in shown, said


def test_markdown_of_hostile_names() -> None:
    text = as_markdown(examples.hostile(), run="run", reproduce="\n".join(HOSTILE))
    assert len(text.splitlines()) < 60
    assert "<script" not in text
    assert "<img" not in text
    assert "##[" not in text
    assert not [line for line in text.splitlines() if line.lstrip().startswith("::")]
    table = [line for line in text.splitlines() if line.startswith("| <code>")]
    assert all(line.count("|") == 5 for line in table)
    assert "and 1 more" in text
    assert as_markdown((examples.vacuous(),), run="r", reproduce="c").startswith("## crossjit: Nothing was measured")


def test_report_shows_what_a_run_measured(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    run = examples.record(settings, examples.both())

    def shown(task: Callable[..., object] = report.report.body, **options: object) -> str:
        task(None, run=[run.id], **options)
        return capsysbinary.readouterr().out.decode()

    assert shown(html="-") == measure_page.page(examples.both(), run=run.id, reproduce=run.reproduce)
    assert shown(markdown="-") == as_markdown(examples.both(), run=run.id, reproduce=run.reproduce)
    assert b"<testsuites" in shown(junit="-").encode()
    text = shown()
    assert "geometric mean 0.815 of 53 benchmarks" in text
    assert f"reproduce: {run.reproduce}" in text
    for task in (report.report.body, runs.show_run.body):
        document = json.loads(shown(task, json=True))
        assert [each["summary"]["measured"] for each in document["measure"]["cells"]] == [53, 53]
