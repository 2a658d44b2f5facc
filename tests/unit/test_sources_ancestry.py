"""The base of a change in a remote repository, of which not all is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossjit.effect import base
from crossjit.effect.base import Base
from crossjit.errors import CrossjitError, DownloadError, SourceError
from crossjit.settings import Settings
from crossjit.sources import ancestry, git, resolve
from crossjit.sources.request import RemoteRepository
from tests.unit.build_fakes import RecordingProgress
from tests.unit.test_bisect_history import Repository, repository
from tests.unit.test_sources_git import FILES

__all__ = ["repository"]  # a fixture


class Remote:
    """A repository as a server has it: nothing but what is fetched from it is here."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self.url = f"file://{repository.path}"
        self.settings = Settings(home=folder / "state")
        self.progress = RecordingProgress()

    def base(self, ref: str) -> str:
        return ancestry.merge_base(RemoteRepository(self.url, ref), self.settings, progress=self.progress)

    def commits(self) -> int:
        """Return how many commits are here."""
        (folder,) = (self.settings.sources / "git").glob("*.git")
        at = ("--git-dir", str(folder))
        return len(git.run(*at, "rev-list", "--all").text.split())


@pytest.fixture
def remote(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    monkeypatch.setattr(ancestry, "DEPTHS", (3, 12))
    return Remote(repository, tmp_path)


def test_a_pull_request_is_compared_with_where_it_left_main(repository: Repository, remote: Remote) -> None:
    for number in range(40):
        left = repository.commit(f"old {number}")
    repository.git("checkout", "--quiet", "--detach")
    for number in range(5):
        own = repository.commit(f"mine {number}")
    repository.git("update-ref", "refs/pull/7/head", own)
    repository.git("checkout", "--quiet", "main")
    repository.commit("later on main")
    assert remote.base("pull/7/head") == left
    assert remote.commits() < 25, "the first commits of main are not needed"
    assert remote.progress.steps == ["base"]
    assert remote.base(own) == left


def test_a_change_to_a_version_is_compared_with_its_branch(repository: Repository, remote: Remote) -> None:
    repository.commit("common")
    repository.git("checkout", "--quiet", "-b", "3.15")
    left = repository.commit("on 3.15 only")
    repository.git("checkout", "--quiet", "-b", "backport")
    repository.commit("mine")
    assert remote.base("backport") == left


def test_a_commit_of_main_is_compared_with_the_one_before_it(repository: Repository, remote: Remote) -> None:
    before = repository.commit("before")
    it = repository.commit("it")
    repository.commit("later")
    assert remote.base(it) == before


def test_the_base_need_not_be_fetched_again(
    repository: Repository, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in FILES.items():
        (repository.path / name).parent.mkdir(parents=True, exist_ok=True)
        (repository.path / name).write_text(text)
    left = repository.commit("common")
    repository.git("checkout", "--quiet", "-b", "mine")
    repository.commit("mine")
    source = f"{remote.url}#mine"
    monkeypatch.setattr("crossjit.sources.request.parse", lambda text: RemoteRepository(*text.split("#")))
    assert base.find(source) is None
    found = base.fetched(source, remote.settings, remote.progress)
    assert found == Base(f"{remote.url}#{left}", "the merge base")
    monkeypatch.setattr(git, "follow", lambda *arguments, **options: pytest.fail("it is fetched again"))
    resolved = resolve(found.source, remote.settings, progress=remote.progress, pool_mirrors=lambda: ())
    assert resolved.commit == left


def failing(error: str) -> object:
    return lambda *arguments, **options: git.Answer(128, b"", (f"fatal: {error}",))


def test_a_base_that_is_too_far_away(repository: Repository, remote: Remote) -> None:
    repository.git("checkout", "--quiet", "-b", "mine")
    repository.commit("mine")
    repository.git("checkout", "--quiet", "main")
    for number in range(20):
        repository.commit(f"later {number}")
    assert_refused(remote, "mine", SourceError, "none of the last 12 commits of main is an ancestor")


def test_a_repository_without_the_branches_of_cpython(repository: Repository, remote: Remote) -> None:
    repository.git("branch", "--move", "main", "trunk")
    assert_refused(remote, "trunk", SourceError, "has no 3.15 and no main")


def test_a_history_that_cannot_be_fetched(
    repository: Repository, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git, "follow", failing("early EOF"))
    monkeypatch.setattr(ancestry, "fetch", _already(repository, remote))
    assert_refused(remote, "main", DownloadError, "git cannot fetch the history of main from")


def _already(repository: Repository, remote: Remote) -> object:
    """Return what has fetched a commit before."""
    return lambda *arguments: (repository.path / ".git/objects", repository.git("rev-parse", "HEAD"))


def assert_refused(remote: Remote, ref: str, error: type[CrossjitError], message: str) -> None:
    with pytest.raises(error) as refused:
        remote.base(ref)
    assert message in refused.value.message
    assert "--base main" in refused.value.hint
