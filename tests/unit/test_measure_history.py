"""`measure --history`: a walk over commits, where a count moved, and what is shown of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from crossjit.bisect import history, walk
from crossjit.bisect.history import Commit, History
from crossjit.bisect.trial import UnfitError
from crossjit.bisect.walk import Point, moves
from crossjit.errors import EngineError, UserError
from crossjit.model import Arch
from crossjit.report import answers
from crossjit.report import measure_history as report
from crossjit.report.terminal_style import TerminalStyle
from crossjit.settings import Settings
from tests import example_measurements as examples
from tests.example_runs import HOSTILE
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_measure_task import Machine, run
from tests.unit.test_report_tasks import invoke

X86, ARM = Arch.X86_64, Arch.AARCH64
IDS = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
PLAIN = TerminalStyle()


def commit(number: int, subject: str = "gh-1: Change it (#1)") -> Commit:
    return Commit(IDS[number], subject, "A. Author", "2026-04-14")


def points(*counts: Mapping[Arch, int], subject: str = "gh-1: Change it (#1)") -> tuple[Point, ...]:
    return tuple(Point(commit(number, subject), each) for number, each in enumerate(counts))


class Counter:
    """Counts from a table; an exception in it is raised."""

    def __init__(self, table: Mapping[str, int | Exception]) -> None:
        self.table = table
        self.expected: list[Sequence[str]] = []

    def expect(self, commits: Sequence[str]) -> None:
        self.expected.append(commits)

    def count(self, commit: str) -> int:
        found = self.table[commit]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(history, "describe", lambda path, ids: tuple(commit(IDS.index(each)) for each in ids))
    return History(Path("/cpython"), IDS)


def test_a_walk_goes_on_where_a_commit_cannot_be_counted(line: History) -> None:
    failing = UnfitError("make failed")
    one = Counter(dict(zip(IDS, (1_000, failing, 1_001, 1_100), strict=True)))
    other = Counter(dict(zip(IDS, (2_000, UnfitError("it forked"), 2_000, 2_000), strict=True)))
    progress = RecordingProgress()
    found = tuple(walk.walk(line, {X86: one, ARM: other}, progress))
    assert [dict(point.instructions) for point in found] == [
        {X86: 1_000, ARM: 2_000},
        {},
        {X86: 1_001, ARM: 2_000},
        {X86: 1_100, ARM: 2_000},
    ]
    assert dict(found[1].problems) == {X86: "make failed", ARM: "it forked"}
    assert one.expected == [(IDS[1],), (IDS[2],), (IDS[3],), ()], "the next one is built ahead"


def test_an_engine_that_dies_ends_a_walk(line: History) -> None:
    counter = Counter({IDS[0]: EngineError("the daemon is gone", hint="start it")})
    with pytest.raises(EngineError):
        tuple(walk.walk(line, {X86: counter}, RecordingProgress()))


def test_a_move_is_from_the_last_commit_that_was_counted() -> None:
    found = moves(points({X86: 1_000_000}, {}, {X86: 1_002_000}, {X86: 981_960}))
    assert [(each.commit.id, each.arch, round(each.percent, 3)) for each in found] == [(IDS[3], X86, -2.0)]
    assert moves(points({X86: 1_000_000}, {}, {X86: 1_002_000}), noise=0.001)
    assert moves(points({X86: 1_000}, {ARM: 5})) == ()


def test_text() -> None:
    found = Point(commit(2), {X86: 3_060_000}, {ARM: "make failed"})
    shown = report.as_text("nbody", (*points({X86: 3_000_000, ARM: 4_000_000}, {X86: 3_000_000}), found), PLAIN)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "nbody: instructions of the warm call with the JIT on"
    assert lines[2] == "commit day x86_64 aarch64 subject"
    assert lines[3] == "aaaaaaaaaaaa 2026-04-14 3.00 M 4.00 M gh-1: Change it (#1)"
    assert lines[5] == "cccccccccccc 2026-04-14 3.06 M +2.00 % make failed gh-1: Change it (#1)"
    assert lines[-1] == "cccccccccccc +2.00 % on x86_64: gh-1: Change it (#1)"
    assert "it moved nowhere" in report.as_text("nbody", points({X86: 1}, {X86: 1}), PLAIN)


def test_json() -> None:
    document = report.as_json("nbody", points({X86: 1_000, ARM: 9}, {X86: 1_010}), run="r", reproduce="again")
    assert json.loads(json.dumps(document)) == document
    assert document["commits"][1]["instructions"] == {"x86_64": 1_010, "aarch64": None}
    assert document["moves"] == [{"commit": IDS[1], "arch": "x86_64", "percent": 1.0}]
    assert document["noise_percent"] == 0.25


def test_the_chart_is_within_its_frame_and_breaks_where_a_count_is_missing() -> None:
    ticks, (series,) = report.chart(points({X86: 1_000}, {X86: 1_200}, {}, {X86: 900}))
    assert [dot.moved for dot in series.dots] == [False, True, True]
    assert [letter for letter in series.path if letter.isalpha()] == ["M", "L", "M"]
    assert all(0 <= dot.y <= report.HEIGHT and 0 <= dot.x <= report.WIDTH for dot in series.dots)
    assert series.dots[1].y < series.dots[0].y < series.dots[2].y, "more is higher"
    assert [tick.y for tick in ticks] == sorted((tick.y for tick in ticks), reverse=True)
    assert report.chart(points({X86: 5}))[1][0].dots[0].x == report.MARGIN


def test_a_run_of_a_history_is_reported_again(settings: Settings) -> None:
    walked = examples.record(settings, [])
    documents = report.documents("nbody", points({X86: 1_000}, {X86: 1_200}), run="r", reproduce="x")
    answers.write(walked.folder, answers.HISTORY, documents)
    page, shown, document = (
        invoke(settings, "report", walked.id, *more).stdout.decode() for more in (("--html", "-"), (), ("--json",))
    )
    assert "<svg" in page and "nbody" in page
    assert "nbody: instructions of the warm call with the JIT on" in shown
    assert json.loads(document)["history"]["moves"][0]["percent"] == 20.0


@pytest.mark.parametrize("subject", HOSTILE)
def test_a_page_is_small_and_its_subjects_do_no_harm(subject: str) -> None:
    page = report.page("nbody", points({X86: 1_000, ARM: 5}, {X86: 1_200}, subject=subject), run="r", reproduce="again")
    assert len(page.encode("utf-8", "replace")) < 100_000
    assert "<script" not in page and "<img" not in page
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.S)
    assert len(ElementTree.fromstring(svg).findall(".//circle")) == 3  # it is ours


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"history": "/cpython"}, "--history needs one benchmark"),
        ({"history": "/cpython", "only": ["nbody", "go"]}, "--history needs one benchmark"),
        ({"history": "/cpython", "only": ["nbody"]}, "--history needs --commits"),
        ({"history": "/cpython", "only": ["nbody"], "commits": "main"}, "invalid --commits 'main': expected A..B"),
        ({"history": "/cpython", "only": ["nbody"], "commits": "a.."}, "invalid --commits 'a..': expected A..B"),
        ({"commits": "a..b", "only": ["nbody"]}, "invalid --commits 'a..b': --history says of which repository"),
        ({"history": "/cpython", "fast": True}, "--history can be combined with --only"),
    ],
)
def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str) -> None:
    machine = Machine(tmp_path, monkeypatch)
    monkeypatch.undo()
    with pytest.raises(UserError) as refused:
        run(**options)
    assert refused.value.message.startswith(message)
    assert refused.value.hint
    assert machine.opened == []
