"""Which engine runs which cell, and what happens to the cells of one that goes away."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.model import Arch, Cell, EmulationSupport, Emulator, Strategy
from crossjit.pipeline import schedule
from crossjit.pipeline.schedule import Fit, Schedule

X86, ARM = Arch.X86_64, Arch.AARCH64


def machine(arch: Arch, *emulated: Arch) -> EmulationSupport:
    return EmulationSupport(
        arch, {other: Emulator(other, "q", "", "9", fixed=True, enabled=True, cpu="max") for other in emulated}
    )


LOCAL, BARE, BOX = machine(X86, ARM), machine(X86), machine(ARM)
CELLS = {name: Cell("3.15", arch, name) for name, arch in (("a", X86), ("b", X86), ("c", ARM), ("d", ARM))}


@pytest.mark.parametrize(
    ("ability", "arch", "requested", "expected"),
    [
        (LOCAL, X86, None, Fit.NATIVE),
        (LOCAL, ARM, None, Fit.EMULATED),
        (BARE, ARM, None, Fit.NOT),
        (LOCAL, X86, Strategy.NATIVE, Fit.NATIVE),
        (LOCAL, ARM, Strategy.NATIVE, Fit.NOT),
        (LOCAL, ARM, Strategy.CROSS, Fit.EMULATED),
        (LOCAL, X86, Strategy.CROSS, Fit.NOT),
        (BOX, ARM, Strategy.EMULATE, Fit.NOT),
        (BARE, ARM, Strategy.EMULATE, Fit.NOT),
    ],
)
def test_how_an_engine_fits(ability: EmulationSupport, arch: Arch, requested: Strategy | None, expected: Fit) -> None:
    assert schedule.fit(ability, arch, requested) is expected


@pytest.mark.parametrize(
    ("machines", "arch", "requested", "engines", "reason"),
    [
        ((LOCAL, BOX), ARM, None, ("e1",), "e1 runs aarch64 natively"),
        ((LOCAL, BOX), X86, None, ("e0",), "e0 runs x86_64 natively"),
        ((BOX, LOCAL, BARE), X86, None, ("e1", "e2"), "e1 and e2 run x86_64 natively; whichever is free first"),
        ((BARE, LOCAL), ARM, None, ("e1",), "no engine runs aarch64 natively; e1 runs it under QEMU"),
        (
            (LOCAL, LOCAL),
            ARM,
            None,
            ("e0", "e1"),
            "no engine runs aarch64 natively; e0 and e1 run it under QEMU; whichever is free first",
        ),
        ((BOX, LOCAL), ARM, Strategy.CROSS, ("e1",), "cross is for another architecture's engine"),
        ((BARE, BARE), ARM, None, ("e0",), "no engine can run it"),
        ((BOX, BOX), ARM, Strategy.EMULATE, ("e0",), "no engine can run it as emulate"),
        ((LOCAL,), ARM, None, ("e0",), "it is the only engine"),
        ((BARE,), ARM, None, ("e0",), "no engine can run it"),
    ],
)
def test_where_a_cell_goes_and_why(
    machines: Sequence[EmulationSupport],
    arch: Arch,
    requested: Strategy | None,
    engines: tuple[str, ...],
    reason: str,
) -> None:
    placement = schedule.place({f"e{number}": each for number, each in enumerate(machines)}, arch, requested)
    assert (placement.engines, placement.reason) == (engines, reason)


def test_native_cells_wait_for_their_engine() -> None:
    plan = Schedule(tuple(CELLS.values()), {"local": LOCAL, "arm": BOX})
    assert plan.expected("local") == (CELLS["a"], CELLS["b"])
    assert [plan.next("local"), plan.next("local"), plan.next("local")] == [CELLS["a"], CELLS["b"], None]
    plan.finish("local", CELLS["a"])
    assert plan.next("local") is None  # c would be emulated here
    assert plan.next("arm") == CELLS["c"]
    assert not plan.is_done


def test_the_engine_that_is_free_takes_the_next() -> None:
    plan = Schedule(tuple(CELLS.values()), {"one": LOCAL, "two": LOCAL})
    assert plan.next("one") == CELLS["a"]
    assert plan.next("two") == CELLS["b"]
    plan.finish("two", CELLS["b"])
    assert plan.next("two") == CELLS["c"]
    plan.finish("two", CELLS["c"])
    assert plan.next("two") == CELLS["d"]


def test_what_an_engine_gives_back_goes_on_elsewhere_and_is_first() -> None:
    plan = Schedule(tuple(CELLS.values()), {"one": LOCAL, "two": LOCAL})
    assert plan.next("one") == CELLS["a"]
    assert plan.next("two") == CELLS["b"]
    assert plan.give_back("two", CELLS["b"])
    assert plan.given_back(CELLS["b"]) == ("two",)
    assert plan.next("two") is None  # it is doubtful, and the other fits all that is left
    plan.finish("one", CELLS["a"])
    assert [plan.next("one"), plan.next("one")] == [CELLS["b"], CELLS["c"]]


def test_a_native_cell_of_an_engine_that_is_gone_is_emulated() -> None:
    plan = Schedule((CELLS["c"], CELLS["d"]), {"local": LOCAL, "arm": BOX})
    assert plan.next("local") is None
    assert plan.next("arm") == CELLS["c"]
    assert plan.give_back("arm", CELLS["c"])
    assert [plan.next("local"), plan.next("local")] == [CELLS["c"], CELLS["d"]]


def test_what_no_other_engine_can_run_is_not_given_back() -> None:
    plan = Schedule((CELLS["c"], CELLS["d"]), {"bare": BARE, "arm": BOX})
    assert plan.next("arm") == CELLS["c"]
    assert not plan.give_back("arm", CELLS["c"])
    assert plan.given_back(CELLS["c"]) == ()
    plan.finish("arm", CELLS["c"], infra=True)
    assert plan.next("bare") is None
    assert plan.next("arm") == CELLS["d"]  # it may be back
    plan.finish("arm", CELLS["d"])
    assert plan.is_done


def test_a_broken_engine_does_not_empty_the_queue() -> None:
    plan = Schedule(tuple(CELLS.values()), {"one": LOCAL, "two": LOCAL})
    assert plan.next("one") == CELLS["a"]
    assert plan.next("two") == CELLS["b"]
    plan.finish("two", CELLS["b"], infra=True)
    assert plan.next("two") is None
    plan.finish("one", CELLS["a"], infra=True)
    assert plan.next("two") == CELLS["c"]  # both are doubtful now
    plan.finish("two", CELLS["c"])
    assert plan.next("one") is None
    assert plan.next("two") == CELLS["d"]


def test_a_cell_that_fits_nowhere_goes_to_the_first_engine() -> None:
    plan = Schedule((CELLS["c"],), {"one": BARE, "two": BARE})
    assert plan.next("two") is None
    assert plan.next("one") == CELLS["c"]
    assert not plan.give_back("one", CELLS["c"])


@given(
    machines=st.lists(st.sampled_from([LOCAL, BARE, BOX, machine(ARM, X86)]), min_size=1, max_size=4),
    arches=st.lists(st.sampled_from([X86, ARM]), min_size=1, max_size=6),
    requested=st.sampled_from([None, Strategy.NATIVE, Strategy.CROSS]),
    choose=st.randoms(use_true_random=False),
)
def test_every_cell_ends_once_whatever_happens(
    machines: list[EmulationSupport], arches: list[Arch], requested: Strategy | None, choose: object
) -> None:
    abilities = {f"e{number}": each for number, each in enumerate(machines)}
    cells = tuple(Cell("3.15", arch, f"v{number}") for number, arch in enumerate(arches))
    plan = Schedule(cells, abilities, requested)
    busy: dict[str, Cell] = {}
    ended: list[Cell] = []
    tried: dict[Cell, list[str]] = {cell: [] for cell in cells}
    for _ in itertools.count():
        for engine in abilities.keys() - busy.keys():
            if (cell := plan.next(engine)) is not None:
                busy[engine] = cell
                tried[cell].append(engine)
        if plan.is_done:
            break
        assert busy, "cells are left, and nobody takes them"
        engine = choose.choice(sorted(busy))  # type: ignore[attr-defined]
        cell = busy.pop(engine)
        fate = choose.choice(["done", "infra", "gone"])  # type: ignore[attr-defined]
        if fate != "gone" or not plan.give_back(engine, cell):
            plan.finish(engine, cell, infra=fate != "done")
            ended.append(cell)
    assert sorted(ended) == sorted(cells)
    assert all(len(engines) == len(set(engines)) for engines in tried.values())
