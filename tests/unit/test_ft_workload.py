from __future__ import annotations

import collections
import importlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from crossjit.config.suites import VALIDATE

SCRIPT = VALIDATE / "ft_workload.py"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(VALIDATE)  # as it is where a script of this folder runs
    invariants: Any = importlib.import_module("ft_invariants")
    parallel: Any = importlib.import_module("ft_parallel")
    containers: Any = importlib.import_module("ft_containers")
    attributes: Any = importlib.import_module("ft_attributes")
    workload: Any = importlib.import_module("ft_workload")


NEED_NO_GIL = ("handover", "parallel_time")


@pytest.mark.parametrize(
    "check", [check for check in workload.CHECKS if check.__name__ not in NEED_NO_GIL], ids=lambda check: check.__name__
)
def test_the_invariants_hold_where_threads_take_turns(check: Callable[[int], object]) -> None:
    line = workload.run(check, 1)
    assert (line["outcome"], line["message"] if line["outcome"] != "passed" else "") == ("passed", "")


class Loses:
    """Makes a container's method lose its effect now and then, as a lost race would."""

    def __init__(self, every: int = 97) -> None:
        self.left = self.every = every

    def now(self) -> bool:
        self.left -= 1
        if not self.left:
            self.left = self.every
            return True
        return False


def losing(base: type, method: str, *, result: object = None, twice: bool = False) -> Callable[..., Any]:
    """Make a subclass of which a method is sometimes left out, or done twice."""
    loses = Loses()
    original = getattr(base, method)

    def wrapped(self: object, *arguments: object, **options: object) -> object:
        if loses.now():
            if not twice:
                return result
            original(self, *arguments, **options)
        return original(self, *arguments, **options)

    made: Callable[..., Any] = type(f"Losing{base.__name__.title()}", (base,), {method: wrapped})
    return made


@pytest.mark.parametrize(
    ("check", "make"),
    [
        ("list_append", losing(list, "append")),
        ("list_append", losing(list, "append", twice=True)),
        ("list_pop", losing(list, "pop", result=3)),
        ("list_assign", losing(list, "__setitem__")),
        ("dict_setdefault", losing(dict, "setdefault", result=None)),
        ("dict_resize", losing(dict, "__setitem__")),
        ("dict_resize", losing(dict, "pop")),
        ("dict_pop", losing(dict, "pop", result=1)),
        ("dict_popitem", losing(dict, "popitem", result=(1, -1))),
        ("set_add_pop", losing(set, "add")),
        ("set_same", losing(set, "add")),
        ("deque_hand_over", losing(collections.deque, "append")),
        ("deque_hand_over", losing(collections.deque, "append", twice=True)),
        ("queue_hand_over", losing(queue.Queue, "put", twice=True)),
    ],
)
def test_a_lost_or_doubled_update_is_noticed(check: str, make: Callable[..., Any]) -> None:
    with pytest.raises(invariants.Broken):
        getattr(containers, check)(1, make)


def test_what_breaks_is_told_in_short() -> None:
    with pytest.raises(invariants.Broken) as caught:
        invariants.require_equal(list(range(100_000)), [], "numbers")
    assert str(caught.value).startswith("numbers: [0, 1, 2, ")
    assert str(caught.value).endswith("…, not []")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("version", "breaks"), [((3, 13), False), ((3, 14), True)])
def test_types_live_on_in_3_13_alone(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], breaks: bool) -> None:
    class Sys:
        version_info = version

    made: list[object] = []

    def keeping(*arguments: Any) -> type:
        made.append(type(*arguments))
        return made[-1]  # type: ignore[return-value]

    monkeypatch.setattr(attributes, "sys", Sys)
    monkeypatch.setattr(attributes, "type", keeping, raising=False)
    if breaks:
        with pytest.raises(invariants.Broken, match="subclasses at the end"):
            attributes.subclasses(1)
    else:
        assert attributes.subclasses(1), "what it says makes it the only round: each leaves its types"
    assert made


def test_with_a_gil_no_turn_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    if workload.gil_is_off():
        pytest.skip("this Python has no GIL")
    monkeypatch.setattr(parallel, "GIVE_UP", 0.2)
    interval = sys.getswitchinterval()
    with pytest.raises(invariants.Broken, match="turns were handed over"):
        parallel.handover(1)
    assert sys.getswitchinterval() == interval


def test_an_exception_in_a_thread_comes_out() -> None:
    def work(index: int) -> None:
        if index == 2:
            raise KeyError("in a thread")

    with pytest.raises(KeyError, match="in a thread"):
        invariants.in_threads(work)


def test_a_check_that_breaks_is_an_error_with_its_traceback() -> None:
    def broken(_scale: int) -> None:
        raise ZeroDivisionError("by accident")

    line = workload.run(broken, 1)
    assert (line["check"], line["outcome"]) == ("broken", "error")
    assert "ZeroDivisionError: by accident" in line["message"]


def test_with_a_gil_nothing_is_claimed() -> None:
    if workload.gil_is_off():
        pytest.skip("this Python has no GIL")
    output = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True).stdout
    lines = [json.loads(line) for line in output.splitlines()]
    outcomes = {line["check"]: line["outcome"] for line in lines}
    assert outcomes.pop("gil_is_off_before") == outcomes.pop("gil_is_off_after") == "failed"
    assert set(outcomes.values()) == {"skipped"}
    assert set(outcomes) == {check.__name__ for check in workload.CHECKS}
    assert all(line["message"] for line in lines)


def test_a_check_is_named_before_it_begins_and_goes_on_for_a_while() -> None:
    command = [sys.executable, str(SCRIPT), "--scale", "1", "list_pop"]
    environ = {**os.environ, workload.ANYWAY: "1"}
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout
    _, started, ended, _ = (json.loads(line) for line in output.splitlines())
    assert started == {"check": "list_pop", "outcome": "started"}
    assert (ended["check"], ended["outcome"]) == ("list_pop", "passed")
    assert ended["seconds"] >= workload.PRESS >= 1
