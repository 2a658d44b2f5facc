"""Scripts of workflow steps: which commands they run, without running them."""

from __future__ import annotations

from textwrap import dedent

import pytest

from crossjit.upstream.expressions import UNKNOWN_TEXT
from crossjit.upstream.shell import Invocation, ShellError, interpret


def commands(script: str, env: dict[str, str] | None = None) -> list[Invocation]:
    return interpret(dedent(script), env or {}).commands


def argv(script: str, env: dict[str, str] | None = None) -> list[tuple[str, ...]]:
    return [command.argv for command in commands(script, env)]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("./configure --a 'b c' \"d  e\"", ("./configure", "--a", "b c", "d  e")),
        ("./configure \\\n  --a \\\n  --b", ("./configure", "--a", "--b")),
        ("x $A ${A} \"$A\" '$A'", ("x", "1", "2", "1", "2", "1 2", "$A")),
        ("x $EMPTY --y", ("x", "--y")),
        ('x --z="$A/b"', ("x", "--z=1 2/b")),
        ("x $NOBODY ${A:-3} $(date) `date`", ("x", *(UNKNOWN_TEXT,) * 4)),
        ("x a\\ b", ("x", "a b")),
        ("x 2>&1 > out", ("x",)),
    ],
)
def test_words(script: str, words: tuple[str, ...]) -> None:
    assert argv(script, {"A": "1 2", "EMPTY": ""}) == [words]


def test_variables() -> None:
    script = """
        HIDDEN=1
        export CC=clang-21 HOST=x
        HIDDEN=2
        export HIDDEN
        A="$CC x" B="$A" ./configure
        make
    """
    configure, make = commands(script, {"HOME": "/root"})
    assert configure.env == {
        "HOME": "/root",
        "HIDDEN": "2",
        "CC": "clang-21",
        "HOST": "x",
        "A": "clang-21 x",
        "B": "clang-21 x",
    }
    assert configure.line == 6
    assert "A" not in make.env


def test_branches() -> None:
    script = """
        if [ "{}" = "true" ]; then
          export CC=clang
        else
          export CC=gcc
        fi
        ./configure
    """
    for value, compiler in (("true", "clang"), ("", "gcc")):
        (configure,) = commands(script.format(value))
        assert configure.env["CC"] == compiler
    assert argv('if [[ a != b ]]; then x; fi; if [ "$A" == b ]; then y; fi', {"A": "a"}) == [("x",)]
    with pytest.raises(ShellError, match="not known") as caught:
        commands(script.format("$NOBODY"))
    assert caught.value.line == 2


def test_lists_and_pipelines() -> None:
    script = "set -o pipefail; make -j 2>&1 | tee out && ./python -m test || true"
    assert argv(script) == [
        *(("set", "-o", "pipefail"), ("make", "-j"), ("tee", "out"), ("./python", "-m", "test"), ("true",)),
    ]


def test_what_is_left_to_later_steps() -> None:
    script = """
        echo "CC=clang" >> "$GITHUB_ENV"
        echo DIR="$HOME/x y" >> $GITHUB_ENV
        echo "no" >> other
    """
    result = interpret(dedent(script), {"HOME": "/root"})
    assert result.later == {"CC": "clang", "DIR": "/root/x y"}
    assert [command.argv for command in result.commands] == [("echo", "no")]


@pytest.mark.parametrize("script", ["for a in b; do x; done", "while true; do x; done", "case a in b) x;; esac"])
def test_what_is_not_understood_is_an_error(script: str) -> None:
    with pytest.raises(ShellError, match="not understood") as caught:
        commands(f"x\n{script}")
    assert caught.value.line == 2
