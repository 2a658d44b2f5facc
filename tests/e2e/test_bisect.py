"""Bisections of a history of the tiny source: the right commit is found, whatever happens on the way."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from crossjit.bisect import journal
from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.driver import PATIENCE, Driver, Running

pytestmark = pytest.mark.engine

NUMBER = 16
PATIENT = 4 * PATIENCE  # seconds for a bisection: it builds a dozen times
FAIL, FLAKY, CRASH = "fail-test", "flaky-test", "crash-test"
BROKEN = "Python/broken.c"
TEST = ("--tests", "test_capi.test_opt")
Changes = Mapping[int, Mapping[str, str | None]]


class Repository:
    """A repository with NUMBER commits after the first one, which differ in a file, and in a test's changes."""

    def __init__(self, folder: Path, changes: Changes) -> None:
        self.path = tiny_source.checkout(folder)
        self.commits = [
            tiny_source.commit(
                self.path, f"change {number}", {"Lib/this.txt": f"{number}\n", **changes.get(number, {})}
            )
            for number in range(NUMBER)
        ]

    def options(self, recipe: Path, good: int = 0, bad: int = NUMBER - 1) -> tuple[str | Path, ...]:
        ends = ("--good", self.commits[good], "--bad", self.commits[bad])
        return ("bisect", "--repo", self.path, "--recipe", recipe, *ends)

    def index(self, commit: str) -> int:
        return self.commits.index(commit)


def broken(first: int, last: int) -> Changes:
    """A range of commits that do not build."""
    return {first: {BROKEN: "#error this does not compile\n"}, last + 1: {BROKEN: None}}


def suspects(answer: dict[str, list[dict[str, str]]], repository: Repository) -> list[int]:
    return [repository.index(each["id"]) for each in answer["suspects"]]


def test_a_flaky_failure_behind_commits_that_do_not_build(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """Five of five: it fails one time in four, and the commits in the middle do not build."""
    repository = Repository(tmp_path / "cpython", {**broken(6, 8), 11: {FLAKY: ""}})
    for _ in range(5):
        done = driver.run(*repository.options(recipe), *TEST, "--json", patience=PATIENT)
        answer = done.json
        assert suspects(answer, repository) == [11], done.stderr
        assert "is skipped: make failed: exit status 2" in done.stderr
        assert answer["error"] == 0.01
        assert answer["passes_needed"] > 10
        assert answer["skipped"] == []
    assert driver.leftovers() == []


def test_the_answer(driver: Driver, recipe: Path, tmp_path: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    """A failure that is always there: what is said of it, and where it is written."""
    repository = Repository(tmp_path / "cpython", {5: {FAIL: ""}, 7: {CRASH: ""}, 9: {CRASH: None}})
    done = driver.run(*repository.options(recipe), *TEST, "--json", patience=PATIENT)
    answer = done.json
    assert suspects(answer, repository) == [5]
    assert answer["found"] == f"{repository.commits[5][:12]} broke it: change 5"
    assert answer["files"] == ["Lib/this.txt", FAIL]
    assert answer["happens"] == "on both architectures, also with the JIT off"
    assert [each["condition"] for each in answer["elsewhere"]] == [foreign_arch, "JIT off"]
    assert answer["failures"][0]["test"] == "test.test_capi.test_opt.Tests.test_007"
    assert "fails differently: test.test_capi.test_opt.Tests.test_007 crashed" in done.stderr
    ends = [answer[name] for name in ("last_good", "first_bad")]
    assert [repository.index(end["commit"]) for end in ends] == [4, 5]
    stashed = [artifact["id"] for artifact in driver.stashed()]
    assert all(any(each.startswith(end["artifact"]) for each in stashed) for end in ends)
    assert sorted(answer["mean_seconds"]) == ["build", "source", "test", "toolchain"]
    # one run record, which shows the answer
    (run,) = driver.runs()
    assert run.id == answer["run"]
    assert answer["found"] in driver.run("runs", "show", run.id).stdout
    assert answer["found"] in driver.run("report", run.id, "--markdown", "-").stdout.replace("&#58;", ":")
    assert answer["found"] in driver.run("report", run.id, "--html", "-").stdout
    assert driver.run("report", run.id, "--json").json["bisect"]["found"] == answer["found"]
    # the same again, by the command that it gives
    assert f"--bad {repository.commits[-1]}" in answer["reproduce"]
    assert driver.leftovers() == []


def test_a_range(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """Commits before the change that cannot be judged are in the answer."""
    repository = Repository(tmp_path / "cpython", {**broken(6, 7), 8: {BROKEN: None, FAIL: ""}})
    answer = driver.run(*repository.options(recipe), *TEST, "--json", patience=PATIENT).json
    assert suspects(answer, repository) == [6, 7, 8]
    assert [repository.index(each["commit"]) for each in answer["skipped"]] == [6, 7]
    assert "one of 3 commits" in answer["found"]


def test_a_fix(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "cpython", {0: {FAIL: ""}, 12: {FAIL: None}})
    options = repository.options(recipe, good=NUMBER - 1, bad=0)
    answer = driver.run(*options, *TEST, "--find-fix", "--json", patience=PATIENT).json
    assert suspects(answer, repository) == [12]
    assert answer["found"] == f"{repository.commits[12][:12]} fixed it: change 12"
    refused = driver.run(*options, *TEST, expect=2)
    assert "look for a fix with --find-fix" in refused.stderr


def test_a_build_that_breaks(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """The test is the build; one that fails for another reason is skipped."""
    changes = {**broken(7, 8), 11: {BROKEN: "int value = undeclared;\n"}}
    repository = Repository(tmp_path / "cpython", changes)
    answer = driver.run(*repository.options(recipe), "--crash", "--json", patience=PATIENT).json
    assert suspects(answer, repository) == [11]
    assert "undeclared" in answer["failures"][0]["text"]
    assert answer["first_bad"]["artifact"] is None


def test_without_a_good_end(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "cpython", {6: {FAIL: ""}})
    for tag, number in (("v3.14.0", 1), ("v3.15.0a1", 3), ("v3.15.0a2", 7), ("v3.15.0rc1", 15)):
        tiny_source.tag(repository.path, tag, repository.commits[number])
    options = repository.options(recipe)
    done = driver.run(
        *(word for word in options if word not in ("--good", repository.commits[0])), *TEST, "--json", patience=PATIENT
    )
    assert suspects(done.json, repository) == [6]
    assert repository.index(done.json["good"]) == 3
    assert "v3.15.0a2 fails, too" in done.stderr
    assert "v3.14.0" not in done.stderr


def judged(running: Running, driver: Driver, number: int) -> bool:
    """Whether so many commits have been judged."""
    path = driver.settings.runs / running.run().id / journal.FILE
    return path.is_file() and len(path.read_bytes().splitlines()) > number


@pytest.mark.parametrize("seed", range(3))
def test_kill_and_resume(driver: Driver, recipe: Path, tmp_path: Path, seed: int) -> None:
    """`kill -9` at a random moment; what is judged is not judged again, and the answer is the same."""
    random = Random(seed)
    repository = Repository(tmp_path / "cpython", {**broken(7, 7), 10: {FAIL: ""}})
    running = driver.start(*repository.options(recipe), *TEST)
    number = random.randrange(6)
    running.until(f"{number} judged commits", lambda: judged(running, driver, number) or None)
    time.sleep(random.random() * 3)
    running.kill()
    assert driver.is_aborted()
    before = driver.last_run()
    known = journal.load(before.folder)[1]
    assert "--resume" in driver.run("runs", "show", before.id).stdout
    done = driver.run("bisect", "--resume", before.id[:15], "--json", patience=PATIENT)
    assert suspects(done.json, repository) == [10]
    assert done.json["reproduce"] == before.reproduce
    again = journal.load(driver.last_run().folder)[1]
    assert again[: len(known)] == known
    assert len({entry.commit for entry in again}) == len(again)
    assert driver.leftovers() == []


def test_interruption(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    """Ctrl-C ends builds that were begun ahead as well, and leaves nothing in the engine."""
    repository = Repository(tmp_path / "cpython", {10: {FLAKY: ""}})
    running = driver.start(*repository.options(recipe), *TEST)
    running.until("the ends", lambda: judged(running, driver, 2) or None)
    running.signal(2)
    done = running.wait()
    assert done.returncode == 130
    assert f"bisect --resume {driver.last_run().id}" in done.stderr
    assert "nothing was left running" in done.stderr
    assert driver.leftovers() == []
    assert suspects(driver.run("bisect", "--resume", "last", "--json", patience=PATIENT).json, repository) == [10]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "passes at the bad end"),
        ({0: {FAIL: ""}}, "fails, too"),
        (
            {0: {CRASH: ""}, 1: {CRASH: None, FAIL: ""}},
            "fails differently: test.test_capi.test_opt.Tests.test_007 crashed",
        ),
        ({0: {BROKEN: "#error no\n"}, 1: {BROKEN: None, FAIL: ""}}, "cannot be judged: make failed"),
    ],
)
def test_ends_that_are_none(driver: Driver, recipe: Path, tmp_path: Path, changes: Changes, said: str) -> None:
    repository = Repository(tmp_path / "cpython", changes)
    refused = driver.run(*repository.options(recipe, bad=2), *TEST, expect=2)
    assert said in refused.stderr
    assert "hint:" in refused.stderr
    assert driver.leftovers() == []


def test_a_bad_end_that_does_not_build(driver: Driver, recipe: Path, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "cpython", {2: {BROKEN: "#error no\n"}})
    failed = driver.run(*repository.options(recipe, bad=2), *TEST, expect=1)
    assert "the bad end" in failed.stderr
    assert "#error no" in failed.stderr
    assert driver.leftovers() == []
