"""What a change does, as values: to the stencils and the builds of each cell. Further sections are fields of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from crossjit.effect.binaries import Binary
from crossjit.effect.regressions import Regressions
from crossjit.effect.uops import Comparison, Kind, Uop
from crossjit.effect.work import ProgramWork
from crossjit.model import Arch, Cell, Verdict

SCHEMA = 1

BASE, CHANGE = "base", "change"  # the sides
PROGRAMS = "programs"


@dataclass(frozen=True)
class Side:
    """The base or the change: its source as `--source` takes it, its commit if it has one, and what it is in words."""

    source: str
    commit: str | None = None
    version: str = ""
    what: str = ""


@dataclass(frozen=True)
class Build:
    """A build of one side. `seconds` are those of its phases, whenever it was built, with whatever the caches had."""

    artifact: str
    from_stash: bool
    compiler: str = ""
    llvm: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    binaries: tuple[Binary, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Why a side of a cell cannot be compared, or the programs in it; `side` says which."""

    side: str
    verdict: Verdict
    message: str
    hint: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class CellEffect:
    """What the change does in one cell; `stencils` is None if there is a problem.

    `programs` are the small ones, `not_executed` is why they did not run, empty if they did. `tests` is None if no
    suite was asked for.
    """

    cell: Cell
    before: Build | None = None
    after: Build | None = None
    stencils: Comparison | None = None
    programs: tuple[ProgramWork, ...] = ()
    benchmarks: tuple[ProgramWork, ...] = ()
    not_executed: str = ""
    tests: Regressions | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def changed(self) -> tuple[Uop, ...]:
        """The uops whose instructions are not the same."""
        return tuple(uop for uop in self.uops if uop.kind is not Kind.RELOCATED)

    @property
    def uops(self) -> tuple[Uop, ...]:
        """The uops whose machine code is not the same."""
        return self.stencils.uops if self.stencils else ()


@dataclass(frozen=True)
class Effect:
    """What a change does in each cell; `unknown` is what this cannot tell."""

    base: Side
    change: Side
    cells: tuple[CellEffect, ...]
    unknown: tuple[str, ...] = ()

    @property
    def arches(self) -> tuple[Arch, ...]:
        """The architectures on which both builds could be compared."""
        return tuple(each.cell.arch for each in self.cells if each.stencils)


def verdicts(effect: Effect) -> tuple[Verdict, ...]:
    """Return what decides the exit code. What does not build before the change says nothing about the change."""
    found = []
    for each in effect.cells:
        broken = [problem.side for problem in each.problems if problem.verdict is Verdict.FAIL]
        found += [
            Verdict.VACUOUS if problem.verdict is Verdict.FAIL and BASE in broken else problem.verdict
            for problem in each.problems
        ]
        if each.tests:
            found += [Verdict.FAIL] if each.tests.newly_failing else [Verdict.VACUOUS] if each.tests.problems else []
    return tuple(found)
