"""How long a suite will still take, on a clock of the test's own: what is told must be near to what then comes."""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from crossjit.validation.job_list import item
from crossjit.validation.runner_events import RunnerEvents
from crossjit.validation.time_left import TimeLeft


@dataclass(frozen=True)
class Told:
    """What was told at a moment of a suite that took `whole` seconds."""

    at: float
    left: float | None
    whole: float

    @property
    def error(self) -> float:
        """By how much the share that was told is wrong, in parts of the whole."""
        assert self.left is not None
        return abs(self.at / (self.at + self.left) - self.at / self.whole)


def play(
    real: Mapping[str, float],
    slots: int,
    *,
    known: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
) -> list[Told]:
    """Have modules take their real seconds as the runner runs them, and return what was told after each event."""
    now = 0.0
    known = known or {}
    weighed = {name: seconds / 10 for name, seconds in (weights or {}).items()}
    names = sorted(real, key=lambda name: -known.get(name, weighed.get(name, 1.0)))
    order = {"items": [item("module", "test_*", 60, weights=weighed)], "seconds": known}
    events, left = RunnerEvents(), TimeLeft(order, slots, lambda: now)
    told: list[tuple[float, float | None]] = []

    def say(kind: str, name: str = "") -> None:
        job: dict[str, object] = {"id": f"000-{name}", "name": name, "kind": "module", "label": ""}
        more: dict[str, dict[str, object]] = {
            "plan": {"modules": [{"id": f"000-{each}", "name": each} for each in names], "missing": []},
            "start": job,
            "end": {**job, "status": 0, "seconds": 0.0, "junit": None, "log": f"000-{name}.log"},
        }
        event = events.understand(json.dumps({"event": kind, **more[kind]}))
        assert event is not None
        events.accept(event)
        left.take(event)
        told.append((now, left.seconds(events)))

    say("plan")
    waiting, running = list(names), list[tuple[float, str]]()
    while waiting or running:
        while waiting and len(running) < slots:
            name = waiting.pop(0)
            heapq.heappush(running, (now + real[name], name))
            say("start", name)
        now, name = heapq.heappop(running)
        say("end", name)
    return [Told(at, seconds, now) for at, seconds in told]


# One module takes a third of the whole; most take next to nothing.
REAL = {f"test_{number}": float(seconds) for number, seconds in enumerate([300, 120, 90, 60, 45, 30, *[4] * 100])}


@pytest.mark.parametrize("slots", [1, 2, 4])
def test_what_earlier_runs_took_tells_it_from_the_first_moment(slots: int) -> None:
    told = play(REAL, slots, known=REAL)
    assert told[0].left == pytest.approx(told[0].whole)
    assert max(each.error for each in told) < 0.01
    assert told[-1].left == 0


def test_a_slower_machine_is_soon_known() -> None:
    twice = {name: 2 * seconds for name, seconds in REAL.items()}
    told = play(twice, 2, known=REAL)
    assert max(each.error for each in told if each.at > told[0].whole / 4) < 0.1


def test_modules_that_are_new_are_expected_to_take_what_their_weights_say() -> None:
    old = {name: seconds for name, seconds in REAL.items() if name not in ("test_1", "test_9")}
    assert max(each.error for each in play(REAL, 2, known=old, weights=REAL)) < 0.01


def test_weights_alone_tell_it_as_soon_as_one_module_ended() -> None:
    told = play(REAL, 2, weights=REAL)
    assert [each.left for each in told[:3]] == [None] * 3
    assert all(each.left is not None for each in told[4:])
    assert max(each.error for each in told[4:]) < 0.02


def test_modules_without_a_weight_are_expected_to_take_less_than_any_that_has_one() -> None:
    """But not next to nothing: most modules have none, and together they take most of the time."""
    light = {f"test_{number}": 10.0 for number in range(6, 106)}
    heavy = {name: seconds for name, seconds in REAL.items() if name not in light}
    told = play({**heavy, **light}, 2, weights={name: 50 * seconds for name, seconds in heavy.items()})
    assert max(each.error for each in told[4:]) < 0.25
    assert max(each.error for each in told if each.at > told[0].whole / 2) < 0.1


def test_a_module_that_takes_longer_than_ever_makes_the_rest_expected_to() -> None:
    told = play({"test_0": 100.0, "test_1": 150.0, "test_2": 100.0}, 2, known=dict.fromkeys(REAL, 10.0))
    (first_end,) = [each for each in told if each.at == 100.0 and each.left][:1]
    assert first_end.left is not None
    assert first_end.left > 50.0


def test_many_small_modules_that_end_early_are_not_taken_for_most_of_the_work() -> None:
    """Two big ones run from the start; the count of modules would say 96 % here, for most of the time."""
    real = {"test_big": 600.0, **{f"test_{number}": 1.0 for number in range(100)}}
    told = play(real, 2, known=real)
    (after_small,) = [each for each in told if each.at == 100.0]
    assert after_small.left == pytest.approx(500.0, rel=0.01)


def test_what_an_earlier_run_got_done_is_not_waited_for() -> None:
    events = RunnerEvents()
    plan = {"event": "plan", "modules": [{"id": "000-test_a", "name": "test_a"}], "missing": []}
    ended = {"event": "end", "id": "000-test_a", "kind": "module", "name": "test_a", "label": "", "status": 0}
    start = {key: value for key, value in ended.items() if key != "status"} | {"event": "start"}
    for line in (plan, start, {**ended, "seconds": 1.0, "junit": None, "log": "000-test_a.log"}):
        event = events.understand(json.dumps(line))
        assert event is not None
        events.accept(event)
    again = RunnerEvents(events.ended)
    left = TimeLeft({"items": [], "seconds": {"test_a": 60.0}}, 2, lambda: 0.0)
    event = again.understand(json.dumps(plan))
    assert event is not None
    again.accept(event)
    left.take(event)
    assert left.seconds(again) == 0
