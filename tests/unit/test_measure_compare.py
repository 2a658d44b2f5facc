"""What moved between two measurements, and where times and instructions part."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from crossjit.errors import ExitCode, UserError
from crossjit.measure.agreement import Agreement, Pair, agreement, of
from crossjit.measure.compare import NOISE, Direction, compare, direction, pairs
from crossjit.measure.model import Call, CellMeasurement, Metric, Result, Sample, Trouble
from crossjit.model import Arch
from crossjit.report import measure_compare as report
from crossjit.report.terminal_style import TerminalStyle
from crossjit.settings import Settings
from crossjit.tasks import measure_compare
from tests import example_measurements as examples
from tests.example_runs import HOSTILE
from tests.unit.test_report_tasks import invoke

ARM = Arch.AARCH64
BEFORE = examples.measurement(ARM)
AFTER = examples.measurement(ARM, moved={"go": 1.031, "richards": 1.2, "nbody": 0.9, "float": 1.002}, artifact="b" * 12)


def plain() -> TerminalStyle:
    return TerminalStyle(live=False, color=False, unicode=True, width=120)


def changed(name: str, **fields: object) -> CellMeasurement:
    """Return the later measurement with a benchmark of which this is different."""
    results = tuple(replace(each, **fields) if each.name == name else each for each in AFTER.results)  # type: ignore[arg-type]
    return replace(AFTER, results=results)


def test_the_worst_movement_is_first() -> None:
    found = compare(BEFORE, AFTER)
    moved = [each for each in found.movements if each.direction is not Direction.SAME]
    assert [(each.name, each.direction.value, round(each.ratio, 4)) for each in moved] == [
        ("richards", "slower", 1.2),
        ("go", "slower", 1.031),
        ("nbody", "faster", 0.9),
    ]
    assert found.movements[0].name == "richards"
    assert found.movements[-1].name == "nbody"
    assert [found.count(each) for each in Direction] == [2, 1, 55]
    richards = found.movements[0]
    assert (round(richards.before, 3), round(richards.after, 3), richards.baseline) == (0.44, 0.528, 1.0)
    assert found.geometric_mean == pytest.approx((1.2 * 1.031 * 0.9 * 1.002) ** (1 / 58))
    assert found.jit_after == pytest.approx((found.jit_before or 0) * (1.2 * 1.031 * 0.9 * 1.002) ** (1 / 53))


def test_a_change_of_the_interpreter_moves_both_sides() -> None:
    on, off = Sample(({"jit": 0, "other": 800},)), Sample(({"other": 1000},))

    def doubled(sample: Sample) -> Sample:
        return replace(sample, calls=tuple({**counts, "other": 2 * counts["other"]} for counts in sample.calls))

    first, *rest = (Result(name, name, on, off) for name in ("go", "chaos"))
    before = replace(BEFORE, results=(first, *rest))
    after = replace(BEFORE, results=(replace(first, measured=doubled(on), baseline=doubled(off)), *rest))
    worst = compare(before, after).movements[0]
    assert (worst.name, worst.ratio, worst.baseline) == ("go", 2.0, 2.0)
    assert worst.before == worst.after


@pytest.mark.parametrize(
    ("ratio", "noise", "expected"),
    [
        (1.0, 0.0, Direction.SAME),
        (1.002, 0.0025, Direction.SAME),
        (0.998, 0.0025, Direction.SAME),
        (1.003, 0.0025, Direction.SLOWER),
        (0.997, 0.0025, Direction.FASTER),
        (1.003, 0.01, Direction.SAME),
        (1.0001, 0.0, Direction.SLOWER),
    ],
)
def test_noise(ratio: float, noise: float, expected: Direction) -> None:
    assert direction(ratio, noise) is expected


def test_what_failed_only_later_broke() -> None:
    broken = changed("go", measured=None, baseline=None, trouble=Trouble.FAILED, problem="ValueError: no")
    found = compare(BEFORE, broken)
    assert found.broke == ("go",)
    assert found.left_out[0].why == "failed in the later measurement: ValueError: no"
    assert {each.name for each in found.left_out} == {"go", "sympy_sum", "telco"}
    assert compare(broken, BEFORE).broke == ()
    unreliable = changed("go", measured=None, baseline=None, trouble=Trouble.UNRELIABLE, problem="two runs differ")
    assert compare(BEFORE, unreliable).broke == ()
    missing = replace(AFTER, results=AFTER.results[1:])
    assert "the later measurement does not have it" in {each.why for each in compare(BEFORE, missing).left_out}
    assert "the earlier measurement does not have it" in {each.why for each in compare(missing, BEFORE).left_out}


def test_a_benchmark_that_lost_the_jit() -> None:
    sample = next(each for each in AFTER.results if each.name == "go").baseline
    found = compare(BEFORE, changed("go", measured=sample))
    assert [each.name for each in found.movements if each.lost_the_jit] == ["go"]
    text = report.as_text([found], before="a", after="b", style=plain())
    assert "no JIT code runs any more in go" in text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"table": "ef" * 32}, "different tables of benchmarks: cdcdcdcdcdcd before, efefefefefef after"),
        ({"call": Call.COLD}, "different calls: warm before, cold after"),
        ({"cpu": "max"}, "different CPU models: cortex-a72 before, max after"),
        (
            {"measured": examples.side(Arch.X86_64, jit=True), "baseline": examples.side(Arch.X86_64, jit=False)},
            "different architectures: aarch64 before, x86_64 after",
        ),
        (
            {"baseline": examples.side(ARM, jit=False, variant="nojit")},
            "different baselines: the same build with the JIT off before, nojit with the JIT off after",
        ),
        (
            {"vacuous": "no machine code"},
            "the later measurement of 3.15/aarch64/jit has nothing to compare: no machine",
        ),
        ({"metric": Metric.TIME}, "different metrics: instructions before, time after"),
    ],
)
def test_what_cannot_be_compared(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        compare(BEFORE, replace(AFTER, **fields))  # type: ignore[arg-type]
    assert message in refused.value.message
    assert refused.value.hint


def test_cells_are_paired_by_name_or_else_by_arch() -> None:
    both = examples.both()
    assert pairs(both, both[::-1]) == ((both[0], both[0]), (both[1], both[1]))
    other = replace(BEFORE, measured=examples.side(ARM, jit=True, variant="jit-tailcall"))
    assert pairs((other,), both) == ((other, both[1]),)
    with pytest.raises(UserError, match=r"no cell in common: .* before, .* after") as refused:
        pairs(both[:1], both[1:])
    assert refused.value.hint
    with pytest.raises(UserError, match="no cell in common"):
        pairs((other, replace(other, measured=examples.side(ARM, jit=True, variant="interp"))), both)


def test_notes_say_what_else_differs() -> None:
    assert compare(BEFORE, BEFORE).notes == ("both measured the same build",)
    assert compare(BEFORE, replace(AFTER, meter="ff")).notes == ("the images differ, and so may the libraries in them",)
    assert compare(BEFORE, AFTER).notes == ()


def test_text_has_what_moved_and_counts_the_rest() -> None:
    text = report.as_text([compare(BEFORE, AFTER)], before="run-a", after="run-b", style=plain())
    assert text.startswith("before: run-a\nafter:  run-b\n\n3.15/aarch64/jit, JIT on: 3.15.0rc2 against 3.15.0rc2\n")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "benchmark moved baseline ratio before ratio after JIT before JIT after" in lines
    assert "richards +20.00 % +0.00 % 0.440 0.528 41.3 % 41.3 %" in lines
    assert "geometric mean +0.19 % of 58 benchmarks: 2 slower, 1 faster, 55 within the noise of 0.25 %" in lines
    assert "ratio to the baseline, geometric mean: 0.815 before, 0.817 after" in lines
    assert not [line for line in lines if line.startswith("float ")]
    assert [line for line in lines if line.startswith("left out: telco: unreliable in the earlier measurement: ")]


Compare = Callable[..., ExitCode]


@pytest.fixture
def task(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Return the task, over the settings' runs."""
    monkeypatch.setenv("CROSSJIT_HOME", str(settings.home))
    return partial(measure_compare.compare.body, None)


def test_many_benchmarks_that_are_left_out_are_one_line() -> None:
    few = replace(AFTER, results=AFTER.results[:3])
    lines = report.as_text([compare(BEFORE, few)], before="a", after="b", style=plain()).splitlines()
    (line,) = [line for line in lines if line.startswith("left out: ") and "does not have it" in line]
    assert line.endswith(" and 45 more: the later measurement does not have it")
    assert line.startswith("left out: barnes_hut, bpe_tokeniser, ")


def test_the_task_compares_runs(settings: Settings, task: Compare, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = examples.record(settings, [BEFORE]).id, examples.record(settings, [AFTER]).id
    assert task(first, "last") is ExitCode.PASS
    assert f"before: {first}\nafter:  {second}" in capsys.readouterr().out
    task(first, second, json=True)
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["cell"], cell["noise"]) == ("3.15/aarch64/jit", NOISE)
    assert cell["counts"] == {"slower": 2, "faster": 1, "same": 55}
    assert cell["movements"][0]["name"] == "richards"
    task(first, second, noise="25%", json=True)
    assert json.loads(capsys.readouterr().out)["cells"][0]["counts"]["same"] == 58
    assert task(first, second, fail_slower="19%") is ExitCode.PRODUCT
    assert task(first, second, fail_slower="21%") is ExitCode.PASS
    assert task(first, second, noise="25%", fail_slower="19%") is ExitCode.PASS, "what is within the noise did not move"


def test_the_task_ends_with_1_for_what_broke(
    settings: Settings, task: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = changed("go", measured=None, baseline=None, trouble=Trouble.FAILED, problem=HOSTILE[5])
    assert task(examples.record(settings, [BEFORE]).id, examples.record(settings, [broken]).id) is ExitCode.PRODUCT
    shown = capsys.readouterr().out
    assert "broke: go: failed in the later measurement: " in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (BEFORE, {"noise": "little"}, "invalid --noise 'little': expected a percentage"),
        (BEFORE, {"fail_slower": "much"}, "invalid --fail-slower 'much': expected a percentage"),
        (replace(BEFORE, table="other"), {}, "different tables of benchmarks"),
        (None, {}, "measured nothing"),
    ],
)
def test_the_task_refuses(
    settings: Settings, task: Compare, found: CellMeasurement | None, options: dict[str, str], message: str
) -> None:
    before = examples.record(settings, [BEFORE])
    after = examples.record(settings, [found] if found else [])
    with pytest.raises(UserError) as refused:
        task(before.id, after.id, **options)
    assert message in refused.value.message
    assert refused.value.hint


def test_there_may_be_no_last_measurement(settings: Settings, task: Compare) -> None:
    examples.record(settings, [])
    with pytest.raises(UserError, match="nothing has been measured yet") as refused:
        task("last", "last")
    assert refused.value.hint


def test_the_task_on_the_command_line(settings: Settings) -> None:
    run = examples.record(settings, [BEFORE])
    done = invoke(settings, "measure", "compare", run.id, "last")
    assert done.returncode == 0, done.stderr
    assert "note: both measured the same build" in done.stdout.decode()


def test_times_move_if_their_interval_says_so() -> None:
    before, after = examples.timed(), examples.timed(moved={"richards": 1.2, "nbody": 0.9, "chaos": 1.014})
    found = compare(before, after)
    assert found.noise == 0.012
    moved = {each.name: each.direction for each in found.movements if each.direction is not Direction.SAME}
    assert {"richards": Direction.SLOWER, "nbody": Direction.FASTER}.items() <= moved.items()
    assert len(moved) < 6
    assert found.movements[0].ratio == pytest.approx(1.2, abs=0.02)
    assert found.movements[0].share_before is None
    text = report.as_text([found], before="a", after="b", style=plain())
    assert "within the noise of 1.2 %" in text
    narrow = compare(before, after, noise=0.0)
    assert {each.name for each in narrow.movements if each.direction is Direction.SLOWER} >= {"richards", "chaos"}
    assert narrow.count(Direction.SAME) > 40, "intervals that hold 1.0 are no movement"


def test_the_task_says_how_well_times_and_instructions_agree(
    settings: Settings, task: Compare, capsys: pytest.CaptureFixture[str]
) -> None:
    counted, timed = examples.measurement(Arch.X86_64), examples.timed()
    first, second = examples.record(settings, [counted]).id, examples.record(settings, [timed]).id
    for runs in ((first, second), (second, first)):
        assert task(*runs) is ExitCode.PASS
        shown = capsys.readouterr().out
        assert shown.startswith("3.15/x86_64/jit: times and instructions have a log correlation of 0.9")
        assert "58 benchmarks of at least 3 ms" in shown
        assert "they part in go: instructions 0.903, time 1.17" in shown
        assert ": one says faster, the other slower" in shown
    task(first, second, json=True)
    found = json.loads(capsys.readouterr().out)["agreement"]["3.15/x86_64/jit"]
    assert [each["name"] for each in found["apart"]] == ["go", "html5lib"]
    assert found["apart"][0]["opposite"] is True
    assert 0.8 < found["correlation"] < 1


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"table": "ef" * 32}, "tables of benchmarks"),
        ({"baseline": examples.side(Arch.X86_64, jit=False, variant="nojit")}, "baselines"),
        ({"measured": examples.side(Arch.X86_64, jit=True, artifact="b" * 12)}, "builds"),
    ],
)
def test_times_and_instructions_of_different_things(fields: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=f"have different {what}") as refused:
        of(examples.measurement(Arch.X86_64), replace(examples.timed(), **fields))  # type: ignore[arg-type]
    assert refused.value.hint


# Times and instructions


def pair(name: str, instructions: float, time: float, seconds: float = 0.1) -> Pair:
    return Pair(name, instructions, time, seconds)


def test_times_and_instructions_that_agree() -> None:
    found = agreement([pair("a", 0.5, 0.52), pair("b", 0.8, 0.79), pair("c", 1.0, 1.02), pair("d", 1.1, 1.12)])
    assert found.correlation == pytest.approx(0.998, abs=0.001)
    assert (found.compared, found.apart, found.too_short) == (4, (), ())
    assert report.agreement_text(found) == (
        "times and instructions have a log correlation of 0.998 over 4 benchmarks of at least 3 ms"
    )


def test_the_correlation_is_of_logarithms() -> None:
    squares = [pair(str(ratio), ratio, ratio**2) for ratio in (0.25, 0.5, 1.0, 2.0, 8.0)]
    assert agreement(squares).correlation == pytest.approx(1.0)
    opposite = [pair(str(ratio), ratio, 1 / ratio) for ratio in (0.25, 0.5, 1.0, 2.0)]
    assert agreement(opposite).correlation == pytest.approx(-1.0)


def test_where_they_part() -> None:
    found = agreement(
        [
            pair("near", 0.9, 0.93),
            pair("far", 0.5, 0.9),
            pair("opposite", 0.95, 1.05),
            pair("short", 0.5, 2.0, 0.0029),
            pair("just long enough", 0.8, 0.8, 0.003),
        ]
    )
    assert [each.name for each in found.apart] == ["far", "opposite"]
    assert [each.opposite for each in found.apart] == [False, True]
    assert (found.compared, found.too_short) == (4, ("short",))
    text = report.agreement_text(found)
    assert "they part in far: instructions 0.500, time 0.900\n" in text
    assert "they part in opposite: instructions 0.950, time 1.050: one says faster, the other slower\n" in text
    assert text.endswith("too short: short")


@pytest.mark.parametrize("found", [[], [pair("a", 1, 1), pair("b", 2, 2)], [pair(name, 1, 2) for name in "abc"]])
def test_what_cannot_be_correlated(found: list[Pair]) -> None:
    result: Agreement = agreement(found)
    assert result.correlation is None
    assert "cannot be correlated" in report.agreement_text(result)
