"""Trust domains: which sources may write which caches, and whose artifacts which builds may use."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from crossjit.config.recipes import Archive, Git
from crossjit.errors import SourceError
from crossjit.sources import request
from crossjit.sources.locations import redacted
from crossjit.sources.request import ArchiveUrl, Checkout, LocalRepository, RemoteRepository

RECIPES = "recipes"  # the recipes' own sources: all domains may read its caches, no other may write them
CHECKOUTS = "checkouts"  # the user's own checkouts, repositories and archives

_STRANGER = "source-"
_PULL_REQUEST = re.compile(r"(^|/)(pull|pr|merge-requests)/\d+(/|$)")


def domain_of(source: Archive | Git | str) -> str:
    """Return the trust domain of a recipe's source, or of the value of `--source`.

    Each URL, remote repository and pull request, even in a local repository, has its own domain, named by a digest. A
    local path need not exist any more.
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
    except SourceError:  # only a local path can be gone
        place, mark, ref = text.rpartition("#")
        path = Path(place if mark else text).expanduser().absolute()
        return LocalRepository(path, ref) if mark else Checkout(path)


def serving(domain: str) -> tuple[str, ...]:
    """Return the domains whose caches and artifacts a build of this one may use, its own first."""
    return (domain,) if domain == RECIPES else (domain, RECIPES)


def is_stranger(domain: str) -> bool:
    """Whether the domain is that of a source written by somebody else that is not a recipe's."""
    return domain.startswith(_STRANGER)


def _stranger(place: str) -> str:
    return _STRANGER + hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
