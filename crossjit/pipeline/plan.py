"""Planning: the selected cells, their strategies and their steps. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from crossjit import PROGRAM
from crossjit.config.pythons import InstalledPython
from crossjit.config.recipes import Recipe, name_of, unknown_recipe
from crossjit.errors import InfrastructureError, UserError, did_you_mean
from crossjit.model import Arch, Cell, EmulationSupport, Platform, Strategy, Variant

E = TypeVar("E", bound=StrEnum)

ALL = "all"
AUTO = "auto"

# Other common names of archs, which are suggested.
_ARCH_NAMES = {name: arch for arch in Arch for name in (arch.debian, *arch.aliases)}


@dataclass(frozen=True)
class Selector:
    """Selects cells. Empty fields mean the default recipe, the host's arch, and each recipe's default variants.

    `recipes` are names or paths of recipes' files; `all` among recipes or variants selects all of them.
    Without a platform, it is the engine's.
    """

    recipes: tuple[str, ...] = ()
    arches: tuple[Arch, ...] = ()
    variants: tuple[str, ...] = ()
    platform: Platform | None = None


@dataclass(frozen=True)
class Selection:
    """The selected cells, and notes about requested variants that were left out."""

    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Available:
    """The results that are known to exist already. `artifact` says that the build key is in the stash.

    `build_python` names the cell or artifact that will be a cross build's own Python; None if it has to be built.
    """

    source: bool = False
    toolchain: bool = False
    target: bool = False
    build_python: str | None = None
    artifact: bool = False


@dataclass(frozen=True)
class PlannedStep:
    """One step of a cell: the arch of the programs that it runs, and whether its result exists already.

    `emulated` says that they run under QEMU. `obstacle` is the reason why they cannot run there, None if they can. `by`
    names the other cell or artifact that provides the result, if any.
    """

    name: str
    arch: Arch
    satisfied: bool = False
    emulated: bool = False
    obstacle: str | None = None
    by: str | None = None


def select(
    recipes: Mapping[str, Recipe], selector: Selector, host_arch: Arch, platform: Platform = Platform.LINUX
) -> Selection:
    """Select cells, ordered by recipe as in the mapping, arch as in the enum, and variant as in the recipe.

    `platform` is the engine's, for a selector without one. A variant that a recipe does not offer, or not for an arch,
    is left out there, with a note. Raises UserError for a recipe that is not in the mapping, for variants that none of
    the selected recipes offers, and if no cell is left.
    """
    chosen = _chosen_recipes(recipes, selector.recipes)
    arches = [arch for arch in Arch if arch in (selector.arches or (host_arch,))]
    everything = ALL in selector.variants
    requested = () if everything else tuple(dict.fromkeys(selector.variants))
    _require_offered(chosen, requested)
    cells = tuple(
        Cell(recipe.name, arch, variant, selector.platform or platform)
        for recipe in chosen
        for arch in arches
        for variant in recipe.variants
        if everything or variant in (requested or recipe.default_variants)
        if arch in recipe.variants[variant].arches
    )
    if not cells:
        raise UserError(
            f"{_listed(chosen)} offers none of these variants for {' and '.join(arches)}",
            hint=f"`{PROGRAM} cells` lists what there is",
        )
    return Selection(
        cells=cells,
        notes=tuple(
            f"{recipe.name} does not offer {variant}{f' for {arch}' if arch else ''}: skipped there"
            for recipe in chosen
            for variant in requested
            for arch in _not_offered(recipe, variant, arches)
        ),
    )


def _listed(recipes: Iterable[Recipe]) -> str:
    return ", ".join(recipe.name for recipe in recipes)


def _not_offered(recipe: Recipe, variant: str, arches: Iterable[Arch]) -> Iterable[Arch | None]:
    """Return the archs for which a recipe does not offer a variant; None stands for all."""
    if variant not in recipe.variants:
        return (None,)
    return [arch for arch in arches if arch not in recipe.variants[variant].arches]


def parse_arches(texts: Iterable[str]) -> tuple[Arch, ...]:
    """Parse archs, separated by commas in each text; `all` selects all. Raises UserError with the choices."""
    return parse_places(texts)[0]


def parse_places(texts: Iterable[str]) -> tuple[tuple[Arch, ...], Platform | None]:
    """Parse archs as `parse_arches`, which may have a platform before them: `macos-aarch64`, `macos-all`.

    Returns the archs and the platform, None if none is given. Raises UserError, also for several platforms.
    """
    words = _words(texts)
    places = parse_all_places(words)
    if len(places) > 1:
        raise UserError(
            f"invalid archs {', '.join(words)}: expected those of one platform",
            hint="run crossjit once for each platform, on a machine of it",
        )
    platform, arches = next(iter(places.items()), (None, ()))
    return arches, platform


def parse_all_places(texts: Iterable[str]) -> dict[Platform | None, tuple[Arch, ...]]:
    """Parse archs of several platforms, by their platform; None if none is given. Raises UserError."""
    words: dict[Platform | None, list[str]] = {}
    for word in _words(texts):
        platform, arch = _split_place(word)
        words.setdefault(platform, []).append(arch)
    return {
        platform: _of_platform(platform or Platform.LINUX, tuple(dict.fromkeys(arches)))
        for platform, arches in words.items()
    }


def _of_platform(platform: Platform, words: Sequence[str]) -> tuple[Arch, ...]:
    if ALL in words:
        return platform.arches
    arches = tuple(map(parse_arch, words))
    if missing := [arch for arch in arches if arch not in platform.arches]:
        raise UserError(
            f"there is no arch {platform.place(missing[0])!r}",
            hint=f"choose from {', '.join(map(platform.place, platform.arches))}",
        )
    return arches


def _split_place(text: str) -> tuple[Platform | None, str]:
    name, _, arch = text.partition("-")
    return (Platform(name), arch) if arch and name in tuple(Platform) else (None, text)


def parse_arch(text: str) -> Arch:
    """Parse an arch. Raises UserError with the choices; other common names are suggested, not accepted."""
    return _member("arch", text, Arch, _ARCH_NAMES)


def parse_strategy(text: str) -> Strategy | None:
    """Parse a strategy; None is `auto`. Raises UserError with the choices."""
    if text == AUTO:
        return None
    return _member("strategy", text, [each for each in Strategy if each is not Strategy.INSTALLED], {}, also=(AUTO,))


def parse_cell(text: str) -> Cell:
    """Parse a cell, such as `3.15/aarch64/jit`; whether the recipe offers it is not checked. Raises UserError."""
    parts = text.split("/")
    if len(parts) != 3 or not all(parts):
        raise UserError(f"invalid cell {text!r}: expected recipe/arch/variant", hint="such as 3.15/aarch64/jit")
    platform, arch = _split_place(parts[1])
    return Cell(parts[0], parse_arch(arch), parts[2], platform or Platform.LINUX)


def strategy_of(recipe: Recipe, requested: Strategy | None, ability: EmulationSupport, arch: Arch) -> Strategy:
    """Choose how a recipe's cell is built for an arch, as `choose_strategy`; an installed Python is not built."""
    if isinstance(recipe.source, InstalledPython):
        return Strategy.INSTALLED
    return choose_strategy(requested, ability, arch)


def choose_strategy(requested: Strategy | None, ability: EmulationSupport, arch: Arch) -> Strategy:
    """Choose how to build for an arch; None is `auto`: native for the engine's own arch, otherwise cross.

    Raises UserError if the strategy does not fit the arch, InfrastructureError if an emulator is missing.
    """
    foreign = arch is not ability.arch
    if requested is None:
        return Strategy.CROSS if foreign else Strategy.NATIVE
    if requested is Strategy.NATIVE and foreign:
        raise UserError(
            f"{arch} cannot be built natively: the engine's machine is {ability.arch}",
            hint="use --strategy cross or emulate, or leave it out for cross",
        )
    if requested is not Strategy.NATIVE and not foreign:
        verb = "cross-built" if requested is Strategy.CROSS else "built under emulation"
        raise UserError(
            f"{arch} cannot be {verb}: it is the engine's own arch",
            hint="use --strategy native, or leave it out",
        )
    if requested is Strategy.EMULATE and (reason := obstacle(ability, arch)):
        raise InfrastructureError(f"{arch} cannot be built under emulation: {reason}", hint=remedy(ability))
    return requested


def obstacle(ability: EmulationSupport, arch: Arch) -> str | None:
    """Return why programs of this arch cannot be run here; None if they can."""
    if ability.runs(arch):
        return None
    emulator = ability.emulators.get(arch)
    if emulator is None and not ability.local:
        return f"the engine's machine runs no {arch} programs: register QEMU with binfmt there, with flag F"
    if emulator is None:
        return f"no emulator is registered for {arch}"
    if not emulator.enabled:
        return f"the emulator {emulator.name} is registered but disabled"
    return f"the emulator {emulator.name} is registered without the flag F, so containers would need it inside"


def remedy(ability: EmulationSupport) -> str:
    """Return what makes an engine's machine run foreign archs."""
    if ability.local:
        return f"{PROGRAM} setup installs QEMU and registers it; {PROGRAM} doctor says what is missing"
    return f"{PROGRAM} doctor says what the engine can run; setup changes this machine only"


def steps(
    cell: Cell,
    variant: Variant,
    strategy: Strategy,
    ability: EmulationSupport,
    known: Available | None = None,
    *,
    validate: bool = True,
) -> tuple[PlannedStep, ...]:
    """List a cell's steps in order; `validate` adds the variant's suites.

    A cross build compiles without an emulator, but its probe and its suites need one, and nothing is stashed without a
    probe.
    """
    known = known or Available()
    host, target = ability.arch, cell.arch
    compiler = target if strategy is Strategy.EMULATE else host

    def step(name: str, arch: Arch, satisfied: bool, by: str | None = None) -> PlannedStep:
        blocked = None if satisfied else obstacle(ability, arch)
        return PlannedStep(name, arch, satisfied, emulated=arch is not host, obstacle=blocked, by=by)

    planned = [step("source", host, known.source), step("toolchain image", compiler, known.toolchain)]
    # making the target image runs no programs of its arch
    planned.append(step("target image", host, known.target or (known.artifact and not validate)))
    if strategy is Strategy.CROSS:
        by = None if known.artifact else known.build_python
        planned.append(step("build Python", host, known.artifact or by is not None, by))
    planned += (step(name, compiler, known.artifact) for name in ("configure", "make", "install"))
    planned.append(step("probe", target, known.artifact))
    planned.append(step("stash", host, known.artifact))
    if validate:
        planned += (step(f"suite {suite}", target, False) for suite in variant.suites)
    return tuple(planned)


def _chosen_recipes(recipes: Mapping[str, Recipe], requested: Iterable[str]) -> list[Recipe]:
    names = {name_of(word): word for word in requested}
    for name, word in names.items():
        if name not in recipes and name != ALL:
            raise unknown_recipe(word, recipes)
    if ALL in names:
        return list(recipes.values())
    return [recipe for name, recipe in recipes.items() if (name in names if names else recipe.default)]


def _require_offered(chosen: Iterable[Recipe], requested: Iterable[str]) -> None:
    """Raise UserError for variants that none of the recipes offers."""
    offered = list(dict.fromkeys(variant for recipe in chosen for variant in recipe.variants))
    unknown = [variant for variant in requested if variant not in offered]
    messages = tuple(f"there is no variant {variant!r}{did_you_mean(variant, offered)}" for variant in unknown)
    if messages:
        hint = f"{_listed(chosen)}: choose from {', '.join(offered)}"
        raise UserError(messages[0], hint=hint, details=messages[1:])


def _words(texts: Iterable[str]) -> tuple[str, ...]:
    parts = (part.strip() for text in texts for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def _member(what: str, text: str, members: Iterable[E], aliases: Mapping[str, E], also: tuple[str, ...] = ()) -> E:
    choices = (*also, *(member.value for member in members))
    for member in members:
        if text == member.value:
            return member
    alias = aliases.get(text.casefold())
    suggestion = did_you_mean(alias.value if alias else text, choices)
    raise UserError(f"there is no {what} {text!r}{suggestion}", hint=f"choose from {', '.join(choices)}")
