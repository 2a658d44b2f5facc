"""GitHub's expressions: the values are those of its documentation, and of its runner where that says nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossjit.upstream.expressions import (
    UNKNOWN,
    UNKNOWN_TEXT,
    ExpressionError,
    evaluate,
    evaluate_condition,
    evaluate_text,
    interpolate,
)

CONTEXTS: dict[str, Any] = {
    "matrix": {"debug": True, "free-threading": "false", "empty": "", "Names": ["a", "b"], "ssl": {"version": "3.0"}},
    "inputs": {"sanitizer": "TSan"},
    "env": {"LLVM": "21"},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'it''s'", "it's"),
        ("0x1F", 31.0),
        ("-2.5e1", -25.0),
        ("true", True),
        ("NULL", None),
        ("matrix.debug && 'Debug' || 'Release'", "Debug"),
        ("matrix.nothing && 'Debug' || 'Release'", "Release"),
        ("!matrix.debug", False),
        ("matrix.empty || 'default'", "default"),
        ("fromJSON(matrix.free-threading) && 'yes' || 'no'", "no"),
        ("matrix.free-threading && 'yes' || 'no'", "yes"),  # a string that is not empty
        ("inputs.SANITIZER == 'tsan'", True),
        ("matrix.ssl.version", "3.0"),
        ("matrix['ssl']['version']", "3.0"),
        ("matrix.names[1]", "b"),
        ("matrix.names[7]", None),
        ("1 == '1'", True),
        ("null == ''", True),
        ("null == 0", True),
        ("null != false", False),  # both count as 0
        ("matrix.nothing != false", False),
        ("'a' == 0", False),
        ("'a' < 'B'", True),
        ("2 >= 2 && 1 < 2 && 3 > 2 && 1 <= 1 && 1 != 2", True),
        ("contains(matrix.names, 'A')", True),
        ("contains('hello', 'ELL')", True),
        ("startsWith('Hello', 'he') && endsWith('Hello', 'LO')", True),
        ("format('{0}-{{1}}-{1}', 'a', 2)", "a-{1}-2"),
        ("join(matrix.names)", "a,b"),
        ("join(matrix.names, ' ')", "a b"),
        ("toJSON('x')", '"x"'),
        ("success() && always() && !failure() && !cancelled()", True),
        ("(false || true) && 'x'", "x"),
    ],
)
def test_known_values(expression: str, value: object) -> None:
    result = evaluate(expression, CONTEXTS)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "expression",
    [
        *("github.ref", "needs.build.outputs.run == 'true'", "steps.cache.outputs.hit != 'true' || true"),
        *("!steps.x", "hashFiles('x')", "format('{0}', steps.x)", "matrix[steps.x]", "toJSON(needs)"),
    ],
)
def test_what_only_a_running_workflow_knows(expression: str) -> None:
    assert evaluate(expression, CONTEXTS) is UNKNOWN
    assert evaluate_condition(expression, CONTEXTS) is None


def test_what_decides_is_enough() -> None:
    assert evaluate("false && steps.x", CONTEXTS) is False
    assert evaluate("true || steps.x", CONTEXTS) is True


@pytest.mark.parametrize(
    "expression",
    ["", "1 +", "a b", "'open", "unknown.name", "nofunction()", "fromJSON('{')", "format('{3}', 1)", "format('{')"],
)
def test_what_is_not_understood_is_an_error(expression: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(expression, CONTEXTS)


def test_text() -> None:
    assert interpolate("a ${{ matrix.debug && '}}' || 1 }} b ${{ 3.0 }}${{ null }}", CONTEXTS) == "a }} b 3"
    assert interpolate("llvm-${{ env.LLVM }} ${{ github.ref }}", CONTEXTS) == f"llvm-21 {UNKNOWN_TEXT}"
    assert evaluate_text(" ${{ matrix.debug }} ", CONTEXTS) is True
    assert evaluate_text("x${{ matrix.debug }}", CONTEXTS) == "xtrue"
    with pytest.raises(ExpressionError, match="invalid expression"):
        interpolate("a ${{ open", CONTEXTS)


@pytest.mark.parametrize(("text", "holds"), [("matrix.debug", True), ("${{ 0 }}", False), ("'x'", True), ("''", False)])
def test_conditions(text: str, holds: bool) -> None:
    assert evaluate_condition(text, CONTEXTS) is holds
    assert evaluate_condition("nan", CONTEXTS) is False
    assert math.isnan(evaluate("nan", CONTEXTS))  # type: ignore[arg-type]


def test_odd_text_takes_no_exponential_time() -> None:
    with pytest.raises(ExpressionError):
        interpolate("${{ " + "'" * 200 + "x", CONTEXTS)
    with pytest.raises(ExpressionError):
        evaluate("(" * 100_000, CONTEXTS)
    with pytest.raises(ExpressionError):
        evaluate("!" * 100_000 + "true", CONTEXTS)


@given(st.text(alphabet="matrix.debug&|!=<>'()[]{}, 0x1e+-nul\n", max_size=40))
def test_any_text_has_a_value_or_is_an_error(text: str) -> None:
    try:
        evaluate(text, CONTEXTS)
    except ExpressionError as error:
        assert str(error)
