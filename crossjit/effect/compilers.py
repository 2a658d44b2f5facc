"""The stencils that different LLVMs make of one source, compared: in each cell, and between each two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from crossjit.effect import uops
from crossjit.effect.model import Problem, Side
from crossjit.effect.uops import Size
from crossjit.measure import stencils
from crossjit.measure.stencils import Stencil
from crossjit.model import Cell, Verdict
from crossjit.pipeline.stencils import StencilFiles

SCHEMA = 1


@dataclass(frozen=True)
class SuiteRun:
    """What the suites say of a build with an LLVM's stencils: the verdict with its reasons, and numbers of tests."""

    verdict: Verdict
    tests: int = 0
    failed: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """The stencils that an LLVM made in a cell, or why it did not.

    `version` is LLVM's full one, `image` has it, with this `libc`. `edited` says that a copy of Tools/jit/_llvm.py was
    changed, as the source has no option for another LLVM. `digest` is that of all files that were written, `seconds`
    what they took. `differing` are the files that were not the same when they were made again without caches: None if
    they were not made again.
    """

    llvm: str
    version: str = ""
    image: str = ""
    libc: str = ""
    edited: bool = False
    seconds: float | None = None
    size: Size | None = None
    digest: str | None = None
    differing: tuple[str, ...] | None = None
    suite: SuiteRun | None = None
    problem: Problem | None = None


@dataclass(frozen=True)
class UopSizes:
    """The sizes of a uop that two LLVMs make different code of."""

    name: str
    first: Size
    second: Size


@dataclass(frozen=True)
class Pair:
    """The stencils of two LLVMs: the names of those with the same bytes and relocations, and the uops that differ.

    `stencils` is the number of names that one of them has. Uops that the second needs more instructions for are first.
    """

    first: str
    second: str
    stencils: int
    same: tuple[str, ...]
    uops: tuple[UopSizes, ...]


@dataclass(frozen=True)
class CellCompilers:
    """What each LLVM made in one cell, and each two of them compared."""

    cell: Cell
    made: tuple[Made, ...]
    pairs: tuple[Pair, ...] = ()

    def pair(self, first: str, second: str) -> Pair | None:
        """Return the comparison of two LLVMs, in either order."""
        return next((each for each in self.pairs if {each.first, each.second} == {first, second}), None)


@dataclass(frozen=True)
class Compilers:
    """LLVMs held against each other: `own` is the one that the source itself wants, `unknown` what this cannot tell."""

    source: Side
    own: str
    llvms: tuple[str, ...]
    cells: tuple[CellCompilers, ...]
    unknown: tuple[str, ...] = ()


def read(made: StencilFiles) -> Mapping[str, Stencil]:
    """Read the stencils of all headers. Raises InfrastructureError for an unknown form."""
    found: dict[str, Stencil] = {}
    for name, content in made.files.items():
        if name.endswith(".h"):
            found |= stencils.by_name(content.decode("utf-8", "replace"))
    if not found:
        raise stencils.unknown("its headers have none")
    return found


def differing(first: StencilFiles, second: StencilFiles) -> tuple[str, ...]:
    """Return the names of files that are not the same, or only in one of them."""
    names = sorted({*first.files, *second.files})
    return tuple(name for name in names if first.files.get(name) != second.files.get(name))


def compare(named: Mapping[str, Mapping[str, Stencil]]) -> tuple[Pair, ...]:
    """Compare the stencils of LLVMs, each with each."""
    return tuple(_pair(first, second, named[first], named[second]) for first, second in combinations(named, 2))


def _pair(first: str, second: str, before: Mapping[str, Stencil], after: Mapping[str, Stencil]) -> Pair:
    names = sorted({*before, *after})
    return Pair(
        first,
        second,
        len(names),
        tuple(name for name in names if before.get(name) == after.get(name)),
        tuple(UopSizes(uop.name, uop.before, uop.after) for uop in uops.compare(before, after).uops),
    )


def verdicts(found: Compilers) -> tuple[Verdict, ...]:
    """Return what decides the exit code."""
    results = []
    for made in (each for cell in found.cells for each in cell.made):
        results += [made.problem.verdict] if made.problem else []
        results += [Verdict.FAIL] if made.differing else []
        results += [made.suite.verdict] if made.suite else []
    return tuple(results)


def unknown(own: str, cells: tuple[CellCompilers, ...]) -> Iterator[str]:
    """Yield what a comparison of these cells cannot tell."""
    every = [each for cell in cells for each in cell.made if each.size]
    home = next((each for each in every if each.llvm == own), None)
    strangers = {each.llvm: each for each in every if home and each.libc != home.libc}
    for llvm, each in strangers.items():
        assert home
        yield (
            f"which differences are those of a libc: LLVM {llvm} is in the image {each.image} with the headers of "
            f"libc {each.libc}, not {home.libc}"
        )
    if not any(each.suite for each in every):
        yield "whether tests pass with each LLVM: --suite jit runs them"
    yield "which LLVM's code is faster: a stencil's size is not its cost"
