"""Trust domains: whose sources may write which caches, and whose artifacts may serve which builds."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from crossjit.config.recipes import Archive, Git
from crossjit.errors import SourceError
from crossjit.sources import request
from crossjit.sources.locations import redacted
from crossjit.sources.request import ArchiveUrl, Checkout, LocalRepository, RemoteRepository

RECIPES = "recipes"  # the recipes' own sources: what everybody else may read, and nobody else may write
CHECKOUTS = "checkouts"  # the user's own checkouts, repositories and archives

_STRANGER = "source-"
_PULL_REQUEST = re.compile(r"(^|/)(pull|pr|merge-requests)/\d+(/|$)")


def domain_of(source: Archive | Git | str) -> str:
    """Return the trust domain of a recipe's source, or of what `--source` says.

    A URL, a repository elsewhere and a pull request, wherever it was fetched to, have a domain each, named by a digest.
    A place on this machine need not be there any more.
    """
    if isinstance(source, Archive):
        return RECIPES
    text = f"{source.url}#{source.ref}" if isinstance(source, Git) else source
    match _request(text):
        case RemoteRepository(url, ref):
            trusted = isinstance(source, Git) and not _PULL_REQUEST.search(ref)
            return RECIPES if trusted else _stranger(f"{redacted(url)}#{ref}")
        case LocalRepository(path, ref) if _PULL_REQUEST.search(ref):
            return _stranger(f"{path}#{ref}")
        case ArchiveUrl(url):
            return _stranger(redacted(url))
        case _:
            return CHECKOUTS


def _request(text: str) -> request.Request:
    try:
        return request.parse(text)
    except SourceError:  # only what was on this machine can be gone
        place, mark, ref = text.rpartition("#")
        path = Path(place if mark else text).expanduser().absolute()
        return LocalRepository(path, ref) if mark else Checkout(path)


def serving(domain: str) -> tuple[str, ...]:
    """Return the domains whose caches and artifacts a build of this one may take, its own first."""
    return (domain,) if domain == RECIPES else (domain, RECIPES)


def is_stranger(domain: str) -> bool:
    """Whether it is of a source that somebody else wrote and the user did not choose as a recipe."""
    return domain.startswith(_STRANGER)


def _stranger(place: str) -> str:
    return _STRANGER + hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
