"""The table of benchmarks: what is in it, what is wrong with a bad one, and which are chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.errors import DocumentError, UserError
from crossjit.measure import benchmarks, packages
from crossjit.measure.benchmarks import Origin

LOCK = f"pyperformance==1.14.0 --hash=sha256:{'a' * 64}\nsix==1.16.0 --hash=sha256:{'b' * 64}\n"


def write(folder: Path, table: str) -> Path:
    (folder / "packages.lock").write_text(LOCK)
    (folder / "edges").mkdir()
    (folder / "edges" / "short_loops.py").touch()
    path = folder / "benchmarks.toml"
    path.write_text(f"[benchmarks]\n{table}")
    return path


def load(folder: Path, table: str) -> tuple[benchmarks.Benchmark, ...]:
    return benchmarks.load(write(folder, table), folder / "edges", folder / "packages.lock")


def errors_of(folder: Path, table: str) -> list[str]:
    with pytest.raises(DocumentError) as failed:
        load(folder, table)
    return [detail.removeprefix(f"{folder / 'benchmarks.toml'}:") for detail in failed.value.details]


def test_the_table_has_enough_and_all_that_it_needs() -> None:
    table = benchmarks.load()
    full = benchmarks.select(table, full=True)
    assert full == table
    assert len({benchmark.name for benchmark in full}) >= 55
    assert 10 <= len(benchmarks.select(table, fast=True)) <= 15
    assert len(benchmarks.select(table)) < len(full)
    pinned = packages.pinned()
    assert {package for benchmark in table for package in benchmark.packages} | {packages.PYPERF} == set(pinned)
    edges = {benchmark.script for benchmark in table if benchmark.origin is Origin.EDGES}
    assert edges == {path.stem for path in benchmarks.EDGES.glob("*.py")}


def test_an_entry(tmp_path: Path) -> None:
    entry = (
        'pickle_pure = { script = "pickle", arguments = ["--pure-python"], loops = 3, packages = ["six"], fast = true }'
    )
    many = 'logging = { results = ["logging_a", "logging_b"], full = true }\nshort_loops = { origin = "edges" }'
    pickle, logging, loops = load(tmp_path, f"{entry}\n{many}")
    assert (pickle.name, pickle.script, pickle.results) == ("pickle_pure", "pickle", ("pickle_pure",))
    assert (pickle.arguments, pickle.loops, pickle.calls) == (("--pure-python",), 3, 2)
    assert pickle.packages == ("pyperformance", "six")
    assert logging.results == ("logging_a", "logging_b")
    assert (loops.origin, loops.packages) == (Origin.EDGES, ())


def test_every_error_at_once(tmp_path: Path) -> None:
    table = """\
go = { loop = 3 }
float = { loops = 0, calls = 1 }
short_lops = { origin = "edges" }
chaos = { packages = ["sixx"], origin = "pyperformanc" }
both = { fast = true, full = true }
logging = { results = ["go", "logging"] }
"""
    assert errors_of(tmp_path, table) == [
        "2:1: two results have the name 'go'",
        "2:8: unknown key 'loop'; did you mean 'loops'?",
        "3:19: 'loops' should be greater than 0",
        "3:30: 'calls' should be greater than or equal to 2",
        "4:14: there is no 'short_lops' in meter/edges; did you mean 'short_loops'?",
        "5:23: 'sixx' is not in packages.lock; did you mean 'six'?",
        "5:41: 'pyperformanc' is not one of pyperformance, edges; did you mean 'pyperformance'?",
        "6:30: it is part of --fast, so it cannot be for --full only",
        "7:1: two results have the name 'go'",
    ]


@pytest.mark.parametrize(
    ("lock", "error"),
    [
        ("six==1.0\n", "2:1: expected NAME==VERSION --hash=sha256:DIGEST"),
        (f"--index-url x\nsix==1 --hash=sha256:{'b' * 64}\n", "2:1: expected NAME==VERSION --hash=sha256:DIGEST"),
        (f"six==1 --hash=sha256:{'b' * 64}\n" * 2, "3:1: six is pinned twice"),
    ],
)
def test_a_bad_lock_file(tmp_path: Path, lock: str, error: str) -> None:
    path = tmp_path / "packages.lock"
    path.write_text(f"# a comment\n{lock}")
    with pytest.raises(DocumentError) as failed:
        packages.pinned(path)
    assert failed.value.details == (f"{path}:{error}",)


def test_a_lock_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="cannot be read: No such file"):
        packages.pinned(tmp_path / "packages.lock")


def test_benchmarks_are_chosen_by_their_names_or_those_of_results(tmp_path: Path) -> None:
    table = load(tmp_path, 'go = {}\nlogging = { results = ["logging_a", "logging_b"], full = true }')
    assert [each.name for each in benchmarks.select(table)] == ["go"]
    assert [each.name for each in benchmarks.select(table, ["logging_b"])] == ["logging"]
    assert [each.name for each in benchmarks.select(table, ["logging", "go"])] == ["go", "logging"]
    with pytest.raises(UserError) as failed:
        benchmarks.select(table, ["loging"])
    assert failed.value.message == "there is no benchmark 'loging'; did you mean 'logging'?"
    assert failed.value.hint == "there are go and logging"
