"""What a change is compared with: the commit that it is based on, or what `--base` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossjit.bisect import history
from crossjit.errors import SourceError, UserError
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import ancestry, request
from crossjit.sources.checkout import head_of
from crossjit.sources.located import Repository, locate
from crossjit.sources.repository import commit_of

MAINLINES = "main", "3.[0-9]*"  # the branches that changes are made to
_EXAMPLE = "such as --base main, or --base Python-3.15.0rc1.tar.xz"


@dataclass(frozen=True)
class Base:
    """A base as `--source` takes it, and what it is, in words, if that says more."""

    source: str
    what: str = ""


def find(source: str, wanted: str = "") -> Base | None:
    """Return the base of a source: what `wanted` names, by default where the source left CPython's branches.

    None stands for a remote repository, from which more must be fetched first: see `fetched`.

    `wanted` is a ref of the source's repository, or another source. A commit of such a branch has the commit before it
    as its base, and a checkout of one the commit that it is at. Raises SourceError for what does not exist, UserError
    if the base must be named.
    """
    match request.parse(source):
        case request.LocalRepository(path, ref):
            repository = locate(path)
            if wanted:
                return _named(repository, wanted)
            return _base(repository, commit_of(repository, ref), committed=True)
        case request.Checkout(path):
            repository = locate(path)
            return _named(repository, wanted) if wanted else _base(repository, head_of(repository), committed=False)
        case request.RemoteRepository(url) if wanted:
            return Base(wanted if is_source(wanted) else f"{url}#{wanted}")
        case request.RemoteRepository():
            return None
    if not wanted:
        raise UserError(f"the base of {source} is not known: an archive has no history", hint=f"name it, {_EXAMPLE}")
    request.parse(wanted)
    return Base(wanted)


def fetched(source: str, settings: Settings, progress: Progress) -> Base:
    """Return the base of a change in a remote repository. Raises SourceError, DownloadError."""
    remote = request.parse(source)
    assert isinstance(remote, request.RemoteRepository)
    commit = ancestry.merge_base(remote, settings, progress=progress)
    return Base(f"{remote.url}#{commit}", "the merge base")


def version(source: str) -> tuple[int, int] | None:
    """Return the version of a source that is a repository on this machine; None of others. Raises SourceError."""
    match request.parse(source):
        case request.LocalRepository(path, ref):
            return history.version(path, commit_of(locate(path), ref))
        case request.Checkout(path):
            return history.version(path, head_of(locate(path)))
    return None


def is_source(text: str) -> bool:
    """Whether a text has the form of a source, and is not only a ref, as a folder's bare name may be.

    >>> [is_source(text) for text in ("main", "HEAD^", "../cpython", "~/cpython#main")]
    [False, False, True, True]
    """
    return "#" in text or text.startswith((".", "/", "~")) or Path(text).is_file()


def _named(repository: Repository, wanted: str) -> Base:
    try:
        commit = commit_of(repository, wanted)
        return Base(f"{repository.path}#{commit}", "" if commit.startswith(wanted) else wanted)
    except SourceError:
        if not is_source(wanted):
            raise
    request.parse(wanted)
    return Base(wanted)


def _base(repository: Repository, commit: str, *, committed: bool) -> Base:
    """Return the base of a commit, or of a checkout of it."""
    branches = _mainlines(repository)
    if not branches:
        raise UserError(
            f"the base of {commit[:12]} is not known: {repository.path} has neither main nor a branch such as 3.15",
            hint=f"name it, {_EXAMPLE}",
        )
    found = repository.ask("merge-base", commit, *branches).text
    if not found:
        raise UserError(
            f"the base of {commit[:12]} is not known: it has no ancestor in common with CPython's branches",
            hint=f"name it, {_EXAMPLE}; in a shallow clone, git fetch --unshallow gets the rest",
        )
    if found != commit:
        return Base(f"{repository.path}#{found}", "the merge base")
    if not committed:
        return Base(f"{repository.path}#{commit}", "the commit that is checked out")
    parent = repository.ask("rev-parse", "--verify", "--quiet", f"{commit}^1^{{commit}}")
    if not parent.ok:
        raise UserError(
            f"the base of {commit[:12]} is not known: no commit is before it in {repository.path}",
            hint="in a shallow clone, git fetch --unshallow gets the rest",
        )
    return Base(f"{repository.path}#{parent.text}", "the commit before it")


def _mainlines(repository: Repository) -> list[str]:
    """Return CPython's branches: those of remotes, if there are any, as a local one may have the change itself."""

    def listed(folder: str) -> list[str]:
        patterns = [f"{folder}/{name}" for name in MAINLINES]
        return repository.ask("for-each-ref", "--format=%(refname)", *patterns).text.split()

    return listed("refs/remotes/*") or listed("refs/heads")
