"""TOML documents: parsed into frozen values, or every error at once, with file, line and column."""

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

from crossjit.config.positions import Keys, Place, locate
from crossjit.errors import DocumentError, did_you_mean
from crossjit.util.text import pluralize

T = TypeVar("T")

_DEPTH = 50  # of tables in tables; more would exceed Python's limit of recursion
_HINT = "correct these lines, then run the same command again"


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, pydantic.Field))
def table(cls: type[T]) -> type[T]:
    """Make a class the type of a TOML table: a frozen dataclass, strict, without unknown keys.

    A field's docstring is its description in the JSON schema.
    """
    config = pydantic.ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)
    return cast(type[T], pydantic.dataclasses.dataclass(frozen=True, config=config)(cls))


@dataclass(frozen=True)
class Document:
    """A file with valid TOML, not yet validated. `text` has Unix line ends; `data` is tomli's result."""

    path: Path
    text: str
    data: Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Problem:
    """An error in a document, located at the key at the path `keys`, or at its value.

    If that path does not exist, something is missing: the error is located at the innermost table that does.
    """

    keys: Keys
    what: str
    at_value: bool = True


def read(path: Path) -> Document:
    """Read a TOML file. Raises DocumentError if it is missing, cannot be read, or is not valid UTF-8 or TOML."""
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
    return decode(path, raw)


def decode(path: Path, raw: bytes) -> Document:
    """Make a document of a file's content. Raises DocumentError if it is not valid UTF-8 or TOML."""
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        # error.start counts from behind a byte order mark
        preceding = error.object[: error.start]
        line, column = preceding.count(b"\n") + 1, len(preceding[preceding.rfind(b"\n") + 1 :].decode()) + 1
        detail = f"{path}:{line}:{column}: byte 0x{error.object[error.start]:02x} is not UTF-8"
        raise DocumentError(f"{path}: 1 error", hint="save the file as UTF-8", details=(detail,)) from None
    try:
        data = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        detail = f"{path}:{error.lineno}:{error.colno}: {error.msg[:1].lower()}{error.msg[1:]}"
        raise DocumentError(f"{path}: 1 error", hint=_HINT, details=(detail,)) from None
    except (RecursionError, ValueError) as error:  # ValueError: an integer over Python's limit of digits
        raise DocumentError(f"{path}: cannot be read: {error}", hint=_HINT) from None
    return Document(path, text, data)


def parse(document: Document, into: type[T], also: Iterable[Problem] = ()) -> T:
    """Make a value from a document. `also` are the caller's problems, reported with the others.

    Raises DocumentError with every error at once.
    """
    problems: list[Problem] = []
    plain = _plain(document.data, (), problems)
    reported = {problem.keys for problem in problems}
    problems += also
    value = None
    try:
        value = _adapter(into).validate_json(json.dumps(plain), strict=True)
    except pydantic.ValidationError as error:
        described = schema(into)
        reworded = (
            _problem(details, document.data, described)
            for details in error.errors()
            if not _is_echo(details, document.data)
        )
        problems += (problem for problem in reworded if problem.keys not in reported or not problem.at_value)
    if problems:
        raise failure(document, problems)
    return cast(T, value)


def load(path: Path, into: type[T]) -> T:
    """Read a TOML file into a type made with `table`.

    Raises DocumentError: `message` is `path: N errors`; `details` has a line `path:line:column: error; did you mean
    'x'?` for each, in the file's order. Lines and columns count characters from 1.
    """
    return parse(read(path), into)


def failure(document: Document, problems: Iterable[Problem]) -> DocumentError:
    """Make the error that reports these problems of a document."""
    places = locate(document.text)
    located = sorted({(*_position(document.text, places, problem), problem.what) for problem in problems})
    details = tuple(f"{document.path}:{line}:{column}: {message}" for line, column, message in located)
    return DocumentError(f"{document.path}: {pluralize(len(details), 'error')}", hint=_HINT, details=details)


def lines(document: Document, keys: Iterable[Keys]) -> tuple[int, ...]:
    """Return the line numbers, from 1, of these keys of a document."""
    places = locate(document.text)
    return tuple(_position(document.text, places, Problem(path, "", at_value=False))[0] for path in keys)


def together(errors: Iterable[DocumentError]) -> DocumentError:
    """Combine the errors of several documents."""
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
    """Drop the nulls from a JSON schema: TOML has none."""
    if isinstance(node, list):
        return [_without_null(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    result = {key: _without_null(inner) for key, inner in node.items() if (key, inner) != ("default", None)}
    types = [inner for inner in result.get("anyOf", ()) if inner != {"type": "null"}]
    if len(types) == 1:
        del result["anyOf"]
        result = {**types[0], **result}
    return result


def _adapter(of: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(of)


def _plain(value: Any, keys: Keys, problems: list[Problem]) -> Any:
    """Return the value as JSON; a part that JSON cannot represent is null, and a problem."""
    if len(keys) > _DEPTH:
        problems.append(Problem(keys[:1], f"tables are nested more than {_DEPTH} deep"))
        return None
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
    """Reword one of pydantic's errors."""
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
    text = re.sub(r"^(Input|String|Tuple|List|Dictionary|Value) ", "", details["msg"]).replace(" after validation", "")
    text = text.replace("an object", "a table")  # pydantic speaks of JSON
    subject = next((f"{key!r} " for key in reversed(keys) if isinstance(key, str)), "")
    names_value = kind.endswith(("_type", "_parsing")) or kind in ("enum", "literal_error", "string_pattern_mismatch")
    suffix = f", not {_word(value)}" if names_value else ""
    return Problem(keys, f"{subject}{text[:1].lower()}{text[1:]}{suffix}")


def _is_echo(details: Any, data: Mapping[str, Any]) -> bool:
    """Whether pydantic calls an array too short only because it does not count invalid items."""
    _, value = _follow(details["loc"], data)
    return bool(details["type"] == "too_short" and len(value) >= details["ctx"]["min_length"])


def _follow(location: Keys, data: Any) -> tuple[Keys, Any]:
    """Follow pydantic's location into the document; steps outside of it (a union's member) are skipped."""
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
    """Yield all nodes of a JSON schema that may describe the value at `keys`."""
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
    else:  # a mapping's values; patternProperties match its keys
        below = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
    for inner in below:
        if isinstance(inner, Mapping):
            yield from _nodes(root, inner, tuple(rest))


def _properties(root: Mapping[str, Any], node: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    for described in _nodes(root, node, keys):
        yield from described.get("properties", ())


def _choices(root: Mapping[str, Any], node: Mapping[str, Any], keys: Keys) -> Iterator[str]:
    for described in _nodes(root, node, keys):
        yield from map(str, described.get("enum", ()))
        if "const" in described:
            yield str(described["const"])


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
