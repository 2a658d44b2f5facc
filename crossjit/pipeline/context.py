"""The context of a run's steps, and the stages of a cell: requested, prepared, built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from crossjit.build.build_python import BuildPython
from crossjit.build.container import jobs_for
from crossjit.build.spec import BuildSpec
from crossjit.config.conditions import numbers
from crossjit.config.pythons import InstalledPython
from crossjit.config.recipes import Archive, Git, Recipe
from crossjit.config.test_selection import ALL_TESTS, TestSelection
from crossjit.engine.base import HOME, OWNED, RUN, Engine, EngineFacts
from crossjit.errors import InfrastructureError, Interrupted
from crossjit.host import emulation
from crossjit.images import Image, ImageSpec, Package, Role
from crossjit.model import Arch, Cell, EmulationSupport, Strategy, Variant
from crossjit.pipeline import plan
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import Source
from crossjit.stash.artifact import INSTALL, Artifact
from crossjit.stash.store import Store

if TYPE_CHECKING:
    from crossjit.remote.shared_stash import SharedStash

T = TypeVar("T")


EnsureImage = Callable[[ImageSpec, Role, Arch], Image]
"""Returns an image of this role and arch, made if it is missing; see `ImageBuilder.ensure`."""

EnsureBase = Callable[[ImageSpec], str]
"""Returns the reference of a suite's base image of the engine's own arch; see `ImageBuilder.ensure_base`."""


@dataclass(frozen=True)
class BuildContext:
    """The machine's side of a run.

    `labels` are for everything that is started in the engine. `cached` says whether builds use the caches. `pinned` are
    sources from earlier runs that replace the requested ones, by `CellRequest.wanted`; `pythons` are the installed
    Pythons of an earlier run. `shared` is the stash that machines share, if there is one. `engine_name` is the user's
    name of the engine if the run has several.
    """

    settings: Settings
    engine: Engine
    facts: EngineFacts
    ability: EmulationSupport
    images: tuple[ImageSpec, ...]
    ensure_image: EnsureImage
    ensure_base: EnsureBase
    store: Store
    run: str
    labels: Mapping[str, str]
    progress: Progress
    cached: bool = True
    pinned: Mapping[object, Source] = field(default_factory=dict)
    pythons: Mapping[Cell, Artifact] = field(default_factory=dict)
    shared: SharedStash | None = None
    engine_name: str | None = None

    @property
    def jobs(self) -> int:
        """The number of parallel processes for make and the suites."""
        return jobs_for(self.facts, self.settings.jobs)

    def emulated(self, arch: Arch) -> bool:
        """Whether programs of this arch run under QEMU here."""
        return arch is not self.facts.arch

    def emulation(self, arch: Arch, cpu: str | None) -> Mapping[str, str]:
        """Return the variables that emulation needs in a container of this arch."""
        return emulation.environment(self.facts.arch, arch, cpu)

    def qemu_version(self, arch: Arch) -> str | None:
        """Return the version of the QEMU that runs this arch here; None if it runs natively or without a known QEMU."""
        emulator = self.ability.emulators.get(arch)
        return emulator.version if emulator and self.emulated(arch) else None

    def require_emulator(self, arch: Arch) -> None:
        """Raise InfrastructureError if nothing here can run this arch."""
        if not self.ability.runs(arch):
            where = "this machine" if self.ability.local else "the engine's machine"
            raise InfrastructureError(f"nothing on {where} can run {arch} programs", hint=plan.remedy(self.ability))

    def optional(self, what: str, step: Callable[..., T], *arguments: object) -> T | None:
        """Run an optional step: its failure is reported, returns None, and does not fail a cell."""
        try:
            return step(*arguments)
        except Interrupted:
            raise
        except Exception as error:
            self.progress.say(f"{what} failed: {error}")
            return None


@dataclass(frozen=True)
class CellRequest:
    """A cell to build, with its recipe's variant and the user's options.

    `source` is the value of `--source`, None for the recipe's own; `image` the name of an image if the user chose one;
    `selection` the part of the suites to run. `trusted` says that the user trusts the source, whoever wrote it.
    """

    cell: Cell
    recipe: Recipe
    variant: Variant
    strategy: Strategy
    source: str | None = None
    cpu: str | None = None
    image: str | None = None
    selection: TestSelection = ALL_TESTS
    trusted: bool = False

    @property
    def wanted(self) -> Archive | Git | InstalledPython | str:
        """The requested source, or the installed Python."""
        return self.source or self.recipe.source

    @property
    def built_from(self) -> Archive | Git | str:
        """What it is built from."""
        return self.source or self.recipe.built_from

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites to run, in order."""
        return self.selection.suites or self.variant.suites


@dataclass(frozen=True)
class PreparedBuild:
    """A request with its source and toolchain, so that its build key is known.

    `trusted` is the same cell in the trust domain of the recipes' own sources, whose artifacts can be used instead;
    None in that domain.
    """

    request: CellRequest
    source: Source
    image: ImageSpec
    toolchain: Image
    spec: BuildSpec
    build_python: BuildPython | None = None
    trusted: PreparedBuild | None = None

    @property
    def cell(self) -> Cell:
        """The requested cell."""
        return self.request.cell

    @property
    def key(self) -> str:
        """The build key."""
        return self.spec.key

    @property
    def version(self) -> str:
        """CPython's version."""
        return self.source.version

    @property
    def python(self) -> tuple[int, int]:
        """The major and minor version."""
        return self.source.python

    @property
    def has_tests(self) -> bool:
        """Whether CPython's tests are installed."""
        return True

    @property
    def packages(self) -> tuple[Package, ...]:
        """The packages whose libraries it may load."""
        return self.toolchain.packages


@dataclass(frozen=True)
class PreparedPython:
    """A request for a Python that was built elsewhere, which is in the stash; its variant is that of its build."""

    request: CellRequest
    image: ImageSpec
    artifact: Artifact
    from_stash: bool

    @property
    def cell(self) -> Cell:
        """The requested cell."""
        return self.request.cell

    @property
    def key(self) -> str:
        """The artifact's key."""
        return self.artifact.key

    @property
    def source(self) -> Source | None:
        """Its source is not here."""
        return None

    @property
    def version(self) -> str:
        """CPython's version."""
        return self.artifact.manifest.version

    @property
    def python(self) -> tuple[int, int]:
        """The major and minor version."""
        major, minor = numbers(".".join(self.version.split(".")[:2]))
        return major, minor

    @property
    def has_tests(self) -> bool:
        """Whether CPython's tests are installed."""
        return any(path.endswith("/test/libregrtest/__init__.py") for path in self.artifact.files()[INSTALL])

    @property
    def packages(self) -> tuple[Package, ...]:
        """No packages: it comes with its own, or with what the target image has."""
        return ()


PreparedCell = PreparedBuild | PreparedPython
"""A request whose CPython is known, so that it has a key."""


@dataclass(frozen=True)
class BuiltCell:
    """A cell in the stash. `from_stash` says whether it was there before; `seconds` are this run's, by phase.

    `caches` are (hits, misses) by cache name.
    """

    artifact: Artifact
    from_stash: bool
    seconds: Mapping[str, float] = field(default_factory=dict)
    caches: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def labels(settings: Settings, run: str) -> Mapping[str, str]:
    """Return the labels of everything that a run starts in the engine, by which it is found if the run dies."""
    return {OWNED: "container", HOME: settings.identity, RUN: run}
