"""Divides the machine code of a JIT, and what ran of it, among the uops that it was made of. Pure.

What is exact: each executed instruction of JIT code is counted once, by its address. It belongs to a uop if it is in
the copy of the uop's stencil in an executor that is alive at the end. All of these copies are compared with the
stencils, byte for byte but for what is patched: one that does not fit is an error. Instructions after the last uop are
trampolines, to functions that a direct branch does not reach. All the rest is `other`: code of executors that were
freed or not found, or of another JIT.

A uop was executed as often as its first instruction was, which no stencil jumps back to. One without machine code was
executed as often as the next uop with some, unless that is jumped to as well: then it is unknown.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from crossjit.channels import ExecutorFacts
from crossjit.measure.marks import Block
from crossjit.measure.process import ProblemError
from crossjit.measure.stencils import Stencils

TRAMPOLINES = ""  # the name of what follows the uops


@dataclass(frozen=True)
class Uop:
    """A uop in all executors: in how many `places`, with how many `bytes` of machine code; what ran of it.

    `executions` is None if a place has no machine code, and it cannot be told how often it was passed.
    """

    name: str
    places: int
    bytes: int
    executions: int | None
    instructions: int


@dataclass(frozen=True)
class Division:
    """JIT code by uops; `instructions` are all that ran, the sum of those of the uops, `trampolines` and `other`."""

    uops: tuple[Uop, ...]
    executors: int
    bytes: int
    instructions: int
    trampolines: int
    other: int


class Span(NamedTuple):
    """The copy of a uop's stencil: where it begins and ends, and its name."""

    begin: int
    end: int
    name: str


@dataclass(frozen=True)
class _Counted:
    """What ran in the executors: instructions by name, and executions of instructions by address."""

    instructions: Counter[str]
    executions: Counter[tuple[int, int]]
    other: int


def spans(executor: ExecutorFacts, stencils: Stencils) -> tuple[Span, ...]:
    """Return where an executor's uops are, in order, and last what follows them.

    Raises ProblemError if its machine code is not made of these stencils.
    """
    code = bytes.fromhex(executor.code).ljust(executor.size, b"\0")
    if len(code) != executor.size or len(executor.names) != len(executor.opcodes):
        raise _unfit("its description contradicts itself")
    found: list[Span] = []
    at = 0
    for name, opcode in zip(executor.names, executor.opcodes, strict=True):
        stencil = stencils.of.get(opcode)
        if stencil is None or stencil.uop != name:
            raise _unfit(f"uop {len(found)} is {name}, and its number is that of {stencil.name if stencil else 'none'}")
        if not stencil.fits(code[at : at + len(stencil.code)]):
            raise _unfit(f"uop {len(found)}, {stencil.name}, has other bytes than its stencil")
        found.append(Span(at, at + len(stencil.code), name))
        at += len(stencil.code)
    if not stencils.end.fits(code[at : at + len(stencils.end.code)]):
        raise _unfit(f"{stencils.end.name} does not follow the last uop")
    found.append(Span(at, executor.size, TRAMPOLINES))
    return tuple(Span(executor.address + begin, executor.address + end, name) for begin, end, name in found)


def divide(
    executors: Sequence[ExecutorFacts],
    stencils: Stencils,
    blocks: Mapping[Block, int],
    mappings: Iterable[tuple[int, int, int]],
) -> Division:
    """Divide the executions of blocks among the uops of the executors.

    `mappings` are begin, end and number of the JIT code's memory when the executors were described. Raises ProblemError
    if something does not fit.
    """
    layouts = [spans(executor, stencils) for executor in executors]
    numbers = [_mapping_of(layout, mappings) for layout in layouts]
    counted = _count(dict(_by_mapping(zip(numbers, layouts, strict=True))), blocks)
    places: Counter[str] = Counter()
    size: Counter[str] = Counter()
    executions: dict[str, int | None] = {}
    for number, executor, layout in zip(numbers, executors, layouts, strict=True):
        for span, times in zip(layout[:-1], _passes(number, executor, layout, counted), strict=True):
            places[span.name] += 1
            size[span.name] += span.end - span.begin
            before = executions.get(span.name, 0)
            executions[span.name] = None if times is None or before is None else before + times
    uops = [Uop(name, places[name], size[name], executions[name], counted.instructions[name]) for name in places]
    return Division(
        uops=tuple(sorted(uops, key=lambda uop: (-uop.instructions, -(uop.executions or 0), uop.name))),
        executors=len(executors),
        bytes=sum(executor.size for executor in executors),
        instructions=sum(len(block.sizes) * times for block, times in blocks.items()),
        trampolines=counted.instructions[TRAMPOLINES],
        other=counted.other,
    )


def _mapping_of(layout: Sequence[Span], mappings: Iterable[tuple[int, int, int]]) -> int:
    """Return the number of the memory that an executor is in."""
    for begin, end, number in mappings:
        if begin <= layout[0].begin and layout[-1].end <= end:
            return number
    raise _unfit("it is not in memory for JIT code")


def _by_mapping(numbered: Iterable[tuple[int, Sequence[Span]]]) -> Iterator[tuple[int, list[Span]]]:
    """Yield the spans with machine code in each mapping, sorted; there may be several executors in one."""
    found: dict[int, list[Span]] = defaultdict(list)
    for number, layout in numbered:
        found[number] += (span for span in layout if span.begin < span.end)
    for number, all_spans in found.items():
        all_spans.sort()
        if any(one.end > other.begin for one, other in pairwise(all_spans)):
            raise _unfit("it overlaps another one")
        yield number, all_spans


def _count(layouts: Mapping[int, Sequence[Span]], blocks: Mapping[Block, int]) -> _Counted:
    """Give each instruction of each block to the span that it is in."""
    instructions: Counter[str] = Counter()
    executions: Counter[tuple[int, int]] = Counter()
    other = 0
    begins = {number: [span.begin for span in layout] for number, layout in layouts.items()}
    for block, times in blocks.items():
        layout = layouts.get(block.mapping, ())
        address = block.address
        for size in block.sizes:
            index = bisect_right(begins[block.mapping], address) - 1 if layout else -1
            if index >= 0 and address < layout[index].end:
                if address + int(size, 16) > layout[index].end:
                    raise _unfit(f"an instruction of {layout[index].name} goes on in the next uop")
                instructions[layout[index].name] += times
                executions[block.mapping, address] += times
            else:
                other += times
            address += int(size, 16)
    return _Counted(instructions, executions, other)


def _passes(mapping: int, executor: ExecutorFacts, layout: Sequence[Span], counted: _Counted) -> Iterator[int | None]:
    """Yield how often each uop of an executor was executed; None where it is unknown."""
    jumps = set(executor.jumps)
    for index, span in enumerate(layout[:-1]):
        after = index
        while layout[after].begin == layout[after].end:
            after += 1
        is_known = after < len(layout) - 1 and jumps.isdisjoint(range(index + 1, after + 1))
        yield counted.executions[mapping, span.begin] if is_known else None


def _unfit(problem: str) -> ProblemError:
    return ProblemError(f"the JIT's machine code cannot be divided into uops: an executor does not fit: {problem}")
