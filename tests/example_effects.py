"""Examples of changes: headers as Tools/jit writes them, and effects of a few, of all, of none, and of harm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from crossjit.effect import uops, work
from crossjit.effect.binaries import Binary
from crossjit.effect.cell import unknown
from crossjit.effect.model import BASE, CHANGE, Build, CellEffect, Effect, Problem, Side
from crossjit.effect.operations import Operation, Operations
from crossjit.effect.regressions import Regressions
from crossjit.effect.uops import Comparison
from crossjit.effect.work import ProgramWork, Ran
from crossjit.measure import stencils
from crossjit.measure.detail import Warm
from crossjit.measure.model import Sample
from crossjit.measure.stencils import Instruction, Patch, Stencil
from crossjit.measure.uops import Division, Step, Trace
from crossjit.model import Arch, Cell, Outcome, TestResult, Verdict
from tests.example_runs import HOSTILE

X86, ARM = Arch.X86_64, Arch.AARCH64

INCREMENT = ("ff c0", "incl    %eax")
CALL = ("ff 15 00 00 00 00", "callq   *(%rip)                 # 0x8 <_JIT_ENTRY+0x8>")
RETURN = ("c3", "retq")
JUMP = ("eb 02", "jmp     0x5 <_JIT_ENTRY+0x5>")
WORD = ("91000400", "add     x0, x0, #0x1")
BRANCH = ("14000000", "b       0x0 <_JIT_ENTRY>")

_FUNCTION = """\
void
emit_{name}(
    unsigned char *code, unsigned char *data, _PyExecutorObject *executor,
    const _PyUOpInstruction *instruction, jit_state *state)
{{
    // {name}.o:      file format elf64
    //
    // 0000000000000000 <_JIT_ENTRY>:
{listing}    const unsigned char code_body[{size}] = {{
        {code}
    }};
    memcpy(code, code_body, sizeof(code_body));
{patches}}}

"""


@dataclass(frozen=True)
class Written:
    """A stencil to write: its instructions as bytes and text, and the lines that patch it."""

    instructions: tuple[tuple[str, str], ...]
    patches: tuple[str, ...] = ()
    data: int = 0

    def text(self, name: str) -> str:
        at, listing, code = 0, "", b""
        for own, text in self.instructions:
            read = bytes.fromhex(own)
            code += read if " " in own or len(own) == 2 else read[::-1]
            listing += f"    // {at:x}: {own:<29} {text}\n"
            at = len(code)
        body = " ".join(f"{byte:#04x}," for byte in code)
        patches = "".join(f"    {patch};\n" for patch in self.patches)
        return _FUNCTION.format(name=name, listing=listing, size=len(code), code=body, patches=patches)

    @property
    def size(self) -> int:
        return sum(len(bytes.fromhex(own)) for own, _ in self.instructions)


def header(written: Mapping[str, Written], symbols: Iterable[str] = ()) -> str:
    """Return a header with these stencils, whose symbols have their places as numbers."""
    groups = [f"    [{name}] = {{emit_{name}, {each.size}, {each.data}, {{0}}}}," for name, each in written.items()]
    numbered = [f"    [{number}] = &{symbol}," for number, symbol in enumerate(symbols)]
    parts = [each.text(name) for name, each in written.items()]
    tables = ["static const StencilGroup stencil_groups[] = {", *groups, "};", "symbols_map[] = {", *numbered, "};"]
    return "".join([*parts, "\n".join(tables), "\n"])


DEALLOC = Written((CALL, RETURN), ("patch_x86_64_32rx(code + 0x2, got_symbol_address(0x0, state) - 4)",))
PLAIN = {
    "_ADD_r03": Written((INCREMENT, INCREMENT, RETURN)),
    "_ADD_r13": Written((INCREMENT, RETURN)),
    "_DEALLOC_r10": DEALLOC,
    "_FATAL_ERROR_r00": Written((RETURN,)),
}


# Values


def stencil(name: str, count: int, *, symbol: str = "_Py_Dealloc", data: bytes = b"") -> Stencil:
    """Return a stencil of so many instructions, one of which is a call."""
    listing = tuple(
        Instruction(4 * place, f"add x{place}, x0, #0x1", (symbol,) if not place else ()) for place in range(count)
    )
    patches = (Patch("code", (0,), "aarch64_33rx", symbol),) if count else ()
    return Stencil(name, bytes([count]) * 4 * count, frozenset(), data, patches, listing)


def named(**counts: int) -> dict[str, Stencil]:
    """Return stencils by name, each with so many instructions."""
    return {name: stencil(name, count) for name, count in counts.items()}


BEFORE = named(_SAME_r01=5, _MERGE_r10=9, _ADD_r03=6, _ADD_r13=6, _OLD_r00=3)
AFTER = named(_SAME_r01=5, _MERGE_r11=6, _ADD_r03=8, _ADD_r13=6, _NEW_r00=4)


def comparison() -> Comparison:
    """Return a uop that grew, one that shrank and takes other registers, a new one, and one that is gone."""
    return uops.compare(BEFORE, AFTER)


def build(artifact: str, *, text: int = 6_000_000) -> Build:
    """Return a build with one program."""
    binaries = (Binary("python3.15", text, 1_100_000, 467_000),)
    return Build(artifact * 64, True, "gcc 16.2.0", "21.1.8", {"make": 51.2}, binaries)


def cell(arch: Arch, found: Comparison, *problems: Problem) -> CellEffect:
    """Return a cell whose builds were compared."""
    return CellEffect(Cell("3.15", arch, "jit"), build("a"), build("b", text=6_000_512), found, problems=problems)


BASE_SIDE = Side("/src/cpython#" + "0" * 40, "07a555d4fce8" + "0" * 28, "3.15.0a7+", "the commit before it")
CHANGE_SIDE = Side("/src/cpython#branch", "6d73bc226723" + "0" * 28, "3.15.0a7+")


def program(name: str, count: int, *, fewer: int = 0) -> ProgramWork:
    """Return a program with a trace of so many uops, some of which are gone after a change, and with a side exit."""
    names = [f"_MICRO_OPERATION_{number}" for number in range(count)]
    ran: list[Ran] = []
    for own in (names, names[fewer:]):
        steps = tuple(Step(each, 8, 1000, 2000) for each in own)
        instructions = 2000 * len(own) + 10
        traces = Trace(f"{name}:3", steps), Trace(f"{name}:3 > 7", (Step("_EXIT_TRACE", 8, 10, 10),))
        division = Division(traces, 4096, instructions, 0, 0)
        calls = {"jit": 2 * instructions, "python": 900_000}, {"jit": instructions, "python": 500_000}
        ran.append(
            Ran(Sample(calls), Warm({"jit": instructions}, loads={"jit": 70}, stores={"jit": 30}, uops=division))
        )
    known = Operations(frozenset({*names, "_EXIT_TRACE"}), {each: frozenset(names[:9]) for each in Operation})
    before, after = ran
    return work.compare(name, before, after, (known, known), frozenset())


def executing(found: Effect, programs: tuple[ProgramWork, ...], benchmarks: tuple[ProgramWork, ...] = ()) -> Effect:
    """Return a change after which these programs run in each cell."""
    cells = tuple(replace(each, programs=programs, benchmarks=benchmarks) for each in found.cells)
    return replace(found, cells=cells, unknown=tuple(unknown(cells)))


def effect(*cells: CellEffect) -> Effect:
    """Return the effect of a change in some cells."""
    return Effect(BASE_SIDE, CHANGE_SIDE, cells, tuple(unknown(cells)))


def few() -> Effect:
    """Return a change to four uops on x86_64, and to none on aarch64."""
    found = effect(cell(X86, comparison()), cell(ARM, uops.compare(BEFORE, BEFORE)))
    return executing(found, (program("calls.stars", 20, fewer=2), program("text.join", 9)))


def none() -> Effect:
    """Return a change without effect."""
    return effect(*(cell(arch, uops.compare(BEFORE, BEFORE)) for arch in (X86, ARM)))


def many(count: int = 350) -> Effect:
    """Return a change to hundreds of uops, with four variants each."""
    names = [f"_MICRO_OPERATION_WITH_A_LONG_NAME_{number}_r{variant}" for number in range(count) for variant in "0123"]
    before, after = (
        named(**{f"{name}0": 20 + number % 40 + extra * (number % 7) for number, name in enumerate(names)})
        for extra in (0, 1)
    )
    found = effect(*(cell(arch, uops.compare(before, after)) for arch in (X86, ARM)))
    programs = tuple(program(f"programs.number_{number}", 300, fewer=1 + number % 9) for number in range(120))
    tests = Regressions(("jit",), 7610, tuple(TestResult("jit", f"test_{n}", Outcome.FAILED) for n in range(90)))
    found = replace(found, cells=tuple(replace(each, tests=tests) for each in found.cells))
    return executing(found, programs, (*programs, ProgramWork("broken", problem="in the change: it failed")))


def failure(side: str = CHANGE, verdict: Verdict = Verdict.FAIL) -> Problem:
    """Return why a side could not be built."""
    return Problem(side, verdict, "make failed with status 2", "see build.log", ("Python/ceval.c:1: error: no",) * 9)


def broken() -> Effect:
    """Return a change that does not build on aarch64."""
    bad = CellEffect(Cell("3.15", ARM, "jit"), before=build("a"), problems=(failure(),))
    return effect(cell(X86, comparison()), bad)


def broken_base() -> Effect:
    """Return a change whose base does not build on either arch."""
    return effect(*(CellEffect(Cell("3.15", arch, "jit"), problems=(failure(BASE),)) for arch in (X86, ARM)))


def hostile() -> Effect:
    """Return a change in which every text is hostile."""
    found = comparison()
    worst = found.uops[0]
    evil = tuple(
        replace(worst, name=text, variants=tuple(replace(each, name=text) for each in worst.variants))
        for text in HOSTILE
    )
    listed = tuple(Instruction(0, text, HOSTILE) for text in HOSTILE)
    code = replace(evil[0].variants[0], after=uops.Code(uops.Size(), HOSTILE, listed))
    found = replace(found, uops=(replace(evil[0], variants=(code,)), *evil[1:]))
    problems = tuple(Problem(CHANGE, Verdict.INFRA, text, text, HOSTILE) for text in HOSTILE)
    strange = tuple(replace(program("calls.stars", 5, fewer=1), name=text) for text in HOSTILE)
    traced = tuple(
        replace(each, traces=tuple(replace(trace, place=text, after=HOSTILE) for trace in each.traces))
        for each, text in zip(strange, HOSTILE, strict=True)
    )
    named_so = tuple(
        replace(uop, name=text) for uop, text in zip(strange[0].uops * len(HOSTILE), HOSTILE, strict=False)
    )
    executed = (*traced, replace(strange[0], uops=named_so), ProgramWork(HOSTILE[0], problem=HOSTILE[1]))
    failing = tuple(TestResult("jit", text, Outcome.FAILED, message=text) for text in HOSTILE)
    tests = Regressions(HOSTILE, 3, failing, HOSTILE, HOSTILE)
    own = replace(
        cell(X86, found, *problems),
        programs=executed,
        tests=tests,
        after=replace(build("c"), compiler=HOSTILE[0], binaries=()),
    )
    side = Side(HOSTILE[0], None, HOSTILE[1], HOSTILE[2])
    return Effect(side, side, (own,), HOSTILE)


def read(text: str) -> Mapping[str, Stencil]:
    """Read a header."""
    return stencils.by_name(text)
