"""The options that several tasks share: their help texts, and parsing their values."""

from __future__ import annotations

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crossjit.config.test_selection import ALL_TESTS, TestSelection, parse_shard
from crossjit.errors import UserError, did_you_mean
from crossjit.model import Arch, Platform, Strategy
from crossjit.tasks.framework import Command, command

if TYPE_CHECKING:
    from crossjit.pipeline.plan import Selector
    from crossjit.runs.model import Run

SUITES = ("jit", "jit-stress", "no-opt", "ft-smoke", "full")  # a test compares it with the existing suites
AUTO = "auto"  # the strategy that depends on the host
VARIANTS = (
    "jit, jit-debug, ft, ft-debug, ft-jit, ft-jit-debug, interp, interp-debug, tailcall, jit-tailcall, jit-lto, nojit, "
    "asan, tsan, ubsan"
)
REPEATABLE = "can be repeated, or given as A,B"

HELP: Mapping[str, str] = {
    "arch": f"{', '.join(Arch)} or all; {REPEATABLE}; default: the engine's own",
    "recipe": f"3.13, 3.14, 3.15, main, the path of a recipe's file, or all; {REPEATABLE}; default: 3.15",
    "variant": f"{VARIANTS}, or all; {REPEATABLE}; default: the recipe's own, jit and ft",
    "strategy": "how to build: auto, native, cross or emulate; default: auto: native if possible, else cross",
    "source": (
        "what to build instead of the recipe's source: an archive, a git URL or local repository with #REF "
        "(branch, tag, commit or pull/N/head), a pull request's address on GitHub, or a checkout with its uncommitted "
        "changes; default: the recipe's"
    ),
    "trust": (
        "with CROSSJIT_ENGINE=host, build and run a stranger's source although nothing isolates it from this machine; "
        "default: refuse it"
    ),
    "python": (
        "a Python that was built elsewhere, instead of a recipe's: debian:SUITE/PACKAGE, such as "
        "debian:forky/python3.15, or a folder or an archive with an installed one; default: a recipe's cell"
    ),
    "cpu": (
        "the CPU model that QEMU emulates for a foreign arch, such as max; "
        f"default: {', '.join(f'{arch.cpu} for {arch}' for arch in Arch)}"
    ),
    "jobs": "how many commands make runs at a time; default: CROSSJIT_JOBS, else as many as cores and memory allow",
    "no_cache": "build without caches; default: use them",
    "suite": f"which suites to run: {', '.join(SUITES)}; {REPEATABLE}; default: the variant's own",
    "shard": "run only part I of N of each suite, given as I/N; default: all",
    "tests": (
        "run only these: a module (test_dis), a test's full name, or a pattern as for regrtest's --match; "
        f"{REPEATABLE}; default: all"
    ),
    "html": "also write a self-contained HTML page to this file, - for stdout; default: none",
    "json": "print JSON instead of text; default: off",
}

MAKING = ("strategy", "source", "trust", "cpu", "jobs")  # how cells are built
SELECTORS = ("arch", "recipe", "variant", *MAKING)  # and which cells


@dataclass(frozen=True)
class Request:
    """The values of the selecting options; for an empty tuple the recipe and the host decide.

    `strategy` None is `auto`; `jobs` 0 is as many as the engine allows; `cached` lets builds use caches. `trust` lets
    strangers' sources run without isolation. `platform` is named with the archs; None is the engine's.
    """

    arches: tuple[Arch, ...] = ()
    recipes: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    strategy: Strategy | None = None
    source: str | None = None
    cpu: str | None = None
    jobs: int = 0
    selection: TestSelection = ALL_TESTS
    cached: bool = True
    python: str | None = None
    trust: bool = False
    platform: Platform | None = None

    def with_jit(self) -> Request:
        """Return the request with the variant `jit` if none is named; a Python that was built elsewhere has its own."""
        return self if self.variants or self.python else replace(self, variants=("jit",))

    @property
    def leaves_all_open(self) -> bool:
        """Whether only the number of jobs was given, so that an earlier run can provide the rest."""
        return self == Request(jobs=self.jobs)

    @property
    def selector(self) -> Selector:
        """The selector of the cells."""
        from crossjit.pipeline.plan import Selector

        return Selector(recipes=self.recipes, arches=self.arches, variants=self.variants, platform=self.platform)


def describe(*names: str, **own: str) -> dict[str, str]:
    """Return the help texts of shared options by name, and of a task's own as given."""
    return {name: HELP[name] for name in names} | own


def cell_command(*names: str, **arguments: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a task whose second parameter, a Request, comes from the options of `read` with these names.

    Its other parameters are options of its own. `arguments` are those of `command`; `help` is for its own options.
    """

    def decorate(body: Callable[..., Any]) -> Command:
        context, _, *own = inspect.signature(body).parameters.values()
        shared = [inspect.signature(read).parameters[name] for name in names]

        @functools.wraps(body)
        def task(context: object, /, **values: Any) -> Any:
            return body(context, read(**{name: values.pop(name) for name in names if name in values}), **values)

        # invoke takes a task's options from its signature, and passes all by name
        options = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*shared, *own)]
        task.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
        arguments["help"] = describe(*names, **arguments.get("help", {}))
        arguments["iterable"] = [
            *(parameter.name for parameter in shared if parameter.default is None),
            *arguments.get("iterable", ()),
        ]
        return command(**arguments)(task)

    return decorate


def read(
    *,
    arch: Iterable[str] | None = None,
    recipe: Iterable[str] | None = None,
    variant: Iterable[str] | None = None,
    strategy: str = AUTO,
    source: str = "",
    cpu: str = "",
    jobs: str = "",
    suite: Iterable[str] | None = None,
    shard: str = "",
    tests: Iterable[str] | None = None,
    no_cache: bool = False,
    python: str = "",
    trust: bool = False,
) -> Request:
    """Parse the options' texts. Raises UserError for the first invalid one."""
    from crossjit.config import recipes
    from crossjit.pipeline import plan

    if python:
        _require_alone(recipe=recipe, variant=variant, source=source, strategy=strategy != AUTO, no_cache=no_cache)
    arches, platform = plan.parse_places(arch or ())
    return Request(
        arches=arches,
        recipes=tuple(map(recipes.in_full, words(recipe))),
        variants=words(variant),
        strategy=plan.parse_strategy(strategy),
        source=_source_in_full(source) if source else None,
        cpu=cpu or None,
        jobs=number("jobs", jobs, at_least=1) if jobs else 0,
        selection=TestSelection(suites=words(suite), shard=parse_shard(shard), tests=words(tests)),
        cached=not no_cache,
        python=_python_in_full(python) if python else None,
        trust=trust,
        platform=platform,
    )


def _require_alone(**others: object) -> None:
    """Raise UserError for options that say how to build, together with `--python`."""
    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if given:
        raise UserError(
            f"--python cannot be combined with {' or '.join(given)}",
            hint="it names a Python that was built elsewhere; leave the other options out",
        )


def in_full(argv: Iterable[str]) -> list[str]:
    """Return a command line with absolute paths in the options that select cells."""
    from crossjit.config import recipes

    def recipes_in_full(value: str) -> str:
        return ",".join(map(recipes.in_full, words([value])))

    def cell_in_full(value: str) -> str:
        recipe, *rest = value.rsplit("/", 2)
        return "/".join([recipes.in_full(recipe), *rest])

    kinds = {
        "--source": _source_in_full,
        "--base": base_in_full,
        "--python": _python_in_full,
        "--recipe": recipes_in_full,
        "--cell": cell_in_full,
    }
    result: list[str] = []
    words_left = iter(argv)
    for word in words_left:
        option, equals, value = word.partition("=")
        if word == "--":
            return [*result, word, *words_left]
        result.append(f"{option}={kinds[option](value)}" if equals and option in kinds else word)
        if word in kinds:
            result += [kinds[word](value) for value in itertools.islice(words_left, 1)]
    return result


def _source_in_full(source: str) -> str:
    from crossjit.sources import request

    return request.in_full(source)


def base_in_full(base: str) -> str:
    """Return `--base` with an absolute path, if it is not only a ref of the source's repository."""
    from crossjit.effect.base import is_source

    return _source_in_full(base) if is_source(base) else base


def _python_in_full(python: str) -> str:
    from crossjit.config import pythons
    from crossjit.util.paths import full_path

    return python if python.startswith(pythons.DEBIAN) else str(full_path(python))


def of_cell(request: Request, cell: str, *, tests: Iterable[str] = ()) -> Request:
    """Return a request for one cell, by its name. Raises UserError for an invalid name."""
    *recipe, arch, variant = cell.split("/") if cell.count("/") > 1 else ("", "", "")
    if not (any(recipe) and arch and variant):
        raise UserError(f"invalid --cell {cell!r}: expected recipe/arch/variant", hint="such as 3.15/aarch64/jit")
    named = read(arch=[arch], recipe=["/".join(recipe)], variant=[variant], tests=tests)
    return replace(
        request,
        arches=named.arches,
        recipes=named.recipes,
        variants=named.variants,
        selection=named.selection,
        platform=named.platform,
    )


def to_record(request: Request) -> dict[str, object]:
    """Return a request as JSON values for a run record."""
    from pydantic import TypeAdapter

    value: dict[str, object] = TypeAdapter(Request).dump_python(request, mode="json")
    return value


def from_record(run: Run) -> Request:
    """Return the request of an earlier run. Raises UserError if its record has no valid one."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Request).validate_python(run.request or None)
    except ValidationError:
        raise UserError(
            f"the record of run {run.id} lacks the requested cells",
            hint=f"give the options again; it was: {run.reproduce}",
        ) from None


def words(values: Iterable[str] | None) -> tuple[str, ...]:
    """Split at commas, without empty parts and duplicates."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def one_of(option: str, value: str, choices: tuple[str, ...]) -> str:
    """Return the value if it is one of the choices. Raises UserError with the choices otherwise."""
    if value not in choices:
        raise UserError(
            f"invalid --{option} {value!r}{did_you_mean(value, choices)}", hint=f"choose from {', '.join(choices)}"
        )
    return value


def number(option: str, value: str, *, at_least: int) -> int:
    """Parse a whole number. Raises UserError for anything else, and for a number below `at_least`."""
    if not (value.isascii() and value.isdecimal()) or int(value) < at_least:
        raise UserError(
            f"invalid --{option} {value!r}: expected a whole number of at least {at_least}",
            hint=f"such as --{option} 4",
        )
    return int(value)


def percentage(option: str, value: str) -> float:
    """Parse a percentage, with its sign or without. Raises UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", value)
    if match is None:
        raise UserError(f"invalid --{option} {value!r}: expected a percentage", hint=f"such as --{option} 1%")
    return float(match[1])
