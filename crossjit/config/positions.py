"""Where keys and values stand in a TOML text: tomli gives positions of errors only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import tomli

Keys = tuple[str | int, ...]  # the path to a key or value: names of keys, indexes into arrays


@dataclass(frozen=True)
class Place:
    """Offsets into a document's text: the start of a key (or an array's element), and of its value."""

    key: int
    value: int


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_NAME = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})'''  # the text may end with up to two quotes
    r"""|"(?:\\.|[^"\\])*"|'[^']*'"""
    r"""|\d{4}-\d\d-\d\d[ ]\d[^\s,\]}#]*|[^\s,\]}#]+""",
    re.DOTALL,
)


def locate(text: str) -> dict[Keys, Place]:
    """Find every key and value of a TOML text that tomli has accepted."""
    locator = _Locator(text)
    locator.run()
    return locator.found


class _Locator:
    """Scans a TOML text once. The text must be valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Keys, Place] = {}
        self.sizes: dict[Keys, int] = {}  # arrays of tables: the number of elements so far

    def run(self) -> None:
        table: Keys = ()
        while self.skip() < len(self.text):
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)

    def skip(self) -> int:
        """Skip spaces, line ends and comments."""
        self.at = self.match(_BLANK).end()
        return self.at

    def match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise ValueError(f"offset {self.at}: not TOML, or a TOML that is newer than this locator")
        return match

    def take(self, characters: str) -> bool:
        """Step over these characters if they are next, after blanks."""
        if self.text.startswith(characters, self.skip()):
            self.at += len(characters)
            return True
        return False

    def names(self) -> Iterator[tuple[str, int]]:
        """Read a key, dotted or not; yield each name with its offset."""
        while True:
            start = self.skip()
            raw = self.match(_NAME).group()
            self.at += len(raw)
            yield (next(iter(tomli.loads(f"{raw} = 0"))), start)
            if not self.take("."):
                return

    def header(self) -> Keys:
        """Read `[a.b]` or `[[a.b]]`; return the path of the table that it opens."""
        array = self.take("[[") or not self.take("[")
        names = list(self.names())
        self.take("]]" if array else "]")
        keys: Keys = ()
        for name, start in names[:-1]:
            keys = self.last((*keys, name), start)
        name, start = names[-1]
        keys = (*keys, name)
        if array:
            self.found.setdefault(keys, Place(start, start))
            self.sizes[keys] = self.sizes.get(keys, 0) + 1
            keys = self.last(keys, start)
        self.found[keys] = Place(start, start)  # replaces one implied by `[a.b.c]`
        return keys

    def last(self, keys: Keys, start: int) -> Keys:
        """Record a table that a header implies; return its path, of an array of tables the last element's."""
        self.found.setdefault(keys, Place(start, start))
        return (*keys, self.sizes[keys] - 1) if keys in self.sizes else keys

    def pair(self, table: Keys) -> None:
        keys = table
        for name, start in self.names():
            keys = (*keys, name)
            self.found.setdefault(keys, Place(start, start))
        self.take("=")
        self.found[keys] = Place(self.found[keys].key, self.skip())
        self.value(keys)

    def value(self, keys: Keys) -> None:
        if self.take("["):
            index = 0
            while not self.take("]"):
                start = self.skip()
                self.found[(*keys, index)] = Place(start, start)
                self.value((*keys, index))
                self.take(",")
                index += 1
        elif self.take("{"):
            while not self.take("}"):
                self.pair(keys)
                self.take(",")
        else:
            self.at = self.match(_SCALAR).end()
