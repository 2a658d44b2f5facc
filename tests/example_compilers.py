"""Examples of LLVMs that are held against each other: two that differ, four with failures and suites, and harm."""

from __future__ import annotations

from dataclasses import replace

from crossjit.effect import compilers, uops
from crossjit.effect.compilers import CellCompilers, Compilers, Made, SuiteRun
from crossjit.effect.model import Problem, Side
from crossjit.measure.stencils import Stencil
from crossjit.model import Arch, Cell, Verdict
from tests import example_effects
from tests.example_effects import AFTER, ARM, BEFORE, X86
from tests.example_runs import HOSTILE

SOURCE = Side("the recipe 3.15", version="3.15.0rc2")
IMAGES = {"19": ("19.1.7", "trixie", "2.41"), "21": ("21.1.8", "forky", "2.43"), "22": ("22.1.8", "forky", "2.43")}


def made(llvm: str, named: dict[str, Stencil]) -> Made:
    """Return an LLVM that made these stencils twice."""
    version, image, libc = IMAGES[llvm]
    return Made(llvm, version, image, libc, False, 24.3, uops.size(named.values()), "d" * 64, ())


def failed(llvm: str, verdict: Verdict = Verdict.FAIL) -> Made:
    """Return an LLVM that makes none."""
    problem = Problem(llvm, verdict, f"LLVM {llvm} does not make the stencils: AssertionError", "see", ("a log",) * 9)
    version, image, libc = IMAGES.get(llvm, ("", "", ""))
    return Made(llvm, version, image, libc, problem=problem)


def cell(arch: Arch, *found: Made, named: dict[str, dict[str, Stencil]]) -> CellCompilers:
    """Return a cell."""
    return CellCompilers(Cell("3.15", arch, "jit"), found, compilers.compare(named))


def found(*cells: CellCompilers) -> Compilers:
    """Return the LLVMs of some cells."""
    llvms = tuple(dict.fromkeys(each.llvm for cell in cells for each in cell.made))
    return Compilers(SOURCE, "21", llvms, cells, tuple(compilers.unknown("21", cells)))


def two() -> Compilers:
    """Return two LLVMs: on x86_64 they make different stencils."""
    return found(
        cell(X86, made("21", BEFORE), made("22", AFTER), named={"21": BEFORE, "22": AFTER}),
        cell(ARM, made("21", BEFORE), made("22", BEFORE), named={"21": BEFORE, "22": BEFORE}),
    )


def four() -> Compilers:
    """Return four: one fails, one cannot be had, one makes other bytes the second time, and one fails a suite."""
    again = replace(made("22", AFTER), differing=("jit_stencils.h",), edited=True)
    tested = replace(made("21", BEFORE), suite=SuiteRun(Verdict.FAIL, 100, ("test_a",), ("1 test failed: test_a",)))
    return found(
        *(
            cell(arch, failed("19"), tested, again, failed("23", Verdict.INFRA), named={"21": BEFORE, "22": AFTER})
            for arch in (X86, ARM)
        )
    )


def hostile() -> Compilers:
    """Return LLVMs in which every text is hostile."""
    problems = [Problem(text, Verdict.FAIL, text, text, HOSTILE) for text in HOSTILE]
    bad = [Made(text, text, text, text, True, problem=each) for text, each in zip(HOSTILE, problems, strict=True)]
    evil = {text: example_effects.stencil(text, 3 + number) for number, text in enumerate(HOSTILE)}
    suite = SuiteRun(Verdict.FAIL, 1, HOSTILE, HOSTILE)
    own = [replace(made(llvm, evil), llvm=text, suite=suite) for llvm, text in zip(("21", "22"), HOSTILE, strict=False)]
    named = {each.llvm: stencils for each, stencils in zip(own, (evil, BEFORE), strict=True)}
    whole = found(cell(X86, *own, *bad, named=named))
    return replace(whole, source=Side(HOSTILE[0], None, HOSTILE[1], HOSTILE[2]), own=HOSTILE[0], unknown=HOSTILE)


def many() -> Compilers:
    """Return two LLVMs that make everything different."""
    names = [f"_MICRO_OPERATION_WITH_A_LONG_NAME_{number}_r{variant}0" for number in range(350) for variant in "0123"]
    sides = [
        example_effects.named(**{name: 20 + extra + number % 40 for number, name in enumerate(names)})
        for extra in (0, 1)
    ]
    named = dict(zip(("21", "22"), sides, strict=True))
    each = [made(llvm, side) for llvm, side in named.items()]
    return found(*(cell(arch, *each, named=named) for arch in (X86, ARM)))
