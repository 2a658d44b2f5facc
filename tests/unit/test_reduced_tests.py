"""Reducing a list of tests: CPython's tool is run in the target, and what it leaves fails again."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from crossjit.engine.base import EngineFacts
from crossjit.errors import InfrastructureError, Interrupted, UserError
from crossjit.images import Image, Role
from crossjit.model import Arch, Cell, Expectation, Variant
from crossjit.reduction import test_list
from crossjit.reduction.script import End
from crossjit.reduction.test_list import LEFT, TestReduction
from crossjit.report import reduction as report
from crossjit.validation.target import Target
from tests.fakes.engine import FakeEngine, FakeProcess
from tests.unit.build_fakes import RecordingProgress

EVERY = ("test.test_a.T.test_1", "test.test_a.T.test_2", "test.test_b.T.test_1")
NEEDED = {EVERY[1], EVERY[2]}


@contextlib.contextmanager
def tree() -> Iterator[BinaryIO]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("usr/local/bin/python3"), io.BytesIO())
    stream.seek(0)
    yield stream


class Python:
    """A CPython whose test_b fails after a test of test_a. `ends` is how its bisection ends."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.left: bytes | None = "\n".join([*sorted(NEEDED), "no test"]).encode()
        self.fails = True
        self.fails_again = True
        self.ends: str | BaseException = "Bisection completed in 3 iterations and 0:00:12"

    def __call__(self, process: FakeProcess) -> int:
        self.calls.append(process.argv)
        if "--list-cases" in process.argv:
            for line in (*EVERY, "2 tests were skipped"):
                process.write_line(line)
            return 0
        if "test.bisect_cmd" not in process.argv:
            again = "--matchfile" in process.argv
            return 2 if (self.fails_again if again else self.fails) else 0
        process.write_line("[+] Iteration 2/1000: run 1 tests/2")
        if self.left is not None:
            process.write_file(LEFT, self.left)
        if isinstance(self.ends, BaseException):
            raise self.ends
        process.write_line(self.ends)
        return 0


@pytest.fixture
def python(fake_engine: FakeEngine) -> Python:
    fake_engine.programs["python3"] = python = Python()
    return python


def reduce(engine: FakeEngine) -> TestReduction:
    info = engine.add_image("target", arch=Arch.X86_64)
    image = Image("target", info.id, "k", Role.TARGET, Arch.X86_64, "b", ())
    jit = Variant("jit", "", ("--enable-experimental-jit",), ("jit",), Expectation.MACHINE_CODE)
    target = Target(image, "a", tree, Cell("3.15", Arch.X86_64, "jit"), jit, (3, 15), "t", {})
    facts = EngineFacts("fake", "1", None, Arch.X86_64, 2, 8 << 30)
    ctx: Any = SimpleNamespace(engine=engine, facts=facts, progress=RecordingProgress())
    return test_list.reduce(ctx, target, ["test_a", "test_b"], minutes=2)


def test_the_tests_that_fail_together(fake_engine: FakeEngine, python: Python) -> None:
    done = reduce(fake_engine)
    assert (done.before, done.tests, done.rounds, done.end) == (3, EVERY[1:], 2, End.SMALLEST)
    _, whole, bisection, again = python.calls
    assert whole[-4:] == ("-m", "test", "test_a", "test_b")
    assert bisection[-2:] == ("test_a", "test_b")
    assert again[-4:] == ("--matchfile", LEFT, "test_a", "test_b")
    text = report.tests_as_text(done, Path("/x/tests.txt"))
    assert "tests:     3 → 2; nothing more can be left out" in text
    assert text.endswith(f"  {EVERY[2]}")
    assert report.tests_as_json(done)["tests"] == [*EVERY[1:]]


def test_modules_that_pass(fake_engine: FakeEngine, python: Python) -> None:
    python.fails = False
    with pytest.raises(UserError, match=r"test_a, test_b pass in 3\.15/x86_64/jit"):
        reduce(fake_engine)
    assert not any("test.bisect_cmd" in call for call in python.calls)


def test_the_time_is_up(fake_engine: FakeEngine, python: Python) -> None:
    python.ends = "Tests failed: continuing with this subtest"
    assert reduce(fake_engine).end is End.TIME


@pytest.mark.parametrize(("left", "tests"), [(None, EVERY), (EVERY[0].encode(), EVERY[:1])])
def test_an_interruption_keeps_the_fewest_so_far(
    fake_engine: FakeEngine, python: Python, left: bytes | None, tests: tuple[str, ...]
) -> None:
    python.ends, python.left = Interrupted("Ctrl-C"), left
    done = reduce(fake_engine)
    assert (done.end, done.tests) == (End.INTERRUPTED, tests)
    assert len(python.calls) == 3, "it is not run again"


def test_an_intermittent_failure(fake_engine: FakeEngine, python: Python) -> None:
    python.fails_again = False
    with pytest.raises(InfrastructureError, match="pass when they run again") as failed:
        reduce(fake_engine)
    assert failed.value.details == EVERY[1:]


def test_tests_that_cannot_be_listed(fake_engine: FakeEngine) -> None:
    def broken(process: FakeProcess) -> int:
        process.write_line("ModuleNotFoundError: No module named 'test.test_a'")
        return 1

    fake_engine.programs["python3"] = broken
    with pytest.raises(UserError, match="cannot be listed: exit status 1") as refused:
        reduce(fake_engine)
    assert refused.value.details == ("ModuleNotFoundError: No module named 'test.test_a'",)
