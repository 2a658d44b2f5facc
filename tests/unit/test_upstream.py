"""CPython's own workflows (tests/unit/workflows): the jobs, what each configures and tests, and variants of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from crossjit.config import recipes, suites
from crossjit.config.recipes import Git
from crossjit.errors import UserError
from crossjit.model import Arch, Expectation
from crossjit.upstream import failures, jobs, variant
from crossjit.upstream.jobs import UpstreamJob

WORKFLOWS = Path(__file__).with_name("workflows")
RECIPES = Path(__file__).parents[2] / "recipes"
GCC = "{}-unknown-linux-gnu/gcc ({})"


@cache
def upstream(branch: str) -> dict[str, UpstreamJob]:
    files = {path.name: path.read_bytes() for path in (WORKFLOWS / branch).glob("*.yml")}
    return {job.name: job for job in jobs.read(files)}


@pytest.mark.parametrize(
    ("branch", "number", "names"),
    [
        ("3.13", 20, ["JIT / Free-Threaded (Debug)", "JIT / aarch64-unknown-linux-gnu/clang (Release)"]),
        ("3.14", 17, ["JIT / JIT without optimizations (Debug)", "JIT / JIT with tail calling interpreter"]),
        ("3.15", 19, ["JIT / JIT with stress testing (Debug)", "JIT / Free-Threaded (Debug)"]),
        ("main", 19, ["JIT / JIT with stress testing (Debug)", "JIT / Interpreter (Debug)"]),
    ],
)
def test_every_job_of_the_jit_is_found(branch: str, number: int, names: list[str]) -> None:
    found = [name for name in upstream(branch) if name.startswith("JIT / ")]
    assert len(found) == number
    assert {*names} < {*found}
    for name in found:
        job = upstream(branch)[name]
        is_linux = not any(system in name for system in ("windows", "darwin"))
        assert bool(job.configure) is is_linux
        assert ("which no container provides" in job.obstacle) is not is_linux


def test_what_a_job_configures_and_tests() -> None:
    job = upstream("3.15")["JIT / JIT with stress testing (Debug)"]
    assert job.arch is Arch.X86_64
    assert job.configure == ("--enable-experimental-jit", "--with-pydebug")
    (test,) = job.tests
    assert test.arguments == ("--multiprocess", "0", "--timeout", "4500", "--verbose2", "--verbose3")
    assert test.env["PYTHON_JIT_STRESS"] == "1"
    # null != false is false: GitHub compares them as numbers, so upstream never runs these tests
    assert test.skipped == "matrix.run_tests != false"
    arm = upstream("3.15")[f"JIT / {GCC.format('aarch64', 'Release')}"]
    assert (arm.arch, arm.configure, arm.tests[0].skipped) == (Arch.AARCH64, ("--enable-experimental-jit",), "")


def test_a_job_that_is_cross_built_under_qemu() -> None:
    """3.13 configures twice, first a build Python for the runner's own architecture."""
    job = upstream("3.13")["JIT / aarch64-unknown-linux-gnu/clang (Debug)"]
    assert job.arch is Arch.AARCH64
    assert "--host=aarch64-linux-gnu" in job.configure
    assert job.env["CC"] == "clang --target=aarch64-linux-gnu"
    (test,) = job.tests
    assert "--ignorefile=Tools/jit/ignore-tests-emulated-linux.txt" in test.arguments


def test_reusable_workflows() -> None:
    ubuntu = upstream("main")["Tests / Ubuntu (free-threading) / build and test (ubuntu-26.04-arm)"]
    assert ubuntu.arch is Arch.AARCH64
    assert {"--with-pydebug", "--disable-gil", "--enable-safety"} < {*ubuntu.configure}
    assert ubuntu.tests[0].arguments == ("--fast-ci",)
    undefined = upstream("main")["Tests / Sanitizers (Undefined behavior, UBSan, false) / UBSan"]
    assert undefined.env["CC"] == "clang"
    assert "halt_on_error=1" in undefined.env["UBSAN_OPTIONS"]
    assert len(undefined.tests) == 1
    generated = upstream("main")["Tests / Check if generated files are up to date"]
    assert generated.obstacle == "build.yml:122, line 4 of the script: the condition is not known"
    assert "only a running workflow knows" in upstream("main")["Tests / cifuzz"].obstacle


@pytest.mark.parametrize(
    "name",
    [
        "JIT / aarch64-unknown-linux-gnu/gcc (Debug)",
        "aarch64-unknown-linux-gnu/gcc (Debug)",
        "jit/AARCH64-unknown-linux-gnu / gcc(debug)",
    ],
)
def test_finding_a_job(name: str) -> None:
    assert jobs.find(tuple(upstream("3.15").values()), name).name == f"JIT / {GCC.format('aarch64', 'Debug')}"


def test_a_name_that_is_not_there_or_not_clear() -> None:
    every = tuple(upstream("main").values())
    with pytest.raises(UserError, match=r"did you mean 'Free-Threaded \(Debug\)'"):
        jobs.find(every, "Free-Threaded (Debgu)")
    with pytest.raises(UserError, match="the name of 2 jobs") as caught:
        jobs.find((every[0], every[0]), every[0].name)
    assert caught.value.details == (every[0].name,) * 2


@pytest.mark.parametrize("branch", ["3.13", "3.14", "3.15", "main"])
def test_variants_are_a_recipe(branch: str, tmp_path: Path) -> None:
    """What is written is read by the same rules as any recipe: names, debug and free-threaded agree."""
    made = [variant.variant_of(job) for job in upstream(branch).values() if not job.obstacle]
    text = variant.recipe_text(made, Git("https://example.org/x", "main"))
    path = tmp_path / f"{variant.recipe_name(text)}.toml"
    path.write_text(text)
    recipe = recipes.find(str(path), RECIPES, suites=suites.names())
    assert list(recipe.variants) == [each.name for each in made]
    stress = recipe.variants.get("jit-jit-with-stress-testing-debug")
    if stress is not None:
        assert stress.test_environment == {"PYTHON_JIT_STRESS": "1"}
        assert (stress.debug, stress.expects, stress.environment) == (True, Expectation.MACHINE_CODE, {})


def test_a_job_with_odd_characters_is_a_recipe(tmp_path: Path) -> None:
    """Strings of TOML are not those of JSON: no pairs of surrogates, and DEL is escaped."""
    job = replace(upstream("main")["JIT / Interpreter (Debug)"], name='a \U0001f40d "b" \\ \x7f \x1b[31m')
    path = tmp_path / "odd.toml"
    path.write_text(variant.recipe_text([variant.variant_of(job)], Git("https://example.org/x", "main")))
    (made,) = recipes.find(str(path), RECIPES).variants.values()
    assert made.summary == f"{job.name} of CPython's CI"


def test_in_what_a_variant_differs() -> None:
    clang = variant.variant_of(upstream("3.13")["JIT / aarch64-unknown-linux-gnu/clang (Release)"])
    assert clang.table["configure"] == ["--enable-experimental-jit", "--enable-optimizations", "--with-lto", "CC=clang"]
    assert (
        "--host=aarch64-linux-gnu is left out: crossjit chooses how to build for the architecture" in clang.differences
    )
    gcc = variant.variant_of(upstream("3.13")[f"JIT / {GCC.format('x86_64', 'Debug')}"])
    assert gcc.table["configure"] == ["--enable-experimental-jit", "--with-pydebug"]
    assert gcc.differences == ()
    free = variant.variant_of(upstream("main")["JIT / Free-Threaded (Debug)"])
    assert [each.partition(" (")[0] for each in free.differences] == [
        "upstream skips these tests",
        "upstream's job passes even if these tests fail",
    ]
    fast = variant.variant_of(upstream("main")["Tests / Ubuntu / build and test (ubuntu-26.04-arm)"])
    assert "upstream passes --fast-ci -u cpu to regrtest; the suite full runs here" in fast.differences
    with pytest.raises(UserError, match="macOS, which no container provides"):
        variant.variant_of(upstream("main")["JIT / aarch64-apple-darwin/clang (Debug)"])


LOG = """\
2026-08-21T10:02:24.1234567Z 0:00:02 load avg: 3.10 [ 12/480] test_ok passed
2026-08-21T10:02:24.1234567Z \x1b[31m0:00:03 load avg: 3.10 [ 13/480/1] test_crash crashed (Exit code -11)\x1b[0m
2026-08-21T10:02:25.1234567Z FAIL: test_a (test.test_fail.Case.test_a) (x=1)
2026-08-21T10:02:25.1234567Z FAIL: test_a (test.test_fail.Case.test_a) (x=2)
2026-08-21T10:02:25.1234567Z ERROR: setUpClass (test.test_pack.test_in.Case)
2026-08-21T10:02:26.1234567Z 0:00:03 [14/480/2] test_fail failed (2 failures)
2026-08-21T10:02:27.1234567Z 3 tests failed:
2026-08-21T10:02:27.1234567Z     test_crash test_fail test_late
2026-08-21T10:02:27.1234567Z     test_pack.test_in
2026-08-21T10:02:27.1234567Z
2026-08-21T10:02:27.1234567Z 2 tests skipped:
2026-08-21T10:02:27.1234567Z     test_kqueue test_winreg
"""


def test_the_failed_tests_of_a_log() -> None:
    assert failures.failed_tests(LOG) == (
        *("test.test_fail.Case.test_a", "test.test_pack.test_in.Case"),
        *("test_crash", "test_late"),
    )
    assert failures.failed_tests("0:00:02 [1/1] test_ok passed\n== Tests result: SUCCESS ==\n") == ()
