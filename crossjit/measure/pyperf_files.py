"""Times as pyperf JSON, in bench_runner's layout of files, so that `pyperf compare_to` and its readers take them.

The layout is `results/bm-DATE-VERSION-HASH[-JIT]/bm-DATE-MACHINE-ARCH-FORK-REF-VERSION-HASH.json`; see
https://github.com/faster-cpython/bench_runner.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crossjit.errors import InfrastructureError
from crossjit.util import files

MACHINE = "crossjit"  # in place of a machine's nickname
HASH = 7  # digits of a commit in a name


@dataclass(frozen=True)
class Build:
    """What a file's name and metadata say of a build.

    `commit` is the commit, or the source's digest if it has none; `date` that of the artifact. `ref` is what was asked
    for, such as a branch, and `fork` whose repository it is in.
    """

    arch: str
    version: str
    commit: str
    date: datetime
    ref: str
    jit: bool
    fork: str = "python"

    @property
    def path(self) -> Path:
        """The file, in the folder `results`."""
        date, short = f"{self.date:%Y%m%d}", self.commit[:HASH]
        folder = f"bm-{date}-{self.version}-{short}{'-JIT' if self.jit else ''}"
        parts = (date, MACHINE, self.arch, _part(self.fork), _part(self.ref), self.version, short)
        return Path(folder) / f"bm-{'-'.join(parts)}.json"


def write(folder: Path, build: Build, documents: Iterable[Sequence[str]]) -> Path:
    """Write what workers measured of one build into `folder`; return the file.

    `documents` are pyperf's, of the workers of each benchmark. Raises InfrastructureError.
    """
    import pyperf

    benchmarks = []
    for workers in documents:
        runs = [run for text in workers for run in pyperf.Benchmark.loads(text).get_runs()]
        benchmarks.append(pyperf.Benchmark(runs))
    suite = pyperf.BenchmarkSuite(benchmarks)
    suite_metadata = {
        "commit_id": build.commit,
        "commit_date": build.date.isoformat(),
        "commit_branch": build.ref,
    }
    for benchmark in suite:
        benchmark.update_metadata(suite_metadata)
    path = folder / build.path
    with files.translate_os_errors(InfrastructureError, "cannot store times", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        suite.dump(str(path), replace=True)
    return path


def _part(text: str) -> str:
    """Return a part of a name: parts are separated by hyphens, as bench_runner reads them."""
    return re.sub(r"[^A-Za-z0-9._]", "_", text)[:50] or "unknown"
