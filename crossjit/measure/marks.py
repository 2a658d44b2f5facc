"""What the meter's plugin wrote, and what it counted between two markers. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from crossjit.channels import JitMemory, MalformedError, Mark, Op, read_mark
from crossjit.errors import InfrastructureError

__all__ = ["Block", "JitMemory", "Mark", "Op", "Window", "difference", "read", "read_whole", "total", "windows"]

AGAIN = "run the same command again; if it happens again, the engine's disk may be full"


class Block(NamedTuple):
    """A piece of JIT code that runs from its begin to its end; `sizes` has a hexadecimal digit for each instruction.

    `mapping` is the number of the memory that it was in: what was there before, at the same address, has another.
    """

    address: int
    sizes: str
    mapping: int


@dataclass(frozen=True)
class Window:
    """What a process did from a `begin` to the `end` with the same label; `inner` are the marks between them."""

    label: int
    begin: Mark
    end: Mark
    inner: tuple[Mark, ...] = ()

    @property
    def counts(self) -> Mapping[str, int]:
        """Instructions by class of code."""
        return difference(self.begin.counts, self.end.counts)

    @property
    def loads(self) -> Mapping[str, int]:
        """Loads by class; empty unless asked for."""
        return difference(self.begin.loads, self.end.loads)

    @property
    def stores(self) -> Mapping[str, int]:
        """Stores by class; empty unless asked for."""
        return difference(self.begin.stores, self.end.stores)

    @property
    def functions(self) -> Mapping[str, int]:
        """Instructions by function, of those that ran; empty unless asked for."""
        return {name: count for name, count in difference(self.begin.functions, self.end.functions).items() if count}

    @property
    def threads(self) -> tuple[Mapping[str, int], ...]:
        """Instructions by class for each thread; empty unless asked for."""
        before: Sequence[Mapping[str, int]] = self.begin.threads
        return tuple(
            difference(before[number] if number < len(before) else {}, after)
            for number, after in enumerate(self.end.threads)
        )

    @property
    def blocks(self) -> Mapping[Block, int]:
        """Executions of blocks of JIT code; empty unless asked for. A mark has those since the mark before it."""
        executions: Counter[Block] = Counter()
        for mark in (*self.inner, self.end):
            for address, sizes, mapping, times in mark.blocks:
                executions[Block(address, sizes, mapping)] += times
        return executions

    @property
    def execs(self) -> int:
        """How many programs were started, which the meter did not count."""
        return self.end.execs - self.begin.execs

    @property
    def jit(self) -> JitMemory:
        """What was done with memory for JIT code."""
        first, last = self.begin.jit, self.end.jit
        return JitMemory(last.maps - first.maps, last.bytes - first.bytes, last.frees - first.frees)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """Return what was counted between two marks of a process; a class that is new counts from 0."""
    return {name: count - before.get(name, 0) for name, count in after.items()}


def total(counts: Mapping[str, int]) -> int:
    """Return the instructions of all classes together."""
    return sum(counts.values())


def read(text: str) -> tuple[Mark, ...]:
    """Parse the plugin's output; a last line without its end, as a killed process leaves it, is left out.

    Raises InfrastructureError if it is damaged.
    """
    *lines, _ = text.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(read_mark(line))
        except MalformedError as error:
            raise InfrastructureError(
                f"the meter's output is damaged: line {number}: {error}", hint=AGAIN, details=(line[:300],)
            ) from error
    return tuple(found)


def read_whole(text: str) -> tuple[Mark, ...]:
    """Parse the output of a program that ended by itself: from its start to its exit.

    Raises InfrastructureError if it is damaged or something is missing.
    """
    found = read(text)
    if not found or found[0].op is not Op.START:
        raise InfrastructureError("the meter's output is damaged: its start is missing", hint=AGAIN)
    process = found[0].pid
    if not text.endswith("\n") or not any(mark.op is Op.EXIT and mark.pid == process for mark in found):
        raise InfrastructureError("the meter's output is damaged: its end is missing", hint=AGAIN)
    return found


def windows(found: Iterable[Mark]) -> tuple[Window, ...]:
    """Return the windows of the first process, in order; a `begin` without its `end` has none.

    Raises InfrastructureError for an `end` without its `begin`.
    """
    process: int | None = None
    begin: Mark | None = None
    inner: list[Mark] = []
    complete = []
    for mark in found:
        process = mark.pid if process is None else process
        if mark.pid != process:
            continue
        if mark.op is Op.BEGIN:
            begin, inner = mark, []
        elif mark.op is Op.END:
            if begin is None or begin.label != mark.label:
                raise InfrastructureError(
                    f"the meter's output is damaged: window {mark.label} ends without having begun", hint=AGAIN
                )
            complete.append(Window(mark.label, begin, mark, tuple(inner)))
            begin = None
        elif begin is not None:
            inner.append(mark)
    return tuple(complete)
