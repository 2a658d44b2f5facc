"""`known-failures check` has artifacts list their tests: once, in a container of its own, and whatever they say."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from crossjit.known_failures import entries
from crossjit.model import Arch
from tests.e2e import tiny_source
from tests.e2e.driver import Driver
from tests.written import GITHUB, OURS, check

pytestmark = pytest.mark.engine


def test_an_artifact_lists_its_tests_once(driver: Driver, recipe: Path, host_arch: Arch, foreign_arch: Arch) -> None:
    driver.run("build", "--recipe", recipe, "--arch", host_arch, "--arch", foreign_arch)
    checking = ("known-failures", "check", "--recipe", recipe, "--json")
    first = driver.run(*checking, expect=1)
    assert (first.json["recipes"], first.json["not_listed"]) == (["tiny"], [])
    number = len(entries.listed())
    # what the tiny source lists has none of them, on either arch
    assert [each["state"] for each in first.json["entries"]] == ["no such test"] * number
    assert {each["why"].partition(" (")[0] for each in first.json["entries"]} == {"no test of tiny matches"}
    assert [f"list tests tiny/{arch}/jit" in first.stderr for arch in (host_arch, foreign_arch)] == [True, True]
    kept = sorted((driver.settings.stash / "tests").iterdir())
    assert len(kept) == 2
    assert driver.leftovers() == []

    again_at = time.time()
    assert driver.run(*checking, expect=1).json == first.json
    assert driver.created_since(again_at) == []
    without = driver.with_environ(DOCKER_HOST="tcp://127.0.0.1:1")
    assert without.run(*checking, expect=1).json == first.json

    for path in kept:
        path.write_bytes(path.read_bytes()[:-1])
    told = without.run(*checking)
    assert told.json["not_listed"] == [f"tiny/{arch}/jit" for arch in (host_arch, foreign_arch)]
    assert {each["state"] for each in told.json["entries"]} == {"not tried"}
    assert "tests of artifacts cannot be listed" in told.stderr
    assert driver.run(*checking, expect=1).json == first.json

    driver.run("stash", "verify")
    driver.run("stash", "gc", "--keep-last", "0")
    assert list((driver.settings.stash / "tests").iterdir()) == []


HOSTILE = {
    "without an end": (
        'for (;;) { printf("%04000d\\n", 0); }',
        "wrote more than",
    ),
    "one line without an end": ("for (;;) { putchar('['); }", "wrote more than|names no tests"),
    "commands": (
        'fputs("\\033]0;title\\007\\033[2J::error::a\\n", stderr); return 1;',
        "cannot list its tests",
    ),
    "names that are commands": (
        'puts("{\\"tests\\": [\\"test.test_pty.PtyTest.test_for\\\\u001b[2J\\\\n::error::a\\"]}"); return 0;',
        "",
    ),
}


@pytest.mark.parametrize("program", HOSTILE)
def test_whatever_an_artifact_says_is_told_in_words(driver: Driver, tmp_path: Path, program: str) -> None:
    body, words = HOSTILE[program]
    source = f'#include <stdio.h>\n#include "tiny.h"\nint answer_list(void)\n{{\n    {body}\n}}\n'
    archive = tiny_source.archive(tmp_path, {"Python/list.c": source})
    recipe = tiny_source.recipe(tmp_path / "tiny.toml", archive)
    driver.run("build", "--recipe", recipe)
    done = driver.with_environ(**GITHUB).start("known-failures", "check", "--recipe", recipe).wait()
    assert done.returncode == (0 if words else 1)
    check(done.stdout, also=OURS)
    check(done.stderr, also=OURS)
    assert "Traceback" not in done.stderr
    assert (not words) or any(word in done.stderr for word in words.split("|")), done.stderr
    assert driver.leftovers() == []
