"""What a build's steps are told of the time they will take: what they took in the last build of the same kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossjit.errors import InfrastructureError
from crossjit.pipeline.pace import FILE, Paced, seconds_left
from crossjit.progress import Silent, SilentStep


class Listener(Silent):
    """Keeps the estimates that steps give."""

    def __init__(self) -> None:
        self.left: list[float | None] = []

    @contextmanager
    def step(self, name: str, subject: str = "") -> Iterator[SilentStep]:
        told = self.left

        class Step(SilentStep):
            def update(
                self, *, done: int | None = None, total: int | None = None, detail: str = "", left: float | None = None
            ) -> None:
                told.append(left)

        yield Step()


def build(
    home: Path,
    seconds: list[float],
    *,
    kind: str = "3.15/x86_64/jit native",
    name: str = "make",
    counted: bool = True,
    total: int = 0,
) -> Listener:
    """Have a step whose units of work take these seconds."""
    now = 0.0
    listener = Listener()
    paced = Paced(listener, home, kind, lambda: now)
    with paced.step(name, "a cell") as step:
        for number, each in enumerate(seconds):
            step.update(done=number, total=total or len(seconds)) if counted else step.update(detail="checking")
            now += each
    paced.record()
    return listener


# 390 files at half a second each, then the stencils and the interpreter's loop: half of the time for 3 % of the units.
MAKE = [*[0.5] * 390, *[20.0] * 10]
WHOLE = sum(MAKE)


def test_the_first_build_of_a_kind_is_told_nothing(tmp_path: Path) -> None:
    assert set(build(tmp_path, MAKE).left) == {None}


@pytest.mark.parametrize("speed", [1.0, 0.5, 2.0])
def test_a_build_is_told_what_the_last_one_took(tmp_path: Path, speed: float) -> None:
    build(tmp_path, MAKE)
    seconds = [each / speed for each in MAKE]
    first, *told = build(tmp_path, seconds).left
    assert first == pytest.approx(WHOLE)
    for number, left in enumerate(told):
        elapsed = sum(seconds[:number])
        assert left is not None
        share = elapsed / (elapsed + left)
        assert share == pytest.approx(elapsed / sum(seconds), abs=0.02 if speed == 1 else 0.15), number


def test_the_long_end_of_make_is_not_called_nearly_done(tmp_path: Path) -> None:
    build(tmp_path, MAKE)
    told = build(tmp_path, MAKE).left
    assert told[1 + 390] == pytest.approx(200.0, rel=0.1)  # 97.5 % of the units


def test_work_that_is_not_counted_is_told_by_its_time(tmp_path: Path) -> None:
    build(tmp_path, [20.0, 10.0], name="configure", counted=False)
    assert build(tmp_path, [20.0, 10.0], name="configure", counted=False).left == [30.0, 30.0, 10.0]


def test_what_make_does_not_print_is_not_waited_for(tmp_path: Path) -> None:
    build(tmp_path, MAKE[:200], total=400)
    told = build(tmp_path, MAKE[:200], total=400).left
    assert told[1 + 199] == pytest.approx(0.5, abs=0.1)


def test_kinds_and_steps_are_kept_apart(tmp_path: Path) -> None:
    build(tmp_path, [10.0])
    assert set(build(tmp_path, [10.0], kind="3.15/aarch64/jit cross").left) == {None}
    assert set(build(tmp_path, [10.0], name="install").left) == {None}
    assert build(tmp_path, [10.0]).left[0] == 10.0


def test_a_step_that_failed_tells_nothing(tmp_path: Path) -> None:
    paced = Paced(Silent(), tmp_path, "kind")
    with pytest.raises(ValueError, match="no"), paced.step("make"):
        raise ValueError("no")
    paced.record()
    assert json.loads((tmp_path / FILE).read_text()) == {"kind": {}}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": 3}', '{"kind": {"make": ["x"]}}', '{"kind": {"make": 1}}'])
def test_a_file_that_cannot_be_used_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "durations").mkdir()
    (tmp_path / FILE).write_text(text)
    assert set(build(tmp_path, [10.0], kind="kind").left) == {None}
    assert json.loads((tmp_path / FILE).read_text())["kind"]["make"] == [10.0]


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    (tmp_path / "durations").write_text("not a folder")
    with pytest.raises(InfrastructureError, match="cannot record build times"):
        build(tmp_path, [10.0])


def test_no_share_is_out_of_bounds() -> None:
    assert seconds_left([10.0, 20.0], 1.0, 30.0) == 0
    assert seconds_left([10.0, 20.0], 7.0, 30.0) == 0
    assert seconds_left([10.0], 0.0, 30.0) == 0
