"""The files of a commit, as they are committed, counted before they are read.

Of .gitattributes only line ends count (`text` and `eol`), as they do for who checks the commit out: CPython's .bat
files end their lines with CRLF. No filter runs, nothing is left out for `export-ignore` or substituted for
`export-subst`, and `ident` and `working-tree-encoding` change nothing.
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
_LINK = 4096  # bytes that a link's target may have
_CONVERTED = 16 << 20  # bytes of a file whose line ends are converted, which is done in memory


@dataclass(frozen=True, slots=True)
class _Blob:
    mode: str
    object: str
    path: str


@contextlib.contextmanager
def entries(window: Window, commit: str | None, label: str) -> Iterator[Iterator[Entry]]:
    """Give the files and links of a commit that are part of a source, in order; each is to be read before the next.

    Without a commit those of the window's index are given.

    Only they are asked for: a partial clone may lack the others. Raises SourceError for what is missing, damaged or
    over a bound, with `label` in the message.
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
    """Return what is part of a source, and the files of attributes. git is killed as soon as a bound is gone over."""
    count = TreeCount(label, error=SourceError, hint="give CPython's source")
    listed: list[_Blob] = []
    attributes: list[_Blob] = []
    index = ("ls-files", "--stage", "-z")
    with window.reading(*(("ls-tree", "-r", "-z", "--full-tree", commit) if commit else index)) as stream:
        for line in _fields(stream, count):
            about, _, path = line.partition("\t")
            mode, *between, name = map(sys.intern, about.split(" "))  # a tree may stand in another many times
            if commit is None:  # a mode, an object and a stage; else a mode, a kind and an object
                (name,) = between
            count.add(path)
            if mode != _SUBMODULE and is_build_input(path):
                listed.append(_Blob(mode, name, path))
            if path.rpartition("/")[2] == ATTRIBUTES and mode.startswith("100"):
                attributes.append(_Blob(mode, name, path))
    return listed, attributes


def _fields(stream: BinaryIO, count: TreeCount) -> Iterator[str]:
    """Yield what NULs end in a stream."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *fields, rest = (rest + chunk).split(b"\0")
        yield from (field.decode("utf-8", "surrogateescape") for field in fields)
        if len(rest) > count.budget.headers:
            raise count.over(f"a path of more than {count.budget.headers:,} bytes")


def _with_crlf(window: Window, listed: Iterable[_Blob], attributes: Iterable[_Blob]) -> dict[str, bool]:
    """Map the paths whose lines end with CRLF to whether git is to tell by the content if they are text."""
    index = "".join(f"{blob.mode} {blob.object}\t{blob.path}\0" for blob in attributes)
    made = window.ask("update-index", "-z", "--index-info", words=index.encode("utf-8", "surrogateescape"))
    if not made.ok:
        raise SourceError("git cannot read the attributes of a commit", hint="run `git fsck`", details=made.errors)
    paths = "".join(f"{blob.path}\0" for blob in listed if blob.mode != "120000")
    found: dict[str, bool] = {}
    arguments = ("check-attr", "--cached", "-z", "--stdin", "text", "crlf", "eol")
    with window.reading(*arguments, words=paths.encode("utf-8", "surrogateescape")) as stream:
        fields = _fields(stream, TreeCount("its .gitattributes", error=SourceError))
        while answer := tuple(itertools.islice(fields, 9)):
            path, text, legacy, eol = answer[0], answer[2], answer[5], answer[8]
            text = text if text in ("set", "unset", "input", "auto") else legacy
            if eol == "crlf" and text != "unset":
                found[path] = text == "auto"
    return found


def _size(header: bytes, blob: _Blob, label: str) -> int:
    """Return the size that git says a blob has."""
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
    """A blob in the stream of `git cat-file --batch`. Raises EOFError where that ends within it."""

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
