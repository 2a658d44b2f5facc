"""Where a recipe's archive may be: the user's mirrors, URLs, and the pools of apt's Debian mirrors."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crossjit.errors import CrossjitError, SourceError
from crossjit.sources.request import local_path
from crossjit.util import apt
from crossjit.util.paths import full_path

PoolMirrors = Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Place:
    """A place to fetch from: a local path, a URL, or the reason why there is neither. `name` is for people."""

    name: str
    path: Path | None = None
    url: str | None = None
    missing: str = ""


class PlaceError(Exception):
    """A file cannot be fetched; the message says why. `dead` if its host does not serve any file."""

    def __init__(self, reason: str, *, dead: bool = False) -> None:
        super().__init__(reason)
        self.dead = dead


class TransientError(PlaceError):
    """Another try may succeed."""


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds: `name` to resolve a host, `connect` for a connection, `stall` without data.

    `attempts` is the number of tries with transient errors.
    """

    name: float = 1.5
    connect: float = 1.5
    stall: float = 30.0
    attempts: int = 3


TIMEOUTS = Timeouts()


def upstream_name(version: str) -> str:
    """Return the name of a release's archive on python.org."""
    return f"Python-{version}.tar.xz"


def file_name(location: str) -> str:
    """Return the last component of a place, a URL or a path."""
    path = re.split("[?#]", location)[0] if "://" in location else location.rpartition(":")[2]
    return urllib.parse.unquote(path.rpartition("/")[2])


def redacted(url: str) -> str:
    """Return a URL without the user and the password in it, for logs and manifests."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}" if mark else url


def candidates(
    version: str, places: Sequence[str], mirrors: Sequence[str], pool_mirrors: PoolMirrors
) -> Iterator[Place]:
    """Yield the places in the order in which they are tried: the user's mirrors, then the recipe's places.

    A mirror may have the file under upstream's name or the file name of any of the recipe's places. `pool_mirrors` is
    called only when the first `debian:<component>/<pool path>` is reached.
    """
    names = list(dict.fromkeys([upstream_name(version), *map(file_name, places)]))
    for mirror in mirrors:
        for name in names:
            yield _at(mirror, name)
    bases: Sequence[str] | None = None
    for place in places:
        if not place.startswith("debian:"):
            yield _located(place)
            continue
        component, slash, path = place.removeprefix("debian:").partition("/")
        if not (component and slash and path):
            raise SourceError(
                f"invalid location {place!r}", hint="write debian:<component>/<path below the pool's component>"
            )
        if bases is None:
            try:
                bases = pool_mirrors()
            except CrossjitError as error:
                yield Place(place, missing=error.message)
                bases = ()
                continue
        if not bases:
            yield Place(place, missing="apt's sources have no Debian mirror")
        for base in bases:
            yield _at(base, f"pool/{component}/{path}")


def _at(folder: str, name: str) -> Place:
    if "://" in folder and not folder.startswith("file://"):
        return _located(f"{folder.rstrip('/')}/{urllib.parse.quote(name, safe='/~+:')}")
    base = local_path(folder) if folder.startswith("file://") else full_path(folder)
    return Place(str(base / name), path=base / name)


def _located(url: str) -> Place:
    if url.startswith("file://"):
        return Place(url, path=local_path(url))
    if url.lower().startswith(("http://", "https://")):
        return Place(redacted(url), url=url)
    return Place(redacted(url), missing="only http, https and file URLs are supported")


def host_pool_mirrors() -> tuple[str, ...]:
    """Return the base URIs of this host's apt repositories; none if there is no apt, or it does not answer."""
    return pool_mirrors_of(apt.repositories("$(REPO_URI)"))


def pool_mirrors_of(listing: str) -> tuple[str, ...]:
    """Return the base URIs in apt's list, one a line, that can be downloaded from, in order and without duplicates."""
    uris = (line.strip().rstrip("/") for line in listing.splitlines())
    return tuple(dict.fromkeys(uri for uri in uris if uri.startswith(("http://", "https://", "file://"))))
