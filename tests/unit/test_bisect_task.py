"""`bisect` as a command: its options, its run record, what is said of wrong input, and going on after a kill."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit.bisect import journal, trial
from crossjit.bisect.trial import Observation
from crossjit.errors import EngineError, ExitCode
from crossjit.model import Arch, Cell
from crossjit.runs import history
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.tasks import bisect, program
from crossjit.tasks.options import Request, to_record
from crossjit.validation.failure import Failure
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_bisect_history import HEADER, Repository

FAILURE = Failure("failed", "AssertionError", text="AssertionError: no", test="user_script.bug")
NUMBER = 12
CULPRIT = 7


class FakeTrials:
    """Trials that look at nothing but a commit's place in the history."""

    jobs = 2
    commits: tuple[str, ...] = ()
    alive = 1000  # judged commits until the engine dies
    judged: list[str]
    plans: list[journal.Plan]

    def __init__(self, ctx: Any, plan: journal.Plan, *_: Any) -> None:
        type(self).plans = [*getattr(type(self), "plans", []), plan]
        self.ahead = contextlib.nullcontext()

    def expect(self, commits: Sequence[str]) -> None:
        pass

    def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
        kind = type(self)
        kind.judged = [*dict.fromkeys((*kind.judged, commit))]
        if len(kind.judged) > kind.alive:
            raise EngineError("the engine is gone")
        fails = self.commits.index(commit) >= CULPRIT
        return Observation((((FAILURE,) if fails else ()),) * times, "artifact", {"build": 1.0, "test": 0.1})

    def on_other_arch(self) -> str:
        return "nothing here runs it"

    def without_jit(self) -> FakeTrials:
        return self


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository that no test changes."""
    made = Repository(tmp_path_factory.mktemp("repository") / "cpython")
    (made.path / "Include").mkdir()
    (made.path / "Include/patchlevel.h").write_text(HEADER)
    for number in range(NUMBER):
        made.commit(f"Change {number} (GH-{number})", file=str(number))
    made.git("tag", "v3.14.0", "HEAD~9")
    made.git("tag", "v3.15.0a1", "HEAD~2")
    return made


@pytest.fixture(scope="module")
def commits(repository: Repository) -> list[str]:
    return repository.git("rev-list", "--reverse", "HEAD").split()


@pytest.fixture(autouse=True)
def _machine(
    repository: Repository, commits: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without an engine: the run is recorded, and what would build looks at the history."""

    @contextlib.contextmanager
    def opened(request: Request, *, one: bool, looks: bool, reproduce: str) -> Iterator[Any]:
        cell = Cell(request.recipes[0], request.arches[0], request.variants[0])
        started = RunRecord.start(
            settings, sys.argv, {}, reproduce=reproduce, request=to_record(request), cells=(cell,), looks=looks
        )
        with started as record:
            ctx = SimpleNamespace(progress=RecordingProgress())
            yield SimpleNamespace(ctx=ctx, record=record, requests=(SimpleNamespace(cell=cell),))

    monkeypatch.setattr(bisect, "opened", opened)
    monkeypatch.setattr(trial, "Trials", FakeTrials)
    monkeypatch.setattr(FakeTrials, "commits", tuple(commits))
    monkeypatch.setattr(FakeTrials, "judged", [], raising=False)
    monkeypatch.setattr(FakeTrials, "plans", [], raising=False)
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    monkeypatch.setenv("CROSSJIT_SOURCE_MIRROR", "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cpython").symlink_to(repository.path)
    (tmp_path / "bug.py").write_text("assert False, 'no'\n")


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["crossjit", "bisect", *words])
    try:
        program.run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_bisection_is_one_run_with_its_reports(
    commits: list[str], settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--repo", "cpython", "--good", "HEAD~11", "--bad", "main", "--arch", "aarch64", "--env", "A=b,c")
    assert run(monkeypatch, *options, "bug.py", "--json", "--", "-v", "a b") == ExitCode.PASS
    answer = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in answer["suspects"]] == [commits[CULPRIT]]
    assert answer["env"] == {"A": "b,c"}
    (record,) = history.list_runs(settings)
    assert (record.exit_code, record.looks, [str(cell) for cell in record.cells]) == (0, True, ["3.15/aarch64/jit"])
    assert {path.name for path in record.folder.glob("bisect.*")} == {
        "bisect.html", "bisect.json", "bisect.jsonl", "bisect.md", "bisect.txt",
    }  # fmt: skip
    # the command that does it again says what the refs were
    words = shlex.split(record.reproduce)
    assert words[1:8] == [
        "bisect",
        "--good",
        commits[0],
        "--bad",
        commits[-1],
        "--repo",
        str(Path("cpython").absolute()),
    ]
    assert words[-4:] == [str(Path("bug.py").absolute()), "--", "-v", "a b"]
    assert run(monkeypatch, *words[2:]) == 0
    assert [each.reproduce for each in history.list_runs(settings)] == [record.reproduce] * 2
    assert f"{commits[CULPRIT][:12]} broke it: Change {CULPRIT} (GH-{CULPRIT})" in capsys.readouterr().out
    # other commands know of it
    monkeypatch.setattr(sys, "argv", ["crossjit", "runs", "show", record.id])
    with contextlib.suppress(SystemExit):
        program.run()
    assert "broke it" in capsys.readouterr().out


def test_the_newest_release_that_passes_is_the_good_end(
    commits: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--repo", "cpython", "--bad", "main", "bug.py", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["good"] == commits[2]
    assert FakeTrials.judged[:3] == [commits[-1], commits[-3], commits[2]]


@pytest.mark.parametrize("alive", range(6))
def test_it_goes_on(
    commits: list[str],
    settings: Settings,
    alive: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FakeTrials, "alive", alive)
    assert (
        run(monkeypatch, "--repo", "cpython", "--bad", "main", "--error", "0.001", "bug.py") == ExitCode.INFRASTRUCTURE
    )
    (before,) = history.list_runs(settings)
    known = {entry.commit for entry in journal.load(before.folder)[1]}
    assert len(known) == alive
    monkeypatch.setattr(FakeTrials, "alive", 1000)
    monkeypatch.setattr(FakeTrials, "judged", [])
    capsys.readouterr()
    assert run(monkeypatch, "--resume", before.id, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["id"] for each in answer["suspects"]] == [commits[CULPRIT]]
    assert answer["error"] == 0.001
    assert answer["reproduce"] == before.reproduce
    # the failing commit is run once more, for the other conditions
    assert set(FakeTrials.judged) & known <= {commits[CULPRIT]}
    assert FakeTrials.plans[-1].script == FakeTrials.plans[0].script


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "bisect needs either a script, --tests, --measure or --crash"),
        ("--crash bug.py", "bisect needs either a script, --tests, --measure or --crash"),
        ("bug.py", "--bad is missing"),
        ("--bad main nothing.py", "nothing.py cannot be read"),
        ("--bad main bug.py cpython/file", "only one script can be given"),
        ("--bad main --crash --expect x", "are about a script"),
        ("--bad main --good HEAD~1 --measure nbdy", "there is no benchmark 'nbdy'; did you mean 'nbody'?"),
        ("--bad main --good HEAD~1 --measure nbody --slower x", "invalid --slower 'x': expected a percentage"),
        ("--bad main --measure nbody", "--measure needs --good"),
        ("--bad main --good HEAD~1 --crash --slower 1%", "--slower is for --measure"),
        ("--bad main --find-fix bug.py", "--find-fix needs --good"),
        ("--bad main --env A bug.py", "invalid --env 'A': expected NAME=VALUE"),
        ("--bad main --env 1=2 bug.py", "invalid --env '1=2'"),
        ("--bad main --error 2 bug.py", "invalid --error '2'"),
        ("--bad main --error x bug.py", "invalid --error 'x'"),
        ("--bad main --arch all bug.py", "only one --arch at a time"),
        ("--bad main --variant jit,ft bug.py", "only one --variant at a time"),
        ("--bad mian --good HEAD~1 bug.py", "has no ref mian"),
        ("--bad main --good HEAD~1 --repo nowhere bug.py", "there is no folder"),
        ("--bad main --good HEAD~1 --repo https://example.org/cpython bug.py", "is not a folder"),
        ("--bad main --good HEAD~1 --repo . bug.py", "is not the top folder of a git repository"),
        ("--bad main --good main bug.py", "main and main are the same commit"),
        ("--bad HEAD~3 --good main bug.py", "HEAD~3 is an ancestor of main"),
        ("--bad main --good HEAD~3 --find-fix bug.py", "HEAD~3 is an ancestor of main"),
        ("--resume last", "there is no bisection yet"),
        ("--resume last bug.py", "--resume cannot be combined with other options"),
        ("--resume last --arch aarch64", "--resume cannot be combined with other options"),
    ],
)
def test_wrong_input(
    words: str, said: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = shlex.split(words)
    repo = [] if "--repo" in given or "--resume" in given else ["--repo", "cpython"]
    assert run(monkeypatch, *given, *repo) == ExitCode.USER
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert said in shown
    assert "\nhint: " in shown
    assert history.list_runs(settings) == ()


def test_a_run_of_another_kind_is_not_resumed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunRecord.start(settings, ("crossjit", "build"), {}, cells=(Cell("3.15", Arch.X86_64, "jit"),)) as record:
        assert run(monkeypatch, "--resume", record.id) == ExitCode.USER
        assert f"run {record.id} is still running" in capsys.readouterr().err
    assert run(monkeypatch, "--resume", record.id) == ExitCode.USER
    assert "is not a bisection that can be resumed" in capsys.readouterr().err


def test_both_ends_good(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--repo", "cpython", "--good", "HEAD~11", "--bad", "HEAD~8", "bug.py") == ExitCode.USER
    shown = capsys.readouterr().err
    assert "passes at the bad end, HEAD~8: 40 runs" in shown
    assert "both ends are good" in shown
