"""Sources from git: the committed tree at a ref of a remote or local repository."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from crossjit.errors import DownloadError, SourceError
from crossjit.progress import Progress, Step
from crossjit.settings import Settings
from crossjit.sources import cache, committed, git
from crossjit.sources.cache import CachedSource
from crossjit.sources.inspection import Inspection
from crossjit.sources.located import Repository, Window, locate, window
from crossjit.sources.locations import redacted
from crossjit.sources.model import Kind, Source
from crossjit.sources.request import LocalRepository, RemoteRepository
from crossjit.sources.tarball import PACKING, TOP, pack
from crossjit.util import files

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
ANSWER = 30.0  # seconds for a server to list its refs

# A digest of the packing rules, recorded with each packed commit.
_RULES = hashlib.sha256(repr((PACKING, "line ends alone")).encode()).hexdigest()[:16]


def resolve_remote(request: RemoteRepository, settings: Settings, *, progress: Progress, work: Path) -> Source:
    """Fetch one commit of a repository, as shallow as the server lets us, and pack its tree.

    The fetched objects stay in a bare repository, one for each URL. A full commit id that was packed before needs no
    network. Raises SourceError for an unknown ref, DownloadError if the repository does not answer.
    """
    shown = redacted(request.url)
    origin = f"{shown}#{request.ref}"
    with progress.step("source", origin) as step:
        if _COMMIT.fullmatch(request.ref) and (stored := _known(settings, request.ref)):
            return source_of(Kind.GIT, stored, origin, request.ref)
        objects, commit = fetch(request, settings, step)
        return _committed(objects, commit, origin, settings, step, work)


def fetch(request: RemoteRepository, settings: Settings, step: Step) -> tuple[Path, str]:
    """Fetch one commit into our repository for the URL; return the folder of its objects, and the commit.

    Raises SourceError, DownloadError.
    """
    name = hashlib.sha256(request.url.encode()).hexdigest()[:20]
    with cache.locked(settings, f"git-{name}", step):
        repository = settings.sources / "git" / f"{name}.git"
        step.update(detail=f"asking {redacted(request.url)}")
        return repository / "objects", _fetch(request, repository, step)


def _fetch(request: RemoteRepository, repository: Path, step: Step) -> str:
    shown = redacted(request.url)
    _make(repository)  # the settings of a repository around the current folder must not be used
    at = ("--git-dir", str(repository))
    listing = git.run(*at, "ls-remote", "--heads", "--tags", "--", request.url, timeout=ANSWER, fetching=True)
    if not listing.ok:
        raise DownloadError(
            f"git cannot list the refs of {shown}",
            hint="check the address and the network; a private repository needs stored credentials",
            details=without_credentials(listing.errors, request.url),
        )
    heads = dict(line.split("\t")[::-1] for line in listing.text.splitlines() if "\t" in line)
    full = _choose(request, heads, shown)
    # An annotated tag has its own id; its peeled entry has the commit's.
    listed = heads.get(f"{full}^{{}}", heads.get(full, full))
    if _COMMIT.fullmatch(listed) and _has(repository, listed):
        return listed
    answer = _fetch_shallow(request.url, full, repository, step)
    if not (answer.ok or answer.over or answer.unsound) and full in heads:
        # A killed fetch can leave git's lock files. The repository is only a cache, so start again without it.
        shutil.rmtree(repository, ignore_errors=True)
        answer = _fetch_shallow(request.url, full, repository, step)
    if not answer.ok:
        details = without_credentials(answer.errors, request.url)
        if answer.over or answer.unsound:
            data = "more data than a CPython commit has" if answer.over else "data that git considers damaged"
            raise SourceError(
                f"{shown} gives {data} for {request.ref}", hint="give a repository of CPython's", details=details
            )
        if full in heads or answer.status is None:
            raise DownloadError(
                f"git cannot fetch {request.ref} from {shown}", hint="check the network and try again", details=details
            )
        raise SourceError(
            f"{shown} has no {request.ref}, or does not serve it",
            hint="check the number of the pull request or the commit id; a branch or a tag can always be fetched",
            details=details,
        )
    commit = git.run("--git-dir", str(repository), "rev-parse", "--verify", "--quiet", "refs/crossjit/wanted^{commit}")
    if not commit.ok:
        raise SourceError(f"{request.ref} of {shown} is not a commit", hint="name a branch, a tag or a commit")
    return commit.text


def _choose(request: RemoteRepository, heads: dict[str, str], shown: str) -> str:
    """Return the full name of a ref, or a commit id. As in git, a tag precedes a branch of the same name."""
    ref = request.ref
    if _COMMIT.fullmatch(ref) or ref == "HEAD" or ref.startswith("refs/"):
        return ref
    if re.fullmatch(r"pull/\d+/(head|merge)", ref):
        return f"refs/{ref}"
    for full in (f"refs/tags/{ref}", f"refs/heads/{ref}"):
        if full in heads:
            return full
    if re.fullmatch(r"[0-9a-f]{7,39}", ref):
        raise SourceError(
            f"{shown} has no branch or tag {ref}",
            hint="if it is a commit, give all 40 digits: servers do not accept short ones",
        )
    raise _unknown_ref(ref, shown, [name.removeprefix("refs/tags/").removeprefix("refs/heads/") for name in heads])


def _unknown_ref(ref: str, repository: str, names: Iterable[str]) -> SourceError:
    near = difflib.get_close_matches(ref, [name for name in names if not name.endswith("^{}")], n=1)
    hint = f"did you mean {near[0]}?" if near else "name a branch, a tag, a commit or pull/N/head"
    return SourceError(f"{repository} has no ref {ref}", hint=hint)


def _has(repository: Path, commit: str) -> bool:
    # The ref is set after a complete fetch; a commit object without the ref may lack its tree.
    refs = git.run("--git-dir", str(repository), "for-each-ref", "--format=%(refname)", f"refs/crossjit/have/{commit}")
    return refs.ok and bool(refs.text)


def _make(repository: Path) -> None:
    """Make an empty repository unless it exists."""
    if not (repository / "HEAD").is_file():
        with cache.storing(repository):
            shutil.rmtree(repository, ignore_errors=True)
            repository.parent.mkdir(parents=True, exist_ok=True)
        result = git.run("init", "--quiet", "--bare", "--template=", str(repository))
        if not result.ok:
            with cache.storing(repository):
                raise OSError(" ".join(result.errors))


def _fetch_shallow(url: str, full: str, repository: Path, step: Step) -> git.Answer:
    _make(repository)
    into = ("--git-dir", str(repository), "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--refmap=")
    refspec = f"+{full}:refs/crossjit/wanted"
    answer = git.follow(*into, "--depth=1", "--", url, refspec, step=step)
    if not answer.ok and any("does not support shallow" in line for line in answer.errors):
        answer = git.follow(*into, "--", url, refspec, step=step)  # a server of plain files
    if answer.ok:
        commit = git.run(
            "--git-dir", str(repository), "rev-parse", "--verify", "--quiet", "refs/crossjit/wanted^{commit}"
        )
        if commit.ok:
            git.run("--git-dir", str(repository), "update-ref", f"refs/crossjit/have/{commit.text}", commit.text)
    return answer


def without_credentials(lines: Iterable[str], url: str) -> tuple[str, ...]:
    """Return what git said, with a URL as it can be shown."""
    return tuple(line.replace(url, redacted(url)) for line in lines)


def resolve_local(request: LocalRepository, settings: Settings, *, progress: Progress, work: Path) -> Source:
    """Pack the committed tree at a ref of a repository on this machine, without a copy of it.

    Raises SourceError if the folder is not a repository or has no such ref.
    """
    origin = f"{request.path}#{request.ref}"
    with progress.step("source", origin) as step:
        repository = locate(request.path)
        commit = commit_of(repository, request.ref)
        stored = _known(settings, commit)
        if stored is not None:
            return source_of(Kind.GIT, stored, origin, commit)
        return _committed(repository.objects, commit, origin, settings, step, work)


def commit_of(repository: Repository, ref: str) -> str:
    """Return the commit of a ref. Raises SourceError if there is none."""
    commit = repository.ask("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if not commit.ok:
        names = repository.ask("for-each-ref", "--format=%(refname:short)").text.splitlines()
        raise _unknown_ref(ref, str(repository.path), names)
    return commit.text


def _known(settings: Settings, key: str) -> CachedSource | None:
    """Look up the packed tree of a commit, or of a commit with changes; its content never changes."""
    try:
        digest, _, rules = (settings.sources / "commits" / key).read_text().strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    return cache.find(settings, digest) if rules == _RULES and re.fullmatch(r"[0-9a-f]{64}", digest) else None


def _committed(objects: Path, commit: str, origin: str, settings: Settings, step: Step, work: Path) -> Source:
    """Pack a commit's tree from a folder of objects."""
    stored = _known(settings, commit)
    if stored is None:
        with cache.workspace(work) as folder:
            stored = pack_tree(window(objects, commit, folder), commit, None, origin, settings, step)
    return source_of(Kind.GIT, stored, origin, commit)


def pack_tree(
    view: Window, commit: str, diff_digest: str | None, label: str, settings: Settings, step: Step
) -> CachedSource:
    """Pack a commit, or with `diff_digest` the view's index, unless it was packed before."""
    key, name = commit, commit[:12]
    if diff_digest:
        key, name = f"{commit}-{diff_digest}", f"{name}-{diff_digest[:12]}"
    if stored := _known(settings, key):
        return stored
    step.update(detail=f"packing {name}")
    inspection = Inspection(label)
    target = view.folder.parent / "source"
    with committed.entries(view, None if diff_digest else commit, label) as entries:
        digest = pack(entries, target, inspection.take)
    stored = add(settings, digest, target, name, inspection, step)
    with cache.storing(settings.sources):
        (settings.sources / "commits").mkdir(exist_ok=True)
        files.replace(settings.sources / "commits" / key, f"{digest} {_RULES}".encode())
    return stored


def add(settings: Settings, digest: str, file: Path, name: str, inspection: Inspection, step: Step) -> CachedSource:
    """Store a packed and inspected tree, unless it is stored already."""
    facts = inspection.facts()
    with cache.locked(settings, digest, step):
        stored = cache.find(settings, digest)
        if stored is None:
            origin = inspection.label
            stored = cache.add(settings, digest, file, name=f"{TOP}-{name}.tar.zst", origin=origin, facts=facts)
    return stored


def source_of(
    kind: Kind,
    stored: CachedSource,
    origin: str,
    commit: str,
    diff_digest: str | None = None,
    regenerate: tuple[str, ...] = (),
) -> Source:
    """Make the Source of a stored tree, whose folder is named after its digest."""
    facts = stored.record.facts
    return Source(
        kind=kind,
        version=facts.version,
        python=facts.python,
        digest=stored.path.parent.name,
        archive=stored.path,
        top=facts.top,
        origin=origin,
        commit=commit,
        diff_digest=diff_digest,
        llvm=facts.llvm,
        regenerate=regenerate,
        core=facts.core,
    )
