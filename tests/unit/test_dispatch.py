"""Cells on several engines at once: side by side, given back, interrupted."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from crossjit.errors import Interrupted, UserError
from crossjit.model import Arch, Cell, CellResult, EmulationSupport, Verdict
from crossjit.pipeline.dispatch import Attempt, Dispatch
from crossjit.pipeline.schedule import Schedule

CELLS = tuple(Cell("3.15", Arch.X86_64, name) for name in "abcd")
PATIENCE = 20.0


@dataclass
class FakePost:
    """An engine whose cells end as `work` says."""

    name: str
    work: Callable[[Cell], Verdict | Attempt]
    ready: tuple[Cell, ...] = ()
    ran: list[Cell] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    ended: bool = False

    def prepare(self, cells: Sequence[Cell]) -> None:
        self.ready = tuple(cells)

    def run(self, cell: Cell) -> Attempt:
        self.ran.append(cell)
        ended = self.work(cell)
        return ended if isinstance(ended, Attempt) else Attempt(CellResult(cell, ended, ()))

    def stop(self) -> None:
        self.stopped.set()

    def say(self, text: str) -> None:
        self.said.append(text)

    def wait_for_stop(self, cell: Cell) -> Verdict:
        """Work until it is stopped, and take a moment to clean up."""
        assert self.stopped.wait(PATIENCE)
        time.sleep(0.05)
        self.ended = True
        raise Interrupted("stopped")


def passing(cell: Cell) -> Verdict:
    return Verdict.PASS


def lost(cell: Cell) -> Attempt:
    return Attempt(CellResult(cell, Verdict.INFRA, ("it does not answer",)), lost=True)


def dispatch(*posts: FakePost, cells: Sequence[Cell] = CELLS) -> tuple[Dispatch, list[CellResult]]:
    results: list[CellResult] = []
    abilities = {post.name: EmulationSupport(Arch.X86_64, {}) for post in posts}
    return Dispatch(posts, Schedule(cells, abilities), results.append), results


def test_one_engine_runs_all_in_order_in_this_thread() -> None:
    threads: list[threading.Thread] = []

    def work(cell: Cell) -> Verdict:
        threads.append(threading.current_thread())
        return Verdict.PASS

    post = FakePost("one", work)
    doing, results = dispatch(post)
    doing.run()
    assert [result.cell for result in results] == list(CELLS)
    assert post.ready == CELLS
    assert set(threads) == {threading.main_thread()}


def test_two_engines_work_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def work(cell: Cell) -> Verdict:
        both.wait(PATIENCE)  # raises if the other one waits for this one's end
        return Verdict.PASS

    one, two = FakePost("one", work), FakePost("two", work)
    doing, results = dispatch(one, two)
    doing.run()
    assert len(one.ran) == len(two.ran) == 2
    assert sorted(result.cell for result in results) == list(CELLS)
    assert not two.stopped.is_set()


@pytest.mark.parametrize("going", ["one", "two"])
def test_the_cells_of_an_engine_that_goes_away_end_on_the_other(going: str) -> None:
    other_has_begun, is_gone = threading.Event(), threading.Event()

    def goes(cell: Cell) -> Attempt:
        other_has_begun.wait(PATIENCE)
        is_gone.set()
        return lost(cell)

    def stays(cell: Cell) -> Verdict:
        other_has_begun.set()
        assert is_gone.wait(PATIENCE)
        return Verdict.PASS

    posts = {name: FakePost(name, goes if name == going else stays) for name in ("one", "two")}
    doing, results = dispatch(*posts.values())
    doing.run()
    assert sorted((result.cell, result.verdict) for result in results) == [(cell, Verdict.PASS) for cell in CELLS]
    (cell,) = posts[going].ran
    assert posts[going].said == [f"{cell} goes on elsewhere: it does not answer"]
    assert {result.cell: result.lost_on for result in results if result.lost_on} == {cell: (going,)}


def test_where_all_engines_go_away_all_cells_are_infra() -> None:
    doing, results = dispatch(FakePost("one", lost), FakePost("two", lost))
    doing.run()
    assert sorted(result.cell for result in results) == list(CELLS)
    assert {result.verdict for result in results} == {Verdict.INFRA}


def test_one_engine_that_goes_away_is_tried_again_for_each_cell() -> None:
    answers = iter((lost, passing, passing, passing))
    doing, results = dispatch(FakePost("one", lambda cell: next(answers)(cell)))
    doing.run()
    assert [result.verdict for result in results] == [Verdict.INFRA, *[Verdict.PASS] * 3]
    assert [result.lost_on for result in results] == [()] * 4


def test_an_interruption_stops_the_others_and_waits_for_them() -> None:
    def interrupted(cell: Cell) -> Verdict:
        raise KeyboardInterrupt

    two, three = FakePost("two", passing), FakePost("three", passing)
    two.work, three.work = two.wait_for_stop, three.wait_for_stop
    doing, results = dispatch(FakePost("one", interrupted), two, three)
    with pytest.raises(KeyboardInterrupt):
        doing.run()
    assert [post.ended for post in (two, three) if post.ran] == [True] * sum(bool(post.ran) for post in (two, three))
    assert two.stopped.is_set()
    assert results == []


def test_a_ctrl_c_while_only_the_others_work() -> None:
    begun = threading.Event()
    two = FakePost("two", passing)

    def work(cell: Cell) -> Verdict:
        begun.set()
        return two.wait_for_stop(cell)

    def one_works(cell: Cell) -> Verdict:
        assert begun.wait(PATIENCE)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        return Verdict.PASS

    two.work = work
    doing, results = dispatch(FakePost("one", one_works), two, cells=CELLS[:2])
    with pytest.raises(KeyboardInterrupt):
        doing.run()
    assert two.ended
    assert len(results) == 1


def test_an_error_of_the_users_in_another_thread_ends_all() -> None:
    def refuses(cell: Cell) -> Verdict:
        raise UserError("it cannot continue where it stopped")

    begun = threading.Event()
    three = FakePost("three", passing)

    def work(cell: Cell) -> Verdict:
        begun.set()
        return three.wait_for_stop(cell)

    def one_works(cell: Cell) -> Verdict:
        begun.wait(1)
        return Verdict.PASS

    three.work = work
    doing, _ = dispatch(FakePost("one", one_works), FakePost("two", refuses), three)
    with pytest.raises(UserError, match="cannot continue"):
        doing.run()
    assert three.ended or not three.ran
