"""Paths as they are typed: what is recorded of them means the same in any folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from crossjit import PROJECT
from crossjit.errors import UserError
from crossjit.runs import command_line, model
from crossjit.settings import Settings
from crossjit.tasks import options, session
from crossjit.util import paths


@pytest.fixture(autouse=True)
def now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    return folder


SOURCES = (
    ("cpython", "{now}/cpython"),
    ("./a b", "{now}/a b"),
    ("~/cpython", "{home}/cpython"),
    ("../cpython#main", "{now}/../cpython#main"),
    ("a#b#pull/1/head", "{now}/a#b#pull/1/head"),
    ("/abs/Python-3.15.tar.xz", "/abs/Python-3.15.tar.xz"),
    ("https://github.com/python/cpython#main", "https://github.com/python/cpython#main"),
    ("https://example.org/x.tar.xz", "https://example.org/x.tar.xz"),
    ("file:///x/y", "file:///x/y"),
    ("git@github.com:python/cpython#main", "git@github.com:python/cpython#main"),
)


@pytest.mark.parametrize(("typed", "meant"), SOURCES)
def test_a_source(typed: str, meant: str, now: Path) -> None:
    meant = meant.format(now=now, home=now.parent)
    assert options.read(source=typed).source == meant
    for line in (["build", "--source", typed, "--json"], ["build", f"--source={typed}", "--json"]):
        there = " ".join(options.in_full(line)).replace("--source=", "--source ")
        assert there == f"build --source {meant} --json"


def test_a_recipe_and_a_cell(now: Path) -> None:
    assert options.read(recipe=["3.15,./mine.toml", "all"]).recipes == ("3.15", f"{now}/mine.toml", "all")
    assert options.in_full(["validate", "--recipe", "3.15,mine.toml", "--recipe=all", "--arch", "x.toml"]) == [
        *("validate", "--recipe", f"3.15,{now}/mine.toml", "--recipe=all", "--arch", "x.toml"),
    ]
    assert options.in_full(["triage", "--cell", "./mine.toml/x86_64/jit"]) == [
        *("triage", "--cell", f"{now}/mine.toml/x86_64/jit"),
    ]
    assert options.in_full(["debug", "--cell=3.15/x86_64/jit", "--", "--source", "x"]) == [
        *("debug", "--cell=3.15/x86_64/jit", "--", "--source", "x"),
    ]
    cell = options.of_cell(options.Request(), "./mine.toml/x86_64/jit")
    assert cell.recipes == (f"{now}/mine.toml",)


@pytest.mark.parametrize("line", [["build", "--source"], ["build", "--recipe"], ["--cell"]])
def test_a_line_that_lacks_a_value_is_left_to_the_parser(line: list[str]) -> None:
    assert options.in_full(line) == line


def test_the_line_to_do_it_again_names_the_program_in_full(now: Path) -> None:
    argv = [session.program_path(), *options.in_full(["validate", "--source", "it's here"])]
    line = command_line.reproduction(Settings(home=now), argv)
    assert line == f"{PROJECT}/inv validate --source '{now}/it'\"'\"'s here'"


def test_what_a_run_recorded_is_taken_in_another_folder(
    now: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the other folder's `cpython` was taken without a word."""
    request = options.read(source="cpython", recipe=["mine.toml"])
    run = cast(model.Run, SimpleNamespace(request=options.to_record(request), id="x", reproduce=""))
    (tmp_path / "other/cpython").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other")
    again = options.from_record(run)
    assert (again.source, again.recipes) == (f"{now}/cpython", (f"{now}/mine.toml",))


@pytest.mark.parametrize("typed", ["~no-such-user/x", "~no-such-user/x#main"])
def test_a_home_of_nobody_is_the_users_to_mend(typed: str) -> None:
    with pytest.raises(UserError, match="there is no such home folder"):
        options.read(source=typed)
    with pytest.raises(UserError, match="there is no such home folder"):
        options.in_full(["build", "--source", typed])


def test_a_folder_that_is_gone_is_told(now: Path) -> None:
    now.rmdir()
    with pytest.raises(UserError, match="the current folder is gone"):
        paths.full_path("x")
