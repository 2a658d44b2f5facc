"""Where a change in a remote repository left its branch: only as much history is fetched as that takes."""

from __future__ import annotations

import re
from pathlib import Path

from crossjit.errors import DownloadError, SourceError
from crossjit.progress import Progress, Step
from crossjit.settings import Settings
from crossjit.sources import cache, git
from crossjit.sources.locations import redacted
from crossjit.sources.repository import ANSWER, fetch, without_credentials
from crossjit.sources.request import RemoteRepository

DEPTHS = (64, 512, 4096)  # commits, one after the other until the base is among them
_MAIN = "main"
_HINT = "name it, such as --base main"


def merge_base(request: RemoteRepository, settings: Settings, *, progress: Progress) -> str:
    """Return the commit that a change is based on: of `main`, or of the branch of its version if there is one.

    A commit of that branch has the commit before it. Raises SourceError if there is no base among the newest commits,
    DownloadError if the repository does not answer.
    """
    with progress.step("base", f"{redacted(request.url)}#{request.ref}") as step:
        objects, commit = fetch(request, settings, step)
        repository = objects.parent
        with cache.locked(settings, f"git-{repository.stem}", step):
            branch = _branch(repository, request.url, commit)
            for depth in DEPTHS:
                step.update(detail=f"the last {depth} commits of {branch}")
                _deepen(repository, request, commit, branch, depth, step)
                found = _ask(repository, "merge-base", commit, "refs/crossjit/branch")
                if found == commit:
                    found = _ask(repository, "rev-parse", "--verify", "--quiet", f"{commit}^1^{{commit}}")
                if found:
                    _ask(repository, "update-ref", f"refs/crossjit/have/{found}", found)  # it came with its tree
                    return found
    raise SourceError(
        f"the base of {request.ref} is not known: none of the last {DEPTHS[-1]:,} commits of {branch} is an ancestor",
        hint=_HINT,
    )


def _branch(repository: Path, url: str, commit: str) -> str:
    """Return the branch that a commit is a change to, by its version."""
    header = _ask(repository, "show", f"{commit}:Include/patchlevel.h")
    numbers = re.findall(r"^#define\s+PY_(?:MAJOR|MINOR)_VERSION\s+(\d+)", header, re.MULTILINE)
    names = [".".join(numbers), _MAIN]
    listed = git.run(
        *("--git-dir", str(repository), "ls-remote", "--heads", "--", url, *(f"refs/heads/{name}" for name in names)),
        timeout=ANSWER,
        fetching=True,
    )
    heads = {line.partition("refs/heads/")[2] for line in listed.text.splitlines()}
    found = next((name for name in names if name in heads), None)
    if found is None:
        raise SourceError(
            f"the base of {commit[:12]} is not known: {redacted(url)} has no {' and no '.join(filter(None, names))}",
            hint=_HINT,
        )
    return found


def _deepen(repository: Path, request: RemoteRepository, commit: str, branch: str, depth: int, step: Step) -> None:
    """Fetch the newest commits of a change and of its branch. Raises DownloadError."""
    refs = (f"+{commit}:refs/crossjit/change", f"+refs/heads/{branch}:refs/crossjit/branch")
    into = ("--git-dir", str(repository), "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--refmap=")
    answer = git.follow(*into, f"--depth={depth}", "--", request.url, *refs, step=step)
    if not answer.ok:
        raise DownloadError(
            f"git cannot fetch the history of {request.ref} from {redacted(request.url)}",
            hint=f"check the network and try again, or {_HINT}",
            details=without_credentials(answer.errors, request.url),
        )


def _ask(repository: Path, *arguments: str) -> str:
    answer = git.run("--git-dir", str(repository), *arguments)
    return answer.text if answer.ok else ""
