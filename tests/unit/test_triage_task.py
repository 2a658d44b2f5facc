"""`triage` as a command: where it leaves what it concludes, also if it does not come to its end."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import Interrupted
from crossjit.model import Cell, Expectation, Variant
from crossjit.pipeline import earlier, prepare
from crossjit.runs.model import Run
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.tasks import triage
from crossjit.tasks.options import Request
from crossjit.triage import diagnosis, experiments
from crossjit.triage.decide import Layer
from crossjit.triage.diagnosis import Diagnosis
from crossjit.triage.rerun import TestRerun
from tests import example_runs

JIT = Variant("jit", "", (), ("jit",), Expectation.MACHINE_CODE)


@pytest.fixture
def looked_into(settings: Settings) -> Run:
    return example_runs.record(settings, example_runs.results()[1:2], also=())


@pytest.fixture
def record(settings: Settings, looked_into: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunRecord]:
    """A run of triage with an engine that is not needed: two tests have a conclusion, then comes Ctrl-C."""
    (cell,) = looked_into.cells

    def concluded(runner: object, cell: Cell, tests: dict[TestRerun, bool]) -> Iterator[Diagnosis]:
        for test in list(tests)[:2]:
            assert tests[test] is True
            yield example_runs.diagnosis(cell, str(test), Layer.FLAKY, "passes and fails")
        raise Interrupted("Ctrl-C")

    runner = SimpleNamespace(env=TargetEnvironment((3, 15), cell.arch, JIT, emulated=True))
    monkeypatch.setattr(
        prepare, "prepare", lambda ctx, requests: [SimpleNamespace(cell=request.cell) for request in requests]
    )
    then = SimpleNamespace(ctx=None, builds=False, built=lambda prepared, log: None)
    monkeypatch.setattr(earlier, "as_it_was", lambda ctx, requests, run: then)
    monkeypatch.setattr(experiments, "Experiments", lambda *arguments, builds: runner)
    monkeypatch.setattr(experiments, "diagnose", concluded)
    with RunRecord.start(settings, ("invoke", "triage"), {}, cells=[cell]) as record:

        @contextlib.contextmanager
        def opened(request: Request, **options: bool) -> Iterator[object]:
            yield SimpleNamespace(ctx=None, record=record, requests=(SimpleNamespace(cell=cell),))

        monkeypatch.setattr(triage, "opened", opened)
        yield record


def test_what_was_concluded_before_the_end_is_kept_with_both_runs(looked_into: Run, record: RunRecord) -> None:
    (cell,) = looked_into.cells
    with pytest.raises(Interrupted):
        triage._triage(Request(), looked_into, (), builds=False)
    for run in (looked_into, record.run):
        found = diagnosis.load(run.cell_folder(cell))
        assert len(found) == 2
        assert example_runs.GUARD in [each.test for each in found]
    assert [path.name for path in (looked_into.cell_folder(cell) / diagnosis.FOLDER).iterdir()] == [f"{record.id}.json"]


def test_a_run_that_was_removed_meanwhile_does_not_end_triage(
    looked_into: Run, record: RunRecord, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = looked_into.cells
    result = looked_into.result(cell)
    monkeypatch.setattr(Run, "result", lambda run, cell: result)
    shutil.rmtree(looked_into.folder)
    with pytest.raises(Interrupted):
        triage._triage(Request(), looked_into, (), builds=False)
    assert len(diagnosis.load(record.run.cell_folder(cell))) == 2
    assert not looked_into.folder.exists()
    assert f"the conclusions are only in the record of run {record.id}" in capsys.readouterr().err
