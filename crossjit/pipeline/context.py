"""What the steps work with, and what they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from crossjit import PROGRAM
from crossjit.build.build_python import BuildPython
from crossjit.build.container import jobs_for
from crossjit.build.spec import BuildSpec
from crossjit.config.recipes import Archive, Git, Recipe
from crossjit.config.test_selection import ALL_TESTS, TestSelection
from crossjit.engine.base import HOME, OWNED, RUN, Engine, EngineFacts
from crossjit.errors import InfrastructureError, Interrupted
from crossjit.host import emulation
from crossjit.images import Image, ImageSpec, Role
from crossjit.model import Arch, Cell, EmulationSupport, Strategy, Variant
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.stash.artifact import Artifact
from crossjit.stash.store import Store

T = TypeVar("T")


EnsureImage = Callable[[ImageSpec, Role, Arch], Image]
"""Returns an image of this role and arch, made if it is not there; see `ImageBuilder.ensure`."""


@dataclass(frozen=True)
class BuildContext:
    """What the steps work with: the machine's side of a run.

    `labels` go on whatever is started in the engine; `cached` says whether builds use what earlier ones kept; `pinned`
    are sources that are taken as they were, by what asks for them (`Order.wanted`).
    """

    settings: Settings
    engine: Engine
    facts: EngineFacts
    ability: EmulationSupport
    images: tuple[ImageSpec, ...]
    ensure_image: EnsureImage
    store: Store
    run: str
    labels: Mapping[str, str]
    progress: Progress
    cached: bool = True
    pinned: Mapping[object, Source] = field(default_factory=dict)

    @property
    def jobs(self) -> int:
        """How many processes make and the suites may use at a time."""
        return jobs_for(self.facts, self.settings.jobs)

    def emulated(self, arch: Arch) -> bool:
        """Whether what is built for this arch runs under QEMU here."""
        return arch is not self.facts.arch

    def emulation(self, arch: Arch, cpu: str | None) -> Mapping[str, str]:
        """Return what a container of this arch needs in its environment."""
        return emulation.environment(self.facts.arch, arch, cpu)

    def qemu_version(self, arch: Arch) -> str | None:
        """Return the version of the QEMU that this arch runs under here; None where it runs natively."""
        emulator = self.ability.emulators.get(arch)
        return emulator.version if emulator and self.emulated(arch) else None

    def require_emulator(self, arch: Arch) -> None:
        """Raise InfrastructureError where nothing here can run this arch."""
        if self.ability.runs(arch) is False:
            raise InfrastructureError(
                f"nothing on this machine can run {arch} programs",
                hint=f"{PROGRAM} setup installs QEMU and registers it; {PROGRAM} doctor says what is missing",
            )

    def optional(self, what: str, step: Callable[..., T], *arguments: object) -> T | None:
        """Take a step that nothing depends on: what goes wrong in it is told, and is no cell's failure."""
        try:
            return step(*arguments)
        except Interrupted:
            raise
        except Exception as error:
            self.progress.say(f"{what} failed: {error}")
            return None


@dataclass(frozen=True)
class CellRequest:
    """What is to be done for one cell, before anything is: the recipe's variant, and what the user asked for.

    `source` is what `--source` said, None for the recipe's own; `image` an image's name where the user chose it;
    `selection` which part of the suites is to run.
    """

    cell: Cell
    recipe: Recipe
    variant: Variant
    strategy: Strategy
    source: str | None = None
    cpu: str | None = None
    image: str | None = None
    selection: TestSelection = ALL_TESTS

    @property
    def wanted(self) -> Archive | Git | str:
        """What is asked for as the source."""
        return self.source or self.recipe.source

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites to run, in order."""
        return self.selection.suites or self.variant.suites


@dataclass(frozen=True)
class PreparedCell:
    """A request with its source and its toolchain: now its build key is known.

    `trusted` is the same as the recipes' own trust domain would build it, whose artifacts serve; None in that domain.
    """

    request: CellRequest
    source: Source
    image: ImageSpec
    toolchain: Image
    spec: BuildSpec
    build_python: BuildPython | None = None
    trusted: PreparedCell | None = None

    @property
    def cell(self) -> Cell:
        """The cell that this is about."""
        return self.request.cell

    @property
    def key(self) -> str:
        """The build key."""
        return self.spec.key


@dataclass(frozen=True)
class BuiltCell:
    """A cell that is in the stash. `from_stash` says that it was there before; `seconds` is what this run spent.

    `caches` says how often each cache had an answer and how often not, by its name: (hits, misses).
    """

    artifact: Artifact
    from_stash: bool
    seconds: Mapping[str, float] = field(default_factory=dict)
    caches: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def labels(settings: Settings, run: str) -> Mapping[str, str]:
    """Return what everything that a run starts in the engine carries, so that it is found if the run dies."""
    return {OWNED: "container", HOME: settings.identity, RUN: run}
