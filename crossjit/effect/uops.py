"""What happened to the machine code of uops from one build to another. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from crossjit.measure.stencils import Instruction, Stencil


class Kind(StrEnum):
    """What happened to a uop, or to one of its variants.

    `relocated`: its instructions are the same, but what is written into them is not, or its data.
    """

    NEW = "new"
    GONE = "gone"
    CHANGED = "changed"
    RELOCATED = "relocated"


@dataclass(frozen=True)
class Size:
    """Sizes of stencils: their number, bytes of code and of data, instructions (None if unknown), and relocations."""

    stencils: int = 0
    bytes: int = 0
    instructions: int | None = 0
    relocations: int = 0
    data: int = 0


@dataclass(frozen=True)
class Code:
    """A stencil of one build. `relocations` are the names of what is written into it, in order."""

    size: Size
    relocations: tuple[str, ...]
    listing: tuple[Instruction, ...]


@dataclass(frozen=True)
class Variant:
    """A variant of a uop that is not the same in both builds; one that is new or gone has one side only."""

    name: str
    kind: Kind
    before: Code | None
    after: Code | None


@dataclass(frozen=True)
class Uop:
    """A uop with the variants that are not the same, and the size of all its variants in both builds."""

    name: str
    kind: Kind
    before: Size
    after: Size
    variants: tuple[Variant, ...]

    @property
    def instructions(self) -> int | None:
        """How many instructions more it has; None if unknown."""
        before, after = self.before.instructions, self.after.instructions
        return None if before is None or after is None else after - before

    @property
    def bytes(self) -> int:
        """How many bytes of code more it has."""
        return self.after.bytes - self.before.bytes


@dataclass(frozen=True)
class Comparison:
    """The stencils of two builds: the size of all, and the uops whose machine code is not the same, worst first."""

    before: Size
    after: Size
    uops: tuple[Uop, ...]


Named = Mapping[str, Stencil]


def compare(before: Named, after: Named) -> Comparison:
    """Compare the stencils of two builds, given by their names."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted({*before, *after}):
        groups[(before.get(name) or after[name]).uop].append(name)
    found = [uop for name, names in groups.items() if (uop := _uop(name, names, before, after))]
    return Comparison(
        size(before.values()), size(after.values()), tuple(sorted(found, key=lambda uop: (rank(uop), uop.name)))
    )


def size(stencils: Iterable[Stencil]) -> Size:
    """Return the size of some stencils together."""
    listed = list(stencils)
    known = [len(each.instructions) for each in listed if each.instructions is not None]
    return Size(
        stencils=len(listed),
        bytes=sum(len(each.code) for each in listed),
        instructions=sum(known) if len(known) == len(listed) else None,
        relocations=sum(len(each.patches) for each in listed),
        data=sum(len(each.data) for each in listed),
    )


def _uop(name: str, names: Sequence[str], before: Named, after: Named) -> Uop | None:
    """Return what happened to a uop with these variants; None if it is the same."""
    variants = [variant for each in names if (variant := _variant(each, before.get(each), after.get(each)))]
    if not variants:
        return None
    sizes = [size(side[each] for each in names if each in side) for side in (before, after)]
    kinds = {variant.kind for variant in variants}
    kind = Kind.RELOCATED if kinds == {Kind.RELOCATED} else Kind.CHANGED
    if not all(each.stencils for each in sizes):
        kind = Kind.GONE if sizes[0].stencils else Kind.NEW
    return Uop(name, kind, sizes[0], sizes[1], tuple(variants))


def _variant(name: str, before: Stencil | None, after: Stencil | None) -> Variant | None:
    if before == after:
        return None
    if before is None or after is None:
        kind = Kind.GONE if after is None else Kind.NEW
    else:
        kind = Kind.RELOCATED if before.code == after.code else Kind.CHANGED
    return Variant(name, kind, _code(before), _code(after))


def _code(stencil: Stencil | None) -> Code | None:
    if stencil is None:
        return None
    names = tuple(patch.target for patch in stencil.patches)
    return Code(size([stencil]), names, stencil.instructions or ())


def rank(uop: Uop) -> tuple[bool, int, int, bool]:
    """Return the place of a uop: those that grew, the most first, then those that shrank, the most first."""
    instructions = uop.instructions or 0
    grew = (instructions, uop.bytes) > (0, 0)
    return not grew, -abs(instructions), -abs(uop.bytes), uop.kind is Kind.RELOCATED
