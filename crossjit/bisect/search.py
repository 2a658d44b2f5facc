"""A search along a line of commits for the one that changed how a test ends. Pure.

The first commit is known to have the old behaviour and the last one the new; each step judges one commit between them.
A commit that cannot be judged is skipped, and the answer is then a range.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import exp, lgamma


class Judgement(StrEnum):
    """What is known of a commit."""

    OLD = "old"
    NEW = "new"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Search:
    """The commits, oldest first, and the judgements by index. The first commit is old and the last one new."""

    commits: tuple[str, ...]
    judgements: Mapping[int, Judgement] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.commits) < 2:
            raise ValueError("a search needs two commits")

    @property
    def last_old(self) -> int:
        """The index of the last commit that is known to be old, below the first new one."""
        return max((index for index in self._known(Judgement.OLD) if index < self.first_new), default=0)

    @property
    def first_new(self) -> int:
        """The index of the first commit that is known to be new."""
        return min(self._known(Judgement.NEW), default=len(self.commits) - 1)

    @property
    def suspects(self) -> tuple[str, ...]:
        """The commits that may have made the change: one, at the end of a search without skipped commits."""
        return self.commits[self.last_old + 1 : self.first_new + 1]

    @property
    def steps_left(self) -> int:
        """How many judgements are left, at most if nothing more is skipped."""
        return len(self._open()).bit_length()

    def judged(self, index: int, judgement: Judgement) -> Search:
        """Return the search with one more judgement."""
        return replace(self, judgements={**self.judgements, index: judgement})

    def next(self) -> int | None:
        """Return the index of the commit to judge next, None at the end.

        It is the middle one. If that was skipped, its neighbours may be as bad, so the distance from it doubles with
        each skipped commit between the last old and the first new one, on either side in turn.
        """
        unjudged = self._open()
        if not unjudged:
            return None
        middle = (self.last_old + self.first_new) // 2
        if middle in unjudged:
            return middle
        skipped = self.first_new - self.last_old - 1 - len(unjudged)
        place = middle + (-1) ** skipped * 2 ** (skipped - 1)
        return min(unjudged, key=lambda index: (abs(index - place), index))

    def ahead(self) -> tuple[int, ...]:
        """Return the indexes of the commits that come next after either judgement of the next one."""
        index = self.next()
        if index is None:
            return ()
        following = (self.judged(index, judgement).next() for judgement in (Judgement.OLD, Judgement.NEW))
        return tuple(dict.fromkeys(each for each in following if each is not None))

    def _known(self, judgement: Judgement) -> Iterator[int]:
        return (index for index, each in self.judgements.items() if each is judgement)

    def _open(self) -> list[int]:
        return [index for index in range(self.last_old + 1, self.first_new) if index not in self.judgements]


def passes_needed(failed: int, ran: int, error: float) -> int:
    """Return how many passes in a row show that a failure is gone which was seen in `failed` of `ran` runs.

    The probability that a commit with the failure passes so often is at most `error`. The failure's rate is not known,
    so the probability is averaged over all rates, each by its likelihood (a beta-binomial distribution with a uniform
    prior).

    >>> passes_needed(5, 5, 0.01), passes_needed(3, 12, 0.01)
    (4, 25)
    """
    if not 0 < failed <= ran or not 0 < error < 1:
        raise ValueError(f"invalid odds: {failed} of {ran}, error {error}")
    passes = 1
    while _all_pass(failed, ran, passes) > error:
        passes += 1
    return passes


def _all_pass(failed: int, ran: int, passes: int) -> float:
    """Return the probability of that many passes after `failed` failures in `ran` runs."""

    def log_beta(one: float, other: float) -> float:
        return lgamma(one) + lgamma(other) - lgamma(one + other)

    shape = failed + 1, ran - failed + 1
    return exp(log_beta(shape[0], shape[1] + passes) - log_beta(*shape))
