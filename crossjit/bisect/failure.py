"""The failures that a bisection searches for, and those of a build. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from crossjit.build.execute import ERROR_LINE
from crossjit.errors import BuildError
from crossjit.validation import reason
from crossjit.validation.failure import Failure, steady

BUILD = "build"  # stands for a test's name if the build or the probe fails


@dataclass(frozen=True)
class Symptom:
    """The failures that are searched for. `elsewhere` are failures of the other end, which do not matter."""

    failures: tuple[Failure, ...]
    elsewhere: tuple[Failure, ...] = ()

    def without(self, failures: Iterable[Failure]) -> Symptom:
        """Return the symptom without failures that also happen at the other end."""
        known = distinct(failures)
        left = tuple(each for each in self.failures if not any(each.is_same(other) for other in known))
        return Symptom(left, known)

    def has(self, failure: Failure) -> bool:
        """Whether a failure is the same as one of these. If all of these crashed at one place, it must be there."""
        places = {each.place for each in self.failures}
        if len(places) == 1 and failure.place and places != {""} and failure.place not in places:
            return False
        return any(each.is_same(failure) for each in self.failures)

    def hides(self, failure: Failure) -> bool:
        """Whether a failure that is not one of these keeps them from showing.

        It does if it is of the same test or ended the process; another test's failure does not matter.
        """
        if self.has(failure) or any(each.is_same(failure) for each in self.elsewhere):
            return False
        return failure.how != "failed" or any(
            f"{one}.".startswith(f"{other}.")
            for each in self.failures
            for one, other in ((each.test, failure.test), (failure.test, each.test))
        )

    def __str__(self) -> str:
        more = f" (and {len(self.failures) - 1} more)" if len(self.failures) > 1 else ""
        return f"{self.failures[0]}{more}" if self.failures else "nothing"


def of_build(error: BuildError) -> Failure:
    """Return the failure of a build, whose reason is the first line with an error: make's own are all alike."""
    words = next(filter(ERROR_LINE.search, error.details[1:]), "") or reason.of("\n".join(error.details))
    text = ", ".join(filter(None, (error.message, words)))
    return Failure("failed", f"{error.message}, {steady(words)}", text=text, test=BUILD)


def of_probe(how: str, output: Iterable[str]) -> Failure:
    """Return the failure of a probe that did not get to its end."""
    words = reason.last_words("\n".join(output))
    text = ", ".join(filter(None, (f"the probe was {how}" if how.startswith("killed") else f"the probe: {how}", words)))
    return Failure("crashed", steady(f"{how}, {words}"), text=text, test=BUILD)


def of_count(benchmark: str, percent: float) -> Failure:
    """Return the failure of a benchmark that needs so many percent more instructions than at the good commit."""
    return Failure(
        "failed", "more instructions", text=f"{percent:+.2f} % instructions against the good commit", test=benchmark
    )


def distinct(failures: Iterable[Failure]) -> tuple[Failure, ...]:
    """Return the failures without repetitions."""
    found: list[Failure] = []
    for failure in failures:
        if not any(failure.is_same(other) and failure.place == other.place for other in found):
            found.append(failure)
    return tuple(found)
