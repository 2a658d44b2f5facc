"""The options that several tasks share: their help, and their values from the text that invoke hands over."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from crossjit.config.test_selection import ALL_TESTS, TestSelection, parse_shard
from crossjit.errors import UserError, did_you_mean
from crossjit.model import Arch, Strategy
from crossjit.tasks.framework import Command, command

if TYPE_CHECKING:
    from crossjit.pipeline.plan import Selector
    from crossjit.runs.model import Run

SUITES = ("jit", "jit-stress", "no-opt", "ft-smoke", "full")  # a test compares it with what is there
AUTO = "auto"  # the strategy that leaves the choice to the host
VARIANTS = "jit, jit-debug, ft, ft-debug, ft-jit, interp, nojit, asan, tsan, ubsan"
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
    "json": "print JSON instead of text; default: off",
}

MAKING = ("strategy", "source", "cpu", "jobs")  # how cells are made
SELECTORS = ("arch", "recipe", "variant", *MAKING)  # which cells, too


@dataclass(frozen=True)
class Request:
    """What the selecting options asked for; an empty tuple is what the recipe and the host make of it.

    `strategy` None is `auto`; `jobs` 0 is what the engine allows; `cached` lets builds use what earlier ones kept.
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

    @property
    def leaves_all_open(self) -> bool:
        """Whether nothing was asked for but the number of jobs: an earlier run, say, is to tell the rest."""
        return self == Request(jobs=self.jobs)

    @property
    def selector(self) -> Selector:
        """The cells that are meant."""
        from crossjit.pipeline.plan import Selector

        return Selector(recipes=self.recipes, arches=self.arches, variants=self.variants)


def describe(*names: str, **others: str) -> dict[str, str]:
    """Return help texts for shared options by name, and for others as given."""
    return {name: HELP[name] for name in names} | others


def cell_command(*names: str, **arguments: Any) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a task whose second parameter, a Request, comes from the options of `read` with these names.

    What follows in its own signature are options of its own. `arguments` are those of `command`; `help` is for its own.
    """

    def decorate(body: Callable[..., Any]) -> Command:
        context, _, *own = inspect.signature(body).parameters.values()
        shared = [inspect.signature(read).parameters[name] for name in names]

        @functools.wraps(body)
        def task(context: object, /, **given: Any) -> Any:
            return body(context, read(**{name: given.pop(name) for name in names if name in given}), **given)

        # invoke takes a task's options from its signature, and passes all by name
        options = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*shared, *own)]
        task.__signature__ = inspect.Signature([context, *options])  # type: ignore[attr-defined]
        arguments["help"] = describe(*names, **arguments.get("help", {}))
        arguments["iterable"] = [
            *(each.name for each in shared if each.default is None),
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
) -> Request:
    """Turn the options' texts into values. Raises UserError for the first that is wrong."""
    from crossjit.config import recipes
    from crossjit.pipeline import plan

    return Request(
        arches=plan.parse_arches(arch or ()),
        recipes=tuple(map(recipes.in_full, words(recipe))),
        variants=words(variant),
        strategy=plan.parse_strategy(strategy),
        source=_source_in_full(source) if source else None,
        cpu=cpu or None,
        jobs=number("jobs", jobs, at_least=1) if jobs else 0,
        selection=TestSelection(suites=words(suite), shard=parse_shard(shard), tests=words(tests)),
        cached=not no_cache,
    )


def in_full(argv: Iterable[str]) -> list[str]:
    """Return a command line whose paths, of those options that cells are made of, mean the same in any folder."""
    from crossjit.config import recipes

    def recipes_in_full(value: str) -> str:
        return ",".join(map(recipes.in_full, words([value])))

    def cell_in_full(value: str) -> str:
        recipe, *rest = value.rsplit("/", 2)
        return "/".join([recipes.in_full(recipe), *rest])

    kinds = {"--source": _source_in_full, "--recipe": recipes_in_full, "--cell": cell_in_full}
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


def of_cell(request: Request, cell: str, *, tests: Iterable[str] = ()) -> Request:
    """Return a request for one cell, by its name. Raises UserError for a name that is none."""
    *recipe, arch, variant = cell.split("/") if cell.count("/") > 1 else ("", "", "")
    if not (any(recipe) and arch and variant):
        raise UserError(f"invalid --cell {cell!r}: expected recipe/arch/variant", hint="such as 3.15/aarch64/jit")
    named = read(arch=[arch], recipe=["/".join(recipe)], variant=[variant], tests=tests)
    return replace(
        request, arches=named.arches, recipes=named.recipes, variants=named.variants, selection=named.selection
    )


def to_record(request: Request) -> dict[str, object]:
    """Return a request as values that a run record can hold."""
    from pydantic import TypeAdapter

    value: dict[str, object] = TypeAdapter(Request).dump_python(request, mode="json")
    return value


def from_record(run: Run) -> Request:
    """Return the request of an earlier run. Raises UserError where its record holds none that can be read."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(Request).validate_python(run.request or None)
    except ValidationError:
        raise UserError(
            f"the record of run {run.id} lacks the requested cells",
            hint=f"give the options again; it was: {run.reproduce}",
        ) from None


def words(values: Iterable[str] | None) -> tuple[str, ...]:
    """Split at commas, drop what is empty or there already."""
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
    """Return a whole number. Raises UserError for anything else or less."""
    if not (value.isascii() and value.isdecimal()) or int(value) < at_least:
        raise UserError(
            f"invalid --{option} {value!r}: expected a whole number of at least {at_least}",
            hint=f"such as --{option} 4",
        )
    return int(value)
