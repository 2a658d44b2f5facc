"""Parses JSON from a container into strict types, with limits on all text and numbers. Pure."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, TypeAdapter, ValidationError

from crossjit.errors import ProductError
from crossjit.util.budget import BUDGET

T = TypeVar("T")

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$", max_length=200)]  # a file name: no path
Identity = Annotated[
    str, Field(pattern=r"^[0-9]{3,6}(-[A-Za-z0-9_.+-]+)?$", max_length=150)
]  # the runner's id of a job
Signal = Annotated[str, Field(pattern=r"^(SIG[A-Z0-9+-]{1,20}|signal [0-9]{1,3})$")]
Word = Annotated[str, Field(max_length=300)]
Line = Annotated[str, Field(max_length=4_000)]
Text = Annotated[str, Field(max_length=BUDGET.line)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Offset = Annotated[int, Field(ge=-(1 << 53), le=1 << 53)]
Seconds = Annotated[float, Field(ge=0, le=1e8, allow_inf_nan=False)]
Names = Annotated[tuple[Word, ...], Field(max_length=10_000)]
Lines = Annotated[tuple[Line, ...], Field(max_length=10_000)]
Table = Annotated[dict[Word, Text], Field(max_length=2_000)]

# Lone surrogates such as `\ud800` are not characters; scripts write them for names that are not UTF-8.
_ESCAPES = re.compile(
    r"\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


class MalformedError(ProductError):
    """Data from a container does not have the expected form."""


def read(kind: type[T], text: str, *, limit: int = BUDGET.line, lenient: bool = False) -> T:
    """Parse JSON as a value of this type. Raises MalformedError, with the path and the error.

    `limit` is in characters; `lenient` ignores unknown fields, for records of different versions.
    """
    if len(text) > limit:
        raise MalformedError(f"longer than {limit:,} characters")
    content = clean(text).encode("utf-8", "replace")
    try:
        value: T = _adapter(cast(Any, kind)).validate_json(content, extra="ignore" if lenient else None)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:100]
        problem = first["msg"].removeprefix("Value error, ")
        raise MalformedError((f"{place}: {problem}" if place else problem)[:300]) from error
    return value


def clean(text: str) -> str:
    """Replace escaped lone surrogates."""
    return _ESCAPES.sub(lambda match: r"\ufffd" if match[1] else match[0], text)


def value_of(text: str) -> dict[str, Any]:
    """Return a text that `read` has accepted as JSON values."""
    return dict(json.loads(clean(text)))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
