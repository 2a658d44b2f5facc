"""archive | git | checkout -> Source: the CPython tree to build, checked, and stored under its digest.

`request.parse` documents the forms of `--source`. The state folder's `sources/` holds `<digest>/<file>` and its
`facts.json` (and for an archive `tree.tar.zst`, the part that builds get), `commits/<commit>` (the digest of the packed
commit, and its packing rules), `git/` (a bare repository for each URL) and `tmp/` (unfinished files; those of killed
processes are removed when the next one starts).
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
    """Return the source if it is known without any request: a recipe's archive that is stored already.

    Raises SourceError for an invalid source, as far as that shows without reading it whole or asking a server.
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
    """Return the source of an earlier build from the state folder; None if it is not stored any more."""
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
    """Store a recipe's source, or that of `--source`, in the state folder, and return it.

    `pool_mirrors` returns the base URIs of Debian mirrors; it is called only if a `debian:` place is reached. `work` is
    the folder for unfinished files, on the state folder's file system, by default `sources/tmp`. The step is called
    `source`; its units are bytes, or git's objects while git fetches.

    Raises SourceError if there is no such source, or it is not a CPython that is safe to unpack; DownloadError if no
    place has it (`details` has the reasons); StashError if the state folder cannot be written.
    """
    work = work or settings.sources / "tmp"
    if isinstance(spec, Archive):
        return archive.resolve_recipe(
            spec, settings, progress=progress, pool_mirrors=pool_mirrors, work=work, timeouts=timeouts
        )
    parsed = request.repository(spec.url, spec.ref) if isinstance(spec, Git) else request.parse(spec)
    match parsed:
        case request.ArchiveFile(path):
            return archive.resolve_file(path, settings, progress=progress, work=work)
        case request.ArchiveUrl(url):
            return archive.resolve_url(url, settings, progress=progress, work=work, timeouts=timeouts)
        case request.RemoteRepository():
            return repository.resolve_remote(parsed, settings, progress=progress, work=work)
        case request.LocalRepository():
            return repository.resolve_local(parsed, settings, progress=progress, work=work)
        case request.Checkout():
            return checkout.resolve_checkout(parsed, settings, progress=progress, work=work)
