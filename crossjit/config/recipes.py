"""Recipes: a CPython source and its variants. Read from TOML, with every error reported at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossjit.config import documents
from crossjit.config.documents import Document, Problem
from crossjit.config.pythons import InstalledPython
from crossjit.config.recipe_tables import (
    NAME,
    Archive,
    Git,
    PackagesTable,
    RecipeTable,
    VariantChanges,
    VariantsTable,
    VariantTable,
)
from crossjit.errors import DocumentError, UserError, did_you_mean
from crossjit.model import ExtraPackages, Variant
from crossjit.util.paths import expanded, full_path

__all__ = [
    "VARIANTS",
    "Archive",
    "Git",
    "Recipe",
    "find",
    "gather",
    "in_full",
    "load_all",
    "name_of",
    "schemas",
    "unknown_recipe",
]

VARIANTS = "variants.toml"


@dataclass(frozen=True)
class Recipe:
    """One recipe. `variants` are complete, in its order; `name` is its file's, without `.toml`.

    The recipe of an installed Python has no file: see `pythons.recipe_of`.
    """

    name: str
    summary: str
    source: Archive | Git | InstalledPython
    variants: Mapping[str, Variant]
    default_variants: tuple[str, ...]
    path: Path
    default: bool = False

    @property
    def built_from(self) -> Archive | Git:
        """The source to build. Raises TypeError for an installed Python."""
        if isinstance(self.source, InstalledPython):
            raise TypeError(f"{self.name} is not built")
        return self.source


def load_all(folder: Path, *, suites: Collection[str] | None = None) -> dict[str, Recipe]:
    """Load every recipe of a folder, by name in natural order (3.9 before 3.10).

    `suites` are the names of the existing suites; None skips their check. Raises DocumentError with all errors of all
    files, also for a second default recipe; UserError if no recipe is the default.
    """
    paths = sorted(_paths(folder).items(), key=lambda item: _natural(item[0]))
    recipes, errors = _load((path for _, path in paths), folder, suites)
    defaults = [recipe for recipe in recipes if recipe.default]
    for recipe in defaults[1:]:
        message = f"the default is already {defaults[0].name}"
        errors.append(documents.failure(documents.read(recipe.path), [Problem(("default",), message, at_value=False)]))
    if errors:
        raise documents.together(errors)
    if not defaults:
        raise UserError(f"{folder}: no recipe is the default", hint="write `default = true` into one recipe there")
    return {recipe.name: recipe for recipe in recipes}


def find(name_or_path: str, folder: Path, *, suites: Collection[str] | None = None) -> Recipe:
    """Load one recipe: from the folder by its name, or by a path (a text with `/`, or ending in `.toml`).

    A recipe from a path builds on the folder's shared variants. Raises DocumentError, UserError for an unknown name.
    """
    if _is_path(name_or_path):
        path = full_path(name_or_path)
    else:
        paths = _paths(folder)
        if name_or_path not in paths:
            raise unknown_recipe(name_or_path, paths)
        path = paths[name_or_path]
    recipes, errors = _load([path], folder, suites)
    if errors:
        raise documents.together(errors)
    return recipes[0]


def gather(words: Iterable[str], folder: Path, *, suites: Collection[str] | None = None) -> dict[str, Recipe]:
    """Load the folder's recipes and those that `words` name by path, for `plan.select` to choose from.

    Raises DocumentError, and UserError if a file outside of the folder has the name of a different recipe.
    """
    recipes = load_all(folder, suites=suites)
    for word in words:
        if not _is_path(word):
            continue
        recipe = find(word, folder, suites=suites)
        namesake = recipes.get(recipe.name)
        if namesake is not None and namesake.path.resolve() != recipe.path.resolve():
            raise UserError(f"{word}: there is already a recipe {recipe.name!r}", hint="give the file another name")
        recipes[recipe.name] = replace(recipe, default=namesake is not None and namesake.default)
    return recipes


def name_of(word: str) -> str:
    """Return the name of a recipe, given its name or path."""
    return Path(word).stem if _is_path(word) else word


def in_full(word: str) -> str:
    """Return a recipe's name unchanged, and a path as an absolute one."""
    return str(full_path(word)) if _is_path(word) else word


def unknown_recipe(word: str, names: Iterable[str]) -> UserError:
    """Make the error for a recipe that does not exist."""
    names = sorted(names, key=_natural)
    return UserError(
        f"there is no recipe {word!r}{did_you_mean(word, names)}",
        hint=f"choose from {', '.join(names)}, or give the path of a recipe's file, such as ./mine.toml",
    )


def schemas(extra: Mapping[str, type[Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Make the JSON schemas for editors, by file name; `extra` are more documents' types by name, such as `image`."""
    types: dict[str, type[Any]] = {"recipe": RecipeTable, "variants": VariantsTable, **(extra or {})}
    return {f"{name}.json": documents.schema(of) for name, of in types.items()}


def _is_path(word: str) -> bool:
    return "/" in word or word.endswith(".toml")


def _paths(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of recipes", hint="run crossjit from its repository")
    return {
        path.stem: path for path in folder.glob("*.toml") if path.name != VARIANTS and not path.name.startswith(".")
    }


def _natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    parts = re.findall(r"\d+|\D+", name)
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)


def _load(
    paths: Iterable[Path], folder: Path, suites: Collection[str] | None
) -> tuple[list[Recipe], list[DocumentError]]:
    """Load the valid recipes, and the errors of the others. They build on the folder's shared variants."""
    errors: list[DocumentError] = []
    shared: Mapping[str, VariantTable] | None = None
    try:
        shared = _shared(folder, suites)
    except DocumentError as error:
        errors.append(error)
    recipes: list[Recipe] = []
    for path in paths:
        try:
            recipes.append(_recipe(documents.read(path), shared, suites))
        except DocumentError as error:
            errors.append(error)
    return recipes, errors


def _shared(folder: Path, suites: Collection[str] | None) -> Mapping[str, VariantTable]:
    document = documents.read(folder / VARIANTS)
    raw = _table(document.data.get("variants"))
    problems = [problem for name, keys in raw.items() for problem in _variant_problems(name, _table(keys), {}, suites)]
    return documents.parse(document, VariantsTable, problems).variants


def _recipe(document: Document, shared: Mapping[str, VariantTable] | None, suites: Collection[str] | None) -> Recipe:
    """Make a recipe from its document. If `shared` is None, references to it are neither checked nor resolved."""
    if not re.fullmatch(NAME, document.path.stem):
        raise DocumentError(
            f"{document.path}: a recipe is named after its file, and {document.path.stem!r} is not a valid name",
            hint="name the file with letters, digits, '.', '_' and '-'",
        )
    problems = [*_source_problems(document), *_reference_problems(document, shared, suites)]
    parsed = documents.parse(document, RecipeTable, problems)
    source = parsed.archive or parsed.git
    assert source is not None
    if isinstance(source, Git) and not re.match(
        r"\w[\w+.-]*://|[\w.@-]+:(?!/)", source.url
    ):  # a URL, or ssh's short form
        source = replace(source, url=str(full_path(str(document.path.parent / expanded(source.url)))))
    return Recipe(
        name=document.path.stem,
        summary=parsed.summary,
        source=source,
        variants={
            name: _variant(name, parsed.variants.get(name), shared) for name in parsed.offers if shared is not None
        },
        default_variants=parsed.default_variants,
        path=document.path,
        default=parsed.default,
    )


def _variant(name: str, changes: VariantChanges | None, shared: Mapping[str, VariantTable]) -> Variant:
    keys: dict[str, Any] = vars(shared[name]) if name in shared else {}
    changed = {key: value for key, value in vars(changes).items() if value is not None} if changes else {}
    whole = {**keys, **changed}
    packages = ExtraPackages(**vars(whole.pop("packages", PackagesTable())))
    return Variant(name=name, packages=packages, **whole)


# The checks below look at the raw document, not the parsed one, so that they work in a document with other errors.


def _source_problems(document: Document) -> Iterator[Problem]:
    if "archive" in document.data and "git" in document.data:
        yield Problem(("git",), "a recipe has [archive] or [git], not both", at_value=False)
    if "archive" not in document.data and "git" not in document.data:
        yield Problem(("archive",), "missing table [archive] or [git]")


def _reference_problems(
    document: Document, shared: Mapping[str, VariantTable] | None, suites: Collection[str] | None
) -> Iterator[Problem]:
    offers = list(_texts(document.data.get("offers")))
    offered = {name for _, name in offers}
    own = _table(document.data.get("variants"))
    known = {**(shared or {}), **own}
    for index, name in offers:
        if shared is not None and name not in known:
            yield Problem(("offers", index), f"there is no variant {name!r}{did_you_mean(name, known)}")
        if any(name == other for _, other in offers[: offers.index((index, name))]):
            yield Problem(("offers", index), f"{name!r} is offered twice")
    for index, name in _texts(document.data.get("default_variants")):
        if name not in offered:
            message = f"default variant {name!r} is not offered{did_you_mean(name, offered)}"
            yield Problem(("default_variants", index), message)
    for name, keys in own.items():
        if name not in offered:
            message = f"variant {name!r} is not offered{did_you_mean(name, offered)}"
            yield Problem(("variants", name), message, at_value=False)
        if shared is None:
            continue
        if name not in shared:
            missing = [key for key in ("summary", "configure", "expects", "suites") if key not in _table(keys)]
            near = did_you_mean(name, shared)
            for key in missing:
                message = f"missing key {key!r}: variant {name!r} is not in {VARIANTS}, so it must be whole{near}"
                yield Problem(("variants", name, key), message)
        yield from _variant_problems(name, _table(keys), vars(shared[name]) if name in shared else {}, suites)


def _variant_problems(
    name: str, keys: Mapping[str, Any], base: Mapping[str, Any], suites: Collection[str] | None
) -> Iterator[Problem]:
    """Check a variant's table; keys that it omits come from `base`."""
    for index, suite in _texts(keys.get("suites")):
        if suites is not None and suite not in suites:
            yield Problem(
                ("variants", name, "suites", index), f"there is no suite {suite!r}{did_you_mean(suite, suites)}"
            )
    whole = {**base, **keys}
    configure = whole.get("configure")
    if not isinstance(configure, list | tuple):
        return
    for key, on, off in (
        ("debug", "--with-pydebug", "--without-pydebug"),
        ("free_threaded", "--disable-gil", "--enable-gil"),
    ):
        declared = whole.get(key, False)
        if isinstance(declared, bool) and declared is not _switched(configure, on, off):
            message = f"{key!r} is {str(declared).lower()}, but configure has {'no ' if declared else ''}{on}"
            yield Problem(("variants", name, key if key in keys else "configure"), message)


def _switched(configure: Iterable[object], on: str, off: str) -> bool:
    """Whether configure's last argument for a switch turns it on."""
    result = False
    for argument in configure:
        flag, _, value = str(argument).partition("=")
        if flag in (on, off):
            result = (flag == on) is (value != "no")
    return result


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> Iterator[tuple[int, str]]:
    """Yield an array's texts with their indexes."""
    if isinstance(value, list):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, str))
