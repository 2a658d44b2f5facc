"""Evaluate the expressions of GitHub Actions: `${{ matrix.debug && 'Debug' || 'Release' }}`.

The rules are those of https://docs.github.com/en/actions/reference/workflows-and-actions/expressions, as if every
earlier step had succeeded. Contexts that exist only while a workflow runs, such as `steps`, are `UNKNOWN`, and so is
what depends on them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import LarkError


class ExpressionError(ValueError):
    """An expression that is invalid, or whose meaning is not implemented here."""


class Unknown:
    """A value that only a running workflow knows."""

    def __repr__(self) -> str:
        return "UNKNOWN"


class Partial(dict[str, Any]):
    """A context of which only these members are known."""


UNKNOWN = Unknown()
UNKNOWN_TEXT = "\N{REPLACEMENT CHARACTER}"  # stands for such a value in interpolated text

Value = Unknown | None | bool | float | str | Sequence[Any] | Mapping[str, Any]
Contexts = Mapping[str, Value]

CONTEXTS = frozenset(
    {"env", "github", "inputs", "job", "jobs", "matrix", "needs", "runner", "secrets", "steps", "strategy", "vars"}
)
_CONSTANTS: Mapping[str, Value] = {"true": True, "false": False, "null": None, "infinity": math.inf, "nan": math.nan}
# possessive, so that a long run of quotes takes no exponential time
_EXPRESSION = re.compile(r"\$\{\{((?>'(?:[^']|'')*+'|[^'}]|\}(?!\}))*+)\}\}")
_NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)


def evaluate(expression: str, contexts: Contexts) -> Value:
    """Evaluate an expression without its `${{ }}`. Raises ExpressionError."""
    try:
        return _value(_grammar().parse(expression), contexts)
    except (LarkError, RecursionError) as error:
        raise ExpressionError(f"invalid expression {expression.strip()[:200]!r}") from error


def evaluate_text(text: str, contexts: Contexts) -> Value:
    """Return the value of a text that is one expression as a whole, and other text interpolated.

    Raises ExpressionError.
    """
    whole = _EXPRESSION.fullmatch(text.strip())
    return evaluate(whole[1], contexts) if whole else interpolate(text, contexts)


def evaluate_condition(text: str, contexts: Contexts) -> bool | None:
    """Evaluate an `if:`, which needs no `${{ }}`; None if only a running workflow knows. Raises ExpressionError."""
    whole = _EXPRESSION.fullmatch(text.strip())
    value = evaluate(whole[1] if whole else text, contexts)
    return None if value is UNKNOWN else is_true(value)


def interpolate(text: str, contexts: Contexts) -> str:
    """Replace the expressions in a text by their values, `UNKNOWN_TEXT` for unknown ones. Raises ExpressionError."""
    replaced = _EXPRESSION.sub(lambda match: text_of(evaluate(match[1], contexts)), text)
    if "${{" in replaced and _EXPRESSION.sub("", text).find("${{") >= 0:
        raise ExpressionError(f"invalid expression in {text.strip()!r}")
    return replaced


def is_true(value: Value) -> bool:
    """Tell whether a known value counts as true: all do but false, 0, NaN, null and the empty string."""
    if isinstance(value, (int, float)):
        return value != 0 and not math.isnan(value)
    return value is not None and value != ""


def text_of(value: Value) -> str:
    """Return a value as GitHub writes it into text."""
    match value:
        case Unknown():
            return UNKNOWN_TEXT
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:.15G}"
        case str():
            return value
        case Mapping():
            return "Object"
    return "Array"


def _number_of(value: Value) -> float:
    match value:
        case None:
            return 0.0
        case bool() | int() | float():
            return float(value)
        case str():
            text = value.strip()
            if not text:
                return 0.0
            if not _NUMBER.fullmatch(text):
                return math.nan
            return float(int(text, 16)) if text.lower().startswith("0x") else float(text)
    return math.nan


@cache
def _grammar() -> Lark:
    return Lark(resources.files(__package__).joinpath("expressions.lark").read_text(encoding="utf-8"), parser="lalr")


def _value(node: Tree[Token] | Token, contexts: Contexts) -> Value:
    """Evaluate a node of the syntax tree; the right side of `&&` and `||` only if it decides."""
    assert isinstance(node, Tree)
    match str(node.data), node.children:
        case "string", [Token() as token]:
            return token[1:-1].replace("''", "'")
        case "number", [Token() as token]:
            return _number_of(str(token))
        case "name", [Token() as token]:
            return _named(str(token), contexts)
        case "not_", [operand]:
            value = _value(operand, contexts)
            return UNKNOWN if value is UNKNOWN else not is_true(value)
        case "and_" | "or_" as operator, [left, right]:
            value = _value(left, contexts)
            if value is UNKNOWN:
                return UNKNOWN
            return value if is_true(value) is (operator == "or_") else _value(right, contexts)
        case "member", [owner, Token() as token]:
            return _member(_value(owner, contexts), str(token))
        case "index", [owner, key]:
            return _member(_value(owner, contexts), _value(key, contexts))
        case "call", [Token() as token, *arguments]:
            return _call(str(token), [_value(each, contexts) for each in arguments if each is not None])
        case operator, [left, right]:
            return _compared(operator, _value(left, contexts), _value(right, contexts))
    raise ExpressionError(f"invalid expression: {node.data}")


def _named(name: str, contexts: Contexts) -> Value:
    folded = name.casefold()
    if folded in _CONSTANTS:
        return _CONSTANTS[folded]
    if folded not in CONTEXTS:
        raise ExpressionError(f"unknown name {name!r} in an expression")
    return contexts.get(folded, UNKNOWN)


def _member(owner: Value, key: Value) -> Value:
    if owner is UNKNOWN or key is UNKNOWN:
        return UNKNOWN
    if isinstance(owner, Mapping):
        folded = {name.casefold(): value for name, value in owner.items()}
        return folded.get(text_of(key).casefold(), UNKNOWN if isinstance(owner, Partial) else None)
    if isinstance(owner, Sequence) and not isinstance(owner, str):
        number = _number_of(key)
        return owner[int(number)] if 0 <= number < len(owner) else None
    return None


def _compared(operator: str, left: Value, right: Value) -> Value:
    """Compare two values; those of different types are compared as numbers, and strings without regard to case."""
    if left is UNKNOWN or right is UNKNOWN:
        return UNKNOWN
    one: Any
    two: Any
    if isinstance(left, str) and isinstance(right, str):
        one, two = left.casefold(), right.casefold()
    elif isinstance(left, (Mapping, Sequence)) and type(left) is type(right):
        one, two = id(left), id(right)
    else:
        one, two = _number_of(left), _number_of(right)
    match operator:
        case "eq":
            return bool(one == two)
        case "ne":
            return bool(one != two)
        case "lt":
            return bool(one < two)
        case "le":
            return bool(one <= two)
        case "gt":
            return bool(one > two)
        case "ge":
            return bool(one >= two)
    raise ExpressionError(f"invalid expression: {operator}")


def _call(name: str, arguments: Sequence[Value]) -> Value:
    function = _FUNCTIONS.get(name.casefold())
    if function is None:
        raise ExpressionError(f"unknown function {name!r} in an expression")
    if any(argument is UNKNOWN for argument in arguments):
        return UNKNOWN
    try:
        return function(*arguments)
    except (TypeError, IndexError, ValueError) as error:
        raise ExpressionError(f"invalid call of {name}: {error}") from error


def _contains(where: Value, item: Value) -> bool:
    if isinstance(where, Sequence) and not isinstance(where, str):
        return any(_compared("eq", each, item) is True for each in where)
    return text_of(item).casefold() in text_of(where).casefold()


def _format(template: Value, *values: Value) -> str:
    def pieces() -> Iterator[str]:
        for piece in re.split(r"(\{\{|\}\}|\{\d+\})", text_of(template)):
            if piece in ("{{", "}}"):
                yield piece[0]
            elif re.fullmatch(r"\{\d+\}", piece):
                yield text_of(values[int(piece[1:-1])])
            elif "{" in piece or "}" in piece:
                raise ValueError(f"invalid format {text_of(template)!r}")
            else:
                yield piece

    return "".join(pieces())


def _join(items: Value, separator: Value = ",") -> str:
    if isinstance(items, Sequence) and not isinstance(items, str):
        return text_of(separator).join(map(text_of, items))
    return text_of(items)


_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "contains": _contains,
    "startswith": lambda text, head: text_of(text).casefold().startswith(text_of(head).casefold()),
    "endswith": lambda text, end: text_of(text).casefold().endswith(text_of(end).casefold()),
    "format": _format,
    "join": _join,
    "tojson": lambda value: json.dumps(value, indent=2),
    "fromjson": lambda text: json.loads(text_of(text)),
    "hashfiles": lambda *patterns: UNKNOWN,
    "success": lambda: True,
    "always": lambda: True,
    "failure": lambda *jobs: False,
    "cancelled": lambda: False,
}
