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
class Step:
    """A uop of a trace: the bytes of its machine code there, and what ran of it, as in Uop."""

    uop: str
    bytes: int
    executions: int | None
    instructions: int


@dataclass(frozen=True)
class Trace:
    """The trace of an executor, uop by uop. `place` tells where it is entered, see ExecutorFacts."""

    place: str
    steps: tuple[Step, ...]

    @property
    def ran(self) -> bool:
        """Whether any of it was executed."""
        return any(step.instructions for step in self.steps)


@dataclass(frozen=True)
class Division:
    """JIT code by traces; `instructions` are all that ran, the sum of those of the uops, `trampolines` and `other`."""

    traces: tuple[Trace, ...]
    bytes: int
    instructions: int
    trampolines: int
    other: int

    @property
    def executors(self) -> int:
        """How many executors with machine code there are."""
        return len(self.traces)

    @property
    def uops(self) -> tuple[Uop, ...]:
        """The uops of all traces, those first of which most instructions ran."""
        return together(self.traces)


def together(traces: Iterable[Trace]) -> tuple[Uop, ...]:
    """Return the uops of some traces, those first of which most instructions ran."""
    steps: dict[str, list[Step]] = defaultdict(list)
    for trace in traces:
        for step in trace.steps:
            steps[step.uop].append(step)
    found = [
        Uop(
            name,
            places=len(own),
            bytes=sum(step.bytes for step in own),
            executions=total(step.executions for step in own),
            instructions=sum(step.instructions for step in own),
        )
        for name, own in steps.items()
    ]
    return tuple(sorted(found, key=lambda uop: (-uop.instructions, -(uop.executions or 0), uop.name)))


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of counts; None if one is unknown.

    >>> total([1, 2]), total([1, None])
    (3, None)
    """
    known = 0
    for count in counts:
        if count is None:
            return None
        known += count
    return known


class Span(NamedTuple):
    """The copy of a uop's stencil: where it begins and ends, and its name."""

    begin: int
    end: int
    name: str


@dataclass(frozen=True)
class _Counted:
    """What ran in the executors: instructions by span, executions of instructions by address, and what is elsewhere.

    The keys are the number of the memory, and where the span begins, or the address.
    """

    instructions: Counter[tuple[int, int]]
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


@dataclass(frozen=True)
class Layout:
    """Where the uops of executors are: for each executor the number of the memory that it is in, and its spans.

    `idle` are their traces if nothing of them is executed.
    """

    executors: tuple[ExecutorFacts, ...]
    numbers: tuple[int, ...]
    spans: tuple[tuple[Span, ...], ...]
    by_mapping: Mapping[int, Sequence[Span]]
    idle: tuple[Trace, ...]


def layout(executors: Sequence[ExecutorFacts], stencils: Stencils, mappings: Iterable[tuple[int, int, int]]) -> Layout:
    """Find the uops of executors.

    `mappings` are begin, end and number of the JIT code's memory when the executors were described. Raises ProblemError
    if something does not fit.
    """
    found = tuple(spans(executor, stencils) for executor in executors)
    listed = tuple(mappings)
    numbers = tuple(_mapping_of(each, listed) for each in found)
    by_mapping = dict(_by_mapping(zip(numbers, found, strict=True)))
    return Layout(tuple(executors), numbers, found, by_mapping, tuple(map(_idle, executors, found)))


def divide(found: Layout, blocks: Mapping[Block, int]) -> Division:
    """Divide the executions of blocks among the uops of executors. Raises ProblemError if something does not fit."""
    counted = _count(found.by_mapping, blocks)
    each = list(zip(found.numbers, found.executors, found.spans, found.idle, strict=True))
    return Division(
        traces=tuple(_trace(*one, counted) for one in each),
        bytes=sum(executor.size for executor in found.executors),
        instructions=sum(len(block.sizes) * times for block, times in blocks.items()),
        trampolines=sum(
            counted.instructions[number, own[-1].begin] for number, _, own, _ in each if own[-1].begin < own[-1].end
        ),
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
    instructions: Counter[tuple[int, int]] = Counter()
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
                instructions[block.mapping, layout[index].begin] += times
                executions[block.mapping, address] += times
            else:
                other += times
            address += int(size, 16)
    return _Counted(instructions, executions, other)


def _idle(executor: ExecutorFacts, layout: Sequence[Span]) -> Trace:
    steps = (Step(span.name, span.end - span.begin, executions=0, instructions=0) for span in layout[:-1])
    return Trace(executor.place, tuple(steps))


def _trace(mapping: int, executor: ExecutorFacts, layout: Sequence[Span], idle: Trace, counted: _Counted) -> Trace:
    if not any((mapping, span.begin) in counted.instructions for span in layout):
        return idle
    return Trace(executor.place, tuple(_steps(mapping, executor, layout, counted)))


def _steps(mapping: int, executor: ExecutorFacts, layout: Sequence[Span], counted: _Counted) -> Iterator[Step]:
    """Yield the uops of an executor, with what ran of them."""
    jumps = set(executor.jumps)
    for index, span in enumerate(layout[:-1]):
        after = index
        while layout[after].begin == layout[after].end:
            after += 1
        is_known = after < len(layout) - 1 and jumps.isdisjoint(range(index + 1, after + 1))
        size = span.end - span.begin
        yield Step(
            span.name,
            size,
            executions=counted.executions[mapping, span.begin] if is_known else None,
            instructions=counted.instructions[mapping, span.begin] if size else 0,
        )


def _unfit(problem: str) -> ProblemError:
    return ProblemError(f"the JIT's machine code cannot be divided into uops: an executor does not fit: {problem}")
