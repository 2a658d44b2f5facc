"""What a bisection does at a commit: which recipe, what is built, what is run, and what keeps it from being judged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossjit import PROJECT
from crossjit.bisect import history, trial
from crossjit.bisect.journal import Plan
from crossjit.bisect.trial import Trials, UnfitError, recipe_for
from crossjit.config import recipes
from crossjit.config.conditions import TargetEnvironment
from crossjit.errors import BuildError, EngineError, SourceError, UserError
from crossjit.measure import cell, packages
from crossjit.measure.benchmarks import Benchmark
from crossjit.measure.model import Sample
from crossjit.measure.process import ProblemError, Process
from crossjit.model import Arch, Cell, EmulationSupport, Emulator, Outcome, Strategy, TestResult
from crossjit.pipeline import build_cell, prepare, validate_cell
from crossjit.pipeline.context import BuiltCell, CellRequest
from crossjit.triage import rerun
from crossjit.triage.odds import Count
from crossjit.triage.rerun import RerunCounts, TestRerun
from crossjit.triage.user_script import Script
from tests.fakes.engine import FakeEngine
from tests.unit.build_fakes import RecordingProgress

RECIPES = recipes.load_all(PROJECT / "recipes")
QEMU = Emulator(Arch.AARCH64, "qemu-aarch64", "", "7.2", fixed=True, enabled=True, cpu="max")
SCRIPT = Script("bug.py", b"1/0\n", seconds=10)
PLAN = Plan(repo="/cpython", good="g", bad="b", bad_ref="main", arch="x86_64", variant="jit", script=SCRIPT)
FAILED = (TestResult("jit", "user_script.bug", Outcome.FAILED, message="ZeroDivisionError: division by zero"),)


@pytest.mark.parametrize(
    ("version", "name"), [((3, 13), "3.13"), ((3, 15), "3.15"), ((3, 16), "main"), ((3, 99), "main"), ((4, 0), "main")]
)
def test_a_version_has_its_recipe(version: tuple[int, int], name: str) -> None:
    assert recipe_for(version, RECIPES).name == name


def test_a_version_without_a_recipe() -> None:
    with pytest.raises(UserError, match=r"no recipe is for CPython 3\.12") as caught:
        recipe_for((3, 12), RECIPES)
    assert "--recipe" in caught.value.hint


class Machine:
    """What stands in for sources, builds and runs; it records what is asked of it."""

    def __init__(self) -> None:
        self.built: list[CellRequest] = []
        self.runs: list[tuple[tuple[TestRerun, ...], int, int, Mapping[str, str]]] = []
        self.installed: list[Mapping[str, bytes]] = []
        self.results: list[Sequence[TestResult] | None] = []
        self.error: Exception | None = None
        self.probe: dict[str, object] = {}
        self.versions: dict[str, tuple[int, int]] = {}

    def version(self, path: Path, commit: str) -> tuple[int, int]:
        if commit == "lost":
            raise SourceError("its files are missing")
        return self.versions.get(commit, (3, 15))

    def prepare(self, ctx: Any, requests: Sequence[CellRequest]) -> tuple[Any, ...]:
        (request,) = requests
        assert ctx.pinned[request.wanted] == f"source of {request.source}"
        return (SimpleNamespace(cell=request.cell, request=request),)

    def build(self, ctx: Any, prepared: Any, *, log: Path) -> BuiltCell:
        self.built.append(prepared.request)
        if self.error is not None:
            raise self.error
        artifact: Any = SimpleNamespace(
            id=f"artifact of {prepared.request.source}", manifest=SimpleNamespace(probe=self.probe)
        )
        return BuiltCell(artifact, from_stash=False)

    def target(self, ctx: Any, prepared: Any, built: BuiltCell, purpose: str) -> Any:
        request = prepared.request
        environment = TargetEnvironment(
            (3, 15), request.cell.arch, request.variant, emulated=request.cell.arch is Arch.AARCH64
        )
        return Target(environment, request.variant)

    def run(
        self,
        engine: Any,
        target: Any,
        tests: Sequence[TestRerun],
        times: int,
        *,
        env: Mapping[str, str],
        jobs: int,
        **_: Any,
    ) -> dict[TestRerun, RerunCounts]:
        self.runs.append((tuple(tests), times, jobs, env))
        self.installed.append(target.files)
        results = self.results or [()] * times
        return {
            test: RerunCounts(Count(), "", None, tuple(None if each is None else tuple(each) for each in results))
            for test in tests
        }


@dataclass(frozen=True)
class Target:
    """A target that only says what it is."""

    conditions: TargetEnvironment
    variant: Any
    files: Mapping[str, bytes] = field(default_factory=dict)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(history, "version", made.version)
    monkeypatch.setattr(prepare, "resolve", lambda ctx, request: f"source of {request.source}")
    monkeypatch.setattr(prepare, "prepare", made.prepare)
    monkeypatch.setattr(build_cell, "build_cell", made.build)
    monkeypatch.setattr(validate_cell, "target_of", made.target)
    monkeypatch.setattr(rerun, "run", made.run)
    return made


@contextlib.contextmanager
def trials(
    plan: Plan = PLAN, ability: EmulationSupport | None = None, folder: Path = Path("/nowhere")
) -> Iterator[Trials]:
    """Open trials on a machine with two processors."""
    ctx: Any = Context(FakeEngine(), ability or EmulationSupport(Arch.X86_64, {Arch.AARCH64: QEMU}, local=False))
    recipe = RECIPES["3.15"]
    base = CellRequest(Cell("3.15", Arch.X86_64, plan.variant), recipe, recipe.variants[plan.variant], Strategy.NATIVE)
    opened = Trials(ctx, plan, RECIPES, base, folder)
    with opened.ahead:
        yield opened


@dataclass(frozen=True)
class Context:
    """As much of a BuildContext as trials look at."""

    engine: FakeEngine
    ability: EmulationSupport
    jobs: int = 2
    pinned: Mapping[object, Any] = field(default_factory=dict)
    progress: RecordingProgress = field(default_factory=RecordingProgress)
    ensure_image: Any = None
    settings: Any = field(default_factory=lambda: SimpleNamespace(home=Path("/nowhere")))


def test_a_commit_is_built_once_and_run_as_often_as_asked(machine: Machine) -> None:
    machine.results = [FAILED, ()]
    with trials(replace(PLAN, env=(("A", "1"),))) as opened:
        first = opened.run("c1", 2)
        second = opened.run("c1", 2, together=True)
    (failed, passed) = first.runs
    assert [str(each) for each in failed] == ["user_script.bug failed: ZeroDivisionError: division by zero"]
    assert passed == ()
    assert first.artifact == "artifact of /cpython#c1"
    assert sorted(first.seconds) == ["build", "source", "test", "toolchain"]
    assert sorted(second.seconds) == ["test"]
    (request,) = machine.built
    assert (str(request.cell), request.source) == ("3.15/x86_64/jit", "/cpython#c1")
    assert [(times, jobs, dict(env)) for _, times, jobs, env in machine.runs] == [
        (2, 1, {"A": "1"}),
        (2, 2, {"A": "1"}),
    ]
    assert machine.installed[0] == SCRIPT.files
    ((test,), *_) = machine.runs[0]
    assert test.seconds == 10


def test_each_commit_gets_the_recipe_of_its_version(machine: Machine) -> None:
    machine.versions = {"old": (3, 14), "new": (3, 16)}
    with trials() as opened:
        for commit in ("old", "new"):
            opened.run(commit, 1)
    assert [request.cell.recipe for request in machine.built] == ["3.14", "main"]
    with trials(replace(PLAN, recipe="3.13")) as opened:
        opened.run("new", 1)
    assert machine.built[-1].cell.recipe == "3.13"


@pytest.fixture
def counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nbody's warm call need so many instructions at each commit, and its cold call twice as many."""
    counts = {"g": 1_000_000, "c1": 1_020_000, "c2": 1_009_000, "c3": 0}

    def count(ctx: Any, build: cell.Build, benchmark: Benchmark, contents: Mapping[str, bytes]) -> Process:
        instructions = counts[str(build.prepared.request.source).partition("#")[2]]
        if not instructions:
            raise ProblemError("it started 1 program, whose instructions are not counted")
        warm = instructions if build.jit else 2_000_000
        return Process((Sample(({"jit": 2 * warm}, {"jit": warm - 9, "python": 9})),))

    monkeypatch.setattr(cell, "count", count)
    monkeypatch.setattr(cell, "vacuous", lambda build: "")
    monkeypatch.setattr(packages, "ensure", lambda *_: {})
    monkeypatch.setattr(packages, "contents", lambda *_: {})


BENCHMARK = replace(PLAN, script=None, benchmark="nbody", slower=1.5)


@pytest.mark.usefixtures("counted")
def test_a_benchmark_is_compared_with_the_good_commit() -> None:
    with trials(BENCHMARK) as opened:
        slow, fast, slow_again = opened.run("c1", 1), opened.run("c2", 1), opened.run("c1", 1)
        with pytest.raises(UnfitError, match="it started 1 program"):
            opened.run("c3", 1)
    ((failed,),) = slow.runs
    assert str(failed) == "nbody failed: +2.00 % instructions against the good commit"
    assert failed.is_same(slow_again.runs[0][0])
    assert fast.runs == ((),)
    assert slow.artifact == "artifact of /cpython#c1"
    with trials(replace(BENCHMARK, slower=2.5)) as opened:
        assert opened.run("c1", 1).runs == ((),)


@pytest.mark.usefixtures("counted")
def test_a_commit_that_does_not_build_cannot_be_counted(machine: Machine) -> None:
    with trials(BENCHMARK) as opened:
        assert opened.count("c1") == 1_020_000
        machine.error = BuildError("make failed", hint="see the log")
        with pytest.raises(UnfitError, match="make failed"):
            opened.count("c2")
        machine.error = EngineError("the daemon is gone", hint="start it")
        with pytest.raises(EngineError):
            opened.count("c2")


@pytest.mark.usefixtures("counted")
def test_a_benchmark_with_the_jit_off_is_compared_with_the_same() -> None:
    with trials(BENCHMARK) as opened:
        changed = opened.without_jit()
        assert isinstance(changed, Trials)
        with changed.ahead:
            assert changed.run("c1", 1).runs == ((),)


@pytest.mark.usefixtures("counted")
def test_a_build_without_machine_code_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell, "vacuous", lambda build: "no executor has machine code")
    with trials(BENCHMARK) as opened, pytest.raises(UnfitError, match="no executor has machine code"):
        opened.run("c1", 1)


def test_what_comes_next_is_built_while_the_test_runs(machine: Machine) -> None:
    with trials() as opened:
        opened.expect(["c2", "c3"])
        opened.run("c1", 1)
        opened.expect([])
        opened.run("c2", 1)
    assert [request.source for request in machine.built].count("/cpython#c2") == 1


@pytest.mark.parametrize(
    ("commit", "error", "said"),
    [
        ("lost", None, "its files are missing"),
        ("ancient", None, "no recipe is for CPython 3.12"),
        ("c1", BuildError("make failed"), "make failed"),
        ("c1", UserError("no image has LLVM 20"), "no image has LLVM 20"),
    ],
)
def test_what_keeps_a_commit_from_being_judged(
    machine: Machine, commit: str, error: Exception | None, said: str
) -> None:
    machine.versions, machine.error = {"ancient": (3, 12)}, error
    with trials() as opened, pytest.raises(UnfitError, match=said) as caught:
        opened.run(commit, 1)
    assert caught.value.__cause__ is not None


def test_a_variant_that_a_recipe_does_not_offer(machine: Machine) -> None:
    machine.versions = {"old": (3, 14)}
    with (
        trials(replace(PLAN, variant="ft-jit")) as opened,
        pytest.raises(UnfitError, match=r"3\.14 does not offer ft-jit"),
    ):
        opened.run("old", 1)


def test_the_engines_failure_is_not_the_commits(machine: Machine) -> None:
    machine.error = EngineError("gone")
    with trials() as opened, pytest.raises(EngineError):
        opened.run("c1", 1)


def test_a_test_that_does_not_run(machine: Machine) -> None:
    machine.results = [None, ()]
    with trials() as opened, pytest.raises(UnfitError, match="did not run"):
        opened.run("c1", 2)
    # a failure counts, whatever happened to other runs
    machine.results = [None, FAILED]
    with trials() as opened:
        assert len(opened.run("c1", 2).runs) == 1


def test_named_tests_run_as_their_suite_runs_them(machine: Machine) -> None:
    plan = replace(PLAN, script=None, tests=("test_dis", "test.test_dict.DictTest.test_get"))
    with trials(plan) as opened:
        opened.run("c1", 1)
        with pytest.raises(UnfitError, match=r"none of the suites jit has 'test_nothing\.X'"):
            opened._plan = replace(plan, tests=("test_nothing.X",))
            opened.run("c1", 1)
    ((module, method), *_) = machine.runs[0]
    assert (module.module, module.match) == ("test_dis", "")
    assert (method.module, method.match) == ("test_dict", "test.test_dict.DictTest.test_get")


def test_a_build_as_the_test(machine: Machine) -> None:
    plan = replace(PLAN, script=None)
    with trials(plan) as opened:
        assert opened.run("c1", 1).runs == ((),)
    machine.probe = {"crashed": "killed by SIGSEGV", "output": ["Fatal Python error: Segmentation fault"]}
    with trials(plan) as opened:
        ((crash,),) = opened.run("c1", 1).runs
    assert crash.how == "crashed"
    machine.error = BuildError("make failed: exit status 2", details=("error: x",))
    with trials(plan) as opened:
        ((broken,),) = opened.run("c1", 1).runs
    assert broken.kind.startswith("make failed")
    machine.error, machine.probe = None, {"unfinished": "the machine is too slow"}
    with trials(plan) as opened, pytest.raises(UnfitError, match="too slow"):
        opened.run("c1", 1)
    assert machine.runs == []


def test_the_same_without_the_jit(machine: Machine) -> None:
    with trials() as opened:
        off = opened.without_jit()
        assert isinstance(off, Trials)
        off.run("c1", 1)
    assert machine.runs[-1][3] == {"PYTHON_JIT": "0"}
    with trials(replace(PLAN, variant="ft")) as opened:
        assert opened.without_jit() == "there is no JIT to switch off"
    with trials(replace(PLAN, script=None)) as opened:
        assert opened.without_jit() == "the test is the build"


def test_the_same_on_the_other_arch(machine: Machine) -> None:
    with trials() as opened:
        other = opened.on_other_arch()
        assert isinstance(other, Trials)
        other.run("c1", 1)
    assert (str(machine.built[-1].cell), machine.built[-1].strategy) == ("3.15/aarch64/jit", Strategy.CROSS)
    # its time limit is that of a machine that is emulated
    ((test,), *_) = machine.runs[-1]
    assert test.seconds == 60
    with trials(ability=EmulationSupport(Arch.X86_64, {})) as opened:
        assert opened.on_other_arch() == "nothing here runs aarch64 programs"
    with trials(replace(PLAN, variant="jit-lto")) as opened:
        assert opened.on_other_arch() == "the variant is for x86_64 only"


def test_the_phases_are_those_that_reports_show() -> None:
    from crossjit.bisect.session import PHASES

    assert PHASES == ("source", "toolchain", "build", "test")
    assert trial.NEWEST in RECIPES
