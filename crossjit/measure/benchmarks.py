"""The table of benchmarks, `meter/benchmarks.toml`: what can be measured, and how much of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from crossjit.config import documents
from crossjit.config.documents import Document, Problem
from crossjit.errors import UserError, did_you_mean
from crossjit.images.spec import METER
from crossjit.measure import packages
from crossjit.progress import Progress
from crossjit.util.text import join_words

TABLE = METER / "benchmarks.toml"
EDGES = METER / "edges"

Name = Annotated[str, pydantic.Field(pattern=r"^[A-Za-z0-9_]+$")]


class Origin(StrEnum):
    """Where a benchmark's script comes from: the package pyperformance, `meter/edges/`, or `meter/` itself."""

    PYPERFORMANCE = "pyperformance"
    EDGES = "edges"
    METER = "meter"


@documents.table
class BenchmarkTable:
    """A benchmark, which runs in a process of its own. Its key is its name."""

    origin: Literal[Origin.PYPERFORMANCE, Origin.EDGES] = Origin.PYPERFORMANCE
    """Where its script comes from: pyperformance, or edges, which are crossjit's own."""
    script: Name | None = None
    """The folder of pyperformance (without `bm_`), or the file in meter/edges (without `.py`); by default its name."""
    arguments: tuple[str, ...] = ()
    """The script's arguments."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Expressions for global names of the script, instead of its own definitions, to make its work smaller."""
    loops: pydantic.PositiveInt = 1
    """How often a call does the benchmark's work: more for a short one, so that the JIT warms up."""
    calls: Annotated[int, pydantic.Field(ge=2)] = 2
    """How many calls are measured: the first is the cold one, the last the warm one."""
    results: tuple[Name, ...] = ()
    """The names of the script's benchmarks, in its order, if it has several."""
    packages: tuple[str, ...] = ()
    """What it needs of meter/packages.lock, with all that this needs."""
    fast: bool = False
    """Whether `--fast` runs it."""
    full: bool = False
    """Whether only `--full` runs it."""


@documents.table
class Table:
    """The file of benchmarks."""

    benchmarks: dict[Name, BenchmarkTable]
    """The benchmarks by name."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark to run; `results` are the names of what it measures, in order. The rest is as in the table.

    `environment` is for its process.
    """

    name: str
    origin: Origin
    script: str
    results: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    loops: int = 1
    calls: int = 2
    packages: tuple[str, ...] = ()
    fast: bool = False
    full: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


def load(path: Path = TABLE, edges: Path = EDGES, lock: Path = packages.LOCK) -> tuple[Benchmark, ...]:
    """Read the table. Raises DocumentError with every error at once."""
    document = documents.read(path)
    scripts = {file.stem for file in edges.glob("*.py")}
    table = documents.parse(document, Table, _problems(document, scripts, packages.pinned(lock)))
    return tuple(
        Benchmark(
            name=name,
            origin=entry.origin,
            script=entry.script or name,
            results=entry.results or (name,),
            arguments=entry.arguments,
            replaced=entry.replaced,
            loops=entry.loops,
            calls=entry.calls,
            packages=(
                *((packages.PYPERFORMANCE,) if entry.origin is Origin.PYPERFORMANCE else ()),
                *entry.packages,
            ),
            fast=entry.fast,
            full=entry.full,
        )
        for name, entry in table.benchmarks.items()
    )


def select(
    table: Sequence[Benchmark], only: Collection[str] = (), *, fast: bool = False, full: bool = False
) -> tuple[Benchmark, ...]:
    """Choose benchmarks: the named ones (by their own name, or a result's), the fast ones, all, or the usual ones.

    Raises UserError for an unknown name, and for more than one of these choices.
    """
    if bool(only) + fast + full > 1:
        raise UserError("--only, --fast and --full each choose benchmarks", hint="leave all but one of them out")
    names = {name: entry for entry in table for name in (*entry.results, entry.name)}
    for name in only:
        if name not in names:
            raise UserError(
                f"there is no benchmark {name!r}{did_you_mean(name, names)}",
                hint=f"there are {join_words(sorted(entry.name for entry in table))}",
            )
    chosen = {names[name].name for name in only}
    return tuple(
        entry for entry in table if (entry.name in chosen if only else entry.fast if fast else full or not entry.full)
    )


def contents(benchmarks: Collection[Benchmark], home: Path, progress: Progress, *more: str) -> Mapping[str, bytes]:
    """Return the files of benchmarks and their packages, and of `more` packages, by their paths in a container.

    What is not in the state folder is fetched. Raises UserError if pip does not get a wheel or one cannot be read,
    InfrastructureError if it cannot be stored.
    """
    names = {package for benchmark in benchmarks for package in benchmark.packages}
    wheels = packages.ensure({*names, *more}, home, progress)
    return packages.contents(wheels, {benchmark.script for benchmark in benchmarks})


def _problems(document: Document, edges: Collection[str], pinned: Collection[str]) -> Iterator[Problem]:
    """Check what the types cannot."""
    entries = document.data.get("benchmarks")
    if not isinstance(entries, Mapping):
        return
    tables = {name: entry for name, entry in entries.items() if isinstance(entry, Mapping)}
    counts = Counter(result for name, entry in tables.items() for result in _results(name, entry))
    for name, entry in tables.items():
        keys = ("benchmarks", name)
        if entry.get("origin") == Origin.EDGES:
            script = str(entry.get("script", name))
            if script not in edges:
                named = (*keys, "script") if "script" in entry else keys
                yield Problem(named, f"there is no {script!r} in meter/edges{did_you_mean(script, edges)}")
        for index, package in _texts(entry.get("packages")):
            if package not in pinned:
                near = did_you_mean(package, pinned)
                yield Problem((*keys, "packages", index), f"{package!r} is not in {packages.LOCK.name}{near}")
        for result in _results(name, entry):
            if counts[result] > 1:
                yield Problem(keys, f"two results have the name {result!r}", at_value=False)
        if entry.get("fast") is True and entry.get("full") is True:
            yield Problem((*keys, "full"), "it is part of --fast, so it cannot be for --full only")


def _results(name: str, entry: Mapping[str, Any]) -> Iterable[str]:
    return [result for _, result in _texts(entry.get("results"))] or [name]


def _texts(value: object) -> Iterator[tuple[int, str]]:
    """Yield an array's texts with their indexes."""
    if isinstance(value, list):
        yield from ((index, item) for index, item in enumerate(value) if isinstance(item, str))
