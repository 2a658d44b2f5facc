"""What `--tests` names, held against the suites' documents and the source before anything is built."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

import pytest

from crossjit import sources
from crossjit.errors import UserError
from crossjit.pipeline import named_tests

SOURCE = cast(sources.Source, type("Source", (), {"version": "3.15.0"}))


@pytest.fixture(autouse=True)
def tree(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A source with these files; the list says what was opened."""
    opened: list[str] = []
    names = ["test_zipapp.py", "test_dis.py", "test_asyncio/__init__.py", "test_gdb/__init__.py", "data/test_no.py"]

    @contextmanager
    def open_tar(source: sources.Source) -> Iterator[BinaryIO]:
        opened.append(source.version)
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(f"Python-3.15.0/Lib/test/{name}"))
        written.seek(0)
        yield written

    monkeypatch.setattr(sources, "open_tar", open_tar)
    return opened


def check(pattern: str, *suites: str) -> None:
    named_tests.require([pattern], suites)
    named_tests.require_modules([pattern], suites, [SOURCE])


@pytest.mark.parametrize(
    ("pattern", "suites"),
    [
        ("test_dis", ["jit"]),
        ("test_dis", ["ft-smoke", "jit"]),
        ("test.test_dis.DisTests.test_opmap", ["jit"]),
        ("test_dis.DisTests", ["jit"]),
        ("test_asyncio.test_tasks.*", ["jit-stress"]),
        ("test_gdb", ["jit"]),
        ("test_gdb.test_jit.JitTests", ["jit"]),
        ("test_gdb.test_*", ["jit"]),
        ("test_opmap", ["jit"]),  # a method's name
        ("test_no", ["jit"]),  # a file that is no module of the tests
        ("*generator*", ["jit"]),
        ("test_d*.DisTests.*", ["jit"]),
        ("ft_workload.handover", ["ft-smoke"]),
        ("test_zipapp", ["full"]),
        ("test.test_zipapp.X.test_y", ["full"]),
    ],
)
def test_what_a_suite_may_have_passes(pattern: str, suites: list[str]) -> None:
    check(pattern, *suites)


@pytest.mark.parametrize(
    ("pattern", "suites", "said", "hint"),
    [
        ("test_zipapp", ["jit"], "the suite jit has no test_zipapp", "add --suite full"),
        ("test.test_zipapp", ["jit"], "the suite jit has no test_zipapp", "add --suite full"),
        ("test.test_zipapp.ZipAppTest.test_x", ["jit"], "the suite jit has no test_zipapp", "add --suite full"),
        ("test_asyncio.test_tasks", ["jit"], "the suite jit has no test_asyncio", "add --suite jit-stress"),
        ("test_dis.DisTests", ["ft-smoke"], "the suite ft-smoke has no test_dis", "add --suite jit"),
        ("test_zipapp", ["jit", "ft-smoke"], "none of the suites jit, ft-smoke has test_zipapp", "add --suite full"),
        ("DisTests.test_opmap", ["jit"], "the suite jit has no DisTests", "begin with the module"),
        ("test_nothing.X", ["full"], "CPython 3.15.0 has no module 'test_nothing'", "such as test_dict"),
    ],
)
def test_what_no_suite_can_run_is_refused(pattern: str, suites: list[str], said: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        check(pattern, *suites)
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_a_full_name_is_decided_without_the_source(tree: list[str]) -> None:
    with pytest.raises(UserError):
        named_tests.require(["test_zipapp.ZipAppTest"], ["jit"])
    named_tests.require_modules(["test_dis", "*x*"], ["jit"], [SOURCE])
    named_tests.require_modules([], ["jit"], [SOURCE])
    assert tree == []
