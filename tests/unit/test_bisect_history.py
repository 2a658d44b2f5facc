"""The commits between two refs of a repository, and what is said of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from crossjit.bisect import history
from crossjit.errors import SourceError, UserError

HEADER = "#define PY_MAJOR_VERSION 3\n#define PY_MINOR_VERSION 15\n"


class Repository:
    """A repository that a test commits to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.path), "-c", "user.name=A. Person", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            [*command, "-c", "commit.gpgsign=false", *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, subject: str, **files: str) -> str:
        for name, content in files.items():
            path = self.path / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "cpython")
    (made.path / "Include").mkdir()
    (made.path / "Include/patchlevel.h").write_text(HEADER)
    made.commit("first")
    return made


def test_a_line_of_commits(repository: Repository) -> None:
    ids = [repository.commit(f"gh-1: Change {number} (GH-10{number})", a=str(number)) for number in range(3)]
    line = history.read(repository.path, ids[0], "main")
    assert line.commits == tuple(ids)
    assert not line.forked
    assert line.source(1) == f"{repository.path}#{ids[1]}"
    second, third = history.describe(repository.path, ids[1:])
    assert (second.id, second.subject, second.author) == (ids[1], "gh-1: Change 1 (GH-101)", "A. Person")
    assert (second.pull_request, third.pull_request) == (101, 102)
    assert history.files(repository.path, ids[1]) == ("a",)
    assert history.commit(repository.path, "main") == ids[2]
    assert history.version(repository.path, ids[2]) == (3, 15)


@pytest.mark.parametrize(
    ("subject", "number"),
    [("Fix it (#123)", 123), ("Fix it (GH-123)", 123), ("Fix it (gh-123)", 123), ("Fix gh-123", None), ("Fix", None)],
)
def test_the_pull_request_of_a_subject(subject: str, number: int | None) -> None:
    assert history.Commit("a" * 40, subject, "A", "2026-01-01").pull_request == number


def test_a_merged_branch_is_one_commit(repository: Repository) -> None:
    first = repository.commit("on main")
    repository.git("checkout", "--quiet", "-b", "side")
    repository.commit("on the side")
    repository.git("checkout", "--quiet", "main")
    repository.commit("on main again")
    repository.git("merge", "--quiet", "--no-ff", "-m", "merged", "side")
    line = history.read(repository.path, first, "main")
    subjects = [commit.subject for commit in history.describe(repository.path, line.commits)]
    assert subjects == ["on main", "on main again", "merged"]


def test_refs_on_two_branches_begin_at_their_base(repository: Repository) -> None:
    base = repository.commit("base")
    repository.git("checkout", "--quiet", "-b", "release")
    repository.commit("a release")
    repository.git("checkout", "--quiet", "main")
    last = repository.commit("on main")
    line = history.read(repository.path, "release", "main")
    assert (line.commits, line.forked) == ((base, last), True)


def test_refs_without_a_line_between_them(repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.commit("second")
    with pytest.raises(UserError, match="are the same commit"):
        history.read(repository.path, first, f"{first[:12]}")
    with pytest.raises(UserError, match="is an ancestor of main") as caught:
        history.read(repository.path, "main", first, hint="swap them")
    assert caught.value.hint == "swap them"
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.commit("unrelated")
    with pytest.raises(UserError, match="have no common ancestor"):
        history.read(repository.path, "main", "other")
    with pytest.raises(SourceError, match="has no ref mian") as unknown:
        history.read(repository.path, "mian", "other")
    assert "did you mean main" in unknown.value.hint


def test_what_is_no_repository_of_cpython(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not the top folder of a git repository"):
        history.commit(tmp_path, "main")
    other = Repository(tmp_path / "other")
    commit = other.commit("first", readme="text")
    with pytest.raises(SourceError, match="is not a repository of CPython") as caught:
        history.version(other.path, commit)
    assert "--repo" in caught.value.hint


def test_releases_before_a_commit(repository: Repository) -> None:
    for tag in ("v3.14.0", "v3.15.0a1", "v3.9.1", "v3.15.0a10", "v3.15.0a2", "v3.15.0rc1-extra", "mine", "v3.15"):
        repository.commit(tag)
        repository.git("tag", tag)
    middle = repository.git("rev-parse", "v3.15.0a2")
    # the commit's own tag is none before it
    assert history.releases(repository.path, middle) == ("v3.15.0a10", "v3.15.0a1", "v3.14.0", "v3.9.1")
    assert history.releases(repository.path, repository.git("rev-parse", "v3.14.0")) == ()
