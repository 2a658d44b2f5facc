from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from crossjit.engine.base import ContainerOptions
from crossjit.engine.recording import recording
from crossjit.errors import BuildError, ExitCode, InfrastructureError, Interrupted, UserError
from crossjit.model import Arch, Cell, CellResult, Outcome, Strategy, SuiteResult, TestResult, Verdict
from crossjit.progress import Silent, Tee
from crossjit.runs import command_line, history, record
from crossjit.runs.model import EventKind, Run, RunState, Status
from crossjit.runs.record import Recorder, RunRecord
from crossjit.settings import Settings
from tests.fakes.engine import FakeEngine

JIT = Cell("3.15", Arch.AARCH64, "jit")
FT = Cell("3.15", Arch.AARCH64, "ft")
ARGV = ("/somewhere/bin/invoke", "validate", "--arch", "aarch64", "--source", "a b")

RESULT = CellResult(
    cell=JIT,
    verdict=Verdict.PASS,
    reasons=("all passed",),
    artifact="0123456789ab",
    build_key="ab" * 32,
    strategy=Strategy.CROSS,
    probe={"executors": [{"bytes": 4096}], "gil": True},
    suites=(
        SuiteResult(
            "jit",
            (
                TestResult("jit", "test_dis.A.test_b", Outcome.PASSED, 0.25),
                TestResult("jit", "test_sys", Outcome.TIMED_OUT, 300.0, "no end", known="gh-1"),
            ),
            12.5,
            caveats=("emulated",),
            problems=("one log is missing",),
        ),
    ),
    seconds={"make": 259.5},
)


def in_child(work: Callable[[], None]) -> int:
    """Run `work` in a child and return how that ended, as subprocess does."""
    if (child := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_run_is_on_disk_from_its_first_second(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {"cores": 2}, cells=(JIT, FT)) as record:
        written = json.loads((record.folder / "run.json").read_bytes())
        assert written["state"] == "running"
        assert written["argv"] == list(ARGV)
        assert written["facts"] == {"cores": 2}
        run = history.load(settings)
        assert run == record.run
        assert (run.id, run.state, run.exit_code, run.cells) == (record.id, RunState.RUNNING, None, (JIT, FT))
        assert run.folder == settings.runs / record.id
        assert run.reproduce == "/somewhere/bin/invoke validate --arch aarch64 --source 'a b'"
        assert history.is_alive(settings, record.id)
        assert history.living(settings) == (record.id,)
        assert run.results() == ()
    run = history.load(settings)
    assert (run.state, run.exit_code, run.error) == (RunState.FINISHED, 0, None)
    assert run.finished is not None
    assert run.finished > run.started
    assert not history.is_alive(settings, run.id)
    assert history.living(settings) == ()


def test_the_reproducing_line_has_the_settings_that_matter(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, engine="podman", jobs=3, source_mirrors=("/a", "/b c"))
    assert command_line.reproduction(settings, ["/x/crossjit", "build"]) == (
        "CROSSJIT_ENGINE=podman CROSSJIT_JOBS=3 CROSSJIT_SOURCE_MIRROR='/a /b c' /x/crossjit build"
    )


def test_results_come_back(settings: Settings) -> None:
    vacuous = CellResult(FT, Verdict.VACUOUS, ("nothing was proved",))
    with RunRecord.start(settings, ARGV, {"engine": "docker"}) as record:
        (record.cell_folder(JIT) / "build.log").write_text("make\n")
        record.set_cells([JIT, FT])
        record.set_cell(vacuous)
        record.set_cell(RESULT)
        assert history.load(settings).results() == (RESULT, vacuous)
        record.finish(ExitCode.VACUOUS)
    run = history.load(settings)
    assert run.results() == (RESULT, vacuous)
    assert run.verdicts == {"3.15/aarch64/jit": Verdict.PASS, "3.15/aarch64/ft": Verdict.VACUOUS}
    assert run.exit_code == 4
    assert run.facts == {"engine": "docker"}
    assert (run.cell_folder(JIT) / "build.log").read_text() == "make\n"


texts = st.text(max_size=20)
seconds = st.floats(0, 1e6)
test_results = st.builds(
    TestResult, texts, texts, st.sampled_from(Outcome), seconds, texts, st.one_of(st.none(), texts)
)
suite_results = st.builds(
    SuiteResult,
    texts,
    st.lists(test_results, max_size=3).map(tuple),
    seconds,
    st.lists(texts, max_size=2).map(tuple),
    st.lists(texts, max_size=2).map(tuple),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | seconds | texts,
    lambda children: st.lists(children, max_size=2) | st.dictionaries(texts, children, max_size=2),
    max_leaves=5,
)
cell_results = st.builds(
    CellResult,
    st.builds(Cell, texts, st.sampled_from(Arch), texts),
    st.sampled_from(Verdict),
    st.lists(texts, max_size=2).map(tuple),
    artifact=st.none() | texts,
    build_key=st.none() | texts,
    from_stash=st.booleans(),
    strategy=st.none() | st.sampled_from(Strategy),
    probe=st.dictionaries(texts, json_values, max_size=2),
    suites=st.lists(suite_results, max_size=2).map(tuple),
    seconds=st.dictionaries(texts, seconds, max_size=2),
)


@given(cell_results)
def test_any_result_survives_json(result: CellResult) -> None:
    adapter = TypeAdapter(CellResult)
    text = json.dumps(adapter.dump_python(result, mode="json"), ensure_ascii=False)
    assert adapter.validate_python(json.loads(text)) == result


def test_what_is_no_text_does_not_stop_the_record(settings: Settings) -> None:
    with RunRecord.start(settings, ("invoke", "a\udcff"), {}) as record:
        record.recorder.say("a\udcff")
        record.set_cell(CellResult(JIT, Verdict.FAIL, ("b\udcff",)))
    run = history.load(settings)
    assert run.argv == ("invoke", "a?")
    assert run.results()[0].reasons == ("b?",)
    assert [event.text for event in run.events()] == ["a?"]


@pytest.mark.parametrize(
    ("error", "exit_code", "message"),
    [
        (BuildError("make failed", hint="look", details=("last line",)), 1, "make failed"),
        (Interrupted("interrupted"), 130, "interrupted"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (RuntimeError("a bug"), 3, "a bug"),
        (SystemExit(2), 2, "2"),
    ],
)
def test_what_ended_a_run_is_recorded(settings: Settings, error: BaseException, exit_code: int, message: str) -> None:
    with pytest.raises(type(error)), RunRecord.start(settings, ARGV, {}, cells=[JIT]):
        raise error
    run = history.load(settings)
    assert (run.state, run.exit_code) == (RunState.FINISHED, exit_code)
    assert run.error is not None
    assert run.error.message == message
    if isinstance(error, BuildError):
        assert (run.error.hint, run.error.details) == ("look", ("last line",))
    assert run.results() == (CellResult(JIT, Verdict.ABORTED, (f"the run ended before: {message}",)),)


def test_an_error_named_file_exists_passes(settings: Settings) -> None:
    with pytest.raises(FileExistsError), RunRecord.start(settings, ARGV, {}):
        raise FileExistsError


def test_a_killed_run_tells_where_it_died(settings: Settings) -> None:
    def work() -> None:
        with RunRecord.start(settings, ARGV, {"cores": 2}, cells=[JIT, FT]) as record:
            with record.recorder.step("source", "3.15"):
                pass
            record.set_cell(CellResult(JIT, Verdict.PASS, ("fine",)))
            with record.recorder.step("build", str(FT)), record.recorder.step("make"):
                os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(work) == -signal.SIGKILL
    run = history.load(settings)
    assert (run.state, run.exit_code, run.facts) == (RunState.ABORTED, None, {"cores": 2})
    assert not history.is_alive(settings, run.id)
    assert [event.name for event in run.open_steps()] == ["build", "make"]
    done, aborted = run.results()
    assert done.verdict is Verdict.PASS
    assert aborted == CellResult(FT, Verdict.ABORTED, ("the run died in: build 3.15/aarch64/ft, make",))


def test_steps_are_recorded(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {}) as record:
        recorder = record.recorder
        recorder.say("hello")
        with recorder.step("make", "cell") as step:
            step.update(done=0, total=398)
            step.update(done=120, detail="Python/ceval.o")
            step.line("gcc")
        with pytest.raises(BuildError), recorder.step("install"):
            raise BuildError("no space")
        with pytest.raises(Interrupted), recorder.step("suites"):
            raise Interrupted("Ctrl-C")
        said, *others = history.load(settings).events()
    assert (said.kind, said.text) == (EventKind.SAY, "hello")
    assert [(event.kind, event.step, event.name) for event in others] == [
        (EventKind.START, 1, "make"),
        (EventKind.FINISH, 1, "make"),
        (EventKind.START, 2, "install"),
        (EventKind.FINISH, 2, "install"),
        (EventKind.START, 3, "suites"),
        (EventKind.FINISH, 3, "suites"),
    ]
    make, install, suites = others[1::2]
    assert (make.status, make.done, make.total, make.detail) == (Status.OK, 120, 398, "Python/ceval.o")
    assert make.seconds is not None
    assert 0 <= make.seconds < 60
    assert (install.status, install.text) == (Status.FAILED, "no space")
    assert suites.status is Status.INTERRUPTED


def test_how_far_a_step_is_is_recorded_now_and_then(tmp_path: Path) -> None:
    """So that a program sees what a person does."""
    now = 0.0
    path = tmp_path / "events.jsonl"
    with Recorder(path, lambda: now).step("jit", "cell") as step:
        for _ in range(25):
            now += 1
            step.update(done=int(now), total=100, left=300 - now)
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["kind"] for event in events] == ["start", "progress", "progress", "finish"]
    known = ("step", "seconds", "done", "total", "share", "left")
    assert [[event[name] for name in known] for event in events[1:3]] == [
        [1, 10.0, 10, 100, 0.033, 290.0],
        [1, 20.0, 20, 100, 0.067, 280.0],
    ]


def test_commands_in_containers_are_recorded(settings: Settings) -> None:
    engine = FakeEngine()
    engine.add_image("target", arch=Arch.X86_64)
    with RunRecord.start(settings, ARGV, {}) as record:
        listening = recording(engine, record.recorder.command)
        with listening.container(ContainerOptions("target", arch=Arch.X86_64, name="one", labels={})) as container:
            assert container.id in engine.containers
            container.run(("true",), cwd="/")
            container.run(("false", "x" * 1000))
        assert [thing.name for thing in listening.owned({})] == []
    first, second = history.load(settings).events()
    assert (first.kind, first.text, first.detail) == (EventKind.COMMAND, "true", "exit status 0")
    assert first.seconds is not None
    assert second.detail == "exit status 1"
    assert len(second.text) < 300


def test_half_written_events_are_left_out(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {}) as record:
        record.recorder.say("one")
        with (record.folder / "events.jsonl").open("ab") as file:
            file.write(
                b'null\n{"kind": "dance"}\n\xff\xfe\n{"at": 1.5, "kind": "say", "new key": 1, "text": "two"}\n{"at": 1'
            )
    assert [event.text for event in history.load(settings).events()] == ["one", "two"]


def test_events_of_threads_stay_whole(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "events.jsonl")

    def work() -> None:
        for _ in range(25):
            with recorder.step("step", "x" * 500):
                recorder.say("y" * 500)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(events) == 300
    started = [event["step"] for event in events if event["kind"] == "start"]
    assert sorted(started) == list(range(1, 101))


def test_find_a_run(settings: Settings) -> None:
    with pytest.raises(UserError, match="no runs yet"):
        history.load(settings)
    ids = []
    for _ in range(3):
        with RunRecord.start(settings, ARGV, {}) as record:
            ids.append(record.id)
    assert [run.id for run in history.list_runs(settings)] == ids[::-1]
    assert history.load(settings, "last").id == ids[2]
    assert history.load(settings, ids[0]).id == ids[0]
    with pytest.raises(UserError, match="3 runs") as caught:
        history.load(settings, "20")
    assert sorted(caught.value.details) == sorted(ids)
    for nothing in ("1999", "../" + ids[0]):
        with pytest.raises(UserError, match="there is no run"):
            history.load(settings, nothing)


def test_records_that_cannot_be_read_are_left_out(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {}) as record:
        pass
    for name, content in {"torn": '{"id"', "empty": "", "strange": "[1]"}.items():
        (settings.runs / name).mkdir()
        (settings.runs / name / "run.json").write_text(content)
    (settings.runs / "none").mkdir()
    (settings.runs / "file").write_text("")
    assert [run.id for run in history.list_runs(settings)] == [record.id]


@pytest.mark.parametrize("content", ["{}", '{"cell"', "[1]"])
def test_a_damaged_record_is_told_as_that(settings: Settings, content: str) -> None:
    with RunRecord.start(settings, ARGV, {}, cells=(JIT,)) as record:
        record.set_cell(RESULT)
        record.finish(ExitCode.PASS)
    run = history.load(settings, record.id)
    (run.cell_folder(JIT) / "result.json").write_text(content)
    (result,) = run.results()
    assert result.verdict is Verdict.INFRA
    assert "its record is damaged" in result.reasons[0]
    (run.folder / "run.json").write_text(content)
    with pytest.raises(InfrastructureError, match=f"the record of run {run.id} is damaged"):
        history.load(settings, run.id)


def test_a_record_of_a_newer_crossjit_is_read(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {}) as record:
        path = record.folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "mood": "good"}))
    assert history.load(settings).id == record.id


def test_prune_keeps_the_newest_and_the_living(settings: Settings) -> None:
    with RunRecord.start(settings, ARGV, {}) as oldest:
        ids = []
        for _ in range(4):
            with RunRecord.start(settings, ARGV, {}) as record:
                ids.append(record.id)
        (settings.runs / "20000101-000000-dead").mkdir()  # died before it wrote anything
        gone = ("20000101-000000-dead", *sorted(ids[:2]))
        assert history.prune(settings, keep=2, dry_run=True) == gone
        assert len(history.list_runs(settings)) == 5
        assert history.prune(settings, keep=2) == gone
        assert [run.id for run in history.list_runs(settings)] == [ids[3], ids[2], oldest.id]
        assert history.prune(settings, keep=2) == ()
    assert history.prune(settings, keep=0) == tuple(sorted([*ids[2:], oldest.id]))
    assert history.list_runs(settings) == ()


@pytest.mark.parametrize("name", ["", ".", "..", "../runs", "nothing"])
def test_what_is_no_run_is_not_alive(settings: Settings, name: str) -> None:
    with RunRecord.start(settings, ARGV, {}):
        assert not history.is_alive(settings, name)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InfrastructureError, match="cannot write the run record") as caught,
        RunRecord.start(Settings(home=tmp_path / "file" / "home"), ARGV, {}),
    ):
        pass
    assert "CROSSJIT_HOME" in caught.value.hint


def test_a_disk_that_fills_up_covers_no_other_error(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
    try:
        settings = Settings(home=folder / "home")
        with pytest.raises(BuildError, match="make"), RunRecord.start(settings, ARGV, {}) as record:
            before = (record.folder / "run.json").read_bytes()
            with record.recorder.step("make"):
                filler = (folder / "filler").open("wb", buffering=0)
                with pytest.raises(OSError, match="No space"):
                    while True:
                        filler.write(bytes(512))
                with pytest.raises(InfrastructureError, match="no space left"):
                    record.set_cell(RESULT)
                raise BuildError("make failed")
        assert (record.folder / "run.json").read_bytes() == before
        run: Run = history.load(settings)
        assert run.state is RunState.ABORTED
        filler.close()
    finally:
        subprocess.run(["umount", folder], check=True)


def test_tee_tells_all(tmp_path: Path) -> None:
    one, two = Recorder(tmp_path / "one"), Recorder(tmp_path / "two")
    tee = Tee(one, Silent(), two)
    tee.say("hello")
    with pytest.raises(BuildError), tee.step("make", "cell") as step:
        step.update(done=1, total=2)
        step.line("gcc")
        raise BuildError("no")
    for name in ("one", "two"):
        said, started, finished = (json.loads(line) for line in (tmp_path / name).read_text().splitlines())
        assert said["text"] == "hello"
        assert (started["name"], started["subject"]) == ("make", "cell")
        assert (finished["status"], finished["done"], finished["total"]) == ("failed", 1, 2)


def test_last_is_what_was_to_give_verdicts(settings: Settings) -> None:
    with RunRecord.start(settings, ["invoke", "shell"], {}, looks=True) as shell:
        pass
    assert history.load(settings).id == shell.id, "there is nothing else"
    with RunRecord.start(settings, ["invoke", "validate"], {}) as validated:
        pass
    with RunRecord.start(settings, ["invoke", "debug"], {}, looks=True) as debugged:
        pass
    assert [run.id for run in history.list_runs(settings)] == [debugged.id, validated.id, shell.id]
    assert history.load(settings).id == validated.id
    assert history.load(settings, debugged.id).id == debugged.id


def test_a_clock_that_was_wrong_for_a_day_makes_no_old_run_the_last(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=1)

    with monkeypatch.context() as patched:
        patched.setattr(record, "datetime", Tomorrow)
        with RunRecord.start(settings, ARGV, {}) as wrong:
            pass
    with RunRecord.start(settings, ARGV, {}) as right:
        pass
    assert wrong.run.started > right.run.started
    assert [run.id for run in history.list_runs(settings)] == [right.id, wrong.id]
    assert history.load(settings).id == right.id
    assert history.prune(settings, keep=1) == (wrong.id,)


def test_what_runs_without_a_record_is_there_as_long_as_it_lives(settings: Settings) -> None:
    (settings.runs / "20260101-000000-dead").mkdir(parents=True)  # of one that was killed
    with history.presence(settings) as identity:
        assert history.is_alive(settings, identity)
        assert history.living(settings) == (identity,)
        assert history.list_runs(settings) == ()
    assert not history.is_alive(settings, identity)
    assert not [path for path in settings.runs.iterdir() if path.is_dir()]
