"""The files of a commit as committed, counted before they are read.

Of .gitattributes, only line ends (`text` and `eol`) are applied, as in a checkout: CPython's .bat files have CRLF line
ends. Filters, `export-ignore`, `export-subst`, `ident` and `working-tree-encoding` are not.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from crossjit.errors import SourceError
from crossjit.sources.located import Window
from crossjit.sources.tarball import Entry, is_build_input
from crossjit.util.budget import TreeCount

ATTRIBUTES = ".gitattributes"
_SUBMODULE = "160000"
_CHUNK = 1 << 16
_LINK = 4096  # bytes of a link's target, at most
_CONVERTED = 16 << 20  # bytes of a file whose line ends are converted, at most: that is done in memory


@dataclass(frozen=True, slots=True)
class _Blob:
    mode: str
    object: str
    path: str


@contextlib.contextmanager
def entries(window: Window, commit: str | None, label: str) -> Iterator[Iterator[Entry]]:
    """Yield the files and links of a commit that are part of a source, in order; each must be read before the next.

    Without a commit they are those of the window's index. No others are requested: a partial clone may lack them.
    Raises SourceError, with `label` in the message, for a missing or damaged file, and if a limit is exceeded.
    """
    listed, attributes = _listed(window, commit, label)
    converted = _with_crlf(window, listed, attributes) if attributes else {}
    words = "".join(f"{blob.object}\n" for blob in listed).encode()
    with window.reading("cat-file", "--batch", words=words) as stream:
        yield _entries(stream, listed, converted, label)


def _entries(stream: BinaryIO, listed: Iterable[_Blob], converted: dict[str, bool], label: str) -> Iterator[Entry]:
    for blob in listed:
        content = _Content(stream, _size(stream.readline(), blob, label))
        yield _entry(blob, content, converted, label)
        while content.read(_CHUNK):
            pass
        if stream.read(1) != b"\n":
            raise EOFError


def _listed(window: Window, commit: str | None, label: str) -> tuple[list[_Blob], list[_Blob]]:
    """Return the files of a source, and the .gitattributes files. git is killed as soon as a limit is exceeded."""
    count = TreeCount(label, error=SourceError, hint="give CPython's source")
    listed: list[_Blob] = []
    attributes: list[_Blob] = []
    index = ("ls-files", "--stage", "-z")
    with window.reading(*(("ls-tree", "-r", "-z", "--full-tree", commit) if commit else index)) as stream:
        for line in _fields(stream, count):
            about, _, path = line.partition("\t")
            mode, *between, name = map(sys.intern, about.split(" "))  # a tree may contain a subtree many times
            if commit is None:  # the fields are mode, object, stage; with a commit mode, kind, object
                (name,) = between
            count.add(path)
            if mode != _SUBMODULE and is_build_input(path):
                listed.append(_Blob(mode, name, path))
            if path.rpartition("/")[2] == ATTRIBUTES and mode.startswith("100"):
                attributes.append(_Blob(mode, name, path))
    return listed, attributes


def _fields(stream: BinaryIO, count: TreeCount) -> Iterator[str]:
    """Yield the NUL-terminated fields of a stream."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *fields, rest = (rest + chunk).split(b"\0")
        yield from (field.decode("utf-8", "surrogateescape") for field in fields)
        if len(rest) > count.budget.headers:
            raise count.over(f"a path of more than {count.budget.headers:,} bytes")


def _with_crlf(window: Window, listed: Iterable[_Blob], attributes: Iterable[_Blob]) -> dict[str, bool]:
    """Return the paths with CRLF line ends, and for each whether git detects from its content if it is text."""
    index = "".join(f"{blob.mode} {blob.object}\t{blob.path}\0" for blob in attributes)
    result = window.ask("update-index", "-z", "--index-info", words=index.encode("utf-8", "surrogateescape"))
    if not result.ok:
        raise SourceError("git cannot read the attributes of a commit", hint="run `git fsck`", details=result.errors)
    paths = "".join(f"{blob.path}\0" for blob in listed if blob.mode != "120000")
    paths_with_crlf: dict[str, bool] = {}
    arguments = ("check-attr", "--cached", "-z", "--stdin", "text", "crlf", "eol")
    with window.reading(*arguments, words=paths.encode("utf-8", "surrogateescape")) as stream:
        fields = _fields(stream, TreeCount("its .gitattributes", error=SourceError))
        while answer := tuple(itertools.islice(fields, 9)):
            path, text, legacy, eol = answer[0], answer[2], answer[5], answer[8]
            text = text if text in ("set", "unset", "input", "auto") else legacy
            if eol == "crlf" and text != "unset":
                paths_with_crlf[path] = text == "auto"
    return paths_with_crlf


def _size(header: bytes, blob: _Blob, label: str) -> int:
    """Return a blob's size from git's header."""
    match header.decode("utf-8", "replace").split():
        case [_, "blob", size]:
            return int(size)
        case [_, "missing"]:
            raise SourceError(
                f"{label} lacks the file {blob.path}",
                hint="a repository that was cloned with --filter lacks files of other commits: check the commit out "
                "there, or give the URL that it was cloned from",
                details=(f"{blob.object} is missing",),
            )
    raise EOFError


def _entry(blob: _Blob, content: _Content, converted: dict[str, bool], label: str) -> Entry:
    stream = cast(BinaryIO, content)
    if blob.mode == "120000":
        if content.left > _LINK:
            raise SourceError(
                f"{label} has a link of {content.left:,} bytes: {blob.path}", hint="give CPython's source"
            )
        return Entry(blob.path, link=content.read().decode("utf-8", "surrogateescape"))
    executable = blob.mode == "100755"
    if blob.path not in converted:
        return Entry(blob.path, executable, size=content.left, content=stream)
    if content.left > _CONVERTED:
        raise SourceError(
            f"the lines of {blob.path} are to end with CRLF, and it has {content.left:,} bytes",
            hint=f"correct {ATTRIBUTES}",
        )
    data = content.read()
    if not (converted[blob.path] and (b"\r" in data or b"\0" in data)):
        data = re.sub(rb"(?<!\r)\n", b"\r\n", data)
    return Entry(blob.path, executable, size=len(data), content=io.BytesIO(data))


class _Content(io.RawIOBase):
    """A blob in the stream of `git cat-file --batch`. Reading raises EOFError if the stream ends within it."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.left = size
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        size = self.left if size < 0 else min(size, self.left)
        data = self._stream.read(size)
        self.left -= len(data)
        if len(data) < size:
            raise EOFError
        return data
