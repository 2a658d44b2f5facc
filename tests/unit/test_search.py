"""Searching a line of commits: the right one is found, or a range that has it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.bisect.search import Judgement, Search, passes_needed


def search(number: int, first_new: int, skipped: frozenset[int] = frozenset()) -> tuple[Search, int]:
    """Search a line of commits; return the end, and how many commits were judged."""
    state = Search(tuple(map(str, range(number))))
    steps = 0
    while (index := state.next()) is not None:
        assert 0 < index < number - 1
        assert index not in state.judgements
        judgement = Judgement.NEW if index >= first_new else Judgement.OLD
        state = state.judged(index, Judgement.SKIPPED if index in skipped else judgement)
        steps += 1
    return state, steps


@given(st.data(), st.integers(2, 2000))
def test_one_commit_is_found_in_as_many_steps_as_it_takes(data: st.DataObject, number: int) -> None:
    first_new = data.draw(st.integers(1, number - 1))
    expected = Search(tuple(map(str, range(number)))).steps_left
    state, steps = search(number, first_new)
    assert state.suspects == (str(first_new),)
    assert state.steps_left == 0
    assert steps <= expected <= (number - 1).bit_length()


@given(st.data(), st.integers(2, 120))
def test_a_skipped_commit_makes_it_a_range_that_has_the_commit(data: st.DataObject, number: int) -> None:
    first_new = data.draw(st.integers(1, number - 1))
    skipped = data.draw(st.frozensets(st.integers(1, max(1, number - 2)), max_size=number))
    state, steps = search(number, first_new, skipped)
    assert str(first_new) in state.suspects
    assert steps <= number
    # all between the last old and the first new commit was tried, and could not be judged
    assert {int(each) for each in state.suspects[:-1]} <= skipped


def test_a_block_that_cannot_be_built_costs_few_steps() -> None:
    """Sixty of a thousand commits in the middle do not build, and the change is elsewhere."""
    block = frozenset(range(470, 530))
    for first_new in (3, 200, 460, 540, 900):
        state, steps = search(1000, first_new, block)
        assert state.suspects == (str(first_new),)
        assert steps <= 10 + 7


def test_what_comes_next_is_known_before() -> None:
    state = Search(tuple("abcdefghi"))
    assert state.next() == 4
    assert state.ahead() == (6, 2)
    assert state.judged(4, Judgement.OLD).next() == 6
    assert state.judged(4, Judgement.NEW).next() == 2
    assert Search(("a", "b")).ahead() == ()


@pytest.mark.parametrize(("failed", "ran", "error"), [(0, 5, 0.1), (6, 5, 0.1), (1, 5, 0.0), (1, 5, 1.0)])
def test_odds_that_are_none(failed: int, ran: int, error: float) -> None:
    with pytest.raises(ValueError, match="invalid odds"):
        passes_needed(failed, ran, error)


def test_the_error_is_kept_for_a_failure_of_any_rate() -> None:
    """Rates at random, each seen in twelve runs: passes mislead no more often than accepted."""
    random = Random(1)
    wrong = total = 0
    while total < 20_000:
        rate = random.random()
        failed = sum(random.random() < rate for _ in range(12))
        if failed:
            total += 1
            passes = passes_needed(failed, 12, 0.05)
            wrong += all(random.random() >= rate for _ in range(passes))
    assert wrong / total < 0.05
