"""A bisection from its ends to its answer, over commits that are not built; and how the answer is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from markdown_it import MarkdownIt

from crossjit.bisect import failure, history, journal
from crossjit.bisect.failure import Symptom
from crossjit.bisect.history import Commit, History
from crossjit.bisect.journal import Entry, Journal, Plan
from crossjit.bisect.search import Judgement
from crossjit.bisect.session import Result, Session, runs_wanted
from crossjit.bisect.trial import Observation, UnfitError
from crossjit.errors import BuildError, CrossjitError, EngineError, UserError
from crossjit.model import Outcome, TestResult
from crossjit.report import answers
from crossjit.report import bisect as report
from crossjit.triage.failure import of_result
from crossjit.triage.odds import Count
from crossjit.triage.user_script import Script
from crossjit.validation.failure import Failure
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_page import Parsed

NUMBER = 40
COMMITS = tuple(f"{number:040x}" for number in range(NUMBER))
SCRIPT = Script("bug.py", b"print('<b>')\n", ("-v",))
PLAN = Plan(repo="/cpython", good=COMMITS[0], good_ref="v1", bad=COMMITS[-1], bad_ref="main", arch="aarch64",
            variant="jit", script=SCRIPT, env=(("PYTHON_JIT_STRESS", "1"),))  # fmt: skip

SAME = Failure("failed", "AssertionError", text="AssertionError: 1 != 2", test="user_script.bug")
OTHER = Failure(
    "crashed", "killed by SIGSEGV", "f", text="Fatal Python error: Segmentation fault", test="user_script.bug"
)

World = Callable[[int], Failure | str | None]


class FakeTrials:
    """Trials in a world that says of each commit how it fails, or in a text why it cannot be judged."""

    jobs = 2

    def __init__(self, world: World, *, rate: float = 1.0, seed: int = 1) -> None:
        self.world = world
        self.rate = rate
        self.random = Random(seed)
        self.ran: list[tuple[int, int, bool]] = []
        self.expected: list[list[int]] = []

    def expect(self, commits: Sequence[str]) -> None:
        self.expected.append([COMMITS.index(commit) for commit in commits])

    def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
        number = COMMITS.index(commit)
        self.ran.append((number, times, together))
        found = self.world(number)
        if isinstance(found, str):
            raise UnfitError(found)
        fails = [found is not None and self.random.random() < self.rate for _ in range(times)]
        runs = tuple((found,) if failed and found else () for failed in fails)
        return Observation(runs, f"artifact-{number}", {"build": 10.0, "test": 1.0})


def world(first: int, failing: Failure | str = SAME, **others: Failure | str | None) -> World:
    """A world that fails from a commit on; `others` are exceptions by the commit's number, such as `c3`."""
    return lambda number: others.get(f"c{number}", failing if number >= first else None)


@pytest.fixture(autouse=True)
def _described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits have subjects without a repository."""

    def describe(path: Path, ids: Sequence[str]) -> tuple[Commit, ...]:
        return tuple(
            Commit(each, f"Change {COMMITS.index(each)} (GH-12{COMMITS.index(each)})", "A. Person", "2026-01-02")
            for each in ids
        )

    monkeypatch.setattr(history, "describe", describe)
    monkeypatch.setattr(history, "files", lambda path, commit: ("Python/bytecodes.c",))


def session(folder: Path, trials: FakeTrials, plan: Plan = PLAN, entries: tuple[Entry, ...] = ()) -> Session:
    return Session(
        Journal.start(folder, plan, entries), trials, RecordingProgress(), clock=iter(range(10_000)).__next__
    )


def line() -> History:
    return History(Path("/cpython"), COMMITS)


def bisected(opened: Session) -> Result:
    opened.verify_bad()
    opened.verify_good(line())
    return opened.result(line(), opened.search(line()))


def said(opened: Session) -> list[str]:
    assert isinstance(opened.progress, RecordingProgress)
    return opened.progress.messages


def test_the_commit_is_found(tmp_path: Path) -> None:
    trials = FakeTrials(world(23))
    opened = session(tmp_path, trials)
    result = bisected(opened)
    assert result.search.suspects == (COMMITS[23],)
    assert (result.last_good.commit, result.first_bad.commit) == (COMMITS[22], COMMITS[23])
    assert result.first_bad.artifact == "artifact-23"
    assert result.rate == Count(failed=5)
    assert result.needed == 6
    # a failure that is always there is looked for in two runs at once, a pass takes as many runs as are needed
    steps = [(number, times) for number, times, _ in trials.ran[2:]]
    assert steps[:4] == [(19, 2), (19, 4), (29, 2), (24, 2)]
    assert [together for _, _, together in trials.ran] == [False, *[True] * (len(trials.ran) - 1)]
    # what may come next is known to those who build it
    assert trials.expected[2] == [29, 9]
    messages = said(opened)
    assert messages[0] == f"the bad end, main ({COMMITS[-1][:12]}):"
    assert any(
        text.startswith(f"step 1: {COMMITS[19][:12]} Change 19") and text.endswith("6 steps left") for text in messages
    )
    assert any(text.startswith("step 2: ") and ", about " in text for text in messages)


def test_a_flaky_failure_is_run_until_the_odds_decide(tmp_path: Path) -> None:
    right = 0
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        trials = FakeTrials(world(17), rate=0.25, seed=seed)
        opened = session(folder, trials)
        result = bisected(opened)
        right += result.search.suspects == (COMMITS[17],)
        assert 15 < result.needed < 200
        assert not any(together for _, _, together in trials.ran)
        passed = [entry for entry in result.steps if entry.judgement is Judgement.OLD]
        assert all(len(entry.runs) == result.needed for entry in passed)
    assert right == 20


@pytest.mark.parametrize(
    ("failed", "ran", "more"),
    [
        (0, 0, 5),
        (5, 5, 0),
        (2, 5, 5),
        (4, 10, 0),
        (1, 10, 10),
        (1, 160, 40),
        (3, 200, 0),
        (0, 5, 10),
        (0, 35, 5),
        (0, 40, 0),
    ],
)
def test_a_rare_failure_is_run_more_often_at_the_bad_end(failed: int, ran: int, more: int) -> None:
    assert runs_wanted(Count(failed, ran - failed)) == more


def test_what_cannot_be_judged_is_skipped(tmp_path: Path) -> None:
    unfit = world(23, c19=OTHER, c22="it has no recipe")
    opened = session(tmp_path, FakeTrials(unfit))
    result = bisected(opened)
    assert result.search.suspects == (COMMITS[22], COMMITS[23])
    assert [(entry.commit, entry.why) for entry in result.skipped] == [(COMMITS[22], "it has no recipe")]
    skipped = {entry.why for entry in result.entries.values() if entry.judgement is Judgement.SKIPPED}
    assert skipped == {"it has no recipe", f"fails differently: {OTHER}"}
    assert report.headline(result) == "one of 2 commits broke it: those between could not be judged"
    assert f"  {COMMITS[22][:12]} 2026-01-02 Change 22 (GH-1222)" in report.as_text(result).splitlines()


def test_a_fix(tmp_path: Path) -> None:
    plan = replace(PLAN, find_fix=True, good=COMMITS[-1], bad=COMMITS[0])
    result = bisected(session(tmp_path, FakeTrials(lambda number: SAME if number < 30 else None), plan))
    assert result.search.suspects == (COMMITS[30],)
    assert (result.first_bad.commit, result.last_good.commit) == (COMMITS[29], COMMITS[30])
    assert report.headline(result).endswith("fixed it: Change 30 (GH-1230)")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (world(NUMBER), "bug.py -v passes at the bad end, main: 40 runs"),
        (world(0), "the good end, v1, fails, too: user_script.bug failed: AssertionError: 1 != 2"),
        (world(1, c0=OTHER), "the good end, v1, fails differently: user_script.bug crashed in f"),
        (world(1, c0="make failed"), "the good end, v1, cannot be judged: make failed"),
        (world(1, "no such test"), "the bad end, main, cannot be judged: no such test"),
    ],
)
def test_ends_that_are_none(tmp_path: Path, broken: World, message: str) -> None:
    with pytest.raises(UserError) as caught:
        bisected(session(tmp_path, FakeTrials(broken)))
    assert caught.value.message.startswith(message)
    assert caught.value.hint


def test_the_error_of_an_end_keeps_its_kind(tmp_path: Path) -> None:
    class Unbuildable(FakeTrials):
        def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
            raise UnfitError("make failed") from BuildError("make failed", hint="see", details=("error: x",))

    with pytest.raises(BuildError) as caught:
        session(tmp_path, Unbuildable(world(0))).verify_bad()
    assert caught.value.message == "the bad end, main, cannot be judged: make failed"
    assert (caught.value.hint, caught.value.details) == ("see", ("error: x",))


def test_what_fails_at_both_ends_is_not_looked_for(tmp_path: Path) -> None:
    """Of a module with two failing tests, only the new failure counts."""
    always, new = (Failure("failed", "ValueError", test=f"test.test_x.T.test_{name}") for name in "ab")

    class Module(FakeTrials):
        def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
            number = COMMITS.index(commit)
            return Observation(((always, new) if number >= 7 else (always,),) * times, "a")

    opened = session(tmp_path, Module(world(0)))
    result = bisected(opened)
    assert result.search.suspects == (COMMITS[7],)
    assert result.symptom.failures == (new,)


def test_the_newest_release_that_passes(tmp_path: Path) -> None:
    opened = session(tmp_path, FakeTrials(world(20)), replace(PLAN, good="", good_ref=""))
    opened.verify_bad()
    releases = [(f"v{number}", COMMITS[number]) for number in (30, 10, 3)]
    assert opened.find_good(releases) == ("v10", COMMITS[10])
    # what was learned of the others is not judged again
    assert [COMMITS.index(commit) for commit in opened.journal.entries] == [NUMBER - 1, 30, 10]
    with pytest.raises(UserError, match="no release before main passes: v30, v25"):
        opened.find_good([("v30", COMMITS[30]), ("v25", COMMITS[25])])
    with pytest.raises(UserError, match="there is none"):
        opened.find_good([])


@pytest.mark.parametrize("steps", range(9))
def test_it_goes_on_where_it_stopped(tmp_path: Path, steps: int) -> None:
    """Whenever it dies, what was judged is not judged again, and the answer is the same."""

    class Dying(FakeTrials):
        def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
            if len({number for number, _, _ in self.ran} | {COMMITS.index(commit)}) > steps:
                raise EngineError("it is gone")
            return super().run(commit, times, together=together)

    unfit = world(23, c19="make failed", c22=OTHER)
    whole = bisected(session(tmp_path, FakeTrials(unfit)))
    (tmp_path / "one").mkdir()
    with pytest.raises(EngineError):
        bisected(session(tmp_path / "one", Dying(unfit)))
    with (tmp_path / "one" / journal.FILE).open("ab") as file:
        file.write(b'{"commit": "00')  # the last line when it died
    plan, entries = journal.load(tmp_path / "one")
    assert plan == PLAN
    (tmp_path / "two").mkdir()
    trials = FakeTrials(unfit)
    again = bisected(session(tmp_path / "two", trials, plan, entries))
    assert again.search.suspects == whole.search.suspects
    assert {COMMITS[number] for number, _, _ in trials.ran}.isdisjoint(entry.commit for entry in entries)
    assert journal.load(tmp_path / "two")[1][: len(entries)] == entries


@pytest.mark.parametrize("content", [None, b"", b"{}\n", b"[1]\n", b'{"script": 3}\n', b"\xff\n"])
def test_a_run_that_is_no_bisection(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / journal.FILE).write_bytes(content)
    with pytest.raises(UserError, match="is not a bisection that can be resumed"):
        journal.load(tmp_path)


def test_the_failing_commit_elsewhere(tmp_path: Path) -> None:
    class Broken(FakeTrials):
        def run(self, commit: str, times: int, *, together: bool = False) -> Observation:
            raise EngineError("no such image")

    opened = session(tmp_path, FakeTrials(world(23)))
    result = bisected(opened)
    conditions: Mapping[str, FakeTrials | str] = {
        "x86_64": FakeTrials(world(NUMBER)),
        "JIT off": FakeTrials(world(0)),
        "impossible": "nothing here runs it",
        "broken": Broken(world(0)),
        "different": FakeTrials(lambda number: OTHER),
    }
    found = opened.elsewhere(COMMITS[23], conditions)
    assert [(each.condition, each.fails) for each in found] == [
        ("x86_64", False), ("JIT off", True), ("impossible", None), ("broken", None), ("different", None),
    ]  # fmt: skip
    result = replace(result, elsewhere=found)
    assert report.conclusion(result) == "on aarch64 only, also with the JIT off"
    text = report.as_text(result)
    assert "impossible:    not known: nothing here runs it" in text
    assert "broken:        not known: no such image" in text


# -- failures


def crash(message: str, name: str = "user_script.bug") -> Failure:
    return of_result(TestResult("jit", name, Outcome.CRASHED, message=message))


STACK = (
    "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
    '  File "/tmp/bug.py", line {line} in {function}\n'
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("AssertionError: 1 != 2", "AssertionError: 7 != 2", True),
        ("AssertionError: 1 != 2", "TypeError: 1 != 2", False),
        ("Traceback (most recent call last):\n  x\nzlib.error: Error -3", "zlib.error: Error -5", True),
        ("out\nexit status 1, expected 0", "other\nexit status 1, expected 0", True),
        ("out\nexit status 1, expected 0", "out\nexit status 3, expected 0", False),
    ],
)
def test_failures_that_are_the_same(one: str, other: str, same: bool) -> None:
    first, second = (of_result(TestResult("jit", "t", Outcome.FAILED, message=message)) for message in (one, other))
    assert first.is_same(second) is same
    assert Symptom((first,)).has(second) is same
    assert Symptom((first,)).hides(second) is not same


def test_crashes_that_are_the_same() -> None:
    ended = "user_script: killed by SIGSEGV"
    first = crash(f"{STACK.format(line=1, function='f')}{ended}")
    assert (first.how, first.place) == ("crashed", "f")
    assert first.is_same(crash(f"{STACK.format(line=2, function='f')}{ended}"))
    assert not first.is_same(crash(f"{STACK.format(line=1, function='f')}user_script: killed by SIGBUS"))
    elsewhere = crash(f"{STACK.format(line=1, function='g')}{ended}")
    # one place is part of the failure; several are not
    assert not Symptom((first,)).has(elsewhere)
    assert Symptom((first,)).hides(elsewhere)
    assert Symptom((first, crash(f"{STACK.format(line=1, function='h')}{ended}"))).has(elsewhere)
    hung = of_result(TestResult("jit", "user_script.bug", Outcome.TIMED_OUT, message="Timeout (0:05:00)!"))
    assert hung == Failure("hung", test="user_script.bug")
    assert not Symptom((first,)).has(hung)


def test_an_assertion_is_the_same_on_another_line() -> None:
    text = (
        "python: ../Python/{file}.c:{line}: int f(int): Assertion `{what}' failed.\n"
        "Fatal Python error: Aborted\n\nx: killed by SIGABRT"
    )
    first = crash(text.format(file="optimizer", line=10, what="a == b"))
    assert first.is_same(crash(text.format(file="optimizer", line=99, what="a == b")))
    assert not first.is_same(crash(text.format(file="optimizer", line=10, what="a == c")))


def test_failures_of_other_tests_do_not_hide_one() -> None:
    symptom = Symptom((Failure("failed", "ValueError", test="test.test_x.T.test_a"),))
    assert not symptom.hides(Failure("failed", "ValueError", test="test.test_x.T.test_b"))
    assert symptom.hides(Failure("crashed", "killed by SIGSEGV", test="test.test_x"))
    assert symptom.hides(Failure("failed", "ImportError", test="test.test_x"))
    assert symptom.hides(Failure("hung", test="test.test_x.T.test_b"))


def test_failures_of_a_build() -> None:
    first, second, third = (
        failure.of_build(BuildError(f"{phase} failed: exit status 2", details=("$ make", line)))
        for phase, line in (
            ("make", "x.c:10: SystemError: 'a' is bad"),
            ("make", "x.c:12: SystemError: 'b' is bad"),
            ("install", "x.c:10: SystemError: 'a' is bad"),
        )
    )
    assert first.is_same(second)
    assert not first.is_same(third)
    other_file = failure.of_build(
        BuildError(
            "make failed: exit status 2",
            details=("$ make", "y.c:1:1: error: 'value' undeclared", "make: *** [Makefile:20: y.o] Error 1"),
        )
    )
    same_end = failure.of_build(
        BuildError(
            "make failed: exit status 2",
            details=("$ make", "y.c:9:2: error: #error no", "make: *** [Makefile:20: y.o] Error 1"),
        )
    )
    assert not other_file.is_same(same_end)
    probe = failure.of_probe("killed by SIGSEGV", ["x", "Fatal Python error: Segmentation fault"])
    assert str(probe) == "build crashed: the probe was killed by SIGSEGV, Fatal Python error: Segmentation fault"
    assert not probe.is_same(first)


# -- how it is shown


@pytest.fixture
def answer(tmp_path: Path) -> Result:
    opened = session(tmp_path, FakeTrials(world(23, c19="make <failed>")))
    result = bisected(opened)
    return replace(
        result,
        elsewhere=opened.elsewhere(COMMITS[23], {"x86_64": FakeTrials(world(0)), "JIT off": FakeTrials(world(NUMBER))}),
    )


def test_the_answer_as_text_and_json(answer: Result) -> None:
    text = report.as_text(answer)
    assert text.splitlines()[0] == f"{COMMITS[23][:12]} broke it: Change 23 (GH-1223)"
    assert "pull request:  https://github.com/python/cpython/pull/1223" in text
    assert "happens:       on both architectures, only with the JIT on" in text
    assert "PYTHON_JIT_STRESS=1" in text
    assert "a probability of 0.01 at most" in text
    assert "each: source 0.0s, toolchain 0.0s, build " in text
    document = report.as_json(answer, run="a-run", reproduce="./inv bisect …")
    json.dumps(document)
    assert document["suspects"] == [
        {
            "id": COMMITS[23],
            "subject": "Change 23 (GH-1223)",
            "author": "A. Person",
            "day": "2026-01-02",
            "pull_request": 1223,
        }
    ]
    assert document["error"] == 0.01
    assert document["passes_needed"] == 6
    assert document["failed_at_bad_end"] == {"failed": 5, "ran": 5}


def test_the_answer_as_markdown_and_page(answer: Result) -> None:
    markdown = report.as_markdown(answer, run="a-run", reproduce="./inv bisect '<x>'")
    shown = MarkdownIt("commonmark").render(markdown)
    assert "<b>" not in shown
    assert "./inv bisect" in shown
    page = Parsed(report.page(answer, run="a-run", reproduce="./inv bisect '<x>'"))
    assert page.wrong == []
    assert "./inv bisect '<x>'" in page.text
    assert "make <failed>" in page.text
    assert "print('<b>')" in page.text
    assert len(page.all("tr")) == 1 + len(answer.entries)


def test_documents_are_found_again(answer: Result, tmp_path: Path) -> None:
    answers.write(tmp_path, answers.BISECT, report.documents(answer, run="a-run", reproduce="x"))
    assert json.loads(answers.recorded(tmp_path, "json") or b"")["found"] == report.headline(answer)
    assert (answers.recorded(tmp_path, "text") or b"").decode() == report.as_text(answer)
    assert answers.recorded(tmp_path, "junit") is None
    assert answers.recorded(tmp_path / "nowhere", "html") is None


def test_crossjit_errors_keep_their_constructor() -> None:
    """An end's error is made again with more words, so every kind takes the same arguments."""
    kinds = [CrossjitError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        error = kind("message", hint="hint", details=("detail",))
        assert (error.message, error.hint, error.details) == ("message", "hint", ("detail",))
