from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossjit.config.conditions import TargetEnvironment, When
from crossjit.errors import DocumentError
from crossjit.known_failures import entries
from crossjit.known_failures.entries import FailureKind, KnownFailure
from crossjit.model import Arch, Outcome, TestResult, Variant
from crossjit.validation import results

REASON = "it needs vfork, which QEMU has not"
WHERE = TargetEnvironment((3, 15), Arch.AARCH64, Variant("jit", "", (), ()), emulated=True)


def entry(test: str, kind: FailureKind = FailureKind.FAIL, **fields: Any) -> KnownFailure:
    return KnownFailure(test, kind, REASON, **fields)


def result(name: str, outcome: Outcome = Outcome.FAILED, **fields: Any) -> TestResult:
    return TestResult("jit", name, outcome, **fields)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "known_failures").mkdir()
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "known_failures" / name
    path.write_text(text)
    return path


ONE = f'# why\n\n[[failures]]\n# seen\ntest = "test.test_a.*"\nkind = "fail"\nreason = "{REASON}"\n'
TWO = f'{ONE}\n[[failures]]\ntest = "test.test_b.C.test_x"\nkind = "hang"\nrun = false\nreason = "{REASON}"\n'


def test_entries_have_places(folder: Path) -> None:
    second, first = write(folder, "b.toml", TWO), write(folder, "a.toml", ONE)
    found = entries.listed(folder)
    assert [(each.path, each.line, each.failure.test) for each in found] == [
        (first, 3, "test.test_a.*"),
        (second, 3, "test.test_a.*"),
        (second, 9, "test.test_b.C.test_x"),
    ]
    assert entries.load(folder) == tuple(each.failure for each in found)


def test_all_that_is_wrong_is_told_at_once(folder: Path) -> None:
    write(folder, "a.toml", ONE.replace('"fail"', '"fial"'))
    write(folder, "b.toml", TWO.replace("hang", "hangs"))
    with pytest.raises(DocumentError) as caught:
        entries.listed(folder)
    assert len(caught.value.details) == 2
    assert "did you mean 'hang'?" in caught.value.details[-1]


def test_what_is_listed_is_valid() -> None:
    found = entries.listed()
    assert found
    for each in found:
        assert each.path.read_text().splitlines()[each.line - 1] == "[[failures]]"


def test_entries_hold_in_their_circumstances_and_may_hold_whatever_is_missing() -> None:
    always, native = entry("test.test_a.*"), entry("test.test_b.*", when=When(emulated=False))
    without = entry("test.test_c.*", when=When(lacks=("pty",)))
    listed = (always, native, without)
    assert entries.holding(listed, WHERE) == (always,)
    assert entries.holding(listed, replace(WHERE, capabilities={"pty": False})) == (always, without)
    assert entries.possible(listed, WHERE) == (always, without)


def test_two_entries_may_mean_the_same_test() -> None:
    listed = [entry("test.test_a.*"), entry("test.test_a.*", FailureKind.ERROR)]
    for outcome in (Outcome.FAILED, Outcome.ERROR):
        ((marked,), _) = results.mark_known([result("test.test_a.C.test_x", outcome)], listed)
        assert marked.known == REASON
    ((marked,), _) = results.mark_known([result("test.test_a.C.test_x", Outcome.CRASHED)], listed)
    assert marked.known is None


def test_failing_in_another_way_than_listed_says_so() -> None:
    listed = [entry("test.test_a.*"), entry("test.test_a.*", FailureKind.HANG)]
    crashed = result("test.test_a.C.test_x [stress]", Outcome.CRASHED, message="log\nkilled by SIGSEGV\n")
    known = result("test.test_a.C.test_y", known=REASON)
    other = result("test.test_b.C.test_x", Outcome.CRASHED)
    passed = result("test.test_a.C.test_z", Outcome.PASSED)
    told = results.annotate_mismatch([crashed, known, other, passed], listed)
    assert told[0].message == "log\nkilled by SIGSEGV; listed as a known fail or hang, not as crashed"
    assert told[0].known is None
    assert told[1:] == [known, other, passed]


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.TIMED_OUT])
def test_a_known_end_of_a_module_is_no_proof_of_its_other_tests(outcome: Outcome) -> None:
    kind = FailureKind.CRASH if outcome is Outcome.CRASHED else FailureKind.HANG
    modules = ["test.test_b", "test.test_a"]
    ended = result("test.test_a.C.test_x [stress]", outcome, known=REASON)
    (said,) = results.cut_short([ended], [entry("test.test_a.C.*", kind)], modules)
    assert said.startswith(
        f"test.test_a.C.test_x [stress] {outcome} as expected, and the other tests of test.test_a did"
    )
    assert "`run = false`" in said
    # an entry that means the whole module accepts it; what merely failed ended nothing
    assert not results.cut_short([ended], [entry("test.test_a*", kind)], modules)
    assert not results.cut_short([replace(ended, known=None)], [entry("test.test_a.C.*", kind)], modules)
    failed = result("test.test_a.C.test_x", known=REASON)
    assert not results.cut_short([failed], [entry("test.test_a.*")], modules)


@pytest.mark.parametrize(
    ("test", "modules", "counted"),
    [
        ("test.test_a.C.test_x", ["test_a"], True),
        ("test.test_a.C.test_x", ["test_ab", "test_b"], False),
        ("test.test_ab.C.test_x", ["test_a"], False),
        ("test.test_a.*", ["test_a"], True),
        ("test.test_a*", ["test_abc"], True),
        ("test.test_*.C.test_x", ["test_a"], True),
        ("test.*", ["test_a.test_b"], True),
        ("test.test_a.test_b.C.test_x", ["test_a.test_b"], True),
        ("test.test_a.test_b.C.test_x", ["test_a"], True),
        ("test.test_a.test_b.C.test_x", ["test_a.test_c"], False),
        ("ft_workload.collector", ["test_a"], False),
    ],
)
def test_what_is_left_out_is_counted_where_its_module_ran(test: str, modules: list[str], counted: bool) -> None:
    found = results.deselected("jit", [entry(test, FailureKind.HANG, run=False), entry(test)], modules)
    assert [(each.name, each.outcome, each.known) for each in found] == (
        [(test, Outcome.SKIPPED, REASON)] if counted else []
    )


@pytest.mark.parametrize(
    ("pattern", "module", "may"),
    [
        ("test.test_s.C.test_x", "test.test_s.", True),
        ("test.test_s*", "test.test_s.", True),
        ("test.test_*.C.*", "test.test_s.", True),
        ("test.test_t.C.test_x", "test.test_s.", False),
        ("test.test_s", "test.test_s.", False),  # the module itself, and none of its tests
    ],
)
def test_a_pattern_may_mean_a_modules_tests(pattern: str, module: str, may: bool) -> None:
    assert entries.may_begin(pattern, module) is may
