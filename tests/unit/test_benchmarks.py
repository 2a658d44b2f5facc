"""The pure parts of benchmarks/: ratios, medians, bounds, the table, what needs what, and changes to a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import figures, lines, machine, trees, triage
from benchmarks.commands import Built, Done
from benchmarks.figures import Kind, Line, LineResult, Pace, Sample, Status, Unit, busy, extrapolated, length
from benchmarks.trees import Edit
from crossjit import PROJECT
from crossjit.config import recipes
from crossjit.engine.base import Completed
from crossjit.model import Arch
from crossjit.pipeline import plan
from crossjit.pipeline.plan import Selector
from crossjit.runs import history
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.triage.decide import Layer

COLD = Line("native", "build native", Unit.BASELINE, 1.05)
FASTER = Line("emulated", "emulated by hand", Unit.TIMES, 8, at_least=True)
FREE = Line("variant", "another variant", Unit.BASELINE)


def found(line: Line, *values: float, kind: Kind = Kind.MEASURED, errors: tuple[str, ...] = ()) -> LineResult:
    return LineResult(line, tuple(Sample(value, 10 * value, kind) for value in values), errors)


class TestValues:
    def test_a_value_is_a_ratio_within_its_round(self) -> None:
        rounds = [figures.per_baseline(seconds, baseline) for seconds, baseline in ((100, 100), (300, 200), (120, 100))]
        assert LineResult(COLD, tuple(rounds)).value == pytest.approx(1.2)
        assert LineResult(COLD, tuple(rounds)).seconds == 120

    def test_nothing_is_compared_with_no_time(self) -> None:
        with pytest.raises(ValueError, match="no time"):
            figures.per_baseline(1, 0)

    def test_two_rounds_give_what_is_between(self) -> None:
        assert found(COLD, 1.0, 1.2).value == pytest.approx(1.1)

    def test_what_ran_side_by_side_counts_once(self) -> None:
        joined = busy([(5, 6), (0, 2), (1, 3), (3, 4)])
        assert joined == [(0, 4), (5, 6)]
        assert length(joined) == 5
        assert length(joined, (3.5, 5.5)) == 1
        assert length([], (0, 1)) == 0

    def test_the_note_is_that_of_the_middle_round(self) -> None:
        samples = tuple(Sample(value, value, note=f"round with {value}") for value in (3, 1, 2))
        assert LineResult(FREE, samples).note == "round with 2"
        assert LineResult(FREE).note == ""


class TestBounds:
    @pytest.mark.parametrize(
        ("given", "status"),
        [
            (found(COLD, 1.05), Status.MET),
            (found(COLD, 1.06), Status.MISSED),
            (found(COLD, 1.0, 9.0, 1.0), Status.MET),
            (found(COLD, 1.0, kind=Kind.STOPPED), Status.MISSED),
            (found(COLD, 1.0, kind=Kind.EXTRAPOLATED), Status.MET),
            (found(FASTER, 8.0, kind=Kind.STOPPED), Status.MET),
            (found(FASTER, 7.9), Status.MISSED),
            (found(FREE, 99.0), Status.REPORTED),
            (found(COLD), Status.NOT_TAKEN),
            (found(COLD, 1.0, errors=("no space",)), Status.FAILED),
        ],
    )
    def test_status(self, given: LineResult, status: Status) -> None:
        assert given.status is status

    def test_what_makes_the_benchmark_fail(self) -> None:
        assert {status for status in Status if status.is_failure} == {Status.MISSED, Status.FAILED}

    def test_one_round_that_was_stopped_makes_a_lower_bound(self) -> None:
        both = LineResult(FASTER, (Sample(9, 9), Sample(8, 8, Kind.STOPPED)))
        assert both.kind is Kind.STOPPED


class TestExtrapolation:
    WHOLE = (Pace(20, (5, 10, 15)), Pace(200, (50, 100, 150)))

    def test_a_build_that_ended_is_what_it_is(self) -> None:
        assert extrapolated((Pace(100, (1,)), Pace(900, (1,))), self.WHOLE) == 1000

    def test_the_phase_that_was_stopped_goes_on_as_it_went(self) -> None:
        stopped = Pace(1100, (500, 1000), ended=False)  # ten times as slow at the second step
        assert extrapolated((Pace(100, (1,)), stopped), self.WHOLE) == 100 + 10 * 200

    def test_phases_that_it_did_not_come_to_are_as_slow(self) -> None:
        assert extrapolated((Pace(160, (50, 100), ended=False),), self.WHOLE) == 10 * 20 + 10 * 200
        assert extrapolated((Pace(100, ()),), self.WHOLE) == 100 + 5 * 200

    def test_a_phase_whose_first_steps_go_on_goes_by_the_one_before(self) -> None:
        assert extrapolated((Pace(100, ()), Pace(7, (), ended=False)), self.WHOLE) == 100 + 5 * 200
        assert extrapolated((Pace(100, ()), Pace(7, (1, 1), ended=False)), self.WHOLE, jobs=2) == 100 + 5 * 200

    def test_it_takes_no_less_than_it_took(self) -> None:
        assert extrapolated((Pace(100, ()), Pace(5000, (50, 100), ended=False)), self.WHOLE) == 5100

    @pytest.mark.parametrize("sample", [(), (Pace(7, (), ended=False),)])
    def test_nothing_comes_of_nothing(self, sample: tuple[Pace, ...]) -> None:
        with pytest.raises(ValueError, match=r"stopped before|nothing was measured"):
            extrapolated(sample, self.WHOLE)


class TestTable:
    def test_lines_notes_and_errors(self) -> None:
        noted = LineResult(FASTER, (Sample(8.04, 2400, Kind.STOPPED, "stopped after 2400 s"),))
        text = list(figures.table([found(COLD, 1.0), noted, found(FREE, errors=("`make` ended with 2",))]))
        assert [line.split()[0] for line in text[1:4]] == ["native", "emulated", "variant"]
        assert text[1].split()[-1] == "met"
        assert "1.000 T" in text[1]
        assert "<= 1.05 T" in text[1]
        assert "> 8.0 times" in text[2]
        assert ">= 8 times" in text[2]
        assert text[3].endswith("failed")
        assert text[4:] == ["", "emulated: stopped after 2400 s", "", "what failed", "variant: `make` ended with 2"]

    def test_an_estimated_value_is_marked(self) -> None:
        assert "~ 9.0 times" in list(figures.table([found(FASTER, 9, kind=Kind.EXTRAPOLATED)]))[1]

    @pytest.mark.parametrize(
        ("value", "unit", "text"),
        [
            (0.347, Unit.SECONDS, "0.35 s"),
            (271.26, Unit.SECONDS, "271.3 s"),
            (1.0514, Unit.BASELINE, "1.051 T"),
            (2.96, Unit.SHARE, "3.0 %"),
        ],
    )
    def test_values(self, value: float, unit: Unit, text: str) -> None:
        assert figures.shown(value, unit) == text

    def test_the_document_holds_all_rounds(self) -> None:
        document = json.loads(json.dumps(figures.document([found(COLD, 1.0, 1.2, 1.1)], {"cores": 2})))
        (line,) = document["lines"]
        assert document["machine"] == {"cores": 2}
        assert (line["name"], line["unit"], line["bound"], line["status"]) == ("native", "T", 1.05, "missed")
        assert line["median"] == pytest.approx(1.1)
        assert [sample["value"] for sample in line["rounds"]] == [1.0, 1.2, 1.1]


class TestLines:
    def test_names_are_unique(self) -> None:
        assert len(lines.LINES) == sum(len(measurement.lines) for measurement in lines.MEASUREMENTS)

    def test_what_is_needed_stands_before(self) -> None:
        names = [measurement.name for measurement in lines.MEASUREMENTS]
        for place, measurement in enumerate(lines.MEASUREMENTS):
            assert set(measurement.needs) <= set(names[:place])

    def test_all_but_the_unusual_are_taken(self) -> None:
        left = {each.name for each in lines.MEASUREMENTS} - {each.name for each in lines.chosen([])}
        assert left == {"emulated-cpu", "measure-full", "effect-fast"}

    def test_a_line_takes_along_what_it_needs(self) -> None:
        taken = [measurement.name for measurement in lines.chosen(["uop-cross"])]
        assert taken == ["hand-native", "cross", "checkout-cross", "uop-cross"]
        assert [measurement.name for measurement in lines.chosen(["list"])] == ["list"]
        assert [measurement.name for measurement in lines.chosen(["share-native"])] == ["hand-native", "native"]

    def test_every_line_in_baselines_has_one(self) -> None:
        for measurement in lines.MEASUREMENTS:
            if any(line.unit is Unit.BASELINE for line in measurement.lines):
                assert "hand-native" in [each.name for each in lines.chosen([measurement.name])]

    @pytest.mark.parametrize(
        "arguments", [["--only", "nonsense"], ["--rounds", "0"], ["--recipe", "main"], ["--commits", "a..b"]]
    )
    def test_bad_usage_ends_with_2(self, arguments: list[str]) -> None:
        command = [sys.executable, str(PROJECT / "benchmarks" / "builds.py"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


class TestEdits:
    def test_a_change_is_another_one_with_another_number(self, tmp_path: Path) -> None:
        (tmp_path / "a.c").write_text("one {x}\ntwo\n")
        Edit("a.c", new="{x} {n}", old="{x}").apply(tmp_path, 7)
        assert (tmp_path / "a.c").read_text() == "one {x} 7\ntwo\n"
        Edit("a.c", new="// {n}\n").apply(tmp_path, 8)
        assert (tmp_path / "a.c").read_text() == "one {x} 7\ntwo\n// 8\n"

    @pytest.mark.parametrize("text", ["", "old old"])
    def test_a_change_that_does_not_fit(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.c").write_text(text)
        with pytest.raises(ValueError, match="not once"):
            Edit("a.c", new="new", old="old").apply(tmp_path, 1)
        assert (tmp_path / "a.c").read_text() == text

    def test_the_projects_own(self) -> None:
        edits = trees.load_edits(PROJECT / "benchmarks" / "edits.toml")
        assert len(edits.walk) == 10
        assert edits.uop.path == "Python/bytecodes.c"
        assert edits.uop.changes == ("install", "generated")
        assert all("{n}" in edit.new for edit in (edits.core, edits.uop, edits.tests, edits.docs, *edits.walk))

    def test_a_made_up_history(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("x\n")
        for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "first")):
            trees.git(tmp_path, *command)
        commits = trees.make_history(tmp_path, (Edit("a", new="{n}\n"),) * 3)
        assert (tmp_path / "a").read_text() == "x\n"
        assert trees.git(tmp_path, "show", f"{commits[-1]}:a") == "x\n100\n101\n102\n"
        assert trees.history(tmp_path, f"HEAD..{commits[-1]}", 2) == commits[1:]
        with pytest.raises(ValueError, match="no commit"):
            trees.history(tmp_path, f"{commits[-1]}..HEAD", 10)


class TestOwnShare:
    def test_it_is_what_no_command_took(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        now = [1000.0]
        monkeypatch.setattr("time.time", lambda: now[0])
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        with RunRecord.start(settings, ("invoke", "build"), {}) as record:
            with record.recorder.step("make", "cell"):
                now[0] += 10
                record.recorder.command(Completed(("make",), 0, 8.0))
            with record.recorder.step("pack", "cell"):
                now[0] += 1
        own, where = Built(12.5, history.load(settings), {}).own()
        assert own == pytest.approx(4.5)
        assert where == pytest.approx({"make": 2, "pack": 1, "outside steps": 1.5})


def test_a_command_that_failed_says_which_cell_and_why() -> None:
    cell = {"cell": "3.15/x86_64/jit", "verdict": "fail", "reasons": ["make failed"], "details": ["error: x"]}
    passed = {**cell, "verdict": "pass"}
    assert Done(1.0, 1, json.dumps({"cells": [passed, cell]}), "").why() == [
        "3.15/x86_64/jit: fail: make failed",
        "error: x",
    ]
    assert Done(1.0, 3, "", "a\n\nb\n").why() == ["a", "b"]


def test_the_processor_is_named(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU: fast\n")
    assert machine.cpu_model(tmp_path / "cpuinfo") == "Some CPU: fast"
    assert machine.cpu_model(tmp_path / "nothing")


def test_every_defect_says_what_it_is_and_how_it_is_seen() -> None:
    defects = [triage.read(path) for path in triage.DEFECTS.glob("*.patch")]
    assert len(defects) >= 19
    shipped = recipes.load_all(PROJECT / "recipes")
    everything = Selector(("all",), tuple(Arch), ("all",))
    cells = {str(cell) for cell in plan.select(shipped, everything, Arch.X86_64).cells}
    for defect in defects:
        assert defect.layer in list(Layer), defect.name
        assert defect.cell in cells, defect.name
        assert defect.tests, defect.name


def test_what_a_defect_added_is_taken_back(tmp_path: Path) -> None:
    defect = next(map(triage.read, triage.DEFECTS.glob("race-*.patch")))
    (tmp_path / "Lib").mkdir()
    (tmp_path / "Lib" / "x.py").write_text("1\n")
    for command in (("init", "--quiet"), ("add", "--all"), ("commit", "--quiet", "--message", "x")):
        trees.git(tmp_path, *command)
    trees.git(tmp_path, "apply", str(defect.patch))
    (tmp_path / "Lib" / "x.py").write_text("2\n")
    assert list(tmp_path.rglob("test_race_*.py"))
    trees.restore(tmp_path)
    assert list(tmp_path.rglob("*.py")) == [tmp_path / "Lib" / "x.py"]
    assert (tmp_path / "Lib" / "x.py").read_text() == "1\n"
