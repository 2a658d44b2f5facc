"""The matrix of a GitHub Actions job."""

from __future__ import annotations

import json

import pytest

from crossjit.errors import UserError
from crossjit.model import Arch, Cell
from crossjit.pipeline import matrix

ARM, X86 = Arch.AARCH64, Arch.X86_64
JIT = Cell("3.15", ARM, "jit")


def entries(*cells: Cell, **options: object) -> list[dict[str, object]]:
    include = matrix.matrix(cells, **options)["include"]  # type: ignore[arg-type]
    assert isinstance(include, list)
    return include


def test_each_cell_runs_on_its_own_arch() -> None:
    jit, ft = entries(JIT, Cell("3.15", X86, "ft"))
    assert jit == {
        "cell": "3.15/aarch64/jit",
        "recipe": "3.15",
        "arch": "aarch64",
        "variant": "jit",
        "platform": "linux",
        "runner": "ubuntu-24.04-arm",
        "name": "3.15/aarch64/jit",
        "artifact": "runs-3.15-aarch64-jit",
        "shard": "",
        "job": "",
    }
    assert (ft["cell"], ft["runner"]) == ("3.15/x86_64/ft", "ubuntu-24.04")


def test_a_recipe_of_a_file_is_named_by_its_path() -> None:
    """By its name alone no job would find it."""
    (entry,) = entries(Cell("mine", X86, "jit"), words={"mine": "ci/mine.toml"})
    assert (entry["cell"], entry["recipe"]) == ("ci/mine.toml/x86_64/jit", "ci/mine.toml")
    assert entry["artifact"] == "runs-mine-x86_64-jit"
    assert matrix.cells_of(json.dumps({"include": [entry]})) == {Cell("mine", X86, "jit"): 1}


def test_shards_are_jobs() -> None:
    first, second = entries(JIT, shards=2)
    assert (first["shard"], first["name"], first["artifact"]) == (
        "1/2",
        "3.15/aarch64/jit 1/2",
        "runs-3.15-aarch64-jit-1-of-2",
    )
    assert second["shard"] == "2/2"
    assert matrix.cells_of(json.dumps({"include": [first, second]})) == {JIT: 2}


def test_runners_of_ones_own() -> None:
    (entry,) = entries(JIT, runners={ARM: ("self-hosted", "arm64")})
    assert entry["runner"] == ["self-hosted", "arm64"]
    assert matrix.cells_of(json.dumps({"include": [entry]})) == {JIT: 1}


def test_a_job_of_cpythons_ci_has_its_name() -> None:
    cell = Cell("ci-0123abcd", X86, "jit-free-threaded-debug")
    (entry,) = entries(cell, jobs={cell: "JIT / Free-Threaded (Debug)"})
    assert entry["job"] == entry["name"] == "JIT / Free-Threaded (Debug)"


def test_more_jobs_than_github_allows() -> None:
    assert len(entries(JIT, shards=256)) == 256
    with pytest.raises(UserError, match="the matrix would have 257 jobs, and GitHub allows 256") as caught:
        entries(JIT, shards=257)
    assert "--shards" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be"),
        ('{"include": [{}]}', "include.0"),
        ('{"include": [{"cell": "x", "arch": "riscv"}]}', "include.0"),
    ],
)
def test_what_is_not_a_matrix(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        matrix.cells_of(text)
