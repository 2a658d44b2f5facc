"""TOML documents: text into frozen values, or every error at once, each with file, line and column."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, dataclass_transform

import pydantic
import pydantic.dataclasses
import tomli

from crossjit.errors import DocumentError, did_you_mean
from crossjit.util.text import pluralize

T = TypeVar("T")

Keys = tuple[str | int, ...]  # the way to a key or value from the top: names of keys, indexes into arrays

_HINT = "correct these lines, then run the same command again"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, pydantic.Field))
def table(cls: type[T]) -> type[T]:
    """Make a class the type of a TOML table: a frozen dataclass, strict, no key but its fields.

    A string under a field is its description in the JSON schema.
    """
    config = pydantic.ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)
    return cast(type[T], pydantic.dataclasses.dataclass(frozen=True, config=config)(cls))


@dataclass(frozen=True)
class Document:
    """A file that is TOML, not yet known to be right. `text` has Unix line ends; `data` is what tomli made of it."""

    path: Path
    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing that is wrong with a document, and where: at the key that `keys` leads to, or at its value.

    Where `keys` lead to nothing, the problem stands at the innermost table on the way: something is missing there.
    """

    keys: Keys
    what: str
    at_value: bool = True


@dataclass(frozen=True)
class Place:
    """Offsets into a document's text: where a key (or an array's element) starts, and where its value does."""

    key: int
    value: int


def read(path: Path) -> Document:
    """Read a TOML file. Raises DocumentError if it is not there, cannot be read, is not UTF-8 or not TOML."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        message = f"{path}: there is no such file{did_you_mean(path.name, siblings)}"
        raise DocumentError(message, hint="check the name") from None
    except IsADirectoryError:
        raise DocumentError(f"{path}: is a folder, not a TOML file", hint="name a file in it") from None
    except OSError as error:
        hint = "check that you can read the file"
        raise DocumentError(f"{path}: cannot be read: {error.strerror}", hint=hint) from None
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # with a byte order mark the codec counts from behind it
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        detail = f"{path}:{line}:{column}: byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise DocumentError(f"{path}: 1 error", hint="save the file as UTF-8", details=(detail,)) from None
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        detail = f"{path}:{error.lineno}:{error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        raise DocumentError(f"{path}: 1 error", hint=_HINT, details=(detail,)) from None
    except (RecursionError, ValueError) as error:  # ValueError: more digits than Python makes an int of
        raise DocumentError(f"{path}: cannot be read: {error}", hint=_HINT) from None
    return Document(path, text, data)


def parse(document: Document, into: type[T], also: Iterable[Problem] = ()) -> T:
    """Make a value of a document. `also` are problems that the caller found, to be reported with the others.

    Raises DocumentError with every error at once.
    """
    problems: list[Problem] = []
    plain = _plain(document.data, (), problems)
    told = {problem.keys for problem in problems}
    problems += also
    value = None
    try:
        value = _adapter(into).validate_json(json.dumps(plain), strict=True)
    except pydantic.ValidationError as error:
        described = schema(into)
        found = (
            _problem(details, document.data, described)
            for details in error.errors()
            if not _is_echo(details, document.data)
        )
        problems += (problem for problem in found if problem.keys not in told or not problem.at_value)
    if problems:
        raise failure(document, problems)
    return cast(T, value)


def load(path: Path, into: type[T]) -> T:
    """Read a TOML file into a type made with `table`.

    Raises DocumentError: `message` is `path: N errors`, `details` are all of them as `path:line:column: what is wrong;
    did you mean 'x'?`, in the file's order. Lines and columns count characters from 1.
    """
    return parse(read(path), into)


def failure(document: Document, problems: Iterable[Problem]) -> DocumentError:
    """Make the error that reports these problems of a document."""
    places = locate(document.text)
    found = sorted({(*_position(document.text, places, problem), problem.what) for problem in problems})
    details = tuple(f"{document.path}:{line}:{column}: {what}" for line, column, what in found)
    return DocumentError(f"{document.path}: {pluralize(len(details), 'error')}", hint=_HINT, details=details)


def lines(document: Document, keys: Iterable[Keys]) -> tuple[int, ...]:
    """Return the lines, from 1, at which these keys of a document stand."""
    places = locate(document.text)
    return tuple(_position(document.text, places, Problem(each, "", at_value=False))[0] for each in keys)


def together(errors: Iterable[DocumentError]) -> DocumentError:
    """Make one error of those of several documents."""
    errors = list(errors)
    if len(errors) == 1:
        return errors[0]
    details = tuple(line for error in errors for line in error.details or (error.message,))
    message = f"{pluralize(len(details), 'error')} in {pluralize(len(errors), 'file')}"
    return DocumentError(message, hint=_HINT, details=details)


def schema(of: type[Any]) -> dict[str, Any]:
    """Describe a type as a JSON schema, for editors."""
    described = _without_null(_adapter(of).json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described}


def _without_null(node: Any) -> Any:
    """Drop the nulls from a JSON schema: TOML has none, an optional key is left out."""
    if isinstance(node, list):
        return [_without_null(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    kept = {key: _without_null(inner) for key, inner in node.items() if (key, inner) != ("default", None)}
    some = [inner for inner in kept.get("anyOf", ()) if inner != {"type": "null"}]
    if len(some) == 1:
        del kept["anyOf"]
        kept = {**some[0], **kept}
    return kept


def _adapter(of: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(of)


def _plain(value: Any, keys: Keys, problems: list[Problem]) -> Any:
    """Return the value as JSON can hold it; what JSON cannot hold becomes a problem, and null."""
    if isinstance(value, Mapping):
        return {key: _plain(inner, (*keys, key), problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, (*keys, index), problems) for index, inner in enumerate(value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        problems.append(Problem(keys, "the number does not fit in 64 bits"))
        return None
    if not isinstance(value, str | int | float):
        problems.append(Problem(keys, "dates and times are not used; a text needs quotes"))
        return None
    return value


def _problem(details: Any, data: Mapping[str, Any], described: Mapping[str, Any]) -> Problem:
    """Say one of pydantic's errors in our words."""
    keys, value = _follow(details["loc"], data)
    kind, name = details["type"], str(details["loc"][-1] if details["loc"] else "")
    if kind in ("missing", "missing_argument"):
        return Problem((*keys, name), f"missing key {name!r}")
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        fields = list(_properties(described, described, keys[:-1]))
        return Problem(keys, f"unknown key {name!r}{did_you_mean(name, fields)}", at_value=False)
    if kind in ("enum", "literal_error") and isinstance(value, str):
        choices = list(_choices(described, described, keys))
        return Problem(keys, f"{value!r} is not one of {', '.join(choices)}{did_you_mean(value, choices)}")
    if kind == "value_error":
        return Problem(keys, str(details["ctx"]["error"]))
    what = re.sub(r"^(Input|String|Tuple|List|Dictionary|Value) ", "", details["msg"]).replace(" after validation", "")
    what = what.replace("an object", "a table")  # pydantic speaks of JSON
    subject = next((f"{key!r} " for key in reversed(keys) if isinstance(key, str)), "")
    tells = kind.endswith(("_type", "_parsing")) or kind in ("enum", "literal_error", "string_pattern_mismatch")
    given = f", not {_word(value)}" if tells else ""
    return Problem(keys, f"{subject}{what[:1].lower()}{what[1:]}{given}")


def _is_echo(details: Any, data: Mapping[str, Any]) -> bool:
    """Whether an array is called too short only because pydantic does not count the items that are wrong themselves."""
    _, value = _follow(details["loc"], data)
    return bool(details["type"] == "too_short" and len(value) >= details["ctx"]["min_length"])


def _follow(location: Keys, data: Any) -> tuple[Keys, Any]:
    """Follow pydantic's location into the document; steps that only pydantic knows (a union's member) are left out."""
    keys: Keys = ()
    for step in location:
        inner: Any = data if isinstance(data, Mapping) else dict(enumerate(data)) if isinstance(data, list) else {}
        if step in inner:
            keys, data = (*keys, step), inner[step]
    return keys, data


def _word(value: Any) -> str:
    for kind, word in (
        (bool, f"the boolean {str(value).lower()}"),
        (str, f"the text {value!r}"),
        (int, f"the number {value}"),
        (float, f"the number {value}"),
        (list, "an array"),
        (Mapping, "a table"),
    ):
        if isinstance(value, kind):
            return word
    return "a date or time"


def _nodes(root: Mapping[str, Any], node: Mapping[str, Any], keys: Keys) -> Iterator[Mapping[str, Any]]:
    """Walk a JSON schema along `keys`: all nodes that may describe what is there."""
    if "$ref" in node:
        yield from _nodes(root, root["$defs"][node["$ref"].rpartition("/")[2]], keys)
        return
    for inner in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        yield from _nodes(root, inner, keys)
    if not keys:
        yield node
        return
    head, *rest = keys
    if isinstance(head, int):
        below = [node.get("items")]
    elif head in node.get("properties", {}):
        below = [node["properties"][head]]
    else:  # a mapping's values; a pattern is of its keys
        below = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    for inner in below:
        if isinstance(inner, Mapping):
            yield from _nodes(root, inner, tuple(rest))


def _properties(root: Mapping[str, Any], node: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    for found in _nodes(root, node, keys):
        yield from found.get("properties", ())


def _choices(root: Mapping[str, Any], node: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    for found in _nodes(root, node, keys):
        yield from map(str, found.get("enum", ()))
        if "const" in found:
            yield str(found["const"])


def _position(text: str, places: Mapping[Keys, Place], problem: Problem) -> tuple[int, int]:
    """Return the line and column, from 1, of a problem."""
    keys = problem.keys
    while keys and keys not in places:
        keys = keys[:-1]
    if not keys:
        return 1, 1
    place = places[keys]
    offset = place.value if problem.at_value and keys == problem.keys else place.key
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_NAME = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_SCALAR = re.compile(
    r'''"""(?:\\.|[^\\])*?"""(?:"{0,2})|\'\'\'.*?\'\'\'(?:'{0,2})'''  # a closing quote may follow up to two of the text
    r"""|"(?:\\.|[^"\\])*"|'[^']*'"""
    r"""|\d{4}-\d\d-\d\d[ ]\d[^\s,\]}#]*|[^\s,\]}#]+""",
    re.DOTALL,
)


def locate(text: str) -> dict[Keys, Place]:
    """Find every key and value of a TOML text that tomli has accepted (it tells no positions of what is right)."""
    locator = _Locator(text)
    locator.run()
    return locator.found


class _Locator:
    """Goes through a TOML text once; it trusts that the text is valid."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Keys, Place] = {}
        self.sizes: dict[Keys, int] = {}  # arrays of tables: the number of elements up to here

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
        """Take a key, dotted or not: each name with its offset."""
        while True:
            start = self.skip()
            raw = self.match(_NAME).group()
            self.at += len(raw)
            yield (next(iter(tomli.loads(f"{raw} = 0"))), start)
            if not self.take("."):
                return

    def header(self) -> Keys:
        """Take `[a.b]` or `[[a.b]]`; return where the keys below it belong."""
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
        self.found[keys] = Place(start, start)  # in place of one that was only implied by `[a.b.c]`
        return keys

    def last(self, keys: Keys, start: int) -> Keys:
        """Note a table that a header implies; in an array of tables the last element is meant."""
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
