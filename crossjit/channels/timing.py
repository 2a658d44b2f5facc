"""The JSON that a pyperf worker writes about one benchmark. Pure."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from crossjit.channels.reading import Count, Seconds, Word, read
from crossjit.config import documents

Values = Annotated[tuple[Seconds, ...], Field(max_length=10_000)]


@documents.table
class WorkerRun:
    """What a worker measured: seconds of one loop for each value; of warm-ups also their loops."""

    values: Values = ()
    warmups: Annotated[tuple[tuple[Count, Seconds], ...], Field(max_length=10_000)] = ()


@documents.table
class WorkerBenchmark:
    """A worker measures one benchmark, in one run."""

    runs: Annotated[tuple[WorkerRun, ...], Field(min_length=1, max_length=1)]


@documents.table
class WorkerMetadata:
    """What is used of pyperf's metadata: the benchmark's name, and the loops of each value."""

    name: Word
    loops: Annotated[Count, Field(ge=1)] = 1


@documents.table
class WorkerDocument:
    """A worker's output."""

    benchmarks: Annotated[tuple[WorkerBenchmark, ...], Field(min_length=1, max_length=1)]
    metadata: WorkerMetadata

    @property
    def values(self) -> tuple[float, ...]:
        """Seconds of one loop, of each value."""
        return self.benchmarks[0].runs[0].values


def read_worker(text: str) -> WorkerDocument:
    """Parse a worker's output. Raises MalformedError."""
    return read(WorkerDocument, text, lenient=True)
