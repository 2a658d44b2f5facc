"""archive | git | checkout -> Source: the CPython tree that is built, checked, and kept under its digest.

What the user may ask for is told in `request.parse`. The state folder's `sources/` holds `<digest>/<file>` with
`facts.json` beside it (and beside an archive `tree.tar.zst`, what builds are given of it), `commits/<commit>` (the
digest packed for it, and by which rules), `git/` (one bare repository for each URL) and `tmp/` (what is in the making;
what killed processes left there goes when the next one starts).
"""

from __future__ import annotations

from pathlib import Path

from crossjit.config.recipes import Archive, Git
from crossjit.progress import Progress
from crossjit.settings import Settings
from crossjit.sources import archive, cache, checkout, repository, request
from crossjit.sources.inspection import require_archive
from crossjit.sources.located import locate
from crossjit.sources.locations import TIMEOUTS, PoolMirrors, Timeouts, host_pool_mirrors
from crossjit.sources.model import Kind, Source
from crossjit.sources.tarball import decompressed, open_tar, subset_tar
from crossjit.stash.manifest import SourceFacts

__all__ = [
    "Kind",
    "Timeouts",
    "PoolMirrors",
    "Source",
    "decompressed",
    "host_pool_mirrors",
    "kept",
    "known",
    "open_tar",
    "resolve",
    "subset_tar",
]


def known(spec: Archive | Git | str, settings: Settings) -> Source | None:
    """Return the source if what it is stands fast without asking anybody: a recipe's archive that is here already.

    Raises SourceError for what cannot be one, as far as that shows without reading it whole or asking a server.
    """
    if isinstance(spec, Archive):
        return archive.known(spec, settings)
    match request.repository(spec.url, spec.ref) if isinstance(spec, Git) else request.parse(spec):
        case request.ArchiveFile(path):
            require_archive(path)
        case request.LocalRepository(path, ref):
            repository.commit_of(locate(path), ref)
        case request.Checkout(path):
            checkout.head_of(locate(path))
    return None


def kept(facts: SourceFacts, settings: Settings) -> Source | None:
    """Return what was built from before, as it was then; None where the state folder does not hold it any more."""
    stored = cache.find(settings, facts.digest)
    if stored is None:
        return None
    if facts.kind == Kind.ARCHIVE:
        return archive.source_of(stored, facts.digest, origin=facts.origin)
    kind, commit = Kind(facts.kind), facts.commit or ""
    return repository.source_of(kind, stored, facts.origin, commit, facts.diff_digest, facts.regenerate)


def resolve(
    spec: Archive | Git | str,
    settings: Settings,
    *,
    progress: Progress,
    pool_mirrors: PoolMirrors = host_pool_mirrors,
    work: Path | None = None,
    timeouts: Timeouts = TIMEOUTS,
) -> Source:
    """Bring a recipe's source, or what the user's `--source` names, into the state folder and say what it is.

    `pool_mirrors` gives the base URIs of Debian mirrors; it is called only if a `debian:` place is reached. `work` is
    where files are made before they get their final name: on the state folder's file system, by default `sources/tmp`.
    The step is called `source`; its units are bytes, or git's objects while git fetches.

    Raises SourceError if there is no such source or it is no CPython that is safe to unpack, DownloadError if no place
    gives it (each with its reason in `details`), StashError if the state folder cannot be written.
    """
    work = work or settings.sources / "tmp"
    if isinstance(spec, Archive):
        return archive.resolve_recipe(
            spec, settings, progress=progress, pool_mirrors=pool_mirrors, work=work, timeouts=timeouts
        )
    wanted = request.repository(spec.url, spec.ref) if isinstance(spec, Git) else request.parse(spec)
    match wanted:
        case request.ArchiveFile(path):
            return archive.resolve_file(path, settings, progress=progress, work=work)
        case request.ArchiveUrl(url):
            return archive.resolve_url(url, settings, progress=progress, work=work, timeouts=timeouts)
        case request.RemoteRepository():
            return repository.resolve_remote(wanted, settings, progress=progress, work=work)
        case request.LocalRepository():
            return repository.resolve_local(wanted, settings, progress=progress, work=work)
        case request.Checkout():
            return checkout.resolve_checkout(wanted, settings, progress=progress, work=work)
