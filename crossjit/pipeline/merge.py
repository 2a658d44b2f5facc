"""Merges runs into one: the shards of a cell are joined, and a newer attempt replaces an older one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossjit import PROGRAM
from crossjit.config.test_selection import Shard
from crossjit.errors import UserError
from crossjit.model import Cell, CellResult, Verdict
from crossjit.runs.model import ATTEMPT, RESULT_FILE, Run, RunState, run_errors
from crossjit.runs.record import RunRecord
from crossjit.settings import Settings
from crossjit.util.text import join_words
from crossjit.validation import resume
from crossjit.validation.join import join_cell

WHOLE: Shard = (1, 1)
MOST_SHARDS = 10_000  # far more than any matrix has


@dataclass(frozen=True)
class Part:
    """What one run has of a cell: a shard of it, or all of it."""

    run: Run
    cell: Cell
    shard: Shard
    result: CellResult

    @property
    def attempt(self) -> int:
        """The number of the attempt in which CI ran it; 0 if it is not known."""
        attempt = self.run.facts.get(ATTEMPT)
        return attempt if isinstance(attempt, int) else 0


@dataclass(frozen=True)
class Merged:
    """A merged cell, with the parts that it was made of."""

    result: CellResult
    parts: tuple[Part, ...]


def merge(runs: Sequence[Run], expected: Mapping[Cell, int]) -> tuple[Merged, ...]:
    """Merge the results of runs by cell.

    `expected` are the cells that must be there, with their number of shards; those of the runs are merged in any case.
    A cell or a shard that is missing makes the cell `infra`. Raises UserError for runs that do not belong together: one
    that has not ended, different sources, or two results for one part of a cell of which none is newer.
    """
    _require_alike(runs)
    parts: dict[Cell, dict[Shard, Part]] = {}
    for part in _parts(runs):
        of_cell = parts.setdefault(part.cell, {})
        of_cell[part.shard] = _newer(of_cell.get(part.shard), part)
    cells = dict.fromkeys((*expected, *parts))
    return tuple(_merged(cell, parts.get(cell, {}), expected.get(cell)) for cell in cells)


def _parts(runs: Iterable[Run]) -> Iterator[Part]:
    for run in runs:
        shard = _shard(run)
        yield from (Part(run, result.cell, shard, result) for result in run.results())


def _shard(run: Run) -> Shard:
    """Return which shard a run is of. Raises UserError for one that cannot be."""
    match run.request.get("selection"):
        case {"shard": [number, shards]}:
            if not (isinstance(number, int) and isinstance(shards, int) and 1 <= number <= shards <= MOST_SHARDS):
                raise UserError(
                    f"run {run.id} says that it is shard {number}/{shards}",
                    hint="leave it out: its record is damaged",
                )
            return number, shards
    return WHOLE


def _require_alike(runs: Sequence[Run]) -> None:
    """Raise UserError for a run that has not ended, and for runs of different sources or selections."""
    for run in runs:
        if run.state is RunState.RUNNING:
            raise UserError(f"run {run.id} is still running", hint="wait for its end")
        if run.looks or not run.cells:
            raise UserError(f"run {run.id} has no verdicts: it was `{' '.join(run.argv[1:])}`", hint="leave it out")
    for key, name in (("source", "sources"), ("cpu", "CPU models")):
        found = {str(run.request.get(key)): run.id for run in runs}
        if len(found) > 1:
            details = tuple(f"{run}: {value}" for value, run in found.items())
            raise UserError(f"the runs are of different {name}", hint="merge runs of one matrix", details=details)


def _newer(one: Part | None, other: Part) -> Part:
    """Return the part of the newer attempt. Raises UserError if neither is newer."""
    if one is None:
        return other
    if one.attempt == other.attempt:
        number, shards = one.shard
        what = f"{one.cell}" if one.shard == WHOLE else f"shard {number}/{shards} of {one.cell}"
        raise UserError(
            f"there are two results of {what}: in run {one.run.id} and in run {other.run.id}",
            hint="leave one of the runs out; attempts of a job in GitHub Actions are told apart by their number",
        )
    return max(one, other, key=lambda part: part.attempt)


def _merged(cell: Cell, parts: Mapping[Shard, Part], expected: int | None) -> Merged:
    """Merge the parts of a cell, of which there may be none. Raises UserError if they do not belong together."""
    counts = {shards for _, shards in parts}
    if expected is not None:
        counts.add(expected)
    if len(counts) > 1:
        raise UserError(
            f"{cell} was divided into {join_words([str(count) for count in sorted(counts)])} shards",
            hint="merge the runs of one matrix",
        )
    keys = {part.result.build_key for part in parts.values()} - {None}
    if len(keys) > 1:
        raise UserError(
            f"the shards of {cell} are of different builds",
            hint="merge runs of one source",
            details=tuple(f"{part.run.id}: {part.result.build_key}" for part in parts.values()),
        )
    chosen = tuple(part for _, part in sorted(parts.items()))
    if not chosen:
        return Merged(CellResult(cell, Verdict.INFRA, ("no run has a result of it",)), ())
    if counts == {1}:
        return Merged(chosen[0].result, chosen)
    return Merged(join_cell({part.shard: part.result for part in chosen}, *counts), chosen)


@contextlib.contextmanager
def recorded(settings: Settings, runs: Sequence[Run], merged: Sequence[Merged]) -> Iterator[RunRecord]:
    """Record merged cells as a run, with the logs of their parts. Raises InfrastructureError."""
    argv = (PROGRAM, "runs", "merge", *(run.id for run in runs))
    request = {**runs[0].request, "selection": {}}
    facts = {key: value for key, value in runs[0].facts.items() if all(run.facts.get(key) == value for run in runs)}
    facts |= {"merged": [run.id for run in runs]}
    cells = [each.result.cell for each in merged]
    with RunRecord.start(settings, argv, facts, request=request, cells=cells) as record:
        for each in merged:
            _copy_logs(each, record.cell_folder(each.result.cell))
            record.set_cell(each.result)
        yield record


def _copy_logs(merged: Merged, folder: Path) -> None:
    """Copy the logs of a merged cell's parts, without what only resuming reads."""
    own = {RESULT_FILE, resume.ORDER, resume.LOG}
    with run_errors(folder):
        for part in merged.parts:
            source = part.run.cell_folder(part.cell)
            if source.is_dir():
                shutil.copytree(source, folder, dirs_exist_ok=True, ignore=lambda _, names: own.intersection(names))
