"""Ratios, shares, the cost of warming up, and summaries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.measure import statistics
from crossjit.measure.model import Call, CellMeasurement, Counts, Result, Sample, Trouble
from crossjit.measure.statistics import State, WarmUp
from tests.unit.benchmarked import usual
from tests.unit.test_measure_session import OFF, ON

INSTRUCTIONS = st.lists(st.integers(1, 10**6), min_size=2, max_size=5)


def sample(*calls: Counts) -> Sample:
    return Sample(calls, executors=2, code_bytes=8192)


def totals(*counts: int) -> Sample:
    return sample(*({"python": count} for count in counts))


def result(name: str, ratio: float, *, jit: int = 1) -> Result:
    whole = round(ratio * 1000)
    return Result(name, name, sample({"python": whole}, {"python": whole - jit, "jit": jit}), totals(1000, 1000))


def test_a_row() -> None:
    row = statistics.row(Result("go", "go", sample(*usual(jit=True)), sample(*usual(jit=False))), Call.WARM)
    assert (row.state, row.ratio, row.cold, row.warm) == (State.MEASURED, 0.8, 1.2, 0.8)
    assert (row.instructions, row.baseline) == (800_000, 1_000_000)
    assert (row.jit_share, row.interpreter_share, row.baseline_interpreter_share) == (0.75, 0.25, 1.0)
    assert row.warm_up == WarmUp(400_000, 2)
    assert (row.executors, row.code_bytes) == (2, 8192)
    assert statistics.row(Result("go", "go", totals(3, 2), totals(2, 2)), Call.COLD).ratio == 1.5


def test_the_interpreters_share_is_unknown_without_symbols() -> None:
    row = statistics.row(
        Result("go", "go", sample({"jit": 1, "python": 3}, {"jit": 1, "python": 3}), totals(4, 4)), Call.WARM
    )
    assert (row.jit_share, row.interpreter_share) == (0.25, None)


def test_without_jit_code_a_benchmark_is_untouched() -> None:
    assert statistics.row(Result("json", "json", totals(10, 10), totals(10, 10)), Call.WARM).state is State.UNTOUCHED


@pytest.mark.parametrize(
    ("measured", "baseline", "expected"),
    [
        ((150, 80), (100, 100), WarmUp(70, 4)),  # 50 too many; each warm call saves 20: paid after the fourth
        ((150, 100), (100, 100), WarmUp(50, None)),  # it never saves anything
        ((150, 101), (100, 100), WarmUp(49, None)),  # nor when it goes on to need more
        ((90, 80), (100, 100), WarmUp(10, 1)),  # already cheaper in the cold call
        ((300, 80), (250, 100), WarmUp(70, 4)),  # the interpreter warms up as well
        ((140, 120, 90), (100, 100, 100), WarmUp(80, 8)),
    ],
)
def test_warming_up(measured: tuple[int, ...], baseline: tuple[int, ...], expected: WarmUp) -> None:
    assert statistics.warm_up(totals(*measured), totals(*baseline)) == expected


@given(INSTRUCTIONS, st.data())
def test_warming_up_pays_off_when_it_says_so(measured: list[int], data: st.DataObject) -> None:
    baseline = data.draw(st.lists(st.integers(1, 10**6), min_size=len(measured), max_size=len(measured)))
    found = statistics.warm_up(totals(*measured), totals(*baseline)).pays_off

    def spent(calls: list[int], number: int) -> int:
        return sum(calls[:number]) + calls[-1] * max(0, number - len(calls))

    if found is None:
        assert measured[-1] >= baseline[-1]
        assert all(spent(measured, number) > spent(baseline, number) for number in range(1, len(measured) + 1))
    else:
        assert spent(measured, found) <= spent(baseline, found)
        assert found == 1 or spent(measured, found - 1) > spent(baseline, found - 1)


def test_a_summary_counts_what_the_jit_touched() -> None:
    results = (
        result("fast", 0.5),
        result("slow", 2.0),
        result("slower", 1.06),
        result("c_code", 1.02, jit=0),
        Result("bad", "bad", trouble=Trouble.FAILED, problem="exit status 1"),
        Result("odd", "odd", trouble=Trouble.UNRELIABLE, problem="two runs differ"),
    )
    rows = statistics.rows(CellMeasurement(ON, OFF, results=results))
    assert [row.name for row in rows] == ["slow", "slower", "fast", "c_code", "bad", "odd"]
    figures = statistics.summary(rows)
    assert figures.measured == 3
    assert figures.geometric_mean == pytest.approx((0.5 * 2.0 * 1.06) ** (1 / 3))
    assert (figures.best, figures.worst) == ("fast", "slow")
    assert figures.slower == {1: 3, 5: 2, 10: 1, 20: 1}
    assert (figures.untouched, figures.failed, figures.unreliable) == (("c_code",), ("bad",), ("odd",))


def test_nothing_touched_has_no_mean() -> None:
    figures = statistics.summary(statistics.rows(CellMeasurement(ON, OFF, results=(result("c_code", 1.0, jit=0),))))
    assert (figures.measured, figures.geometric_mean, figures.best, figures.worst) == (0, None, None, None)
