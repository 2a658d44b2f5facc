"""Climbing the ladder: which rung comes next for several tests, and which build is another's debug sibling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from crossjit import PROJECT, ladder, recipes
from crossjit.diagnosis import Try
from crossjit.ladder import Ladder
from crossjit.model import Arch, Cell
from crossjit.triage import Count, Layer, Next, Rung, Subject
from crossjit.trials import Trial

CELL = Cell("3.15", Arch.X86_64, "jit")


class Pretended(Ladder):
    """A ladder on which tests end as told: by rung, and by whether it is the debug build's, how often of ten."""

    def __init__(self, worlds: Mapping[str, Mapping[tuple[Rung, bool], int]]) -> None:
        self.worlds = worlds
        self.climbed: list[tuple[Rung, bool, list[str]]] = []

    @property
    def subject(self) -> Subject:
        return Subject(Arch.X86_64, jit=True, free_threaded=False, emulated=False, can=frozenset(Rung))

    @property
    def run(self) -> str:
        return "a-run"

    def climb(self, tests: Sequence[Trial], then: Next) -> dict[Trial, Try]:
        self.climbed.append((then.rung, then.debug, [test.name for test in tests]))
        tries = {}
        for test in tests:
            world = self.worlds[f"{test.name} among" if test.among else test.name]
            tenths = 0 if then.rung is Rung.CONTROL else world.get((then.rung, then.debug), 0)
            failed = then.times * tenths // 10
            tries[test] = Try(then.rung, CELL, "", Count(failed=failed, passed=then.times - failed), "", 1.0)
        return tries


def trial(name: str, match: str = "") -> Trial:
    return Trial(name, "jit", "module", "test_x", match=match)


def test_tests_climb_together_and_the_debug_build_comes_last() -> None:
    pretended = Pretended(
        {
            "backend": {(rung, False): 10 for rung in (Rung.AGAIN, Rung.OPTIMIZER_OFF)},
            "asserts": {
                **{(rung, False): 4 for rung in (Rung.AGAIN, Rung.STRESS)},
                **{(rung, True): 10 for rung in (Rung.DEBUG, Rung.INTERPRETER)},
            },
            "library": {(rung, False): 10 for rung in Rung},
        }
    )
    tests = {trial(name): True for name in pretended.worlds}
    found = list(ladder.diagnose(pretended, CELL, tests))
    assert [(each.test, each.conclusion.layer, each.suite, each.run) for each in found] == [
        ("library", Layer.INTERPRETER, "jit", "a-run"),
        ("backend", Layer.BACKEND, "jit", "a-run"),
        ("asserts", Layer.OPTIMIZER, "jit", "a-run"),
    ]
    assert pretended.climbed[0] == (Rung.AGAIN, False, ["backend", "asserts", "library"])
    debug = [rung for rung, debug, _ in pretended.climbed if debug]
    assert debug == [Rung.DEBUG, Rung.JIT_OFF, Rung.OPTIMIZER_OFF, Rung.OTHER_CPU, Rung.INTERPRETER]
    assert all(debug for _, debug, _ in pretended.climbed[-len(debug) :])
    assert [tried.rung for tried in found[2].tries][:2] == [Rung.SEEN, Rung.AGAIN]
    assert len(found[2].tries) == 6 + len(debug)


def test_what_does_not_fail_alone_is_tried_among_its_modules_other_tests() -> None:
    pretended = Pretended(
        {
            "warmed": {},
            "warmed among": {(rung, False): 10 for rung in (Rung.AGAIN, Rung.OPTIMIZER_OFF)},
            "gone": {},
            "gone among": {},
            "whole": {},
            "library": {(rung, False): 10 for rung in Rung},
        }
    )
    names = ("warmed", "gone", "whole", "library")
    tests = {trial(name, match="" if name == "whole" else name): True for name in names}
    found = {each.test: each for each in ladder.diagnose(pretended, CELL, tests)}
    said = {name: (each.conclusion.layer, each.conclusion.why) for name, each in found.items()}
    assert said == {
        "library": (Layer.INTERPRETER, "fails without the JIT, too"),
        "whole": (Layer.FLAKY, "failed when it was seen, and not in 10 runs after that"),
        "gone": (
            Layer.FLAKY,
            "failed when it was seen, and not in 10 runs after that, alone or among its module's other tests",
        ),
        "warmed": (
            Layer.BACKEND,
            "not alone, but among its module's other tests: passes with the JIT off, in the tier-2 interpreter and on "
            "the other arch: x86_64's machine code",
        ),
    }
    tries = [(tried.rung, tried.count.ran) for tried in found["warmed"].tries]
    assert tries[:5] == [(Rung.SEEN, 1), (Rung.AGAIN, 5), (Rung.CONTROL, 1), (Rung.AGAIN, 5), (Rung.AGAIN, 5)]
    assert found["warmed"].conclusion.odds == Count(failed=5)


def test_what_passed_when_it_was_seen_is_tried_alone_only() -> None:
    pretended = Pretended({"fine": {}})
    (found,) = ladder.diagnose(pretended, CELL, {trial("fine", match="fine"): False})
    assert found.conclusion.layer is Layer.UNCLEAR
    assert found.conclusion.why == "it did not fail in 10 runs"


@pytest.mark.parametrize("name", ["3.13", "3.14", "3.15", "main"])
def test_a_debug_sibling_is_found_by_its_options(name: str) -> None:
    recipe = recipes.find(name, PROJECT / "recipes")
    siblings = {each: ladder.debug_sibling(variant, recipe) for each, variant in recipe.variants.items()}
    assert {each: sibling.name for each, sibling in siblings.items() if sibling} == {"jit": "jit-debug"}
