from __future__ import annotations

import enum
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, Field

from crossjit.config import documents
from crossjit.config.documents import Problem
from crossjit.config.positions import Keys, locate
from crossjit.errors import DocumentError, ExitCode


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


def even(number: int) -> int:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number


@documents.table
class Part:
    count: int
    """How many."""
    colour: Colour = Colour.RED
    pair: Annotated[int, AfterValidator(even)] = 0


@documents.table
class Whole:
    name: str
    flags: tuple[str, ...] = ()
    parts: Mapping[str, Part] = Field(default_factory=dict)
    many: tuple[Part, ...] = ()
    one: Part | None = None
    ratio: float = 1.0
    on: bool = False
    code: Annotated[str, Field(pattern="^[a-z]+$")] = "a"


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def errors_of(folder: Path, text: str | bytes) -> list[str]:
    """Return the details that loading this text gives, without the file's name."""
    path = write(folder, text)
    with pytest.raises(DocumentError) as caught:
        documents.load(path, Whole)
    error = caught.value
    count = len(error.details)
    assert error.message == f"{path}: {count} error{'s' if count > 1 else ''}"
    assert error.hint
    assert error.exit_code is ExitCode.USER
    assert all(detail.startswith(f"{path}:") for detail in error.details)
    return [detail.removeprefix(f"{path}:") for detail in error.details]


def test_a_right_document_becomes_a_frozen_value(tmp_path: Path) -> None:
    text = 'name = "x"\nflags = ["a", "b"]\nratio = 2\n[parts.p]\ncount = 1\ncolour = "green"\n[[many]]\ncount = 2\n'
    whole = documents.load(write(tmp_path, text), Whole)
    assert whole == Whole("x", ("a", "b"), {"p": Part(1, Colour.GREEN)}, (Part(2),), ratio=2.0)
    with pytest.raises(AttributeError):
        whole.name = "y"  # type: ignore[misc]


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    assert documents.load(write(tmp_path, b'\xef\xbb\xbfname = "x"\r\non = true\r\n'), Whole) == Whole("x", on=True)
    assert errors_of(tmp_path, b'\xef\xbb\xbfname = "x"\r\n\r\nbad = 1\r\n') == ["3:1: unknown key 'bad'"]


def test_every_error_is_reported_at_once_with_its_place(tmp_path: Path) -> None:
    text = """\
# a comment
nmae = "x"
flags = ["a",
  3, true]
  ratio = "1"
when = 1979-05-27 07:32:00
on = 1
[parts."a.b"]
count = 1.5
colour = "gren"
pair = 3
[[many]]
count = 1
[[many]]
cuont = 1
[one]
count = {}
"""
    assert errors_of(tmp_path, text) == [
        "1:1: missing key 'name'",
        "2:1: unknown key 'nmae'; did you mean 'name'?",
        "4:3: 'flags' should be a valid string, not the number 3",
        "4:6: 'flags' should be a valid string, not the boolean true",
        "5:11: 'ratio' should be a valid number, not the text '1'",
        "6:1: unknown key 'when'",
        "6:8: dates and times are not used; a text needs quotes",
        "7:6: 'on' should be a valid boolean, not the number 1",
        "9:9: 'count' should be a valid integer, not the number 1.5",
        "10:10: 'gren' is not one of red, green; did you mean 'green'?",
        "11:8: 3 is odd",
        "14:3: missing key 'count'",
        "15:1: unknown key 'cuont'; did you mean 'count'?",
        "17:9: 'count' should be a valid integer, not a table",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 3.15", "1:8: 'name' should be a valid string, not the number 3.15"),
        ('name = "x"\nparts = []', "2:9: 'parts' should be a table, not an array"),
        ('name = "x"\nflags = "a"', "2:9: 'flags' should be a valid array, not the text 'a'"),
        ('name = "x"\nparts.p.count = 1\nparts.p.x = 1', "3:9: unknown key 'x'"),
        ('name = "x"\none = {colour = "red"}', "2:1: missing key 'count'"),
        ('name = "x"\none = {count = 1, "colour" = "blue"}', "2:30: 'blue' is not one of red, green"),
        ('name = "x"\ncode = "A1"', "2:8: 'code' should match pattern '^[a-z]+$', not the text 'A1'"),
        ('name = "x"\none.count = 9223372036854775808', "2:13: the number does not fit in 64 bits"),
        ("name = 2020-01-01", "1:8: dates and times are not used; a text needs quotes"),
        ('näme = "x"', "1:2: expected '=' after a key in a key/value pair"),
        ('name = "x"\nname = "y"', "2:11: cannot overwrite a value"),
        ('name = "x', "1:10: unterminated string"),
        ("a = 1\n\n[b\n", "3:3: expected ']' at the end of a table declaration"),
        (b'name = "x"\nf = "\xc3\xa9\xe9"', "2:7: byte 0xe9 is not UTF-8"),
        (b"\xe9", "1:1: byte 0xe9 is not UTF-8"),
    ],
)
def test_one_error_stands_where_it_is(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert errors_of(tmp_path, text) == [expected]


def test_what_no_parser_takes_is_no_traceback(tmp_path: Path) -> None:
    for text in ("a = " + "[" * 5000, "a = " + "9" * 5000, "a = 0x" + "f" * 9000):
        with pytest.raises(DocumentError):
            documents.load(write(tmp_path, text), Whole)


def test_a_missing_file_a_folder_and_a_forbidden_file_are_told_apart(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    with pytest.raises(DocumentError, match=r"b\.toml: there is no such file; did you mean 'a\.toml'\?"):
        documents.load(tmp_path / "b.toml", Whole)
    with pytest.raises(DocumentError, match=r"nowhere/b\.toml: there is no such file"):
        documents.load(tmp_path / "nowhere" / "b.toml", Whole)
    with pytest.raises(DocumentError, match="is a folder"):
        documents.load(tmp_path, Whole)
    with pytest.raises(DocumentError, match="cannot be read: Not a directory"):
        documents.load(path / "c.toml", Whole)
    if os.geteuid() != 0:
        path.chmod(0)
        with pytest.raises(DocumentError, match="cannot be read: Permission denied"):
            documents.load(path, Whole)


def test_problems_of_the_caller_are_reported_with_the_others(tmp_path: Path) -> None:
    document = documents.read(write(tmp_path, 'name = "x"\nflags = ["a", "b"]\nbad = 1\n'))
    also = [
        Problem(("flags", 1), "b is wrong"),
        Problem(("flags",), "too many", at_value=False),
        Problem(("q", 1), "no q"),
    ]
    with pytest.raises(DocumentError) as caught:
        documents.parse(document, Whole, also)
    places = [detail.removeprefix(f"{document.path}:") for detail in caught.value.details]
    assert places == ["1:1: no q", "2:1: too many", "2:15: b is wrong", "3:1: unknown key 'bad'"]
    with pytest.raises(DocumentError, match="1 error"):
        documents.parse(documents.read(write(tmp_path, 'name = "x"')), Whole, also[:1])


def test_errors_of_several_documents_become_one() -> None:
    first = DocumentError("a: 2 errors", details=("a:1:1: x", "a:2:1: y"))
    second = DocumentError("b: there is no such file")
    assert documents.together([first]) is first
    both = documents.together([first, second])
    assert both.message == "3 errors in 2 files"
    assert both.details == ("a:1:1: x", "a:2:1: y", "b: there is no such file")


def test_the_schema_describes_keys_and_knows_no_null() -> None:
    described = documents.schema(Whole)
    assert described["$schema"].startswith("https://json-schema.org/")
    assert described["required"] == ["name"]
    assert described["additionalProperties"] is False
    assert described["$defs"]["Part"]["properties"]["count"] == {
        "description": "How many.",
        "title": "Count",
        "type": "integer",
    }
    assert described["properties"]["one"] == {"$ref": "#/$defs/Part"}
    assert "null" not in str(described)


# The locator, against tomli


def test_locate_finds_keys_and_values() -> None:
    text = """\
a.b = 1 # [no]
'c' = [ 1, # one, "two"
  [2, {x = 3,y=4}], ]
[ "t.u" . v ]
s = \"\"\"
[x]
y = \\\"\"\" \"\"\"\"
l = '''# ' = '''
d = 1979-05-27 07:32:00Z # x
[[p]]
k = 1
[p.q]
k = 2
[[p]]
[[p.r]]
[p.r.s]
"""
    places = locate(text)

    def at(*keys: str | int) -> tuple[str, str]:
        place = places[keys]
        return text[place.key :].split("\n")[0], text[place.value :].split("\n")[0]

    assert at("a", "b") == ("b = 1 # [no]", "1 # [no]")
    assert at("c", 1, 1, "y") == ("y=4}], ]", "4}], ]")
    assert at("t.u") == ('"t.u" . v ]', '"t.u" . v ]')
    assert at("t.u", "v", "l")[1] == "'''# ' = '''"
    assert at("t.u", "v", "d")[1].startswith("1979")
    assert at("p", 1) == ("p]]", "p]]")
    assert at("p", 0, "q", "k")[1] == "2"
    assert set(places) == paths_of(tomli.loads(text))


def test_a_table_that_a_header_implies_stands_at_its_own_header() -> None:
    places = locate("[a.b]\nx = 1\n[a]\ny = 2\n")
    assert places["a",].key == 13
    assert places["a", "b"].key == 3
    assert locate("a.b = 1\na.c = 2\n")["a",].key == 0


def paths_of(value: Any, keys: Keys = ()) -> set[Keys]:
    inner = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return {(*keys, key) for key, _ in inner}.union(*(paths_of(below, (*keys, key)) for key, below in inner))


@dataclass(frozen=True)
class Scalar:
    """A value as it is written; no two in a text are the same."""

    form: int
    filling: str

    def render(self, number: int) -> str:
        one_line = self.filling.replace("\n", "")
        return (
            f"{number}",
            f"-{number}.5e3",
            f'"{number} {one_line}\\""',
            f"'{number} {one_line}'",
            f'"""{number} {self.filling}\\""" ""x"""',
            f'"""\n{number} {self.filling}"""""',
            f"'''{number} {self.filling}'' '''''",
            f"1979-05-27 07:32:00.{number}",
            f"1979-05-27T07:32:00.{number}+01:00",
            f"07:32:00.{number}",
        )[self.form]


@dataclass(frozen=True)
class Name:
    """A key as it is written, and what it is."""

    text: str
    quote: str

    @property
    def written(self) -> str:
        return f"{self.quote}{self.text}{self.quote}"


BARE = string.ascii_letters + string.digits + "-_"
FILLING = st.text("ab =[]{}#,.\n\tä☃", max_size=6)
names = st.one_of(
    st.text(BARE, min_size=1, max_size=3).map(lambda text: Name(text, "")),
    st.tuples(st.text("ab =[]{}#,.ä", max_size=4), st.sampled_from("\"'")).map(lambda pair: Name(*pair)),
)
scalars = st.builds(Scalar, st.integers(0, 9), FILLING)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.lists(st.tuples(names, inner), max_size=3).map(tuple)),
    max_leaves=6,
)
pairs = st.lists(st.tuples(st.lists(names, min_size=1, max_size=3), values), max_size=4)
headers = st.lists(st.tuples(st.booleans(), st.lists(names, min_size=1, max_size=3), pairs), max_size=5)
gaps = st.sampled_from(["", " ", "\t ", "  "])
wide_gaps = st.sampled_from(["", " ", "\n", "# [c] = {\n", " \n\t# ]\n"])


class Writer:
    """Writes TOML, and notes where it wrote which scalar."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.text = ""
        self.scalars: dict[int, str] = {}

    def add(self, *parts: str, gap: st.SearchStrategy[str] = gaps) -> None:
        for part in parts:
            self.text += part + self.data.draw(gap)

    def key(self, key: list[Name]) -> None:
        for index, name in enumerate(key):
            self.add(*(["."] if index else []), name.written)

    def value(self, value: Any) -> None:
        if isinstance(value, Scalar):
            rendered = value.render(len(self.scalars) + 1)
            self.scalars[len(self.text)] = rendered
            self.add(rendered)
        elif isinstance(value, list):
            self.add("[", gap=wide_gaps)
            for inner in value:
                self.value(inner)
                self.add(",", gap=wide_gaps)
            self.add("]")
        else:
            self.add("{")
            for index, (name, inner) in enumerate(value):
                self.add(*([","] if index else []))
                self.key([name])
                self.add("=")
                self.value(inner)
            self.add("}")

    def pairs(self, pairs: list[tuple[list[Name], Any]]) -> None:
        for key, value in pairs:
            self.key(key)
            self.add("=")
            self.value(value)
            self.text += "\n"


@settings(deadline=None)  # the machine may be busy
@given(st.data(), pairs, headers)
def test_locate_finds_what_tomli_finds(
    data: st.DataObject, top: list[Any], tables: list[tuple[bool, list[Name], list[Any]]]
) -> None:
    writer = Writer(data)
    writer.pairs(top)
    for array, key, inner in tables:
        before = writer.text, dict(writer.scalars)
        writer.text += "[[" if array else "["
        writer.key(key)
        writer.text += "]]\n" if array else "]\n"
        writer.pairs(inner)
        try:
            tomli.loads(writer.text)
        except tomli.TOMLDecodeError:
            writer.text, writer.scalars = before
    try:
        parsed = tomli.loads(writer.text)
    except tomli.TOMLDecodeError:
        return  # keys of the top clash
    places = locate(writer.text)
    assert set(places) == paths_of(parsed)
    located = {place.value for place in places.values()}
    assert located >= set(writer.scalars)
    for keys, place in places.items():
        if isinstance(keys[-1], str):
            rest = writer.text[place.key :]
            assert rest.startswith((keys[-1], f'"{keys[-1]}"', f"'{keys[-1]}'")), keys
        value: Any = parsed
        for step in keys:
            value = value[step]
        if place.value in writer.scalars:
            assert tomli.loads(f"v = {writer.scalars[place.value]}") == {"v": value}


@settings(deadline=None)  # the machine may be busy
@given(st.text(alphabet="ab=[]{}\"'\n.,# 1", max_size=40))
def test_locate_takes_any_text_that_tomli_takes(text: str) -> None:
    try:
        parsed = tomli.loads(text)
    except tomli.TOMLDecodeError:
        return
    assert set(locate(text)) == paths_of(parsed)


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=60))
def test_no_bytes_make_a_traceback(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(raw)
    with pytest.raises(DocumentError):
        documents.load(path, Whole)
