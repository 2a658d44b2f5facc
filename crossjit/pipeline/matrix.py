"""The matrix of a GitHub Actions job: a job for each cell, or for each shard of a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field as Check
from pydantic import TypeAdapter, ValidationError

from crossjit.config import documents, recipes
from crossjit.errors import UserError
from crossjit.model import Arch, Cell, Platform

MOST_JOBS = 256  # https://docs.github.com/actions/reference/limits

Runners = Mapping[Arch, Sequence[str]]
"""The labels of the runners of an arch, instead of GitHub's hosted one."""


@documents.table
class MatrixJob:
    """A job of a matrix. All its values are for the shell: they hold no quotes and no line ends."""

    cell: str
    """The cell's name, with the recipe as it can be selected."""
    recipe: str
    arch: Arch
    variant: str
    runner: str | tuple[str, ...]
    """The labels of its runner."""
    name: str
    """The job's name: the cell, and its shard if there are several."""
    artifact: str
    """The name of what it uploads, without the number of the attempt."""
    shard: Annotated[str, Check(pattern=r"^([1-9]\d*/[1-9]\d*)?$")] = ""
    """`1/2`, empty if the cell is not divided."""
    platform: Platform = Platform.LINUX
    """The operating system of its runner."""
    job: str = ""
    """The name of a job of CPython's CI, empty for a cell of a recipe."""


@documents.table
class Matrix:
    """`strategy.matrix` of a job."""

    include: tuple[MatrixJob, ...]


def matrix(
    cells: Iterable[Cell],
    words: Mapping[str, str] | None = None,
    *,
    shards: int = 1,
    runners: Runners | None = None,
    jobs: Mapping[Cell, str] | None = None,
) -> dict[str, object]:
    """Make the matrix of a GitHub Actions job, each cell on a runner of its own arch.

    `words` maps recipes' names to the words that select them: a file outside recipes/ is only found by its path.
    `jobs` are the names of the jobs of CPython's CI that the cells are. Raises UserError for more jobs than a matrix
    may have.
    """
    include = tuple(
        _job(cell, (words or {}).get(cell.recipe, cell.recipe), number, shards, runners or {}, (jobs or {}).get(cell))
        for cell in cells
        for number in range(1, shards + 1)
    )
    if len(include) > MOST_JOBS:
        raise UserError(
            f"the matrix would have {len(include)} jobs, and GitHub allows {MOST_JOBS}",
            hint="select fewer cells with --recipe, --arch or --variant, or give fewer --shards",
        )
    value: dict[str, object] = TypeAdapter(Matrix).dump_python(Matrix(include), mode="json")
    return value


def _job(cell: Cell, recipe: str, number: int, shards: int, runners: Runners, job: str | None) -> MatrixJob:
    shard = f"{number}/{shards}" if shards > 1 else ""
    selected = replace(cell, recipe=recipe)
    return MatrixJob(
        cell=str(selected),
        recipe=recipe,
        arch=cell.arch,
        variant=cell.variant,
        runner=tuple(runners[cell.arch]) if cell.arch in runners else cell.platform.runner(cell.arch),
        name=" ".join(filter(None, (job or str(selected), shard))),
        artifact=f"runs-{cell.slug}" + (f"-{number}-of-{shards}" if shard else ""),
        shard=shard,
        platform=cell.platform,
        job=job or "",
    )


def cells_of(text: str) -> dict[Cell, int]:
    """Return the cells of a matrix, as JSON, and the number of shards of each. Raises ValueError."""
    try:
        include = TypeAdapter(Matrix).validate_json(text).include
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(" ".join([".".join(map(str, first["loc"])), first["msg"]]).strip()) from error
    return {
        Cell(recipes.name_of(job.recipe), job.arch, job.variant, job.platform): int(job.shard.rpartition("/")[2] or 1)
        for job in include
    }
