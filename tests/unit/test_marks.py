"""What the meter's plugin wrote, and what was counted between two markers."""

from __future__ import annotations

from typing import Any

import pytest

from crossjit.channels import MalformedError, read_mark
from crossjit.errors import InfrastructureError
from crossjit.measure import marks
from crossjit.measure.marks import JitMemory, Op
from tests.unit.metered import line


def run(*lines: str) -> str:
    return "".join([line("start"), *lines, line("exit")])


def test_a_window_has_what_was_counted_between_its_marks() -> None:
    text = run(
        line("begin", 3, counts={"jit": 10, "python": 100}, jit={"maps": 1, "bytes": 4096, "frees": 0}, execs=1),
        line("mark", 0, counts={"jit": 12, "python": 150}),
        line(
            "end",
            3,
            counts={"jit": 15, "python": 190, "lib:libm.so.6": 4},
            jit={"maps": 3, "bytes": 12288, "frees": 1},
            execs=2,
        ),
    )
    (window,) = marks.windows(marks.read_whole(text))
    assert window.label == 3
    assert window.counts == {"jit": 5, "python": 90, "lib:libm.so.6": 4}
    assert marks.total(window.counts) == 99
    assert window.jit == JitMemory(2, 8192, 1)
    assert window.execs == 1
    assert [mark.op for mark in window.inner] == [Op.MARK]
    assert not any((window.loads, window.stores, window.functions, window.blocks, window.threads))


def test_what_was_asked_for_is_there_too() -> None:
    first: dict[str, Any] = {
        "loads": {"jit": 1},
        "stores": {"jit": 2},
        "threads": [{"jit": 5}],
        "functions": {"a": 5, "b": 7},
        "blocks": [[4096, "44", 1, 10], [8192, "4", 2, 1]],
    }
    second: dict[str, Any] = {
        "loads": {"jit": 11},
        "stores": {"jit": 2},
        "threads": [{"jit": 6}, {"jit": 3}],
        "functions": {"a": 5, "b": 9},
        "blocks": [[4096, "44", 1, 30], [8192, "4", 2, 1], [4096, "44", 1, 5], [4096, "44", 3, 2]],
    }
    (window,) = marks.windows(marks.read(run(line("begin", 1, **first), line("end", 1, **second))))
    assert window.loads == {"jit": 10}
    assert window.stores == {"jit": 0}
    assert window.threads == ({"jit": 1}, {"jit": 3})
    assert window.functions == {"b": 2}
    assert window.blocks == {(4096, "44", 1): 35, (8192, "4", 2): 1, (4096, "44", 3): 2}  # twice: counted together


def test_windows_are_those_of_the_first_process_and_a_begin_alone_is_none() -> None:
    text = run(
        line("begin", 1), line("begin", 5, pid=8), line("end", 5, pid=8), line("end", 1), line("mark"), line("begin", 2)
    )
    assert [window.label for window in marks.windows(marks.read_whole(text))] == [1]


@pytest.mark.parametrize("lines", [(line("end", 1),), (line("begin", 2), line("end", 1))])
def test_an_end_without_its_begin_is_an_error(lines: tuple[str, ...]) -> None:
    with pytest.raises(InfrastructureError, match="window 1 ends without having begun") as raised:
        marks.windows(marks.read(run(*lines)))
    assert raised.value.hint


def test_a_killed_process_leaves_half_a_line() -> None:
    text = line("start") + line("mark") + line("mark")[:40]
    assert [mark.op for mark in marks.read(text)] == [Op.START, Op.MARK]
    with pytest.raises(InfrastructureError, match="its end is missing"):
        marks.read_whole(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its start is missing"),
        (line("mark") + line("exit"), "its start is missing"),
        (line("start") + line("mark"), "its end is missing"),
        (line("start") + line("exit", pid=9), "its end is missing"),
        (line("start") + line("exit") + "x", "its end is missing"),
        (line("start") + "\n" + line("exit"), "line 2"),
        (line("start") + '{"pid":1}\n' + line("exit"), "line 2"),
        (line("start") + line("mark", counts={"jit": -1}) + line("exit"), "line 2: counts.jit"),
        (line("start") + line("mark", counts={"x" * 400: 1}) + line("exit"), "line 2"),
        (line("start") + line("dance") + line("exit"), "line 2: op"),
        (line("start") + line("mark", more=1) + line("exit"), "line 2: more"),
    ],
)
def test_damaged_output_is_an_error_with_a_hint(text: str, problem: str) -> None:
    with pytest.raises(InfrastructureError, match=problem) as raised:
        marks.read_whole(text)
    assert "run the same command again" in raised.value.hint
    assert raised.value.exit_code == 3


def test_a_line_of_a_container_is_limited() -> None:
    with pytest.raises(MalformedError, match="longer than"):
        read_mark(line("mark", functions={f"f{number}": 1 << 50 for number in range(700_000)}))
