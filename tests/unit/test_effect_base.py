"""What a change is compared with, in real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.effect import base
from crossjit.effect.base import Base
from crossjit.errors import CrossjitError, SourceError, UserError
from tests.unit.test_bisect_history import Repository, repository

__all__ = ["repository"]  # a fixture


def test_a_branch_is_compared_with_where_it_left_main(repository: Repository) -> None:
    left = repository.commit("the last common one")
    repository.git("checkout", "--quiet", "-b", "mine")
    own = repository.commit("mine")
    repository.git("checkout", "--quiet", "main")
    repository.commit("later on main")
    expected = Base(f"{repository.path}#{left}", "the merge base")
    assert base.find(f"{repository.path}#mine") == expected
    assert base.find(f"{repository.path}#{own}") == expected
    repository.git("checkout", "--quiet", "mine")
    assert base.find(str(repository.path)) == expected


def test_of_several_branches_the_nearest_counts(repository: Repository) -> None:
    repository.commit("on main")
    repository.git("checkout", "--quiet", "-b", "3.15")
    left = repository.commit("on 3.15")
    repository.git("checkout", "--quiet", "-b", "mine")
    repository.commit("mine")
    assert base.find(f"{repository.path}#mine") == Base(f"{repository.path}#{left}", "the merge base")


def test_a_commit_of_main_is_compared_with_the_one_before_it(repository: Repository) -> None:
    before = repository.commit("before")
    repository.commit("it")
    repository.commit("later")
    assert base.find(f"{repository.path}#main~1") == Base(f"{repository.path}#{before}", "the commit before it")


def test_a_checkout_of_main_is_compared_with_its_commit(repository: Repository) -> None:
    """Its changes that are not committed are what is compared."""
    head = repository.commit("head")
    assert base.find(str(repository.path)) == Base(f"{repository.path}#{head}", "the commit that is checked out")


def test_branches_of_a_remote_count_more_than_local_ones(repository: Repository, tmp_path: Path) -> None:
    """In a fork, local main may have the change itself."""
    left = repository.commit("upstream's last")
    repository.git("clone", "--quiet", str(repository.path), str(tmp_path / "fork"))
    fork = Repository.__new__(Repository)
    fork.path = tmp_path / "fork"
    fork.commit("one of mine")
    fork.commit("another of mine")
    assert base.find(f"{fork.path}#main") == Base(f"{fork.path}#{left}", "the merge base")


def test_a_named_base_is_a_ref_or_another_source(repository: Repository, tmp_path: Path) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit("second")
    source = f"{repository.path}#main"
    assert base.find(source, "main~1") == Base(f"{repository.path}#{first}", "main~1")
    assert base.find(source, first[:12]) == Base(f"{repository.path}#{first}")
    archive = tmp_path / "Python-3.15.0rc1.tar.xz"
    archive.write_bytes(b"")
    assert base.find(source, str(archive)) == Base(str(archive))
    assert base.find(str(archive), source) == Base(source)
    url = "https://github.com/python/cpython"
    assert base.find(f"{url}/pull/7", "main") == Base(f"{url}#main")
    assert base.find(f"{url}#abc", f"{url}#main") == Base(f"{url}#main")


def test_more_must_be_fetched_of_a_remote_repository() -> None:
    assert base.find("https://github.com/python/cpython/pull/7") is None


def test_a_folder_in_the_way_is_not_taken_for_a_branch(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "main").mkdir()
    monkeypatch.chdir(tmp_path)
    found = base.find("https://github.com/python/cpython#x", "main")
    assert found == Base("https://github.com/python/cpython#main")


def test_versions_of_repositories_on_this_machine(repository: Repository) -> None:
    assert base.version(str(repository.path)) == (3, 15)
    assert base.version(f"{repository.path}#main") == (3, 15)
    assert base.version("https://github.com/python/cpython#main") is None


@pytest.mark.parametrize(
    ("source", "wanted", "error", "message"),
    [
        ("{archive}", "", UserError, "the base of {archive} is not known: an archive has no history"),
        ("{archive}", "nowhere.tar", SourceError, "there is no nowhere.tar"),
        ("{path}#main", "mani", SourceError, "{path} has no ref mani"),
        ("{path}#main", "./nowhere", SourceError, "there is no nowhere"),
        ("{path}#nowhere", "", SourceError, "{path} has no ref nowhere"),
        ("{path}#main", "", UserError, "the base of {commit} is not known: no commit is before it in {path}"),
        ("{path}#alone", "", UserError, "the base of {alone} is not known: it has no ancestor in common with"),
    ],
)
def test_a_base_that_cannot_be_found(
    repository: Repository, tmp_path: Path, source: str, wanted: str, error: type[CrossjitError], message: str
) -> None:
    archive = tmp_path / "Python-3.15.0rc2.tar.xz"
    archive.write_bytes(b"")
    commit = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "--orphan", "alone")
    names = {"path": str(repository.path), "archive": str(archive), "commit": commit[:12]}
    names["alone"] = repository.commit("alone")[:12]
    with pytest.raises(error) as refused:
        base.find(source.format(**names), wanted)
    assert refused.value.message.startswith(message.format(**names))
    assert refused.value.hint
    assert refused.value.exit_code == 2


def test_a_repository_without_the_branches_of_cpython(repository: Repository) -> None:
    repository.git("branch", "--move", "main", "trunk")
    with pytest.raises(UserError, match=r"has neither main nor a branch such as 3\.15") as refused:
        base.find(f"{repository.path}#trunk")
    assert "--base main" in refused.value.hint
