"""Which engine runs which cell: the one that runs it natively, else the one that is free. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from crossjit.model import Arch, Cell, EmulationSupport, Strategy
from crossjit.util.text import join_words

Abilities = Mapping[str, EmulationSupport]
"""What each engine's machine can run, by the engine's name, in the user's order."""


class Fit(IntEnum):
    """How well an engine fits a cell; the least fits best."""

    NATIVE = 0
    EMULATED = 1
    NOT = 2


@dataclass(frozen=True)
class Placement:
    """The engines that a cell goes to, whichever of them is free first, and why."""

    engines: tuple[str, ...]
    reason: str


def fit(ability: EmulationSupport, arch: Arch, requested: Strategy | None) -> Fit:
    """Return how an engine fits cells of an arch that are built as requested; None is `auto`.

    `cross` and `emulate` are for engines of a different arch, `native` for those of the same.
    """
    native = arch is ability.arch
    if requested in (Strategy.CROSS, Strategy.EMULATE) and native:
        return Fit.NOT
    if native:
        return Fit.NATIVE
    return Fit.EMULATED if ability.runs(arch) and requested is not Strategy.NATIVE else Fit.NOT


def place(abilities: Abilities, arch: Arch, requested: Strategy | None = None) -> Placement:
    """Return the engines that fit cells of an arch best; if none fits, the first, which then says why not."""
    fits = {name: fit(ability, arch, requested) for name, ability in abilities.items()}
    best = min(fits.values())
    if best is Fit.NOT:
        return Placement(tuple(abilities)[:1], f"no engine can run it{'' if requested is None else f' as {requested}'}")
    engines = tuple(name for name, found in fits.items() if found is best)
    if len(abilities) == 1:
        return Placement(engines, "it is the only engine")
    free = "" if len(engines) == 1 else "; whichever is free first"
    if best is Fit.NATIVE:
        return Placement(engines, f"{_all(engines)} {arch} natively{free}")
    if any(ability.arch is arch for ability in abilities.values()):  # excluded by the requested strategy
        return Placement(engines, f"{requested} is for another architecture's engine{free}")
    return Placement(engines, f"no engine runs {arch} natively; {_all(engines)} it under QEMU{free}")


def _all(engines: Sequence[str]) -> str:
    return f"{join_words(engines)} {'runs' if len(engines) == 1 else 'run'}"


class Schedule:
    """The cells that are still to do, and the engines that may do them.

    An engine whose last cell failed for the engine's or the machine's reasons is doubtful: it only gets cells that no
    other engine fits. A cell that an engine gave back does not come to it again.
    """

    def __init__(self, cells: Sequence[Cell], abilities: Abilities, requested: Strategy | None = None) -> None:
        self._pending = list(cells)
        self._running: set[Cell] = set()
        self._abilities = abilities
        self._requested = requested
        self._doubtful: set[str] = set()
        self._given_back: dict[Cell, list[str]] = {}

    @property
    def is_done(self) -> bool:
        """Whether no cell is pending or running, so that none can be given back any more."""
        return not self._pending and not self._running

    def given_back(self, cell: Cell) -> tuple[str, ...]:
        """Return the engines that gave a cell back, in order."""
        return tuple(self._given_back.get(cell, ()))

    def expected(self, engine: str) -> tuple[Cell, ...]:
        """Return the pending cells that may come to this engine."""
        return tuple(cell for cell in self._pending if engine in self._candidates(cell))

    def next(self, engine: str) -> Cell | None:
        """Return the first pending cell that goes to this engine, now running; None if there is none at present."""
        cell = next(iter(self.expected(engine)), None)
        if cell is not None:
            self._pending.remove(cell)
            self._running.add(cell)
        return cell

    def finish(self, engine: str, cell: Cell, *, infra: bool = False) -> None:
        """Note that an engine finished a cell; `infra` says that the engine or its machine is at fault."""
        self._running.remove(cell)
        (self._doubtful.add if infra else self._doubtful.discard)(engine)

    def give_back(self, engine: str, cell: Cell) -> bool:
        """Take a cell back from an engine that could not finish it, for another; return False if no other fits.

        The cell is running until then, and goes on being so if no other engine fits.
        """
        self._doubtful.add(engine)
        self._given_back.setdefault(cell, []).append(engine)
        if self._best(cell) is Fit.NOT:
            self._given_back[cell].remove(engine)
            return False
        self._running.remove(cell)
        self._pending.insert(0, cell)
        return True

    def _fits(self, cell: Cell) -> dict[str, Fit]:
        back = self._given_back.get(cell, ())
        return {
            name: fit(ability, cell.arch, self._requested)
            for name, ability in self._abilities.items()
            if name not in back
        }

    def _best(self, cell: Cell) -> Fit:
        return min(self._fits(cell).values(), default=Fit.NOT)

    def _candidates(self, cell: Cell) -> tuple[str, ...]:
        """Return the engines that a cell goes to now: those that fit best, of all the reliable ones, else of all."""
        fits = self._fits(cell)
        fitting = {name: found for name, found in fits.items() if found is not Fit.NOT}
        reliable = {name: found for name, found in fitting.items() if name not in self._doubtful}
        left = reliable or fitting
        best = min(left.values(), default=Fit.NOT)
        return tuple(name for name, found in left.items() if found is best) or tuple(fits)[:1]
