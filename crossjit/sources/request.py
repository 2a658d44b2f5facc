"""Parsing `--source`, by its form alone, and by whether a path is a file or a folder."""

from __future__ import annotations

import difflib
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from crossjit.errors import SourceError
from crossjit.util.paths import expanded, full_path

ARCHIVE_SUFFIXES = (
    ".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst",
)  # fmt: skip

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TRANSPORT = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*):(?://|:)"
)  # `ext::…` runs a program instead of connecting to a server
_FETCHED = ("https", "ssh", "git", "file")
_SCP = re.compile(r"(?:[\w.-]+@)?[\w.-]+:(?!/?/)")  # git's short form of ssh: a colon before any slash

# The page of a pull request, its tabs, and a commit of it; GitHub's other pages are not sources.
_PAGE = re.compile(
    r"(?i:https?://(?:www\.)?)(github\.com/[\w.-]+/[\w.-]+)/pull/(\d+)(?:/commits/([0-9a-f]{40}))?(?=$|[/?#])"
)

FORMS = (
    "an archive's path or URL (Python-3.15.0rc2.tar.xz), a git URL or local repository with #ref "
    "(https://github.com/python/cpython#main, ../cpython#pull/1234/head), or a checkout's folder (../cpython)"
)


@dataclass(frozen=True)
class ArchiveFile:
    """A local archive."""

    path: Path


@dataclass(frozen=True)
class ArchiveUrl:
    """An archive to download, without a known digest."""

    url: str


@dataclass(frozen=True)
class RemoteRepository:
    """A ref of a repository that git fetches from."""

    url: str
    ref: str


@dataclass(frozen=True)
class LocalRepository:
    """A committed tree of a repository on this machine."""

    path: Path
    ref: str


@dataclass(frozen=True)
class Checkout:
    """A working tree with its uncommitted changes."""

    path: Path


Request = ArchiveFile | ArchiveUrl | RemoteRepository | LocalRepository | Checkout


def parse(text: str) -> Request:
    """Parse `--source TEXT`.

    - With a `#`: a git repository before the last `#`, the ref (branch, tag, commit, or `pull/N/head`) after it. A URL
      (`https://…`, `ssh://…`, `user@host:path`) is fetched; a folder, or a `file://` URL, is read in place, without
      its uncommitted changes.
    - The page of a pull request is its head, the page of one of its commits is that commit.
    - Without `#`: a URL (http, https) is an archive, and its path must end in one of ARCHIVE_SUFFIXES; a path of a file
      is an archive under any name; a path of a folder is a checkout, with its uncommitted changes.

    Raises SourceError for anything else, such as a missing path.
    """
    if "\0" in text or not text.strip() or text.startswith("-"):
        raise SourceError(f"invalid source {text!r}", hint=f"give {FORMS}")
    if page := _PAGE.match(text):
        return RemoteRepository(f"https://{page[1]}", page[3] or f"pull/{page[2]}/head")
    if "#" in text:
        place, _, ref = text.rpartition("#")
        return repository(place, ref)
    if text.startswith("file://"):
        return _path(text, local_path(text))
    if _URL.match(text):
        if re.match("https?://", text.lower()) and text.lower().partition("?")[0].endswith(ARCHIVE_SUFFIXES):
            return ArchiveUrl(text)
        raise SourceError(
            f"{text} is neither an archive's URL nor a git URL with a ref",
            hint=f"add #main (or another branch, tag or commit) for a git URL; an archive's ends in "
            f"{', '.join(ARCHIVE_SUFFIXES)}",
        )
    return _path(text, expanded(text))


def repository(place: str, ref: str) -> RemoteRepository | LocalRepository:
    """Parse a git repository, remote or local, and a ref. Raises SourceError for an invalid ref or a missing folder."""
    shown = f"{place}#{ref}"
    if not place or not ref or ref.startswith("-") or re.search(r"[\s\x00-\x1f\x7f:?*\[\\]", ref):
        raise SourceError(
            f"{shown!r} does not name a ref of a repository",
            hint="give URL#ref or folder#ref; a ref is a branch, a tag, a commit or pull/N/head",
        )
    if place.lower().startswith("http://"):
        raise SourceError(
            f"{shown} is not fetched: http does not authenticate the server", hint=f"write https{place[4:]}#{ref}"
        )
    if (transport := _TRANSPORT.match(place)) and transport[1].lower() not in _FETCHED:
        raise SourceError(
            f"invalid source {shown!r}: {transport[1]} is not fetched from",
            hint=f"give a URL of {', '.join(_FETCHED)}, or a folder",
        )
    if place.startswith("file://"):
        path = local_path(place)
    elif _URL.match(place) or (_SCP.match(place) and not Path(place).exists()):
        return RemoteRepository(place, ref)
    else:
        path = expanded(place)
    if not path.is_dir():
        raise SourceError(f"there is no repository at {path}", hint=_hint(path))
    return LocalRepository(path.absolute(), ref)


def in_full(text: str) -> str:
    """Return `--source TEXT` with an absolute path. Raises UserError for the `~` of an unknown user."""
    place, hash_, ref = text.rpartition("#") if "#" in text else (text, "", "")
    if not place or _URL.match(place) or (hash_ and _SCP.match(place) and not Path(place).exists()):
        return text
    return f"{full_path(place)}{hash_}{ref}"


def local_path(url: str) -> Path:
    """Return the path that a `file://` URL names."""
    return Path("/" + urllib.parse.unquote(url.removeprefix("file://").partition("/")[2]))


def _path(text: str, path: Path) -> Request:
    try:
        if path.is_dir():
            return Checkout(path.absolute())
        if path.is_file():
            return ArchiveFile(path.absolute())
        exists = path.exists()
    except OSError as error:
        raise SourceError(f"{text!r} cannot be read: {error.strerror}", hint=f"give {FORMS}") from error
    if exists:
        raise SourceError(f"{path} is neither a file nor a folder", hint=f"give {FORMS}")
    hint = "add #ref for a git URL" if _SCP.match(text) else _hint(path)
    raise SourceError(f"there is no {path}", hint=hint)


def _hint(path: Path) -> str:
    try:
        names = [entry.name for entry in path.absolute().parent.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"did you mean {path.with_name(near[0])}?" if near and path.name else f"give {FORMS}"
