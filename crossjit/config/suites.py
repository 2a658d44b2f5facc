"""Suites: the data under `validate/` that says what runs in the target, and what of it in which circumstances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path

import pydantic

import crossjit
from crossjit.config import documents
from crossjit.config.conditions import TargetEnvironment, When
from crossjit.errors import UserError, did_you_mean

VALIDATE = crossjit.VALIDATE


@documents.table
class Group:
    """Modules of regrtest that run alike."""

    modules: tuple[str, ...]
    """Regrtest's names; `package.*` is every test module of a package, each in a process of its own; `*` all that
    regrtest has; `@name` a list of `validate/modules.toml`."""
    without: tuple[str, ...] = ()
    """Those of them that are left out, by regrtest's names."""
    label: str = ""
    """Added to the names of the tests, to tell them from the same tests of another group."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for these modules, beside the suite's."""
    arguments: tuple[str, ...] = ()
    """More arguments for regrtest."""
    optional: bool = False
    """Whether a module that this Python does not have is left out; else that is a problem."""
    when: When = field(default_factory=When)
    """When the group runs."""


@documents.table
class Modules:
    """The file of what several suites know of regrtest's modules."""

    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Lists of regrtest's names, by the name of the list."""
    weights: dict[str, float] = field(default_factory=dict)
    """How long modules take, in any unit, where a suite does not say it itself."""


@documents.table
class Script:
    """A script of ours under `validate/` that prints JSON lines of checks."""

    file: str
    """Its file name."""
    arguments: tuple[str, ...] = ()
    """Its arguments."""
    timeout: pydantic.PositiveInt = 120
    """Seconds, native."""
    when: When = field(default_factory=When)
    """When it runs."""


@documents.table
class Required:
    """Tests without which a green proves nothing."""

    tests: str
    """A pattern of full names."""
    why: str
    """What is not proved without them, as a sentence's end: `nothing tested …`."""
    at_least: pydantic.PositiveInt = 1
    """How many must have run."""
    when: When = field(default_factory=When)
    """When they are required."""


@documents.table
class Suite:
    """A named set of checks that runs in the target image."""

    summary: str
    """What it is, in a line."""
    timeout: pydantic.PositiveInt
    """Seconds for one module, on real hardware and in a release build."""
    limit: pydantic.PositiveInt
    """Seconds for the whole suite, likewise."""
    emulated_factor: pydantic.PositiveInt = 10
    """How much more time everything gets under QEMU."""
    debug_factor: pydantic.PositiveInt = 3
    """How much more time everything gets in a debug build."""
    resources: tuple[str, ...] = ()
    """Regrtest's resources (`-u`); without any, tests that need the network and such are skipped."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for every module."""
    groups: tuple[Group, ...] = ()
    """What of regrtest runs."""
    scripts: tuple[Script, ...] = ()
    """What of ours runs."""
    required: tuple[Required, ...] = ()
    """What must have run."""
    weights: dict[str, float] = field(default_factory=dict)
    """How long modules take, in any unit; those that neither this names nor `validate/modules.toml` have 1. The longest
    run first."""

    def factor(self, where: TargetEnvironment) -> int:
        """Return how many times the native time of a release build everything gets."""
        return (self.emulated_factor if where.emulated else 1) * (self.debug_factor if where.variant.debug else 1)


@documents.table
class Caveat:
    """Something that a result is no evidence of."""

    text: str
    """A sentence's end: `no evidence about …` without its first words."""
    suites: tuple[str, ...] = ()
    """For these suites; for all if none is named."""
    when: When = field(default_factory=When)
    """In which circumstances."""


@documents.table
class Caveats:
    """The file of caveats."""

    caveats: tuple[Caveat, ...] = ()
    """The entries."""


def names(folder: Path = VALIDATE) -> tuple[str, ...]:
    """Return the names of all suites."""
    return tuple(sorted(path.stem for path in (folder / "suites").glob("*.toml")))


def load(name: str, folder: Path = VALIDATE) -> Suite:
    """Load a suite by its name. Raises UserError for one that is not there, DocumentError for one that is wrong."""
    if name not in names(folder):
        raise UserError(
            f"there is no suite {name!r}{did_you_mean(name, names(folder))}",
            hint=f"there are {', '.join(names(folder))}: each is a file in {folder / 'suites'}",
        )
    suite = documents.load(folder / "suites" / f"{name}.toml", Suite)
    file = folder / "modules.toml"
    modules = documents.load(file, Modules) if file.is_file() else Modules()
    groups = tuple(_with_sets(name, group, modules.sets) for group in suite.groups)
    return replace(suite, groups=groups, weights={**modules.weights, **suite.weights})


def _with_sets(suite: str, group: Group, sets: Mapping[str, tuple[str, ...]]) -> Group:
    """Put the lists of modules where a group names them; a module stands in a group once."""
    modules: list[str] = []
    for module in group.modules:
        name = module.removeprefix("@")
        if name == module:
            modules.append(module)
        elif name in sets:
            modules += sets[name]
        else:
            raise UserError(
                f"the suite {suite} names an unknown list of modules: {module!r}{did_you_mean(name, sets)}",
                hint=f"modules.toml has {', '.join(sets)}",
            )
    return replace(group, modules=tuple(dict.fromkeys(modules)))


def caveats(name: str, where: TargetEnvironment, folder: Path = VALIDATE) -> tuple[str, ...]:
    """Load what a suite's result is no evidence of in these circumstances. Raises DocumentError."""
    loaded = documents.load(folder / "caveats.toml", Caveats).caveats
    return tuple(each.text for each in loaded if name in (each.suites or (name,)) and each.when.holds(where))
