"""Suites: the data under `validate/` that says what runs in the target, and under which conditions."""

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
    """Modules of regrtest that run with the same options."""

    modules: tuple[str, ...]
    """Regrtest's names; `package.*` is every test module of a package, each in its own process; `*` all of regrtest's
    modules; `@name` a list of `validate/modules.toml`."""
    without: tuple[str, ...] = ()
    """Modules to leave out, by regrtest's names."""
    label: str = ""
    """Added to the names of the tests, to distinguish them from the same tests of a different group."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for these modules, in addition to the suite's."""
    arguments: tuple[str, ...] = ()
    """More arguments for regrtest."""
    optional: bool = False
    """Whether modules that this Python does not have are skipped; otherwise they are a problem."""
    when: When = field(default_factory=When)
    """When the group runs."""


@documents.table
class Modules:
    """The file of facts about regrtest's modules that suites share."""

    sets: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Lists of regrtest's names, by the name of the list."""
    weights: dict[str, float] = field(default_factory=dict)
    """How long modules take, in any unit, unless a suite says it."""


@documents.table
class Script:
    """A script under `validate/` that prints its checks as JSON lines."""

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
    """Tests that must run, or passing proves nothing."""

    tests: str
    """A pattern of full names."""
    why: str
    """What is not proved without them, as the end of a sentence: `nothing tested …`."""
    at_least: pydantic.PositiveInt = 1
    """How many of them must have run."""
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
    """How many times longer everything may take under QEMU."""
    debug_factor: pydantic.PositiveInt = 3
    """How many times longer everything may take in a debug build."""
    resources: tuple[str, ...] = ()
    """Regrtest's resources (`-u`); without any, tests that need resources such as the network are skipped."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables for every module."""
    groups: tuple[Group, ...] = ()
    """The regrtest modules that run."""
    scripts: tuple[Script, ...] = ()
    """The scripts under `validate/` that run."""
    required: tuple[Required, ...] = ()
    """The tests that must have run."""
    weights: dict[str, float] = field(default_factory=dict)
    """How long modules take, in any unit; 1 for those named neither here nor in `validate/modules.toml`. The longest
    run first."""

    def factor(self, env: TargetEnvironment) -> int:
        """Return the factor on all time limits, which are those of a native release build."""
        return (self.emulated_factor if env.emulated else 1) * (self.debug_factor if env.variant.debug else 1)


@documents.table
class Caveat:
    """A limit of what a result is evidence of."""

    text: str
    """The end of a sentence: `no evidence about …` without these first words."""
    suites: tuple[str, ...] = ()
    """The suites that it is for; all if none is named."""
    when: When = field(default_factory=When)
    """When it holds."""


@documents.table
class Caveats:
    """The file of caveats."""

    caveats: tuple[Caveat, ...] = ()
    """The entries."""


def names(folder: Path = VALIDATE) -> tuple[str, ...]:
    """Return the names of all suites."""
    return tuple(sorted(path.stem for path in (folder / "suites").glob("*.toml")))


def load(name: str, folder: Path = VALIDATE) -> Suite:
    """Load a suite by its name. Raises UserError for an unknown name, DocumentError for an invalid file."""
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
    """Replace the names of lists in a group by their modules, without duplicates."""
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


def caveats(name: str, env: TargetEnvironment, folder: Path = VALIDATE) -> tuple[str, ...]:
    """Load a suite's caveats in an environment. Raises DocumentError."""
    loaded = documents.load(folder / "caveats.toml", Caveats).caveats
    return tuple(caveat.text for caveat in loaded if name in (caveat.suites or (name,)) and caveat.when.holds(env))
