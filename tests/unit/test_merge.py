"""Runs merged into one: shards joined, attempts told apart, and what does not belong together refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import ExitCode, UserError
from crossjit.model import (
    Arch,
    Cell,
    CellResult,
    Expectation,
    Outcome,
    Strategy,
    SuiteResult,
    TestResult,
    Variant,
    Verdict,
)
from crossjit.pipeline import merge
from crossjit.report.facts import changed as facts_changed
from crossjit.runs import history
from crossjit.runs.model import Run, exit_code
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from tests.unit.test_validation import facts

JIT = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
CELL = Cell("3.15", Arch.X86_64, "jit")
OTHER = Cell("3.15", Arch.AARCH64, "jit")
CONDITIONS = TargetEnvironment((3, 15), Arch.X86_64, JIT).facts()
# Each half of the tests has what the suite requires of the other half as well.
HALVES = (
    [f"test.test_capi.test_opt.T.test_{number}" for number in range(300)],
    [f"test.test_generated_cases.T.test_{number}" for number in range(300)],
)


def suite(names: Iterable[str], *, failed: Iterable[str] = (), caveats: tuple[str, ...] = ()) -> SuiteResult:
    bad = set(failed)
    results = [TestResult("jit", name, Outcome.FAILED if name in bad else Outcome.PASSED) for name in names]
    return SuiteResult("jit", tuple(results), 10.0, caveats=caveats, conditions=CONDITIONS)


def result(part: SuiteResult | None, verdict: Verdict = Verdict.PASS, *, cell: Cell = CELL) -> CellResult:
    suites = (part,) if part else ()
    probe = facts("machine code", executable={"machine": cell.arch.elf_machine})
    return CellResult(
        cell, verdict, ("why",), build_key="ab" * 32, strategy=Strategy.NATIVE, probe=probe, suites=suites
    )


def record(
    settings: Settings,
    *results: CellResult,
    shard: tuple[int, int] | None = None,
    attempt: int | None = None,
    source: str | None = None,
    log: str = "",
) -> Run:
    request = {"source": source, "selection": {"suites": [], "shard": list(shard) if shard else None, "tests": []}}
    known = {"crossjit": "1"} | ({"attempt": attempt} if attempt else {})
    cells = [each.cell for each in results]
    with RunRecord.start(settings, ("inv", "validate"), known, request=request, cells=cells) as run:
        for each in results:
            if log:
                (run.cell_folder(each.cell) / "jit").mkdir()
                (run.cell_folder(each.cell) / "jit" / log).write_text(log)
                (run.cell_folder(each.cell) / "jit" / "order.json").write_text("{}")
            run.set_cell(each)
        run.finish(exit_code(results))
        return history.load(settings, run.id)


def shards(settings: Settings, *parts: SuiteResult) -> list[Run]:
    return [
        record(settings, result(part), shard=(number, len(parts)), log=f"00{number}-x.log")
        for number, part in enumerate(parts, 1)
    ]


def test_shards_are_joined(settings: Settings) -> None:
    runs = shards(settings, suite(HALVES[0], caveats=("a", "b")), suite(HALVES[1], caveats=("b", "c")))
    (merged,) = merge.merge(runs, {CELL: 2})
    assert merged.result.verdict is Verdict.PASS
    (joined,) = merged.result.suites
    assert len(joined.results) == 600 and joined.seconds == 20.0
    assert joined.caveats == ("a", "b", "c")


def test_what_a_whole_suite_must_have_run_is_asked_of_the_whole(settings: Settings) -> None:
    short = [name for name in HALVES[1] if "generated" not in name] + ["test.test_dict.T.test_x"]
    (merged,) = merge.merge(shards(settings, suite(HALVES[0]), suite(short)), {})
    assert merged.result.verdict is Verdict.VACUOUS
    assert any("test_generated_cases" in reason for reason in merged.result.reasons)


def test_a_failure_in_one_shard_is_the_cells(settings: Settings) -> None:
    bad = HALVES[1][7]
    (merged,) = merge.merge(shards(settings, suite(HALVES[0]), suite(HALVES[1], failed=[bad])), {})
    assert merged.result.verdict is Verdict.FAIL
    assert bad in merged.result.reasons[0]


def test_a_missing_shard_is_never_green(settings: Settings) -> None:
    first, _ = shards(settings, suite(HALVES[0]), suite(HALVES[1]))
    (merged,) = merge.merge([first], {})
    assert merged.result.verdict is Verdict.INFRA
    assert merged.result.reasons[0] == "there is no result of shard 2/2"
    red = record(settings, result(suite(HALVES[0], failed=HALVES[0][:1]), Verdict.FAIL), shard=(1, 2))
    (merged,) = merge.merge([red], {})
    assert merged.result.verdict is Verdict.FAIL


def test_a_cell_that_no_run_has_is_infra(settings: Settings) -> None:
    runs = shards(settings, suite(HALVES[0]), suite(HALVES[1]))
    merged = {each.result.cell: each.result for each in merge.merge(runs, {CELL: 2, OTHER: 2})}
    assert merged[CELL].verdict is Verdict.PASS
    assert (merged[OTHER].verdict, merged[OTHER].reasons) == (Verdict.INFRA, ("no run has a result of it",))
    assert exit_code([*merged.values()]) is ExitCode.INFRASTRUCTURE


@pytest.mark.parametrize("verdict", [Verdict.INFRA, Verdict.FAIL, Verdict.ABORTED])
def test_a_shard_without_results_decides(settings: Settings, verdict: Verdict) -> None:
    runs = [
        record(settings, result(suite(HALVES[0])), shard=(1, 2)),
        record(settings, result(None, verdict), shard=(2, 2)),
    ]
    (merged,) = merge.merge(runs, {})
    assert merged.result.verdict is verdict
    assert "shard 2/2: why" in merged.result.reasons


@pytest.mark.parametrize(
    ("probe", "verdict"),
    [
        (facts("uops", executable={"machine": CELL.arch.elf_machine}), Verdict.VACUOUS),
        (facts("machine code", executable={"machine": "EM_386"}), Verdict.FAIL),
        ({}, Verdict.FAIL),
    ],
)
def test_the_probe_of_each_shard_counts(settings: Settings, probe: dict[str, object], verdict: Verdict) -> None:
    first, second = result(suite(HALVES[0])), replace(result(suite(HALVES[1]), verdict), probe=probe)
    for parts in ([first, second], [second, first]):
        runs = [record(settings, part, shard=(number, 2)) for number, part in enumerate(parts, 1)]
        (merged,) = merge.merge(runs, {CELL: 2})
        assert merged.result.verdict is verdict
        assert merged.result.reasons


def test_a_failure_in_one_shard_is_not_hidden_by_another(settings: Settings) -> None:
    """Neither where the other passed the same test, nor where its results do not show why it failed."""
    twice = HALVES[0][0]
    bad = suite([*HALVES[1], twice], failed=[twice])
    (merged,) = merge.merge(
        [
            record(settings, result(suite(HALVES[0])), shard=(1, 2)),
            record(settings, result(bad, Verdict.FAIL), shard=(2, 2)),
        ],
        {},
    )
    assert merged.result.verdict is Verdict.FAIL and twice in merged.result.reasons[0]
    runs = [
        record(settings, result(suite(HALVES[0])), shard=(1, 2)),
        record(settings, result(suite(HALVES[1]), Verdict.INFRA), shard=(2, 2)),
    ]
    (merged,) = merge.merge(runs, {})
    assert (merged.result.verdict, merged.result.reasons[-1]) == (Verdict.INFRA, "shard 2/2: why")


def test_a_newer_attempt_replaces_an_older_one(settings: Settings) -> None:
    red = record(settings, result(suite(HALVES[0], failed=HALVES[0][:1]), Verdict.FAIL), shard=(1, 2), attempt=1)
    green = record(settings, result(suite(HALVES[0])), shard=(1, 2), attempt=2)
    second = record(settings, result(suite(HALVES[1])), shard=(2, 2), attempt=1)
    for runs in ([red, green, second], [second, green, red]):
        (merged,) = merge.merge(runs, {})
        assert merged.result.verdict is Verdict.PASS
        assert {part.run.id for part in merged.parts} == {green.id, second.id}


def test_a_run_of_several_cells_is_merged_with_others(settings: Settings) -> None:
    one = record(settings, result(suite(HALVES[0])), result(suite(HALVES[0]), cell=OTHER))
    merged = merge.merge([one], {})
    assert [each.result.cell for each in merged] == [CELL, OTHER]
    assert all(each.result.verdict is Verdict.PASS for each in merged)


def refused(runs: list[Run], expected: dict[Cell, int] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        merge.merge(runs, expected or {})
    assert caught.value.hint
    return caught.value.message


def test_runs_that_do_not_belong_together(settings: Settings) -> None:
    whole = result(suite(HALVES[0]))
    one, two = record(settings, whole), record(settings, whole)
    assert refused([one, two]) == f"there are two results of {CELL}: in run {one.id} and in run {two.id}"
    halves = [record(settings, whole, shard=(1, 2)) for _ in range(2)]
    assert "two results of shard 1/2 of 3.15/x86_64/jit" in refused(halves)
    assert refused([record(settings, whole, source="a"), record(settings, whole, source="b")]) == (
        "the runs are of different sources"
    )
    assert "divided into 2 and 3 shards" in refused(
        [record(settings, whole, shard=(1, 2)), record(settings, whole, shard=(2, 3))]
    )
    assert "divided into 2 and 4 shards" in refused([record(settings, whole, shard=(1, 2))], {CELL: 4})
    other_build = replace(whole, build_key="cd" * 32)
    assert "different builds" in refused(
        [record(settings, whole, shard=(1, 2)), record(settings, other_build, shard=(2, 2))]
    )


@pytest.mark.parametrize("shard", [(0, 1), (3, 2), (-1, 2), (1, 10**9)])
def test_a_shard_that_cannot_be(settings: Settings, shard: tuple[int, int]) -> None:
    """Beside the true one it would replace it, or take all memory for a list of those that are missing."""
    run = record(settings, result(suite(HALVES[0])), shard=shard)
    assert refused([run]) == f"run {run.id} says that it is shard {shard[0]}/{shard[1]}"


def test_a_run_that_has_not_ended_or_has_no_verdicts(settings: Settings) -> None:
    with RunRecord.start(settings, ("inv", "validate"), {}, cells=[CELL]) as run:
        assert "is still running" in refused([history.load(settings, run.id)])
    with RunRecord.start(settings, ("inv", "shell"), {}, cells=[CELL], looks=True) as run:
        pass
    assert "has no verdicts: it was `shell`" in refused([history.load(settings, run.id)])


def test_attempts_and_merged_runs_are_no_differences_between_runs() -> None:
    before = {"run": {"crossjit": "1", "attempt": 1, "merged": ["a", "b"]}}
    assert facts_changed(before, {"run": {"crossjit": "1", "attempt": 2, "merged": ["c"]}}) == ()
    assert len(facts_changed(before, {"run": {"crossjit": "2"}})) == 1


def test_the_merged_run_is_recorded_with_its_logs(settings: Settings) -> None:
    runs = shards(settings, suite(HALVES[0]), suite(HALVES[1]))
    merged = merge.merge(runs, {})
    with merge.recorded(settings, runs, merged) as new:
        new.finish(0)
    run = history.load(settings)
    assert run.id == new.id
    assert run.result(CELL) == merged[0].result
    assert run.facts == {"crossjit": "1", "merged": [each.id for each in runs]}
    assert run.reproduce.endswith(f"runs merge {runs[0].id} {runs[1].id}")
    logs = run.cell_folder(CELL) / "jit"
    assert sorted(path.name for path in logs.iterdir()) == ["001-x.log", "002-x.log"]
    assert Path(run.cell_folder(CELL) / "result.json").is_file()
