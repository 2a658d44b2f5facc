"""What goes wrong in a cell is that cell's result: the others go on, and what is optional fails none."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.errors import DownloadError, EngineError, InfrastructureError, Interrupted, SourceError, UserError
from crossjit.images import Image, Role
from crossjit.model import Arch, CellResult, SuiteResult, Verdict
from crossjit.pipeline import build_cell, build_steps, context, prepare, validate_cell
from crossjit.runs.record import RunRecord
from crossjit.tasks import build as tasks
from crossjit.tasks.options import Request
from crossjit.tasks.session import RunSession
from crossjit.validation import durations, run_suite
from tests.fakes.engine import FakeProcess
from tests.unit import test_build_python
from tests.unit.build_fakes import image
from tests.unit.test_build_python import X86, FakeContext

FULL = OSError(errno.ENOSPC, "No space left on device", "/somewhere/build.log")


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeContext:
    monkeypatch.setattr(context.BuildContext, "require_emulator", lambda ctx, arch: None)
    return FakeContext(tmp_path)


def run(ctx: FakeContext, *, validate: bool = False) -> CellResult:
    request = test_build_python.cell_request("jit", X86)
    prepared = prepare.make_prepared(request, ctx.source, ctx.spec, image(Role.TOOLCHAIN, X86), X86)
    return validate_cell.run_cell(ctx.ctx, prepared, folder=ctx.folder, validate=validate)


def failing(error: BaseException) -> Any:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


class TestWhatGoesWrongInACell:
    def test_a_full_disk_is_its_infra(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build_cell, "run_logged", failing(FULL))
        result = run(ctx)
        assert result.verdict is Verdict.INFRA
        assert "no space left on device (/somewhere/build.log)" in result.reasons[0]
        assert "free some space" in result.reasons[1]
        assert not list(ctx.folder.glob("home/crashes/*")), "that is no bug"

    def test_so_is_a_bug_whose_traceback_is_kept(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CROSSJIT_DEBUG", raising=False)
        monkeypatch.setattr(build_cell, "run_logged", failing(KeyError("surprise")))
        result = run(ctx)
        assert result.verdict is Verdict.INFRA
        assert "a bug in crossjit: KeyError: 'surprise'" in result.reasons[0]
        (kept,) = ctx.folder.glob("home/crashes/*")
        assert str(kept) in result.reasons[1]
        assert "Traceback (most recent call last)" in kept.read_text()

    @pytest.mark.parametrize("error", [Interrupted("Ctrl-C"), KeyboardInterrupt(), UserError("no such run")])
    def test_an_interruption_and_a_wrong_request_get_through(
        self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, error: BaseException
    ) -> None:
        monkeypatch.setattr(build_cell, "run_logged", failing(error))
        with pytest.raises(type(error)):
            run(ctx)


class TestWhatIsOptional:
    def test_counting_what_came_from_the_caches(self, ctx: FakeContext) -> None:
        def python(process: FakeProcess) -> int:
            if process.argv[-1] == "report":
                raise EngineError("docker did not answer")
            return ctx.python(process)

        ctx.engine.programs["python3"] = python
        result = run(ctx)
        assert result.artifact
        assert result.caches == {}
        assert any("docker did not answer" in said for said in ctx.progress.messages)

    @pytest.mark.parametrize("error", [FULL, InfrastructureError("cannot remember")])
    def test_remembering_how_long_modules_took(
        self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        monkeypatch.setattr(run_suite, "run_suite", lambda *_, **__: SuiteResult("jit", (), 1.0))
        monkeypatch.setattr(durations, "record", failing(error))
        result = run(ctx, validate=True)
        assert [suite.suite for suite in result.suites] == ["jit"]
        assert any("recording module times failed" in said for said in ctx.progress.messages)


class TestTheOthersGoOn:
    @pytest.fixture(autouse=True)
    def two_cells(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run over two cells, nothing of which is shown."""
        self.requests = [test_build_python.cell_request(variant, X86) for variant in ("jit", "ft")]
        self.results: list[CellResult] = []
        self.records: list[RunRecord] = []
        monkeypatch.setattr(prepare, "resolve", lambda ctx_, request: ctx.source)
        monkeypatch.setattr(validate_cell, "judge", lambda *_: (Verdict.PASS, ("it JITs",)))
        monkeypatch.setattr(tasks, "_show", lambda run, results, json: self.results.extend(results))

        @contextlib.contextmanager
        def opened(request: Request, **options: object) -> Iterator[RunSession]:
            cells = [request.cell for request in self.requests]
            with RunRecord.start(ctx.ctx.settings, ["invoke", "build"], {}, cells=cells) as record:
                self.records.append(record)
                yield RunSession({"docker": replace(ctx.ctx, images=(ctx.spec,))}, record, tuple(self.requests))

        monkeypatch.setattr(tasks, "opened", opened)

    def verdicts(self) -> list[str]:
        return [f"{result.verdict}: {result.reasons[0]}" for result in self.results]

    def test_after_a_log_that_cannot_be_written(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        real = build_steps.run_logged
        failures = iter([FULL])

        def run_once(*arguments: Any) -> object:
            for error in failures:
                raise error
            return real(*arguments)

        monkeypatch.setattr(build_cell, "run_logged", run_once)
        code = tasks.run_cells(Request(), validate=False, rebuild=False, json=False)
        first, second = self.verdicts()
        assert "no space left on device" in first
        assert second == "pass: it JITs"
        assert code == 3
        assert [*self.records[0].run.verdicts.values()] == [Verdict.INFRA, Verdict.PASS]

    def test_after_a_folder_that_cannot_be_made(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        real = RunRecord.cell_folder

        def folder(self: RunRecord, cell: Any) -> Path:
            if cell.variant == "jit":
                raise InfrastructureError("cannot write the run record: no space left on device", hint="free some")
            return real(self, cell)

        monkeypatch.setattr(RunRecord, "cell_folder", folder)
        monkeypatch.setattr(RunRecord, "set_cell", lambda self, result: None)
        tasks.run_cells(Request(), validate=False, rebuild=False, json=False)
        first, second = self.verdicts()
        assert "no space left on device" in first
        assert second == "pass: it JITs"

    def test_after_a_result_that_cannot_be_recorded(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        error = InfrastructureError("cannot write the run record", hint="free some space")
        monkeypatch.setattr(RunRecord, "set_cell", failing(error))
        code = tasks.run_cells(Request(), validate=False, rebuild=False, json=False)
        assert [result.verdict for result in self.results] == [Verdict.INFRA, Verdict.INFRA]
        assert all("cannot write the run record" in result.reasons for result in self.results)
        assert all(result.artifact for result in self.results), "what was done is told all the same"
        assert code == 3

    def test_where_an_image_cannot_be_had(self, ctx: FakeContext) -> None:
        def ensured(spec: object, role: Role, arch: Arch) -> Image:
            if next(failures, None):
                raise EngineError("docker cannot pull")
            return image(role, arch)

        failures = iter([True])
        ctx.ctx = replace(ctx.ctx, ensure_image=ensured)
        self.requests[1] = replace(self.requests[1], source="https://example.org/cpython#main")
        tasks.run_cells(Request(), validate=False, rebuild=False, json=False)
        assert self.verdicts() == ["infra: docker cannot pull", "pass: it JITs"]

    def test_a_source_that_cannot_be_had_is_asked_for_once(
        self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[object] = []

        def resolve(ctx: object, request: object) -> object:
            asked.append(request)
            raise DownloadError("no place had it")

        monkeypatch.setattr(prepare, "resolve", resolve)
        assert tasks.run_cells(Request(), validate=False, rebuild=False, json=False) == 3
        assert self.verdicts() == ["infra: no place had it"] * 2
        assert len(asked) == 1

    def test_a_wrong_source_ends_the_run(self, ctx: FakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepare, "resolve", failing(SourceError("there is no such source")))
        with pytest.raises(SourceError):
            tasks.run_cells(Request(), validate=False, rebuild=False, json=False)
