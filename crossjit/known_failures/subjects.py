"""The CPythons whose tests are known: those that artifacts list, and those that ran."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from crossjit.config.conditions import TargetEnvironment, When, from_record, numbers
from crossjit.config.recipes import Recipe
from crossjit.known_failures.entries import KnownFailure
from crossjit.known_failures.test_inventory import Inventory, matching
from crossjit.model import Arch, CellResult, Outcome, SuiteResult
from crossjit.sources import trust
from crossjit.stash.artifact import Artifact

Recorded = Sequence[tuple[str, CellResult]]
"""Runs' ids, newest first, each with a cell's result."""

Find = Callable[[Artifact], Inventory | None]
"""Returns the tests that an artifact listed earlier; None if there is no list."""

Make = Callable[[Artifact, TargetEnvironment], Inventory | None]
"""Lets an artifact list its tests; returns None if that fails."""


@dataclass(frozen=True)
class Subject:
    """A CPython whose tests are known: either from an artifact or from runs.

    Of an artifact, `artifact` is the short id and `tests` what it listed, None if that failed. Of runs, `seen` are the
    names of the tests that ran. `where` says which CPython it is; test names do not depend on emulation.
    """

    recipe: str
    where: TargetEnvironment
    artifact: str = ""
    tests: Inventory | None = None
    seen: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """The cell's name, such as `3.15/x86_64/jit`."""
        return f"{self.recipe}/{self.where.arch}/{self.where.variant.name}"

    @property
    def kind(self) -> tuple[str, tuple[int, int], Arch]:
        """What one list of tests is enough for, unless an entry names a variant."""
        return self.recipe, self.where.python, self.where.arch

    @property
    def is_unlisted(self) -> bool:
        """Whether it is an artifact without a list of tests; it may have any test."""
        return bool(self.artifact) and self.tests is None

    def is_meant(self, when: When) -> bool:
        """Tell whether conditions can apply to it, on some machine."""
        return replace(when, emulated=None, cpu=(), qemu=None, lacks=()).holds(self.where)

    def may_have(self, pattern: str) -> bool:
        """Tell whether there is, or may be, a test that matches."""
        listed = self.tests is not None and self.tests.may_have(pattern)
        return self.is_unlisted or listed or bool(matching(self._seen, pattern))

    def names(self, beginning: str) -> tuple[str, ...]:
        """Return the names that are known and begin so."""
        return (*matching(self._seen, f"{beginning}*"), *(self.tests.matching(f"{beginning}*") if self.tests else ()))

    @cached_property
    def _seen(self) -> list[str]:
        return sorted(self.seen)


def subjects(
    artifacts: Iterable[Artifact],
    recorded: Recorded,
    failures: Sequence[KnownFailure],
    recipes: Mapping[str, Recipe],
    *,
    host_arch: Arch | None,
    find: Find,
    make: Make,
) -> tuple[Subject, ...]:
    """Collect the tests of runs and of each cell's newest artifact; `artifacts` are sorted, newest first.

    An artifact lists its tests only if an entry applies to it, the entry's tests are still unknown, and no other
    artifact of the same recipe and arch that the entry applies to has a list. Artifacts of the host's arch come first,
    then those of the recipe's default variants. Artifacts of strangers' sources are ignored.
    """
    cells = [(_subject(artifact, recipes), artifact) for artifact in _newest(artifacts)]
    candidates = [(subject, artifact) for subject, artifact in cells if subject is not None]
    found = [*_of_runs(recorded)]
    found += [replace(subject, tests=tests) for subject, artifact in candidates if (tests := find(artifact))]
    listed = {subject.artifact for subject in found}
    unlisted: list[Subject] = []
    candidates.sort(key=lambda each: _effort(each[0], recipes[each[0].recipe], host_arch))
    for subject, artifact in candidates:
        if subject.artifact not in listed and any(_asks(failure, subject, found) for failure in failures):
            made = replace(subject, tests=make(artifact, subject.where))
            (unlisted if made.tests is None else found).append(made)
    known = {subject.kind for subject in found if subject.tests is not None}
    return (*found, *(subject for subject in unlisted if subject.kind not in known))


def _newest(artifacts: Iterable[Artifact]) -> Iterator[Artifact]:
    """Yield the newest artifact of each cell, without those of strangers' sources."""
    cells = set()
    for artifact in artifacts:
        manifest = artifact.manifest
        if manifest.cell is not None and manifest.cell not in cells and not trust.is_stranger(manifest.domain):
            cells.add(manifest.cell)
            yield artifact


def _subject(artifact: Artifact, recipes: Mapping[str, Recipe]) -> Subject | None:
    """Make a subject of an artifact; None if its recipe or variant is unknown."""
    manifest = artifact.manifest
    recipe = recipes.get(manifest.recipe or "")
    variant = recipe.variants.get(manifest.variant or "") if recipe else None
    python = _python(manifest.version)
    if recipe is None or variant is None or python is None:
        return None
    return Subject(recipe.name, TargetEnvironment(python, manifest.arch, variant), artifact.id)


def _effort(subject: Subject, recipe: Recipe, host_arch: Arch | None) -> tuple[bool, bool]:
    """Return the sort key: emulation is slow, and with sanitizers more modules are skipped."""
    return subject.where.arch is not host_arch, subject.where.variant.name not in recipe.default_variants


def _asks(failure: KnownFailure, subject: Subject, found: Sequence[Subject]) -> bool:
    """Tell whether an entry needs the tests of a subject, in addition to those found so far."""
    meant = [each for each in found if each.is_meant(failure.when)]
    return (
        subject.is_meant(failure.when)
        and not any(each.may_have(failure.test) for each in meant)
        and not any(each.tests is not None and each.kind == subject.kind for each in meant)
    )


def _of_runs(recorded: Recorded) -> Iterator[Subject]:
    """Yield the CPythons of runs, with the tests that ran."""
    found: dict[tuple[object, ...], Subject] = {}
    for _, result in recorded:
        for suite in result.suites:
            if (where := environment_of(suite)) is not None:
                key = (result.cell.recipe, where.python, where.arch, where.variant.name)
                before = found.get(key) or Subject(result.cell.recipe, where)
                found[key] = replace(before, seen=before.seen | outcomes_of(suite).keys())
    yield from found.values()


def outcomes_of(suite: SuiteResult) -> dict[str, frozenset[Outcome]]:
    """Collect what became of a suite's tests, by their names without a group's label."""
    found: dict[str, set[Outcome]] = defaultdict(set)
    for result in suite.results:
        if result.known is None or result.outcome is not Outcome.SKIPPED:  # else it only stands for an entry
            found[result.name.partition(" [")[0]].add(result.outcome)
    return {name: frozenset(outcomes) for name, outcomes in found.items()}


def environment_of(suite: SuiteResult) -> TargetEnvironment | None:
    """Return in what a suite ran; None for one that did not record it."""
    works = {
        name: fact["works"] for name, fact in suite.capabilities.items() if isinstance(fact, dict) and "works" in fact
    }
    return from_record(suite.conditions, {name: value for name, value in works.items() if isinstance(value, bool)})


def _python(version: str) -> tuple[int, int] | None:
    """Return the first two numbers of `3.15.0rc2`; None where it has none."""
    try:
        major, minor = numbers(".".join(version.split(".")[:2]))
    except ValueError:
        return None
    return major, minor
