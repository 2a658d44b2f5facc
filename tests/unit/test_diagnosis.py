"""What triage concluded: its form in JSON, and how it is kept with the run that it is about."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from crossjit.model import Arch, Cell
from crossjit.triage import diagnosis
from crossjit.triage.decide import Layer
from tests import example_runs

CELL = Cell("3.15", Arch.AARCH64, "jit")
FIRST = example_runs.diagnosis(CELL, "test.test_x.C.test_a", Layer.FLAKY, "passes and fails", message="half: \ud83d")
OTHER = replace(FIRST, test="test.test_x.C.test_b [stress]")
LATER = replace(
    FIRST,
    conclusion=replace(FIRST.conclusion, layer=Layer.BACKEND),
    run="20261125-080000-cafe",
    at=FIRST.at + timedelta(days=1),
)


def test_what_is_written_is_read_again() -> None:
    assert diagnosis.of_json(json.loads(json.dumps(diagnosis.as_json(FIRST)))) == FIRST


def test_the_newest_conclusion_wins_test_by_test(tmp_path: Path) -> None:
    assert diagnosis.load(tmp_path / "no-such-cell") == ()
    diagnosis.save(tmp_path, LATER.run, [LATER])
    diagnosis.save(tmp_path, FIRST.run, [FIRST])
    diagnosis.save(tmp_path, FIRST.run, [FIRST, OTHER])
    assert set(diagnosis.load(tmp_path)) == {LATER, OTHER}
    in_other_suite = replace(FIRST, suite="jit-stress")
    diagnosis.save(tmp_path, FIRST.run, [FIRST, in_other_suite])
    assert set(diagnosis.load(tmp_path)) == {LATER, in_other_suite}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    good = diagnosis.as_json(FIRST)
    wrong: list[object] = [{**good, "layer": "of later versions"}, {**good, "cell": 3}, {**good, "at": "then"}, "x", {}]
    diagnosis.save(tmp_path, LATER.run, [OTHER])
    folder = tmp_path / diagnosis.FOLDER
    (folder / "some.json").write_text(json.dumps([*wrong, good]))
    (folder / "none.json").write_text('[{"cell": "3.1')
    (folder / "other.json").write_text("3")
    assert set(diagnosis.load(tmp_path)) == {FIRST, OTHER}


def test_a_record_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        diagnosis.save(tmp_path / "gone", FIRST.run, [FIRST])
    assert list(tmp_path.iterdir()) == []
