from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

from crossjit import PROJECT
from crossjit import engine as engine_module
from crossjit.channels import TestList
from crossjit.config import recipes as recipes_module
from crossjit.config import suites
from crossjit.config.conditions import TargetEnvironment, When
from crossjit.engine.base import RUN
from crossjit.images import ImageBuilder, Role
from crossjit.known_failures import audit
from crossjit.known_failures import entries as entries_module
from crossjit.known_failures import subjects as subjects_module
from crossjit.known_failures.audit import History, State
from crossjit.known_failures.entries import FailureKind, KnownFailure, LocatedEntry
from crossjit.known_failures.subjects import Recorded, Subject
from crossjit.known_failures.test_inventory import Inventory
from crossjit.model import (
    Arch,
    Cell,
    CellResult,
    EmulationSupport,
    Outcome,
    SuiteResult,
    TestResult,
    Variant,
    Verdict,
)
from crossjit.runs.history import list_runs
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.sources import trust
from crossjit.stash import test_lists
from crossjit.stash.artifact import INSTALL, SUPPORT, Artifact
from crossjit.stash.store import Store
from crossjit.tasks.known_failures import check_known_failures, list_known_failures
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.build_fakes import image
from tests.unit.trees import SUPPORT as SUPPORT_TREE
from tests.unit.trees import File, manifest, stream

JIT = Variant("jit", "", (), ())
EMULATED = TargetEnvironment((3, 15), Arch.AARCH64, JIT, emulated=True, qemu="7.2.22", capabilities={"pty": False})
NATIVE = TargetEnvironment((3, 15), Arch.X86_64, JIT)
TEST = "test.test_a.C.test_x"
REASON = "it needs vfork, which QEMU has not"

TESTS = Inventory(frozenset({TEST, "test.test_a.C.test_y"}), frozenset({"test.test_open."}))
SUBJECT = Subject("3.15", EMULATED, "a" * 12, TESTS)
NATIVE_TOO = replace(SUBJECT, where=NATIVE)


def listed(test: str = TEST, kind: FailureKind = FailureKind.FAIL, **fields: Any) -> LocatedEntry:
    return LocatedEntry(KnownFailure(test, kind, REASON, **fields), Path("emulation.toml"), 4)


def history(run: str, *outcomes: Outcome, where: TargetEnvironment = EMULATED, test: str = TEST) -> History:
    return History(run, where, {test: frozenset(outcomes)})


def judge(
    each: LocatedEntry, histories: Iterable[History] = (), subjects: Iterable[Subject] = (SUBJECT,)
) -> tuple[State, str]:
    (judged,) = audit.judge([each], tuple(subjects), tuple(histories))
    assert judged.listed is each
    return judged.state, judged.why


def test_an_entry_that_a_run_needed() -> None:
    said = judge(
        listed(), [history("r3", Outcome.PASSED), history("r2", Outcome.FAILED), history("r1", Outcome.FAILED)]
    )
    assert said == (State.NEEDED, "failed so in run r2 and 1 other")
    groups = history("r1", Outcome.PASSED, Outcome.FAILED)
    assert judge(listed("test.test_a.*"), [groups]) == (State.NEEDED, "failed so in run r1")


def test_an_entry_that_no_run_needed() -> None:
    assert judge(listed(), [history("r2", Outcome.PASSED), history("r1", Outcome.PASSED)]) == (
        State.NOT_NEEDED,
        "passed in run r2 and 1 other, and fail in none",
    )
    assert judge(listed(), [history("r1", Outcome.TIMED_OUT)])[1] == "timed out in run r1, and fail in none"
    assert State.NOT_NEEDED.is_wrong


@pytest.mark.parametrize(
    ("each", "histories", "why"),
    [
        (listed(), [], "no run recorded its environment"),
        (listed(when=When(emulated=False)), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (listed(when=When(qemu=">=8.2")), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (listed(when=When(lacks=("ptrace",))), [history("r1", Outcome.PASSED)], "its conditions applied in no run"),
        (
            listed(when=When(lacks=("pty",))),
            [history("r1", Outcome.SKIPPED)],
            "its tests ran in no run where it applies",
        ),
        (
            listed(),
            [history("r1", Outcome.PASSED, test="test.test_b.C.test_x")],
            "its tests ran in no run where it applies",
        ),
        (listed(run=False), [history("r1", Outcome.SKIPPED)], "it is deselected, so no run can tell"),
    ],
)
def test_an_entry_that_was_not_tried(each: LocatedEntry, histories: list[History], why: str) -> None:
    assert judge(each, histories) == (State.NOT_TRIED, why)
    assert not State.NOT_TRIED.is_wrong


def test_an_entry_whose_tests_are_nowhere() -> None:
    state, why = judge(listed("test.test_a.C.test_xx"))
    assert state is State.NO_TEST
    assert state.is_wrong
    absent = "(those of x86_64 are not in the stash; an entry about them says `arch`)"
    assert why == f"no test of 3.15 matches {absent}; did you mean {TEST!r}?"
    both = judge(listed("test.test_a.C.test_xx"), subjects=[SUBJECT, NATIVE_TOO])
    assert both == (State.NO_TEST, f"no test of 3.15 matches; did you mean {TEST!r}?")
    assert judge(listed("test.nowhere.*"))[0] is State.NO_TEST
    # what failed in a run is there, whatever was listed
    assert (
        judge(listed("test.test_a.C.test_xx"), subjects=[replace(SUBJECT, seen=frozenset({"test.test_a.C.test_xx"}))])[
            0
        ]
        is State.NOT_TRIED
    )


@pytest.mark.parametrize(
    ("test", "when", "state"),
    [
        ("test.test_open.Made.test_x", When(), State.NOT_TRIED),
        ("builtins.float.hex", When(), State.NOT_TRIED),
        ("ft_workload.collector", When(), State.NOT_TRIED),
        ("*.test_timer", When(), State.NOT_TRIED),
        ("tests.test_a.C.test_x", When(), State.NO_TEST),
        ("test_a", When(), State.NO_TEST),
        # no such Python is here
        ("test.test_old.C.test_x", When(python="<3.14"), State.NOT_TRIED),
        ("test.test_old.C.test_x", When(python=">=3.14"), State.NO_TEST),
        ("test.test_old.C.test_x", When(arch=(Arch.X86_64,)), State.NOT_TRIED),
        ("test.test_old.C.test_x", When(arch=(Arch.AARCH64,)), State.NO_TEST),
        ("test.test_old.C.test_x", When(variant=("tsan",)), State.NOT_TRIED),
        ("test.test_old.C.test_x", When(free_threaded=True), State.NOT_TRIED),
        ("test.test_old.C.test_x", When(variant=("jit",), free_threaded=False), State.NO_TEST),
        # tests are the same whatever runs them
        ("test.test_old.C.test_x", When(emulated=False, qemu="<8.0", cpu=("max",), lacks=("pty",)), State.NO_TEST),
    ],
)
def test_what_no_list_can_tell_is_no_alarm(test: str, when: When, state: State) -> None:
    assert judge(listed(test, when=when))[0] is state


def test_without_a_list_nothing_is_said_of_a_tests_name() -> None:
    typo = "test.test_xyz.C.test_x"
    assert judge(listed(typo), subjects=[])[0] is State.NOT_TRIED
    seen = Subject("3.15", EMULATED, seen=frozenset({TEST}))
    assert judge(listed(typo), subjects=[seen])[0] is State.NOT_TRIED
    unlisted = replace(SUBJECT, tests=None)
    assert unlisted.is_unlisted
    assert judge(listed(typo), subjects=[unlisted])[0] is State.NOT_TRIED
    assert judge(listed(typo), subjects=[NATIVE_TOO, unlisted])[0] is State.NOT_TRIED
    assert judge(listed(typo, when=When(arch=(Arch.X86_64,))), subjects=[NATIVE_TOO, unlisted])[0] is State.NO_TEST


# -- from the stash and the run records

CELL = Cell("3.15", Arch.AARCH64, "jit")


def suite(*results: TestResult, where: TargetEnvironment = EMULATED) -> SuiteResult:
    capabilities: dict[str, object] = {
        "pty": {"works": False, "detail": "ENOSYS"},
        "ptrace": {"works": None, "detail": "the feature check went wrong"},
    }
    return SuiteResult("jit", results, 1.0, conditions=where.facts(), capabilities=capabilities)


def record(settings: Settings, *suites: SuiteResult) -> str:
    with RunRecord.start(settings, ("inv",), {}, cells=(CELL,)) as run:
        run.set_cell(result_of(*suites))
        return run.id


def result_of(*suites: SuiteResult) -> CellResult:
    return CellResult(CELL, Verdict.PASS, (), suites=suites)


def recorded(settings: Settings) -> Recorded:
    return [(run.id, result) for run in list_runs(settings) for result in run.results()]


RECIPES = recipes_module.load_all(PROJECT / "recipes", suites=suites.names())
OLD = Cell("3.13", Arch.AARCH64, "jit")
HAS = {CELL: (TEST, "test.test_a.C.test_y"), OLD: ("test.test_a.C.test_old",)}


def put(store: Store, cell: Cell, **fields: Any) -> Artifact:
    """Stash an artifact of a cell, newer than what is there."""
    key = f"{len(store.artifacts())}" * 64
    with store.lock(key), store.staging(key) as staging:
        staging.add(INSTALL, stream({"usr/local/lib/python3.15/os.py": File()}))
        staging.add(SUPPORT, stream(SUPPORT_TREE, top=SUPPORT))
        known = replace(manifest(key, cell), recipe=cell.recipe, variant=cell.variant, arch=cell.arch)
        version = "3.15.0rc2" if cell.recipe == "gone" else f"{cell.recipe}.1"
        return staging.commit(replace(known, **{"version": version, **fields}))


@pytest.fixture
def stash(settings: Settings) -> Store:
    store = Store(settings.stash)
    for cell, names in HAS.items():
        test_lists.keep(store.path, put(store, cell), TestList(("test", "test.test_a"), names))
    return store


@dataclass
class Lists:
    """Lists of tests: those that there are, and those that are made. `has` are tests by cell, None for none."""

    kept: Mapping[Cell, tuple[str, ...]] = field(default_factory=dict)
    has: Mapping[Cell, tuple[str, ...] | None] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)

    def find(self, artifact: Artifact) -> Inventory | None:
        assert artifact.manifest.cell is not None
        names = self.kept.get(artifact.manifest.cell)
        return None if names is None else Inventory(frozenset(names))

    def make(self, artifact: Artifact, where: TargetEnvironment) -> Inventory | None:
        assert artifact.manifest.cell is not None
        assert where.variant.name == artifact.manifest.variant
        self.made.append(str(artifact.manifest.cell))
        names = self.has.get(artifact.manifest.cell, ())
        return None if names is None else Inventory(frozenset(names))

    def subjects(
        self, store: Store, *failures: LocatedEntry, recorded: Recorded = (), host: Arch | None = Arch.X86_64
    ) -> tuple[Subject, ...]:
        wanted = [each.failure for each in failures]
        return subjects_module.subjects(
            store.artifacts(), recorded, wanted, RECIPES, host_arch=host, find=self.find, make=self.make
        )


X86, ARM = Arch.X86_64, Arch.AARCH64
X86_OLD, X86_JIT, X86_TSAN, ARM_JIT = (
    Cell("3.13", X86, "jit"),
    Cell("3.15", X86, "jit"),
    Cell("3.15", X86, "tsan"),
    Cell("3.15", ARM, "jit"),
)


@pytest.fixture
def store(settings: Settings) -> Store:
    """A stash whose newest artifacts are those that take longest."""
    store = Store(settings.stash)
    for cell in (X86_OLD, X86_JIT, X86_TSAN, ARM_JIT):
        put(store, cell)
    return store


def test_what_is_known_makes_no_artifact_list_its_tests(store: Store) -> None:
    ran: Recorded = [("r1", result_of(suite(TestResult("jit", TEST, Outcome.FAILED), where=NATIVE)))]
    lists = Lists(kept={X86_OLD: ("test.test_a.C.test_old",)})
    lists.subjects(store, listed(), listed("test.test_a.C.test_old"), recorded=ran)
    assert lists.made == []
    lists.subjects(store)
    assert lists.made == []


def test_the_hosts_arch_and_usual_variants_list_their_tests_first(store: Store) -> None:
    lists = Lists(has={X86_JIT: (TEST,)})
    found = lists.subjects(store, listed())
    assert lists.made == ["3.15/x86_64/jit"]
    assert [each.name for each in found] == ["3.15/x86_64/jit"]
    emulated = Lists(has={ARM_JIT: (TEST,)})
    emulated.subjects(store, listed(), host=ARM)
    assert emulated.made == ["3.15/aarch64/jit"]


def test_a_name_that_is_nowhere_has_one_artifact_of_each_recipe_and_arch_asked(store: Store) -> None:
    lists = Lists(has={ARM_JIT: ("test.test_arm.C.test_x",)})
    found = lists.subjects(store, listed("test.test_typo.C.test_x"))
    assert lists.made == ["3.15/x86_64/jit", "3.13/x86_64/jit", "3.15/aarch64/jit"]
    assert judge(listed("test.test_typo.C.test_x"), subjects=found)[0] is State.NO_TEST
    # what only the other arch has is there
    assert judge(listed("test.test_arm.C.test_x"), subjects=found)[0] is State.NOT_TRIED
    only_here = listed("test.test_arm.C.test_x", when=When(arch=(X86,)))
    assert judge(only_here, subjects=found)[0] is State.NO_TEST


@pytest.mark.parametrize(
    ("when", "made"),
    [
        (When(python="<3.14"), ["3.13/x86_64/jit"]),
        (When(arch=(ARM,)), ["3.15/aarch64/jit"]),
        (When(variant=("tsan",)), ["3.15/x86_64/tsan"]),
        (When(free_threaded=True), []),
        (When(variant=("asan",)), []),
    ],
)
def test_only_what_an_entry_is_about_is_asked(store: Store, when: When, made: list[str]) -> None:
    lists = Lists()
    lists.subjects(store, listed("test.test_typo.*", when=when))
    assert lists.made == made


def test_what_cannot_list_its_tests_may_have_any(store: Store) -> None:
    typo = listed("test.test_typo.C.test_x", when=When(python=">=3.15"))
    lists = Lists(has={X86_JIT: None, X86_TSAN: (TEST,), ARM_JIT: None})
    found = lists.subjects(store, typo)
    # the next of the same recipe and arch stands in for it
    assert lists.made == ["3.15/x86_64/jit", "3.15/x86_64/tsan", "3.15/aarch64/jit"]
    assert [each.name for each in found if each.is_unlisted] == ["3.15/aarch64/jit"]
    assert judge(typo, subjects=found)[0] is State.NOT_TRIED


def test_the_newest_artifact_of_a_cell_is_asked_and_no_strangers(store: Store) -> None:
    newest = put(store, X86_JIT)
    put(store, X86_JIT, domain=trust.domain_of("https://example.org/cpython#pull/7/head"))
    put(store, Cell("gone", X86, "jit"))
    put(store, Cell("3.15", X86, "gone"))
    put(store, Cell("3.15", X86, "ft"), version="no version")
    found = Lists().subjects(store, listed("test.test_typo.*", when=When(arch=(X86,), python=">=3.15")))
    assert [each.artifact for each in found] == [newest.id]


def test_tests_are_known_from_artifacts_and_from_runs(settings: Settings, stash: Store) -> None:
    record(
        settings,
        suite(
            TestResult("jit", f"{TEST} [stress]", Outcome.FAILED, known=REASON),
            TestResult("jit", "test.test_a.C.test_seen", Outcome.SKIPPED),
            TestResult("jit", "test.test_a.C.test_left_out", Outcome.SKIPPED, known=REASON),
        ),
        suite(TestResult("jit", "test.test_a.C.test_native", Outcome.PASSED), where=NATIVE),
        SuiteResult("old", (TestResult("old", "test.test_a.C.test_unknown", Outcome.PASSED),), 1.0),
    )
    ran, native, old, new = Lists(kept=HAS).subjects(stash, recorded=recorded(settings))
    assert ran.seen == {TEST, "test.test_a.C.test_seen"}
    assert (ran.name, ran.where.python, ran.artifact) == ("3.15/aarch64/jit", (3, 15), "")
    assert native.seen == {"test.test_a.C.test_native"}
    assert native.name == "3.15/x86_64/jit"
    assert (old.name, new.name) == ("3.13/aarch64/jit", "3.15/aarch64/jit")
    assert new.may_have(TEST)
    assert not new.may_have("test.test_a.C.test_old")
    assert old.may_have("test.test_a.C.test_old")
    history, _ = audit.histories(recorded(settings))
    assert history.outcomes == {TEST: {Outcome.FAILED}, "test.test_a.C.test_seen": {Outcome.SKIPPED}}
    assert history.where.capabilities == {"pty": False}
    assert history.where.facts() == EMULATED.facts()


@pytest.fixture
def home(settings: Settings, fake_engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The state folder of commands, whose engine is one in memory."""
    monkeypatch.setattr(engine_module, "connect", lambda settings: fake_engine)
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    return settings


def entries(monkeypatch: pytest.MonkeyPatch, *found: LocatedEntry) -> None:
    monkeypatch.setattr(entries_module, "listed", lambda: found)


def test_the_check_says_what_is_wrong_and_where(
    home: Settings, stash: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(home, suite(TestResult("jit", TEST, Outcome.PASSED)))
    entries(
        monkeypatch, listed(), listed("test.test_a.D.*"), listed("test.test_a.C.test_old", when=When(python="<3.14"))
    )
    with pytest.raises(Exit) as ended:
        check_known_failures(Context())
    assert ended.value.code == 1
    assert capsys.readouterr().out.splitlines() == [
        f"emulation.toml:4: {TEST}: not needed: passed in run {run}, and fail in none",
        "emulation.toml:4: test.test_a.D.*: no such test: no test of 3.13, 3.15 matches "
        "(those of 3.14, main are not in the stash; an entry about them says `python`; "
        "those of x86_64 are not in the stash; an entry about them says `arch`)",
        "emulation.toml:4: test.test_a.C.test_old: not tried: its conditions applied in no run",
        "3 known failures: 1 not tried, 1 not needed, 1 no such test",
    ]
    with pytest.raises(Exit):
        check_known_failures(Context(), json=True)
    said = json.loads(capsys.readouterr().out)
    assert (said["wrong"], said["recipes"], said["not_listed"]) == (2, ["3.13", "3.15"], [])
    assert [each["state"] for each in said["entries"]] == ["not needed", "no such test", "not tried"]
    assert said["entries"][0] | {"why": ""} == {
        "file": "emulation.toml",
        "line": 4,
        "test": TEST,
        "kind": "fail",
        "run": True,
        "when": "",
        "reason": REASON,
        "link": "",
        "state": "not needed",
        "why": "",
    }


def test_the_check_of_what_is_needed_and_not_tried_passes(
    home: Settings, stash: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record(home, suite(TestResult("jit", TEST, Outcome.FAILED, known=REASON)))
    entries(monkeypatch, listed(), listed(kind=FailureKind.HANG, run=False, when=When(arch=(Arch.X86_64,))))
    check_known_failures(Context())
    assert "2 known failures: 1 needed, 1 not tried" in capsys.readouterr().out


def test_the_shipped_list_can_be_listed_and_checked_with_nothing_there(
    home: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    list_known_failures(Context())
    number = len(entries_module.listed())
    assert capsys.readouterr().out.count(".toml:") == number
    list_known_failures(Context(), json=True)
    assert len(json.loads(capsys.readouterr().out)) == number
    check_known_failures(Context())
    said = capsys.readouterr()
    assert f"{number} not tried" in said.out
    assert "the stash is empty" in said.err


# -- with an engine, or without


def lister(process: FakeProcess) -> int:
    process.write_line(json.dumps({"modules": ["test", "test.test_a", "test.test_out"]}))
    process.write_line(json.dumps({"tests": [TEST]}))
    return 0


@pytest.fixture
def engine(fake_engine: FakeEngine, home: Settings, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """An engine with the target images, as what commands connect to."""
    made = {arch: image(Role.TARGET, arch) for arch in Arch}
    for each in made.values():
        fake_engine.add_image(each.reference, arch=each.arch)
    fake_engine.programs["python3"] = lister
    monkeypatch.setattr(ImageBuilder, "ensure", lambda builder, spec, role, arch: made[arch])
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    return fake_engine


TYPO = listed("test.test_a.C.test_typo", when=When(python=">=3.15", arch=(X86,)))


def test_an_artifact_lists_its_tests_once(
    engine: FakeEngine, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries(monkeypatch, listed(when=When(arch=(X86,))), TYPO, listed("test.test_out.C.test_x"))
    for _ in range(2):
        with pytest.raises(Exit):
            check_known_failures(Context())
        said = capsys.readouterr()
        assert "3 known failures: 2 not tried, 1 no such test" in said.out
        assert f"no test of 3.15 matches; did you mean {TEST!r}?" in said.out
    (started,) = engine.started
    assert started.image == image(Role.TARGET, X86).reference
    assert started.labels[RUN]
    assert started.name.startswith("crossjit-list-3.15-x86_64-jit-")
    assert engine.containers == {}
    assert [path.name for path in (store.path / "tests").iterdir()] == ["1" * 64]


def test_what_an_artifact_cannot_list_is_told_and_no_error(
    engine: FakeEngine, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(process: FakeProcess) -> int:
        process.write_line("regrtest ended with exit status 1: OSError: \x1b[2Jno such device")
        return 1

    engine.programs["python3"] = broken
    entries(monkeypatch, TYPO)
    check_known_failures(Context(), json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["not_listed"] == ["3.15/x86_64/jit", "3.15/x86_64/tsan"]
    assert "the tests of 3.15/x86_64/jit" in said.err
    assert "OSError: " in said.err
    assert "\x1b" not in said.err
    assert not (store.path / "tests").exists()


def test_a_damaged_artifact_lists_nothing(
    engine: FakeEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(Store(settings.stash), X86_JIT).objects[INSTALL]
    content = path.read_bytes()
    path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    entries(monkeypatch, TYPO)
    check_known_failures(Context())
    assert "are not listed: it is damaged" in capsys.readouterr().err
    assert engine.started == []


def test_what_nothing_here_can_run_lists_nothing(
    engine: FakeEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(Store(settings.stash), ARM_JIT)
    monkeypatch.setattr(EmulationSupport, "runs", lambda ability, arch: arch is X86)
    entries(monkeypatch, listed("test.test_typo.C.test_x"))
    check_known_failures(Context())
    assert "nothing on this machine can run aarch64 programs" in capsys.readouterr().err
    assert engine.started == []


def test_without_an_engine_what_is_not_listed_is_not_tried(
    engine: FakeEngine, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.die()
    entries(monkeypatch, TYPO, listed("test.test_typo.C.test_x"))
    check_known_failures(Context())
    said = capsys.readouterr()
    assert "2 known failures: 2 not tried" in said.out
    assert said.err.count("tests of artifacts cannot be listed: ") == 1
    # what is known needs none
    (artifact,) = (each for each in store.artifacts() if each.manifest.cell == X86_JIT)
    test_lists.keep(store.path, artifact, TestList(("test",), (TEST,)))
    entries(monkeypatch, TYPO, listed(when=When(arch=(X86,))))
    with pytest.raises(Exit):
        check_known_failures(Context())
    said = capsys.readouterr()
    assert "1 not tried, 1 no such test" in said.out
    assert said.err == ""
