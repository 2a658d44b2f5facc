"""What programs do in two builds: the uops that they execute, trace by trace, and their instructions. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from crossjit.effect.operations import Operation, Operations
from crossjit.measure.compare import NOISE
from crossjit.measure.detail import Warm
from crossjit.measure.model import JIT, Call, Sample
from crossjit.measure.uops import Trace, Uop, together, total


@dataclass(frozen=True)
class Figures:
    """A program in one build. All but `cold` are of its warm call, that of some programs is the sum of theirs.

    `cold` and `warm` are instructions, `jit` are those of JIT code, as `loads` and `stores` are. `uops` are executions,
    and so are the others: of uops that leave the trace if a check fails, of those among them that check types, and of
    those that change reference counts. None is unknown.
    """

    cold: int = 0
    warm: int = 0
    jit: int = 0
    loads: int = 0
    stores: int = 0
    uops: int | None = 0
    guards: int | None = 0
    type_checks: int | None = 0
    reference_counts: int | None = 0


@dataclass(frozen=True)
class UopMovement:
    """A uop that is executed more or less often, or whose instructions are more or fewer. None is unknown."""

    name: str
    executions_before: int | None
    executions_after: int | None
    instructions_before: int
    instructions_after: int


@dataclass(frozen=True)
class TraceMovement:
    """A trace that is not the same: its uops in order, None in a build that does not have it.

    `entered` is how often it was entered, unknown is None. `place` tells where, see ExecutorFacts.
    """

    place: str
    before: tuple[str, ...] | None
    after: tuple[str, ...] | None
    entered_before: int | None
    entered_after: int | None
    instructions_before: int
    instructions_after: int

    @property
    def gone(self) -> Mapping[str, int]:
        """Uops that it no longer has, and how many of each."""
        return Counter(self.before or ()) - Counter(self.after or ())

    @property
    def new(self) -> Mapping[str, int]:
        """Uops that it has in addition, and how many of each."""
        return Counter(self.after or ()) - Counter(self.before or ())


@dataclass(frozen=True)
class ProgramWork:
    """A program in both builds: figures, the uops and traces that are not the same, or what is wrong with it.

    `changed` are the uops that it executes and whose machine code is not the same.
    """

    name: str
    before: Figures | None = None
    after: Figures | None = None
    uops: tuple[UopMovement, ...] = ()
    traces: tuple[TraceMovement, ...] = ()
    changed: tuple[str, ...] = ()
    problem: str = ""

    @property
    def change(self) -> float:
        """How many more instructions its warm call needs, as a part of 1."""
        return self.after.warm / self.before.warm - 1 if self.before and self.after else 0.0

    @property
    def moved(self) -> bool:
        """Whether it needs more or fewer instructions than two layouts of the same code would differ by."""
        return abs(self.change) > NOISE or self.before_jit != self.after_jit

    @property
    def before_jit(self) -> int:
        """Instructions of JIT code before: these repeat to the last one in any layout."""
        return self.before.jit if self.before else 0

    @property
    def after_jit(self) -> int:
        """Instructions of JIT code after."""
        return self.after.jit if self.after else 0


@dataclass(frozen=True)
class Ran:
    """A program in one build, as it was counted."""

    sample: Sample
    warm: Warm


def compare(
    name: str, before: Ran, after: Ran, operations: tuple[Operations, Operations], changed: frozenset[str]
) -> ProgramWork:
    """Compare a program in two builds. `changed` are the uops whose machine code is not the same."""
    traces = [_ran(each) for each in (before, after)]
    uops_of = [{uop.name: uop for uop in together(own)} for own in traces]
    executed = [{uop.name: uop.executions for uop in own.values() if uop.executions != 0} for own in uops_of]
    return ProgramWork(
        name,
        figures(before, executed[0], operations[0]),
        figures(after, executed[1], operations[1]),
        tuple(_uops(*uops_of)),
        tuple(_traces(*traces)),
        changed=tuple(sorted(changed & {*executed[0], *executed[1]})),
    )


def figures(ran: Ran, executed: Mapping[str, int | None], operations: Operations) -> Figures:
    """Return a program's figures in one build; `executed` are the executions of its uops."""

    def of(operation: Operation) -> int | None:
        if not operations.known.issuperset(executed):
            return None
        return total(executed[name] for name in executed if name in operations.of[operation])

    totals = ran.sample.totals
    return Figures(
        cold=Call.COLD.of(totals),
        warm=Call.WARM.of(totals),
        jit=ran.warm.counts.get(JIT, 0),
        loads=ran.warm.loads.get(JIT, 0),
        stores=ran.warm.stores.get(JIT, 0),
        uops=total(executed.values()),
        guards=of(Operation.GUARDS),
        type_checks=of(Operation.TYPE_CHECKS),
        reference_counts=of(Operation.REFERENCE_COUNTS),
    )


def added(all_figures: Iterable[Figures]) -> Figures:
    """Return the sums of figures; a sum with an unknown part is unknown."""
    listed = tuple(all_figures)
    return Figures(
        cold=sum(each.cold for each in listed),
        warm=sum(each.warm for each in listed),
        jit=sum(each.jit for each in listed),
        loads=sum(each.loads for each in listed),
        stores=sum(each.stores for each in listed),
        uops=total(each.uops for each in listed),
        guards=total(each.guards for each in listed),
        type_checks=total(each.type_checks for each in listed),
        reference_counts=total(each.reference_counts for each in listed),
    )


def sums(programs: Sequence[ProgramWork]) -> tuple[Figures, Figures]:
    """Return the sums of the programs that ran in both builds."""
    pairs = [(each.before, each.after) for each in programs if each.before and each.after]
    return added(before for before, _ in pairs), added(after for _, after in pairs)


def uops(programs: Iterable[ProgramWork]) -> tuple[UopMovement, ...]:
    """Return the uops that all programs together execute more or less often, those that moved most first."""
    found: dict[str, list[UopMovement]] = defaultdict(list)
    for program in programs:
        for uop in program.uops:
            found[uop.name].append(uop)
    together = [
        UopMovement(
            name,
            total(uop.executions_before for uop in own),
            total(uop.executions_after for uop in own),
            sum(uop.instructions_before for uop in own),
            sum(uop.instructions_after for uop in own),
        )
        for name, own in found.items()
    ]
    return tuple(sorted(together, key=_rank))


def _ran(program: Ran) -> tuple[Trace, ...]:
    return tuple(trace for trace in program.warm.uops.traces if trace.ran) if program.warm.uops else ()


def _uops(before: Mapping[str, Uop], after: Mapping[str, Uop]) -> Iterator[UopMovement]:
    """Yield the uops that are not executed as often, or need another number of instructions."""
    movements = []
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        movements.append(
            UopMovement(
                name,
                one.executions if one else 0,
                other.executions if other else 0,
                one.instructions if one else 0,
                other.instructions if other else 0,
            )
        )
    yield from sorted(filter(_is_movement, movements), key=_rank)


def _is_movement(uop: UopMovement) -> bool:
    return (uop.executions_before, uop.instructions_before) != (uop.executions_after, uop.instructions_after)


def _rank(uop: UopMovement) -> tuple[int, int, str]:
    executions = (uop.executions_after or 0) - (uop.executions_before or 0)
    return -abs(executions), -abs(uop.instructions_after - uop.instructions_before), uop.name


def _traces(before: Sequence[Trace], after: Sequence[Trace]) -> Iterator[TraceMovement]:
    """Yield the traces that do not have the same uops, those with most instructions first."""
    old, new = ({trace.place: trace for trace in side} for side in (before, after))
    movements = [_trace(place, old.get(place), new.get(place)) for place in {**old, **new}]
    changed = [each for each in movements if each.before != each.after]
    yield from sorted(changed, key=lambda each: (-max(each.instructions_before, each.instructions_after), each.place))


def _trace(place: str, before: Trace | None, after: Trace | None) -> TraceMovement:
    return TraceMovement(
        place,
        _names(before),
        _names(after),
        _entered(before),
        _entered(after),
        _instructions(before),
        _instructions(after),
    )


def _names(trace: Trace | None) -> tuple[str, ...] | None:
    return tuple(step.uop for step in trace.steps) if trace else None


def _entered(trace: Trace | None) -> int | None:
    return trace.steps[0].executions if trace and trace.steps else 0


def _instructions(trace: Trace | None) -> int:
    return sum(step.instructions for step in trace.steps) if trace else 0
