"""`cells` and `schema`: the recipes' cells, and JSON schemas for editors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from invoke.context import Context

from crossjit import PROGRAM, PROJECT
from crossjit.errors import UserError
from crossjit.model import Arch
from crossjit.tasks import options
from crossjit.tasks.framework import command, show, show_json, show_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from crossjit.config.recipes import Recipe
    from crossjit.model import Cell

FORMATS = ("table", "json", "github")

_FILTER = "default: all"


@command(
    iterable=["arch", "recipe", "variant", "runner", "job"],
    help={
        "arch": f"only these: {', '.join(Arch)}, or macos-ARCH; {options.REPEATABLE}; default: all of Linux",
        "recipe": f"only these: 3.13, 3.14, 3.15, main, or a recipe file's path; {options.REPEATABLE}; {_FILTER}",
        "variant": f"only these: {options.VARIANTS}; {options.REPEATABLE}; {_FILTER}",
        "format": "table, json, or github: the matrix of a GitHub Actions job; default: table",
        "job": (
            "with --format github, jobs of CPython's CI instead of the recipes' cells, by the names that GitHub shows; "
            "can be repeated; default: cells"
        ),
        "source": "with --job, the source whose workflows are read; required with --job",
        "shards": "with --format github, divide each cell's suites among this many jobs; default: 1",
        "runner": (
            "with --format github, the labels of an arch's runners, such as aarch64=self-hosted,arm64; "
            "can be repeated; default: GitHub's own"
        ),
        "json": "the same as --format json; default: off",
    },
)
def cells(
    context: Context,
    arch: list[str] | None = None,
    recipe: list[str] | None = None,
    variant: list[str] | None = None,
    format: str = "table",
    job: list[str] | None = None,
    source: str = "",
    shards: str = "1",
    runner: list[str] | None = None,
    json: bool = False,
) -> None:
    """List every cell of the recipes."""
    from crossjit.config import recipes, suites
    from crossjit.pipeline import matrix, plan

    chosen = options.one_of("format", "json" if json else format, FORMATS)
    if job and (chosen != "github" or arch or recipe or variant):
        raise UserError(
            "--job needs --format github, and no --arch, --recipe or --variant",
            hint=f"`{PROGRAM} reproduce --list` lists the jobs",
        )
    if chosen != "github" and (runner or shards != "1"):
        raise UserError("--shards and --runner need --format github", hint="leave them out, or add it")
    if source and not job:
        raise UserError("--source needs --job", hint=f"`{PROGRAM} reproduce --list` lists the jobs of a source")
    if chosen == "github":
        many, labels = options.number("shards", shards, at_least=1), _runners(runner or ())
        if job:
            jobs = _ci_jobs(job, source)
            show(_line(matrix.matrix(jobs, shards=many, runners=labels, jobs=jobs)))
            return
    request = options.read(recipe=recipe, variant=variant)
    loaded = recipes.gather(request.recipes, PROJECT / "recipes", suites=suites.names())
    listed: tuple[Cell, ...] = ()
    for platform, arches in plan.parse_all_places(arch or (plan.ALL,)).items():
        names = {"recipes": request.recipes or (plan.ALL,), "variants": request.variants or (plan.ALL,)}
        selector = plan.Selector(arches=arches, platform=platform, **names)
        listed += plan.select(loaded, selector, arches[0]).cells
    if chosen == "github":
        paths = {recipes.name_of(word): word for word in options.words(recipe)}
        # one line, as `name=value` in $GITHUB_OUTPUT needs it
        show(_line(matrix.matrix(listed, paths, shards=many, runners=labels)))
    elif chosen == "json":
        show_json([_facts(cell, loaded) for cell in listed])
    else:
        show_table(("cell", "default", "suites", "what"), [_row(cell, loaded) for cell in listed])


@command(help={"check": "write nothing, and end with 2 if a file is not current; default: off"})
def schema(context: Context, check: bool = False) -> None:
    """Write the JSON schemas that editors and readers of our JSON use: recipes/schema/*.json.

    They are generated from the types that read the documents.
    """
    folder = PROJECT / "recipes" / "schema"
    stale = []
    for name, text in schemas().items():
        path = folder / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(path)
        if not check:
            folder.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
    shown = tuple(str(path.relative_to(PROJECT)) for path in stale)
    if check and stale:
        raise UserError(
            f"{len(stale)} of the JSON schemas are not current", hint=f"`{PROGRAM} schema` writes them", details=shown
        )
    for line in shown:
        show(f"written: {line}")
    if not stale:
        show("the JSON schemas are current")


def schemas() -> dict[str, str]:
    """Return the schemas' files by name."""
    from crossjit.config import recipes, settings_file, suites
    from crossjit.images.spec import ImageDocument
    from crossjit.known_failures import entries
    from crossjit.measure import benchmarks
    from crossjit.report import compilers, effect, measure
    from crossjit.sources.regenerate import Rules

    types = {
        "image": ImageDocument,
        "suite": suites.Suite,
        "known-failures": entries.KnownFailures,
        "caveats": suites.Caveats,
        "regenerate": Rules,
        "benchmarks": benchmarks.Table,
        **settings_file.tables(),
    }
    reports = {"measurement": measure, "effect": effect, "compilers": compilers}
    values = {**recipes.schemas(types), **{f"{name}.json": each.schema() for name, each in reports.items()}}
    return {name: json.dumps(value, indent=2) + "\n" for name, value in values.items()}


def _ci_jobs(names: Sequence[str], source: str) -> dict[Cell, str]:
    """Return the cells that jobs of CPython's CI are, with the jobs' names. Raises SourceError, UserError."""
    from crossjit import settings
    from crossjit.config.recipes import name_of
    from crossjit.model import Cell
    from crossjit.tasks import ci_jobs
    from crossjit.upstream.jobs import find
    from crossjit.upstream.variant import variant_of

    loaded = settings.load()
    request = options.read(source=source)
    found = ci_jobs.jobs_of(request, loaded)
    cells = {}
    for variant in (variant_of(find(found, name)) for name in names):
        chosen = ci_jobs.cells_of(request, [variant], loaded)
        cells[Cell(name_of(chosen.recipes[0]), chosen.arches[0], variant.name)] = variant.job.name
    return cells


def _runners(texts: Sequence[str]) -> dict[Arch, tuple[str, ...]]:
    """Parse `--runner ARCH=LABEL,LABEL`. Raises UserError."""
    from crossjit.pipeline import plan

    runners = {}
    for text in texts:
        arch, _, labels = text.partition("=")
        if not options.words([labels]):
            raise UserError(f"invalid --runner {text!r}: expected ARCH=LABEL", hint="such as aarch64=self-hosted,arm64")
        runners[plan.parse_arch(arch)] = options.words([labels])
    return runners


def _line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _row(cell: Cell, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    facts = _facts(cell, recipes)
    suites = facts["suites"]
    assert isinstance(suites, list)
    return str(cell), "yes" if facts["default"] else "-", ", ".join(["probe", *suites]), str(facts["summary"])


def _facts(cell: Cell, recipes: Mapping[str, Recipe]) -> dict[str, object]:
    recipe = recipes[cell.recipe]
    variant = recipe.variants[cell.variant]
    return {
        "cell": str(cell),
        "recipe": cell.recipe,
        "arch": cell.arch.value,
        "variant": cell.variant,
        "default": cell.variant in recipe.default_variants,
        "summary": variant.summary,
        "configure": list(variant.configure),
        "expects": variant.expects.value,
        "suites": list(variant.suites),
    }
